//! What a watchdog has done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// What a watchdog has done, for a page of metrics.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Lua code that was stopped.
    pub(crate) stops: AtomicU64,
    /// Workers that were given up.
    pub(crate) lost: AtomicU64,
    /// Workers that took the place of another.
    pub(crate) restarts: AtomicU64,
    /// Threads that were given up and have not come back: they cannot be ended.
    pub(crate) stuck: AtomicUsize,
}

/// A worker that was lost.
pub(crate) struct Lost {
    /// Its number, counted from 1.
    pub(crate) worker: usize,
    /// The number of the function that it was in, as [`label`](rover_lua::label) counts them; 0 where it was in none.
    pub(crate) function: u32,
    /// Its thread has come back after all.
    pub(crate) is_back: Arc<AtomicBool>,
}
