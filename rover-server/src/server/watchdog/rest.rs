//! Lets the watchdog's thread sleep while no worker has anything to do.
//!
//! Comes in: when each worker's thread parks and unparks. Goes out: whether the watchdog may sleep, and when it must be
//! woken. It costs a worker two stores each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether the thread that watches sleeps.
#[derive(Clone, Default)]
pub(super) struct WatchdogSleep(Arc<AtomicBool>);

impl WatchdogSleep {
    /// Whether the watchdog may sleep, because none of `workers` has anything to do. From then on the first worker with
    /// work wakes it.
    pub(super) fn try_sleep<'a>(&self, mut workers: impl Iterator<Item = &'a WorkerRest>) -> bool {
        self.0.store(true, Ordering::SeqCst);
        // Asked behind the store: a worker that finds something to do either is seen, or sees that it has to wake.
        let may_sleep = workers.all(|worker| worker.is_parked.load(Ordering::SeqCst));
        if !may_sleep {
            self.wake();
        }
        may_sleep
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn wake(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Whether a worker waits for something to do.
pub(super) struct WorkerRest {
    is_parked: AtomicBool,
    /// How often it has found something.
    turns: AtomicU64,
    dog: WatchdogSleep,
}

impl WorkerRest {
    pub(super) fn new(dog: &WatchdogSleep) -> WorkerRest {
        WorkerRest { is_parked: AtomicBool::new(false), turns: AtomicU64::new(0), dog: dog.clone() }
    }

    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// The worker waits.
    pub(super) fn begins(&self) {
        self.is_parked.store(true, Ordering::SeqCst);
    }

    /// The worker has found something to do. Only its own thread says so. Whether the thread that watches is to be woken.
    pub(super) fn ends(&self) -> bool {
        self.is_parked.store(false, Ordering::SeqCst);
        self.turns.store(self.turns().wrapping_add(1), Ordering::Relaxed);
        self.dog.is_asleep()
    }
}
