//! What the system lets this process have: descriptors, and bytes in files.
//!
//! Comes in: the limits that the process was started with. Goes out: as many descriptors as it may have, of which some are
//! kept for others than clients, and children that find what their parent had found. A write beyond the limit of a file's size is
//! an error here, not the end of the process. This module must not know what a descriptor is for.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// More descriptors are of no use: it is the kernel's own default for the most that one process may ask for.
const MOST: u64 = 1 << 20;

/// Of all descriptors, one in so many is kept for others than clients.
const SHARE: u64 = 8;

/// How many are kept at least, as far as there are as many beside those in use at the start, and at most.
const FEWEST_KEPT: u64 = 16;
const MOST_KEPT: u64 = 1024;

/// The limit of descriptors that the process was started with.
static STARTED_WITH: OnceLock<Rlimit> = OnceLock::new();

/// Raises the limit of descriptors as far as the process may, and has the system tell of writes beyond the limit of a
/// file's size by their result alone. What this process starts is not concerned: see [`restore`].
///
/// # Errors
/// The system lets this process handle no signals.
pub(crate) fn prepare() -> io::Result<()> {
    let own = STARTED_WITH.get_or_init(|| getrlimit(Resource::Nofile));
    let most = own.maximum.unwrap_or(MOST).min(MOST);
    if own.current.is_some_and(|current| current < most) {
        // Where that is refused, there are as many as before.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: own.maximum });
    }
    outlive_large_files()
}

/// SIGXFSZ ends a process unless it is handled, or ignored, which would be passed on to children. A handler is not.
fn outlive_large_files() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let within = runtime.enter();
    // The handler stays when nobody listens any more.
    let handled = signal(SignalKind::from_raw(libc::SIGXFSZ)).map(drop);
    drop(within);
    // Waiting for it is not allowed where the caller runs in a runtime of its own.
    runtime.shutdown_background();
    handled
}

/// Gives a process that was just started the limit of descriptors that this one was started with.
///
/// What reads the limit among its very first instructions may still see the higher one: before it runs, only code between
/// fork and exec could set it, which would copy the whole address space for each start.
pub(crate) fn restore(process: u32) {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    if let (Some(own), Some(pid)) = (STARTED_WITH.get(), pid) {
        // One that runs as another user keeps what it has.
        let _ = prlimit(Some(pid), Resource::Nofile, *own);
    }
}

/// The limit of descriptors that children are to have, where it is another than this process has.
pub(crate) fn lowered() -> Option<u64> {
    let own = STARTED_WITH.get()?.current?;
    (getrlimit(Resource::Nofile).current != Some(own)).then_some(own)
}

/// Whether the system has no descriptor, memory or buffer left, or will have again: no word on what was asked for.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let short = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    error.raw_os_error().is_some_and(|number| short.contains(&number))
}

/// Why the system gives no descriptor just now, if that is so. For whoever was told something else by a library that could
/// not open what it needed: the C library's resolver then finds no name.
pub(crate) fn shortage() -> Option<io::Error> {
    UnixDatagram::unbound().err().filter(is_shortage)
}

/// How many descriptors clients may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors {
    /// The system gives the lowest number that is free, so one from here on tells that all below are in use.
    first_kept: u64,
}

impl Descriptors {
    /// Counts those that are in use without a client.
    ///
    /// # Errors
    /// There is none left at all.
    pub(crate) fn count(any: impl AsFd) -> io::Result<Descriptors> {
        let most = getrlimit(Resource::Nofile).current.unwrap_or(MOST);
        let next = any.as_fd().try_clone_to_owned()?;
        Ok(Descriptors::of(most, u64::try_from(next.as_raw_fd()).unwrap_or(0)))
    }

    fn of(most: u64, used: u64) -> Descriptors {
        let free = most.saturating_sub(used);
        let kept = (most / SHARE).clamp(FEWEST_KEPT, MOST_KEPT).min(free / 2);
        Descriptors { first_kept: most - kept }
    }

    /// No limit.
    #[cfg(test)]
    pub(crate) fn unbounded() -> Descriptors {
        Descriptors { first_kept: u64::MAX }
    }

    /// Whether the descriptor is one of those that are kept for others than clients.
    pub(crate) fn keep(&self, descriptor: impl AsFd) -> bool {
        u64::try_from(descriptor.as_fd().as_raw_fd()).is_ok_and(|number| number >= self.first_kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_kept_and_clients_get_at_least_half_of_what_is_free() {
        let clients = |most, used| Descriptors::of(most, used).first_kept - used;
        assert_eq!(clients(40, 20), 10);
        assert_eq!(clients(64, 20), 28);
        assert_eq!(clients(1024, 24), 872);
        assert_eq!(clients(1 << 20, 24), (1 << 20) - 24 - 1024);
        assert_eq!(clients(20, 20), 0);
    }
}
