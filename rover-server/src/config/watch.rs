//! The keys that bound what the app's code may take: time of a worker, and memory. Comes in and goes out as in `keys`.

use std::time::Duration;

use super::key::{ConfigKey, Group};
use super::kind::{size, time};

/// What the app's code may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// CPU time from one wait to the next; zero for no limit.
    pub(crate) handler_cpu_limit: Duration,
    /// Time in which a worker must have come round; zero for no limit.
    pub(crate) worker_stall_limit: Duration,
    /// Bytes of a VM; 0 for no limit.
    pub(crate) memory_limit: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            handler_cpu_limit: Duration::from_secs(1),
            worker_stall_limit: Duration::from_secs(30),
            memory_limit: 1 << 30,
        }
    }
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.limits)
        .key(
            "handler_cpu_limit",
            "seconds of CPU time that Lua code may take between two waits before it is stopped with 503; 0 is no limit",
        )
        .takes(time(), |limits| &mut limits.handler_cpu_limit)
        .key(
            "worker_stall_limit",
            "seconds a worker may hang in one call before another takes its place; 0 is no limit",
        )
        .takes(time(), |limits| &mut limits.worker_stall_limit)
        .key("memory_limit", "memory of each worker's Lua VM; above, \"not enough memory\" is raised; 0 for no limit")
        .takes(size(), |limits| &mut limits.memory_limit)
        .keys()
}
