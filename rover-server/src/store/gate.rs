//! Limits how many pieces of work run at once; others queue in order, up to a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many may queue: beyond that, work is refused rather than piled up.
const MOST_QUEUED: usize = 10_000;

/// The way to a bounded resource, for all workers.
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    queued: AtomicUsize,
}

/// The right to one place, until it is dropped.
pub(crate) struct Turn {
    _place: OwnedSemaphorePermit,
}

/// Counts one in the queue, also when its wait is dropped.
struct Queued<'a>(&'a AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(super) fn new(places: usize) -> Gate {
        Gate { places: Arc::new(Semaphore::new(places)), queued: AtomicUsize::new(0) }
    }

    /// Waits for a place; `None` where too many wait already.
    pub(crate) async fn enter(&self) -> Option<Turn> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Some(Turn { _place: place });
        }
        let before = self.queued.fetch_add(1, Ordering::Relaxed);
        let _queued = Queued(&self.queued);
        if before >= MOST_QUEUED {
            return None;
        }
        let place = self.places.clone().acquire_owned().await.ok()?;
        Some(Turn { _place: place })
    }
}
