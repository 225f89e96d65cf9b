//! What a watchdog has done.

use std::sync::atomic::{AtomicU64, AtomicUsize};

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

/// How a worker came to an end that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It does not come back from a call.
    Stuck,
    /// Its thread has panicked.
    Panicked,
}
