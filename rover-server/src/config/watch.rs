//! The keys that bound what the app's code may take: time of a worker, and memory. Comes in and goes out as in `keys`.

use std::time::Duration;

use super::key::ConfigKey;

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

pub(super) static WATCH_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "handler_cpu_limit",
        what: "seconds of CPU time that Lua code may take between two waits before it is stopped with 503; 0 for no limit",
        takes: "a time: seconds, or text such as \"500ms\"",
        default: "1",
        example: "\"200ms\"",
        store: |config, value| {
            config.limits.handler_cpu_limit = value.time().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "worker_stall_limit",
        what: "seconds a worker may hang in one call before another takes its place; 0 for no limit",
        takes: "a time: seconds, or text such as \"500ms\"",
        default: "30",
        example: "10",
        store: |config, value| {
            config.limits.worker_stall_limit = value.time().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "memory_limit",
        what: "memory of each worker's Lua VM; above, \"not enough memory\" is raised; 0 for no limit",
        takes: "a size: a number of bytes, or text such as \"64MB\"",
        default: "1GB",
        example: "\"256MB\"",
        store: |config, value| {
            config.limits.memory_limit = value.size().ok_or("")?;
            Ok(())
        },
    },
];
