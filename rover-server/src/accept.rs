//! Listens, and accepts connections.
//!
//! Comes in: addresses to bind. Goes out: accepted sockets. One thread accepts for all workers, so their turns are
//! exact: the kernel's own distribution over several listeners is uneven where there are few connections. This module
//! must not know what is spoken on a connection, nor who gets it.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, acceptfrom_with};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::Endpoint;
use crate::error::Error;
use crate::log::{self, Level};

/// Connections that the kernel keeps ready while the acceptor is busy; it applies its own limit (`somaxconn`) as well.
const BACKLOG: i32 = 4096;

/// How long the acceptor pauses when the system has no resources for another connection.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// An accepted connection on its way to a worker.
pub(crate) struct Accepted {
    pub(crate) stream: Stream,
    /// The client's address, where it has one.
    pub(crate) ip: Option<IpAddr>,
    pub(crate) role: Role,
}

/// An accepted socket.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What is spoken on the connections of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// HTTP.
    Plain,
    /// HTTP within TLS.
    Tls,
    /// HTTP, and every request is sent to where TLS is.
    Redirect,
}

/// The bound sockets of a server. Dropping it closes them and removes the files of Unix sockets.
pub(crate) struct Listeners {
    bound: Vec<Bound>,
}

struct Bound {
    socket: OwnedFd,
    endpoint: Endpoint,
    role: Role,
    /// The file to remove, where the socket has one.
    file: Option<PathBuf>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

impl Listeners {
    /// Binds all of `endpoints`. Port 0 becomes the same port for all of them.
    ///
    /// # Errors
    /// What the system says, with the address. Where one of two loopbacks does not exist, the other one is enough.
    pub(crate) fn bind(endpoints: &[Endpoint], role: Role) -> Result<Listeners, Error> {
        let mut bound: Vec<Bound> = Vec::new();
        for endpoint in endpoints {
            let result = match endpoint {
                Endpoint::Unix(path) => bind_unix(path.clone()),
                Endpoint::Tcp(address) => {
                    let mut address = *address;
                    if let (0, Some(Endpoint::Tcp(first))) = (address.port(), bound.first().map(|b| &b.endpoint)) {
                        address.set_port(first.port());
                    }
                    bind_tcp(address)
                }
            };
            match result {
                Ok(mut listener) => {
                    listener.role = role;
                    bound.push(listener);
                }
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable && !bound.is_empty() => {}
                Err(error) => return Err(refused(endpoint, error)),
            }
        }
        Ok(Listeners { bound })
    }

    /// Adds what `others` has bound.
    pub(crate) fn add(&mut self, mut others: Listeners) {
        self.bound.append(&mut others.bound);
    }

    /// Where clients find the server, as URLs.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = String> {
        self.bound.iter().map(|bound| {
            let address = bound.endpoint.to_string();
            match (bound.role, address.strip_prefix("http://")) {
                (Role::Tls, Some(rest)) => format!("https://{rest}"),
                _ => address,
            }
        })
    }

    /// The port that TLS is spoken on, where it is.
    pub(crate) fn tls_port(&self) -> Option<u16> {
        self.bound.iter().find_map(|bound| match (bound.role, &bound.endpoint) {
            (Role::Tls, Endpoint::Tcp(address)) => Some(address.port()),
            _ => None,
        })
    }

    /// Accepts until the other end of `stop` is closed, and gives each connection to `hand_over`. Blocks the calling
    /// thread.
    ///
    /// # Errors
    /// When the sockets cannot be watched.
    pub(crate) fn accept(self, stop: &UnixStream, hand_over: impl Fn(Accepted)) -> io::Result<()> {
        let mut watched: Vec<PollFd<'_>> =
            self.bound.iter().map(|bound| PollFd::new(&bound.socket, PollFlags::IN)).collect();
        watched.push(PollFd::new(stop, PollFlags::IN));
        loop {
            match poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if watched.last().is_some_and(|stop| !stop.revents().is_empty()) {
                return Ok(());
            }
            for (bound, watched) in self.bound.iter().zip(&watched) {
                if !watched.revents().is_empty() && bound.accept_all(&hand_over).is_err() {
                    // Out of resources: waiting is all that helps, unless the server is to end.
                    let mut only_stop = [PollFd::new(stop, PollFlags::IN)];
                    let _ = poll(&mut only_stop, Some(&PAUSE));
                }
            }
        }
    }
}

impl Bound {
    /// Takes what the kernel has ready.
    ///
    /// # Errors
    /// When the system has no resources for another connection; it has been logged.
    fn accept_all(&self, hand_over: &impl Fn(Accepted)) -> io::Result<()> {
        loop {
            match self.accept() {
                Ok(accepted) => hand_over(accepted),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    log::event(Level::Error, "cannot accept a connection, trying again in 100 ms")
                        .field("error", error.to_string().as_str())
                        .emit();
                    return Err(error);
                }
            }
        }
    }

    fn accept(&self) -> io::Result<Accepted> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        if matches!(self.endpoint, Endpoint::Unix(_)) {
            let stream = Stream::Unix(accept_with(&self.socket, flags)?.into());
            return Ok(Accepted { stream, ip: None, role: self.role });
        }
        let (stream, address) = acceptfrom_with(&self.socket, flags)?;
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        let ip = address.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip().to_canonical());
        Ok(Accepted { stream: Stream::Tcp(stream.into()), ip: Some(ip), role: self.role })
    }
}

/// Whether an error concerns one connection that is gone already, rather than the server: see accept(2).
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    ) || matches!(error.raw_os_error(), Some(libc::EPROTO | libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EHOSTDOWN))
}

fn bind_tcp(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it, which saves a system call for each connection.
    socket.set_tcp_nodelay(true)?;
    if let SocketAddr::V6(v6) = address {
        // "::" stands for every address, of both families; another address only for itself.
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let local = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Bound { socket: socket.into(), endpoint: Endpoint::Tcp(local), role: Role::Plain, file: None })
}

fn bind_unix(path: PathBuf) -> io::Result<Bound> {
    let address = SockAddr::unix(&path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    if let Err(error) = socket.bind(&address) {
        // A file that nobody listens on is left from a server that ended without cleaning up.
        if error.kind() != ErrorKind::AddrInUse || !is_abandoned(&path, &address) {
            return Err(error);
        }
        fs::remove_file(&path)?;
        socket.bind(&address)?;
    }
    socket.listen(BACKLOG)?;
    let endpoint = Endpoint::Unix(path.clone());
    Ok(Bound { socket: socket.into(), endpoint, role: Role::Plain, file: Some(path) })
}

fn is_abandoned(path: &std::path::Path, address: &SockAddr) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refuses = || {
        Socket::new(Domain::UNIX, Type::STREAM, None)
            .and_then(|probe| probe.connect(address))
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    is_socket && refuses()
}

fn refused(endpoint: &Endpoint, error: io::Error) -> Error {
    let cure = match (error.kind(), endpoint) {
        (ErrorKind::AddrInUse, Endpoint::Tcp(_)) => {
            "the address is in use by another program: end it, or choose another port"
        }
        (ErrorKind::AddrInUse, Endpoint::Unix(_)) => "another program listens there, or a file is in the way",
        (ErrorKind::PermissionDenied, Endpoint::Tcp(_)) => {
            "permission denied: ports below 1024 need root or CAP_NET_BIND_SERVICE"
        }
        (ErrorKind::AddrNotAvailable, _) => "this machine has no such address",
        (ErrorKind::NotFound, Endpoint::Unix(_)) => "the folder of the socket does not exist",
        _ => return Error::io(format!("cannot listen on {endpoint}"), error),
    };
    Error::io_explained(format!("cannot listen on {endpoint}: {cure}"))
}
