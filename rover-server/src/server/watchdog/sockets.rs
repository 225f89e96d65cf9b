//! Lists the connections of a worker by their descriptors, so that those of a lost worker can be cut.
//!
//! A closed descriptor's number may be given to another socket. So each is removed from the list before its connection
//! is dropped, and the list is locked while it is read.

use std::collections::HashSet;
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

/// The open connections of one worker.
#[derive(Default)]
pub(crate) struct OpenSockets(Mutex<HashSet<RawFd>>);

impl OpenSockets {
    /// Shuts every connection down, and returns how many. Clients then see the end instead of waiting.
    pub(super) fn shut_down(&self) -> usize {
        let descriptors = self.0.lock();
        // Every listed descriptor is open: its owner removes it before it closes it, and waits for this lock meanwhile.
        descriptors.iter().filter(|&&descriptor| rover_lua::cut(descriptor)).count()
    }
}

/// The owner of a connection's descriptor, listed for its worker.
pub(crate) struct Listed<T> {
    // Dropped first.
    entry: SocketEntry,
    owner: T,
}

struct SocketEntry {
    sockets: Arc<OpenSockets>,
    descriptor: RawFd,
}

impl<T> Listed<T> {
    /// Lists `owner`, which owns the descriptor of this number.
    pub(crate) fn new(sockets: &Arc<OpenSockets>, descriptor: RawFd, owner: T) -> Listed<T> {
        sockets.0.lock().insert(descriptor);
        Listed { entry: SocketEntry { sockets: sockets.clone(), descriptor }, owner }
    }

    /// Replaces the owner by what `change` makes of it, which must still own the descriptor.
    pub(crate) fn map<U, E>(self, change: impl FnOnce(T) -> Result<U, E>) -> Result<Listed<U>, E> {
        let Listed { entry, owner } = self;
        change(owner).map(|owner| Listed { entry, owner })
    }
}

impl<F: Future + Unpin> Future for Listed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        Pin::new(&mut self.owner).poll(cx)
    }
}

impl Drop for SocketEntry {
    fn drop(&mut self) {
        self.sockets.0.lock().remove(&self.descriptor);
    }
}
