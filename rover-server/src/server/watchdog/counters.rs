//! The watchdog's counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// What a watchdog has done, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// How often Lua code was stopped.
    pub(crate) stops: AtomicU64,
    /// Workers that were given up.
    pub(crate) lost: AtomicU64,
    /// Workers that took the place of another.
    pub(crate) restarts: AtomicU64,
    /// Threads that were given up and have not returned.
    pub(crate) stuck: AtomicUsize,
}

/// A worker that was lost.
pub(crate) struct Lost {
    /// Its number, counted from 1.
    pub(crate) worker: usize,
    /// The number of the function in which it was, as for [`label`](rover_lua::label); 0 for none.
    pub(crate) function: u32,
    /// Its thread has returned after all.
    pub(crate) is_back: Arc<AtomicBool>,
}
