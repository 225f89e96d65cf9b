//! Binds one address.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Bound, Role};
use crate::config::{Endpoint, SocketFile};
use crate::error::Error;

/// Connections that the kernel keeps ready while the acceptor is busy; it applies its own limit (`somaxconn`) as well.
const BACKLOG: i32 = 4096;

pub(super) fn tcp(address: SocketAddr, role: Role) -> io::Result<Bound> {
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
    Ok(Bound::new(socket.into(), Endpoint::Tcp(local), role))
}

pub(super) fn unix(path: PathBuf, role: Role, file: &SocketFile) -> io::Result<Bound> {
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
    // Nobody connects before the socket listens.
    if let Err(error) = permit(&path, file) {
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    socket.listen(BACKLOG)?;
    Ok(Bound::new(socket.into(), Endpoint::Unix(path), role))
}

/// Lets those connect who may.
fn permit(path: &Path, file: &SocketFile) -> io::Result<()> {
    if let Some(group) = &file.group {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("socket_group {group:?}: {error}"));
        let number = group_number(group).map_err(failed)?;
        std::os::unix::fs::chown(path, None, Some(number)).map_err(failed)?;
    }
    if let Some(mode) = file.mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The number of a group, which may be one already.
fn group_number(group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let known = fs::read_to_string("/etc/group")?;
    let mut lines = known.lines().map(|line| line.split(':'));
    let number = lines.find_map(|mut fields| {
        let is_it = fields.next() == Some(group);
        is_it.then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    number.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "/etc/group has no such group; give its number"))
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

pub(super) fn refused(endpoint: &Endpoint, error: io::Error) -> Error {
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
