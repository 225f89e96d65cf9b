//! Listens and accepts connections.
//!
//! Comes in: addresses to bind, or sockets that another process has bound. Goes out: accepted sockets. One thread
//! accepts for all workers, so their turns are exact; the kernel's own distribution over several listeners is uneven
//! with few connections. This module must not know what is spoken on a connection, nor who gets it.

mod bind;
mod closing;
mod given;

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, acceptfrom_with};
use tokio::sync::watch;

pub(crate) use given::InheritedListener;

use crate::config::{Endpoint, SocketFile};
use crate::error::Error;
use crate::log::{self, Level};

/// How long the acceptor pauses when the system has no resources for another connection.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// How long a handshake that has begun may still take when the server stops. The kernel answers a second time after one
/// second.
const HANDSHAKE: Duration = Duration::from_millis(1500);

/// How often a spare descriptor is asked for if there was none.
const SPARE_LOOK: Duration = Duration::from_millis(20);

/// How often such handshakes are looked for.
const HANDSHAKE_LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// An accepted connection on its way to a worker.
pub(crate) struct AcceptedStream {
    pub(crate) stream: ClientStream,
    /// The client's address, where it has one.
    pub(crate) ip: Option<IpAddr>,
    pub(crate) role: Role,
}

/// An accepted socket.
pub(crate) enum ClientStream {
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
    /// HTTP, and every request is redirected to https.
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
    /// The file of a Unix socket, as device and inode, until it has been removed.
    file: Mutex<Option<(u64, u64)>>,
    /// A service manager holds the socket too: it outlives this server, and so does its file.
    is_lent: bool,
    /// Its place among the sockets that a predecessor gave.
    place: Option<u8>,
    /// A successor listens on the socket from now on; this server leaves it and its file alone.
    is_left: watch::Sender<bool>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.is_ours() {
            self.remove_file();
        }
    }
}

impl Listeners {
    /// Binds all of `endpoints`, or takes a socket out of `given` that is for one. Port 0 becomes the same port for all of
    /// them. Unix sockets get the permissions of `file`. Sockets that a service manager lends are listened on instead of the endpoints.
    ///
    /// # Errors
    /// What the system says, with the address. Where one of two loopbacks does not exist, the other one is enough.
    pub(crate) fn bind(
        endpoints: &[Endpoint],
        role: Role,
        file: &SocketFile,
        given: &mut Vec<InheritedListener>,
    ) -> Result<Listeners, Error> {
        let (lent, rest) = std::mem::take(given).into_iter().partition::<Vec<_>, _>(|given| given.is_lent);
        *given = rest;
        if !lent.is_empty() {
            return Ok(Listeners { bound: lent.into_iter().map(|given| given.into_bound(role)).collect() });
        }
        let mut bound: Vec<Bound> = Vec::new();
        for endpoint in endpoints {
            if let Some(at) = given.iter().position(|given| given.serves(endpoint)) {
                bound.push(given.remove(at).into_bound(role));
                continue;
            }
            let result = match endpoint {
                Endpoint::Unix(path) => bind::unix(path.clone(), role, file),
                Endpoint::Tcp(address) => {
                    let mut address = *address;
                    if let (0, Some(Endpoint::Tcp(first))) = (address.port(), bound.first().map(|b| &b.endpoint)) {
                        address.set_port(first.port());
                    }
                    bind::tcp(address, role)
                }
            };
            match result {
                Ok(listener) => bound.push(listener),
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable && !bound.is_empty() => {}
                Err(error) => return Err(bind::refused(endpoint, error)),
            }
        }
        Ok(Listeners { bound })
    }

    /// Adds what `others` has bound.
    pub(crate) fn add(&mut self, mut others: Listeners) {
        self.bound.append(&mut others.bound);
    }

    /// The addresses of the server, as URLs.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = String> {
        self.bound.iter().map(|bound| {
            let address = bound.endpoint.to_string();
            match (bound.role, address.strip_prefix("http://")) {
                (Role::Tls, Some(rest)) => format!("https://{rest}"),
                _ => address,
            }
        })
    }

    /// The port of TLS, if there is one.
    pub(crate) fn tls_port(&self) -> Option<u16> {
        self.bound.iter().find_map(|bound| match (bound.role, &bound.endpoint) {
            (Role::Tls, Endpoint::Tcp(address)) => Some(address.port()),
            _ => None,
        })
    }

    /// The sockets, for another process to listen on, each with whether a service manager lent it.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.bound.iter().map(|bound| (bound.socket.as_fd(), bound.is_lent))
    }

    /// Which of the sockets that a predecessor gave are here, by their places.
    pub(crate) fn taken_over(&self) -> impl Iterator<Item = u8> {
        self.bound.iter().filter_map(|bound| bound.place)
    }

    /// Leaves sockets to another process: they outlive this server, which does not accept on them any more. `is_taken`
    /// says which, by their places in [`sockets`](Listeners::sockets).
    pub(crate) fn leave(&self, is_taken: impl Fn(usize) -> bool) {
        for (place, bound) in self.bound.iter().enumerate() {
            if is_taken(place) {
                bound.is_left.send_replace(true);
            }
        }
    }

    /// Accepts until the other end of `stop` is closed and then for the time that `delay` returns; gives each
    /// connection to `hand_over`. Blocks the calling thread.
    ///
    /// At the end no connection that the kernel has completed is left behind: closing would reset it.
    ///
    /// # Errors
    /// When the sockets cannot be watched.
    pub(crate) fn accept(
        &self,
        stop: &UnixStream,
        delay: impl Fn() -> Duration,
        hand_over: impl Fn(AcceptedStream),
    ) -> io::Result<()> {
        let mut open: Vec<&Bound> = self.bound.iter().collect();
        let mut watched = watch_all(&open);
        watched.push(PollFd::new(stop, PollFlags::IN));
        let mut deadline: Option<Instant> = None;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut watched, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let is_stopped = deadline.is_none() && watched.last().is_some_and(|stop| !stop.revents().is_empty());
            if is_stopped || open.iter().any(|bound| bound.is_left()) {
                // Who comes to those that are left finds the process that they are left to.
                open.retain(|bound| !bound.is_left());
                watched = watch_all(&open);
                if is_stopped {
                    deadline = Some(Instant::now() + if open.is_empty() { Duration::ZERO } else { delay() });
                } else if deadline.is_none() {
                    watched.push(PollFd::new(stop, PollFlags::IN));
                }
                continue;
            }
            for (bound, watched) in open.iter().zip(&watched) {
                if !watched.revents().is_empty() && bound.accept_all(&hand_over).is_err() {
                    // Out of resources: waiting is all that helps, unless the server is to end.
                    let mut only_stop = [PollFd::new(stop, PollFlags::IN)];
                    let _ = poll(&mut only_stop, Some(&PAUSE));
                }
            }
        }
        self.finish(&hand_over);
        Ok(())
    }

    /// Keeps new clients out, and accepts those that are in the queue already.
    fn finish(&self, hand_over: &impl Fn(AcceptedStream)) {
        // If another process holds the socket, new clients find that process.
        let ours = || self.bound.iter().filter(|bound| bound.is_ours());
        for bound in ours() {
            bound.remove_file();
            closing::refuse_newcomers(&bound.socket, &bound.endpoint);
        }
        let began = Instant::now();
        loop {
            // Looked for before the last turn: whoever has come through meanwhile is in the queue then.
            let is_last = began.elapsed() >= HANDSHAKE || !closing::is_awaited(ours().map(|bound| &bound.endpoint));
            for bound in ours() {
                let _ = bound.accept_all(hand_over);
            }
            if is_last {
                return;
            }
            let mut watched: Vec<PollFd<'_>> = ours().map(|bound| PollFd::new(&bound.socket, PollFlags::IN)).collect();
            let _ = poll(&mut watched, Some(&HANDSHAKE_LOOK));
        }
    }
}

impl Listeners {
    /// As [`accept`](Listeners::accept), in the calling task, until it is dropped. Does not end when the sockets are left
    /// to another process, but accepts nobody any more. Keeps a descriptor of each socket for when there are no others.
    ///
    /// # Errors
    /// When the sockets cannot be watched.
    pub(crate) async fn accept_here(&self, hand_over: impl Fn(AcceptedStream)) -> io::Result<()> {
        let hand_over = &hand_over;
        let each = self.bound.iter().map(|bound| async move {
            let socket = bound.socket.try_clone()?;
            let watched = match bound.endpoint {
                Endpoint::Tcp(_) => PolledListener::Tcp(tokio::net::TcpListener::from_std(socket.into())?),
                Endpoint::Unix(_) => PolledListener::Unix(tokio::net::UnixListener::from_std(socket.into())?),
            };
            let mut is_left = bound.is_left.subscribe();
            // In its place somebody can be accepted where all others have been taken.
            let mut spare = bound.socket.try_clone().ok();
            loop {
                let accepted = tokio::select! {
                    biased;
                    _ = is_left.wait_for(|is_left| *is_left) => break,
                    accepted = watched.accept() => accepted,
                    () = tokio::time::sleep(SPARE_LOOK), if spare.is_none() => {
                        // Who has got the last one may be done.
                        spare = bound.socket.try_clone().ok();
                        continue;
                    }
                };
                match accepted {
                    Ok((stream, ip)) => hand_over(AcceptedStream { stream, ip, role: bound.role }),
                    Err(error) if is_passing(&error) || spare.take().is_some() => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
            drop(watched);
            std::future::pending().await
        });
        try_join_all(each).await.map(|_: Vec<()>| ())
    }
}

/// A listener of the calling task's runtime.
enum PolledListener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl PolledListener {
    async fn accept(&self) -> io::Result<(ClientStream, Option<IpAddr>)> {
        match self {
            PolledListener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((ClientStream::Tcp(stream.into_std()?), Some(address.ip().to_canonical())))
            }
            PolledListener::Unix(listener) => Ok((ClientStream::Unix(listener.accept().await?.0.into_std()?), None)),
        }
    }
}

impl Bound {
    /// A socket that listens at `endpoint`.
    fn new(socket: OwnedFd, endpoint: Endpoint, role: Role) -> Bound {
        let file = match &endpoint {
            Endpoint::Unix(path) => identity(path),
            Endpoint::Tcp(_) => None,
        };
        let is_left = watch::Sender::new(false);
        Bound { socket, endpoint, role, file: Mutex::new(file), is_lent: false, place: None, is_left }
    }

    /// Whether it ends with this server.
    fn is_ours(&self) -> bool {
        !self.is_lent && !self.is_left()
    }

    fn is_left(&self) -> bool {
        *self.is_left.borrow()
    }

    /// Removes the file of a Unix socket if it is still this socket's: somebody may have removed it and started another
    /// server in its place.
    fn remove_file(&self) {
        // Once, for the next file at the path may get the number of this one.
        let file = self.file.lock().take();
        if let (Endpoint::Unix(path), Some(_)) = (&self.endpoint, file)
            && identity(path) == file
        {
            let _ = fs::remove_file(path);
        }
    }

    /// Accepts all connections that the kernel has ready.
    ///
    /// # Errors
    /// When the system has no resources for another connection; it has been logged.
    fn accept_all(&self, hand_over: &impl Fn(AcceptedStream)) -> io::Result<()> {
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

    fn accept(&self) -> io::Result<AcceptedStream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        if matches!(self.endpoint, Endpoint::Unix(_)) {
            let stream = ClientStream::Unix(accept_with(&self.socket, flags)?.into());
            return Ok(AcceptedStream { stream, ip: None, role: self.role });
        }
        let (stream, address) = acceptfrom_with(&self.socket, flags)?;
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        let ip = address.map_or(IpAddr::from([0, 0, 0, 0]), |address| address.ip().to_canonical());
        Ok(AcceptedStream { stream: ClientStream::Tcp(stream.into()), ip: Some(ip), role: self.role })
    }
}

fn watch_all<'a>(bound: &[&'a Bound]) -> Vec<PollFd<'a>> {
    bound.iter().map(|bound| PollFd::new(&bound.socket, PollFlags::IN)).collect()
}

/// The identity of the file at `path`.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
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
