//! Limits the number of connections at once, in all and from one address.
//!
//! Comes in: the address of a connection just accepted. Goes out: a permit that the connection keeps, or the refusal.
//! It counts once for each connection; requests cost nothing here.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, Shutdown};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::config::{ConnectionSettings, SecurityHeaders};
use crate::listen::accept::{AcceptedStream, ClientStream, Role};
use crate::log::{self, Level};
use crate::policy::security_headers;
use crate::runtime::resources::Descriptors;

/// The answer to a connection beyond the limit: the head, to which the headers of every answer are added, and the body.
const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: application/json\r\n\
                       content-length: 32\r\nretry-after: 1\r\n";
const REFUSAL_BODY: &str = "{\"error\":\"Too Many Connections\"}";

/// Counts the connections of a server.
pub(crate) struct Admission {
    descriptors: Descriptors,
    /// 0: no limit.
    most: usize,
    /// 0: no limit.
    most_per_ip: usize,
    open: AtomicUsize,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
    refused: AtomicUsize,
    refusal: String,
}

/// One connection's place. Dropping it gives the place back.
pub(crate) struct ConnectionPermit {
    admission: Arc<Admission>,
    ip: Option<IpAddr>,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The config allows no more.
    Connections,
    /// The remaining descriptors are reserved for files, upstreams and operators.
    Descriptors,
}

impl Admission {
    pub(crate) fn new(
        settings: &ConnectionSettings,
        headers: &SecurityHeaders,
        descriptors: Descriptors,
    ) -> Arc<Admission> {
        Arc::new(Admission {
            descriptors,
            most: settings.max_connections,
            most_per_ip: settings.max_connections_per_ip,
            open: AtomicUsize::new(0),
            by_ip: Mutex::default(),
            refused: AtomicUsize::new(0),
            refusal: format!("{REFUSAL}{}\r\n{REFUSAL_BODY}", security_headers::lines(headers)),
        })
    }

    /// Gives a connection a place.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn admit(self: &Arc<Self>, accepted: &AcceptedStream) -> Result<ConnectionPermit, Full> {
        let is_kept = match &accepted.stream {
            ClientStream::Tcp(stream) => self.descriptors.keep(stream),
            ClientStream::Unix(stream) => self.descriptors.keep(stream),
        };
        match is_kept {
            true => Err(Full::Descriptors),
            false => self.admit_from(accepted.ip).ok_or(Full::Connections),
        }
    }

    /// A place for a connection from `ip`; `None` when there is none left.
    fn admit_from(self: &Arc<Self>, ip: Option<IpAddr>) -> Option<ConnectionPermit> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most && self.most > 0 {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let ip = ip.filter(|_| self.most_per_ip > 0).map(client_of);
        // From here on, dropping the permit gives back what has been taken.
        let mut permit = ConnectionPermit { admission: self.clone(), ip: None };
        if let Some(ip) = ip {
            let mut by_ip = self.by_ip.lock();
            let count = by_ip.entry(ip).or_default();
            if *count >= self.most_per_ip {
                return None;
            }
            *count += 1;
            permit.ip = Some(ip);
        }
        Some(permit)
    }

    /// Refuses a client with an answer, unless it speaks TLS, and closes its connection.
    #[cold]
    pub(crate) fn refuse(&self, accepted: AcceptedStream, full: Full) {
        // Logs every power of two, so that the log shows a flood without being flooded.
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if refused.is_power_of_two() {
            let message = match full {
                Full::Connections => "connections were refused: max_connections or max_connections_per_ip is reached",
                Full::Descriptors => {
                    "connections were refused: nearly all descriptors are in use; raise the limit (ulimit -Hn, LimitNOFILE)"
                }
            };
            log::event(Level::Warn, message).field("refused", refused.to_string().as_str()).emit();
        }
        if accepted.role == Role::Tls {
            return;
        }
        // The socket does not block: what it cannot take at once is lost.
        match accepted.stream {
            ClientStream::Tcp(mut stream) => {
                let _ = stream.write(self.refusal.as_bytes());
                let _ = stream.shutdown(Shutdown::Write);
            }
            ClientStream::Unix(mut stream) => {
                let _ = stream.write(self.refusal.as_bytes());
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    }
}

/// The client of an address: one client has a whole IPv6 network of 64 bits, as for rate limits.
fn client_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        let Some(ip) = self.ip else { return };
        let mut by_ip = self.admission.by_ip.lock();
        if let Some(count) = by_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(most: usize, most_per_ip: usize) -> Arc<Admission> {
        let settings = ConnectionSettings {
            max_connections: most,
            max_connections_per_ip: most_per_ip,
            ..ConnectionSettings::default()
        };
        Admission::new(&settings, &SecurityHeaders::default(), Descriptors::unbounded())
    }

    #[test]
    fn places_are_counted_and_come_back() {
        let (a, b) = (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2])));
        let few = admission(3, 2);
        let first = few.admit_from(a).unwrap();
        let second = few.admit_from(a).unwrap();
        assert!(few.admit_from(a).is_none(), "two from one address");
        let third = few.admit_from(b).unwrap();
        assert!(few.admit_from(None).is_none(), "three in all");
        drop(first);
        assert!(few.admit_from(b).is_some());
        drop((second, third));
        assert!(few.by_ip.lock().is_empty());
        assert_eq!(few.open.load(Ordering::Relaxed), 0);
        let many = admission(0, 0);
        let permits: Vec<_> = (0..1000).map(|_| many.admit_from(a).unwrap()).collect();
        assert_eq!((permits.len(), many.by_ip.lock().len()), (1000, 0));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let few = admission(0, 2);
        let from = |ip: &str| few.admit_from(Some(ip.parse().unwrap()));
        let held = (from("2001:db8:0:1::1").unwrap(), from("2001:db8:0:1:ffff::2").unwrap());
        assert!(from("2001:db8:0:1::3").is_none());
        assert!(from("2001:db8:0:2::1").is_some(), "another network");
        let mapped = from("::ffff:10.0.0.1").unwrap();
        let (second, others) = (from("10.0.0.1").unwrap(), from("10.0.0.2").unwrap());
        assert!(from("10.0.0.1").is_none());
        drop((held, mapped, second, others));
        assert!(few.by_ip.lock().is_empty());
    }

    #[test]
    fn the_refusal_s_length_is_right() {
        let refusal = &admission(1, 0).refusal;
        let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with("\r\nx-content-type-options: nosniff"));
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }
}
