//! The keys that bound what one client may ask and hold. Comes in: a value. Goes out: sizes, counts and times. Must not
//! know: who enforces them.

use std::time::Duration;

use super::ConfigValue;
use super::key::ConfigKey;

/// What one connection, and all together, may take. 0 stands for no limit where a field says so.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConnectionSettings {
    /// Bytes of a request's head, its first line included.
    pub(crate) header_size_limit: usize,
    pub(crate) header_count_limit: usize,
    /// Bytes of a request's target.
    pub(crate) uri_size_limit: usize,
    /// Never zero.
    pub(crate) header_timeout: Duration,
    /// Never zero.
    pub(crate) idle_timeout: Duration,
    /// Never zero.
    pub(crate) send_timeout: Duration,
    /// Zero: no limit.
    pub(crate) handler_timeout: Duration,
    /// What other HTTP/1 servers may read differently is taken.
    pub(crate) is_lenient: bool,
    /// 0: no limit.
    pub(crate) requests_per_connection: u64,
    /// 0: no limit.
    pub(crate) max_connections: usize,
    /// 0: no limit.
    pub(crate) max_connections_per_ip: usize,
    /// Bytes; 0: no limit; `None`: what suits the machine.
    pub(crate) buffer_limit: Option<u64>,
    /// Bytes; 0: no limit; `None`: what suits most.
    pub(crate) buffer_limit_per_connection: Option<u64>,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        ConnectionSettings {
            header_size_limit: 32 * 1024,
            header_count_limit: 100,
            uri_size_limit: 8 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(30),
            handler_timeout: Duration::from_secs(60),
            is_lenient: false,
            requests_per_connection: 0,
            max_connections: 20_000,
            max_connections_per_ip: 0,
            buffer_limit: None,
            buffer_limit_per_connection: None,
        }
    }
}

impl ConnectionSettings {
    /// Takes over what the server counts by for as long as it runs, and gives the keys that differed.
    pub(super) fn keep(&mut self, running: &ConnectionSettings) -> Vec<&'static str> {
        let mut changed = Vec::new();
        for (key, own, running) in [
            ("max_connections", &mut self.max_connections, running.max_connections),
            ("max_connections_per_ip", &mut self.max_connections_per_ip, running.max_connections_per_ip),
        ] {
            if *own != running {
                *own = running;
                changed.push(key);
            }
        }
        changed
    }
}

/// A size from 1 KB to 256 KB, which is less than hyper's own limit.
fn head_size(bytes: Option<u64>) -> Result<usize, &'static str> {
    let bytes = bytes.filter(|bytes| (1024..=256 * 1024).contains(bytes)).ok_or("")?;
    usize::try_from(bytes).map_err(|_| "")
}

/// A size, or "auto".
fn size_or_auto(value: &ConfigValue) -> Result<Option<u64>, &'static str> {
    match value.text() {
        Some("auto") => Ok(None),
        _ => value.size().map(Some).ok_or(""),
    }
}

pub(super) static CONNECTION_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "header_size_limit",
        what: "largest head of a request, first line included; 431 above",
        takes: "a size from 1KB to 256KB",
        default: "32KB",
        example: "\"16KB\"",
        store: |config, value| {
            config.connections.header_size_limit = head_size(value.size())?;
            Ok(())
        },
    },
    ConfigKey {
        name: "header_count_limit",
        what: "most header fields of a request; 431 above",
        takes: "a whole number from 1 to 1000",
        default: "100",
        example: "64",
        store: |config, value| {
            let count = value.whole(1, 1000).ok_or("")?;
            config.connections.header_count_limit = usize::try_from(count).map_err(|_| "")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "uri_size_limit",
        what: "longest target of a request, path and query; 414 above",
        takes: "a size from 1 byte to 60KB",
        default: "8KB",
        example: "\"2KB\"",
        store: |config, value| {
            let bytes = value.size().filter(|bytes| (1..=60 * 1024).contains(bytes)).ok_or("")?;
            config.connections.uri_size_limit = usize::try_from(bytes).map_err(|_| "")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "http1.lenient",
        what: "take HTTP/1 requests whose lines or chunks end in a bare LF, and others that servers read differently",
        takes: "true or false",
        default: "false",
        example: "true",
        store: |config, value| {
            config.connections.is_lenient = value.truth().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "header_timeout",
        what: "seconds a client gets to send a request's head before 408",
        takes: "a time above 0: seconds, or text such as \"500ms\"",
        default: "10",
        example: "5",
        store: |config, value| {
            config.connections.header_timeout = value.time().filter(|time| !time.is_zero()).ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "idle_timeout",
        what: "seconds a connection may stay open without a request",
        takes: "a time above 0: seconds, or text such as \"500ms\"",
        default: "60",
        example: "15",
        store: |config, value| {
            config.connections.idle_timeout = value.time().filter(|time| !time.is_zero()).ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "send_timeout",
        what: "seconds a client may take nothing of its answer before it is cut off",
        takes: "a time above 0: seconds, or text such as \"500ms\"",
        default: "30",
        example: "10",
        store: |config, value| {
            config.connections.send_timeout = value.time().filter(|time| !time.is_zero()).ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "handler_timeout",
        what: "seconds a handler may wait before it is cancelled with 503; 0 lets it wait",
        takes: "a time: seconds, or text such as \"500ms\"",
        default: "60",
        example: "5",
        store: |config, value| {
            config.connections.handler_timeout = value.time().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "requests_per_connection",
        what: "requests after which a connection is closed; 0 never",
        takes: "a whole number",
        default: "0",
        example: "1000",
        store: |config, value| {
            config.connections.requests_per_connection = value.whole(0, u32::MAX.into()).ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "max_connections",
        what: "most connections at once; further ones get 503, 0 is no limit",
        takes: "a whole number",
        default: "20000",
        example: "1000",
        store: |config, value| {
            let count = value.whole(0, u32::MAX.into()).ok_or("")?;
            config.connections.max_connections = usize::try_from(count).map_err(|_| "")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "buffer_limit",
        what: "bytes of large request bodies and answers that all connections hold at once; 503 above, 0 is no limit",
        takes: "a size: a number of bytes, or text such as \"64MB\", or \"auto\"",
        default: "auto",
        example: "\"256MB\"",
        store: |config, value| {
            config.connections.buffer_limit = size_or_auto(value)?;
            Ok(())
        },
    },
    ConfigKey {
        name: "buffer_limit_per_connection",
        what: "the same of one connection, which has many requests at once in HTTP/2; 503 above, 0 is no limit",
        takes: "a size: a number of bytes, or text such as \"64MB\", or \"auto\"",
        default: "auto",
        example: "\"16MB\"",
        store: |config, value| {
            config.connections.buffer_limit_per_connection = size_or_auto(value)?;
            Ok(())
        },
    },
    ConfigKey {
        name: "max_connections_per_ip",
        what: "most connections at once from one address; further ones get 503, 0 is no limit",
        takes: "a whole number",
        default: "0",
        example: "100",
        store: |config, value| {
            let count = value.whole(0, u32::MAX.into()).ok_or("")?;
            config.connections.max_connections_per_ip = usize::try_from(count).map_err(|_| "")?;
            Ok(())
        },
    },
];
