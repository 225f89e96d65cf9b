//! Takes listening sockets that another process has bound: a service manager, or this server's predecessor.

use std::io;
use std::os::fd::OwnedFd;

use socket2::SockRef;

use super::{Bound, Role};
use crate::config::Endpoint;

/// A listening socket from outside.
pub(crate) struct InheritedListener {
    socket: OwnedFd,
    endpoint: Endpoint,
    /// A service manager keeps the socket, and its file, when the server ends.
    pub(super) is_lent: bool,
    /// Its place among those that a predecessor gave.
    place: Option<u8>,
}

impl InheritedListener {
    /// Prepares a socket that listens already.
    ///
    /// # Errors
    /// It is not a listening TCP or Unix socket.
    pub(crate) fn new(socket: OwnedFd, is_lent: bool) -> io::Result<InheritedListener> {
        let known = SockRef::from(&socket);
        let unfit = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("an inherited descriptor {what}"));
        if !known.is_listener().map_err(|_| unfit("is no socket"))? {
            return Err(unfit("is a socket that does not listen"));
        }
        let address = known.local_addr()?;
        let endpoint = match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => {
                known.set_tcp_nodelay(true)?;
                Endpoint::Tcp(address)
            }
            (None, Some(path)) => Endpoint::Unix(path.to_owned()),
            (None, None) => return Err(unfit("listens neither on an internet address nor on a path")),
        };
        known.set_nonblocking(true)?;
        Ok(InheritedListener { socket, endpoint, is_lent, place: None })
    }

    /// Marks it as the predecessor's socket at this place.
    pub(crate) fn at(self, place: u8) -> InheritedListener {
        InheritedListener { place: Some(place), ..self }
    }

    /// Whether this is the socket for `wanted`. Port 0 is any.
    pub(super) fn serves(&self, wanted: &Endpoint) -> bool {
        match (wanted, &self.endpoint) {
            (Endpoint::Tcp(wanted), Endpoint::Tcp(own)) => {
                wanted.ip() == own.ip() && (wanted.port() == 0 || wanted.port() == own.port())
            }
            (Endpoint::Unix(wanted), Endpoint::Unix(own)) => wanted == own,
            _ => false,
        }
    }

    /// Whether a service manager lent this socket for a TCP port.
    pub(crate) fn is_lent_for(&self, port: u16) -> bool {
        self.is_lent && matches!(&self.endpoint, Endpoint::Tcp(own) if own.port() == port)
    }

    pub(super) fn into_bound(self, role: Role) -> Bound {
        let mut bound = Bound::new(self.socket, self.endpoint, role);
        (bound.is_lent, bound.place) = (self.is_lent, self.place);
        bound
    }
}
