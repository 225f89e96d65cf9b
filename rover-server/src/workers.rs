//! The workers that take connections, and whose turn it is.
//!
//! Comes in: accepted sockets. Goes out: each to the runtime of the next worker in turn. The list is behind a lock that
//! only the acceptor takes for a connection: none for a request.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use crate::accept::Accepted;
use crate::admission::Permit;
use crate::worker;

/// The live workers of a server.
pub(crate) struct Workers {
    turns: Mutex<Turns>,
}

struct Turns {
    /// The runtime of each worker, in the order of their numbers.
    handles: Vec<Handle>,
    next: usize,
}

impl Workers {
    /// Deals connections out to the workers with these runtimes.
    pub(crate) fn new(handles: Vec<Handle>) -> Workers {
        Workers { turns: Mutex::new(Turns { handles, next: 0 }) }
    }

    /// Gives a connection to the worker whose turn it is.
    pub(crate) fn hand_over(&self, accepted: Accepted, permit: Permit) {
        let mut turns = self.turns();
        let turn = turns.next;
        if let Some(handle) = turns.handles.get(turn) {
            worker::adopt(handle, accepted, permit);
            turns.next = (turn + 1) % turns.handles.len();
        }
    }

    /// Runs the app's `on_ready` in the first worker.
    pub(crate) fn announce(&self) {
        if let Some(first) = self.turns().handles.first() {
            worker::announce(first);
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
