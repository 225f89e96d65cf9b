//! Closes a listening socket without losing clients that believe to be connected.
//!
//! Closing a listener resets the connections that wait in it, and those whose handshake has begun: their clients have
//! the kernel's SYN-ACK, and may have sent a request after it. So new clients are kept out first, then the handshakes
//! finish.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use socket2::{SockFilter, SockRef};

use crate::config::Endpoint;

/// Drops the segments that begin a handshake and keeps all others: a classic BPF program on the TCP header.
///
/// A connection that is accepted under it inherits it, and loses nothing: after the handshake no segment has a SYN.
const DROP_SYN: [(u16, u8, u8, u32); 4] = [
    (0x30, 0, 0, 13),       // BPF_LD | BPF_B | BPF_ABS: the byte of the flags
    (0x45, 0, 1, 0x02),     // BPF_JMP | BPF_JSET: SYN, or skip one
    (0x06, 0, 0, 0),        // BPF_RET: keep nothing
    (0x06, 0, 0, u32::MAX), // BPF_RET: keep it all
];

/// Makes the kernel ignore new clients: over TCP, a client tries again a second later, and is refused or finds a
/// successor; on a Unix socket, it is refused.
pub(super) fn refuse_newcomers(socket: &OwnedFd, endpoint: &Endpoint) {
    let socket = SockRef::from(socket);
    let _ = match endpoint {
        Endpoint::Tcp(_) => socket.attach_filter(&DROP_SYN.map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k))),
        Endpoint::Unix(_) => socket.shutdown(Shutdown::Read),
    };
}

/// Whether a handshake with one of `endpoints` has begun and not ended; false if the system does not say.
pub(super) fn is_awaited<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> bool {
    let ports: Vec<u16> = endpoints
        .filter_map(|endpoint| match endpoint {
            Endpoint::Tcp(address) => Some(address.port()),
            Endpoint::Unix(_) => None,
        })
        .collect();
    !ports.is_empty() && ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().any(|table| has_half_open(table, &ports))
}

/// Whether a connection to one of `ports` is half open. The table may be long, with a row for each connection of the
/// machine.
fn has_half_open(table: &str, ports: &[u16]) -> bool {
    let Ok(table) = File::open(table) else { return false };
    let (mut table, mut row) = (BufReader::with_capacity(64 * 1024, table), String::new());
    while table.read_line(&mut row).is_ok_and(|length| length > 0) {
        if half_open(&row).is_some_and(|port| ports.contains(&port)) {
            return true;
        }
        row.clear();
    }
    false
}

/// The local port of a row of `/proc/net/tcp` whose state is `SYN_RECV`.
fn half_open(row: &str) -> Option<u16> {
    let mut fields = row.split_ascii_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    (fields.nth(1)? == "03").then(|| u16::from_str_radix(port, 16).ok()).flatten()
}
