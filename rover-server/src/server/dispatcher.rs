//! Gives connections to the workers in turn.
//!
//! Comes in: accepted sockets. Goes out: each to the runtime of the next worker. The list has a lock, which the
//! acceptor takes once for each connection; requests take none.

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::listen::accept::AcceptedStream;
use crate::listen::admission::ConnectionPermit;
use crate::server::worker::{self, WorkerHandle};

/// The live workers of a server.
pub(crate) struct Workers {
    turns: Mutex<Turns>,
    /// Signalled when there is a worker again, or never will be.
    changed: Condvar,
}

struct Turns {
    /// The workers in the order of their numbers; `None` while one is being replaced.
    handles: Vec<Option<WorkerHandle>>,
    next: usize,
    is_closed: bool,
}

impl Workers {
    /// Gives connections to these workers.
    pub(crate) fn new(handles: Vec<WorkerHandle>) -> Workers {
        let handles = handles.into_iter().map(Some).collect();
        Workers { turns: Mutex::new(Turns { handles, next: 0, is_closed: false }), changed: Condvar::new() }
    }

    /// Gives a connection to the next worker. Waits if there is none; clients meanwhile wait in the kernel's queue.
    pub(crate) fn hand_over(&self, accepted: AcceptedStream, permit: ConnectionPermit) {
        let mut turns = self.turns();
        loop {
            if let Some(handle) = turns.take_turn() {
                return worker::adopt(&handle, accepted, permit);
            }
            if turns.is_closed {
                return;
            }
            self.changed.wait(&mut turns);
        }
    }

    /// Runs the app's `on_ready` in the first worker.
    pub(crate) fn announce(&self) {
        if let Some(first) = self.turns().handles.iter().flatten().next() {
            worker::announce(first);
        }
    }

    /// The current workers, each with its number.
    pub(crate) fn handles(&self) -> Vec<(usize, WorkerHandle)> {
        let turns = self.turns();
        (1..).zip(&turns.handles).filter_map(|(n, handle)| Some((n, handle.clone()?))).collect()
    }

    /// How many places there are.
    pub(crate) fn places(&self) -> usize {
        self.turns().handles.len()
    }

    /// Stops giving connections to worker number `worker`.
    pub(crate) fn take_out(&self, worker: usize) {
        self.set(worker, None);
    }

    /// Gives the turns of number `worker` to a new worker.
    pub(crate) fn put_in(&self, worker: usize, handle: WorkerHandle) {
        self.set(worker, Some(handle));
        self.changed.notify_all();
    }

    /// Ends all waiting for a worker.
    pub(crate) fn close(&self) {
        self.turns().is_closed = true;
        self.changed.notify_all();
    }

    fn set(&self, worker: usize, handle: Option<WorkerHandle>) {
        if let Some(place) = self.turns().handles.get_mut(worker.wrapping_sub(1)) {
            *place = handle;
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock()
    }
}

impl Turns {
    fn take_turn(&mut self) -> Option<WorkerHandle> {
        for _ in 0..self.handles.len() {
            let turn = self.next;
            self.next = (turn + 1) % self.handles.len();
            if let Some(Some(handle)) = self.handles.get(turn) {
                return Some(handle.clone());
            }
        }
        None
    }
}
