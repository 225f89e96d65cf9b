//! The connections of a worker by the numbers of their descriptors, so that those of a lost worker can be cut.
//!
//! A descriptor's number may be given to another socket once it is closed. So each is taken from the list before the
//! connection that owns it is dropped, and the list is locked while it is read.

use std::collections::HashSet;
use std::future::Future;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// The open connections of one worker.
#[derive(Default)]
pub(crate) struct Sockets(Mutex<HashSet<RawFd>>);

impl Sockets {
    /// Ends every connection, and says how many. A client sees the end instead of waiting for good.
    pub(super) fn shut_down(&self) -> usize {
        let descriptors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What is in the list is open: its owner takes it out before it closes it, and waits for the lock meanwhile.
        descriptors.iter().filter(|&&descriptor| rover_lua::cut(descriptor)).count()
    }
}

/// Something that owns a connection's descriptor, in the list of its worker.
pub(crate) struct Listed<T> {
    // Dropped first.
    entry: Entry,
    owner: T,
}

struct Entry {
    sockets: Arc<Sockets>,
    descriptor: RawFd,
}

impl<T> Listed<T> {
    /// Lists `owner`, which owns the descriptor of this number.
    pub(crate) fn new(sockets: &Arc<Sockets>, descriptor: RawFd, owner: T) -> Listed<T> {
        sockets.0.lock().unwrap_or_else(PoisonError::into_inner).insert(descriptor);
        Listed { entry: Entry { sockets: sockets.clone(), descriptor }, owner }
    }

    /// What `change` makes of the owner, which still owns the descriptor.
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

impl Drop for Entry {
    fn drop(&mut self) {
        self.sockets.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.descriptor);
    }
}
