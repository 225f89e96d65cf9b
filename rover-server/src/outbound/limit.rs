//! How many requests of a client one origin gets at once, and how many wait for their turn.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Problem;
use super::figures::{OriginFigures, add, subtract};

/// The limits of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitOptions {
    /// Requests at once, at least 1.
    pub(crate) concurrent: usize,
    /// Requests that wait beyond them; further ones fail.
    pub(crate) queue: usize,
}

/// Lets requests in, in the order in which they came.
pub(super) struct RequestLimit {
    turns: Arc<Semaphore>,
    queue: usize,
    /// How many wait. Not read from the figures, which clients of the same name share.
    waiting: Cell<usize>,
    figures: Arc<OriginFigures>,
}

impl RequestLimit {
    pub(super) fn new(options: LimitOptions, figures: Arc<OriginFigures>) -> Rc<RequestLimit> {
        let turns = Arc::new(Semaphore::new(options.concurrent.min(Semaphore::MAX_PERMITS)));
        Rc::new(RequestLimit { turns, queue: options.queue, waiting: Cell::new(0), figures })
    }

    /// Waits for a turn, which lasts until what this gives is dropped.
    ///
    /// # Errors
    /// [`Problem::QueueFull`].
    pub(super) async fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Ok(turn);
        }
        if self.waiting.get() >= self.queue {
            return Err(Problem::QueueFull);
        }
        let _waiting = WaitingRequest::new(self);
        self.turns.clone().acquire_owned().await.map_err(|_| Problem::QueueFull)
    }
}

/// A place in the queue.
struct WaitingRequest<'a>(&'a RequestLimit);

impl WaitingRequest<'_> {
    fn new(gate: &RequestLimit) -> WaitingRequest<'_> {
        gate.waiting.set(gate.waiting.get() + 1);
        add(&gate.figures.queued);
        WaitingRequest(gate)
    }
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
        subtract(&self.0.figures.queued);
    }
}
