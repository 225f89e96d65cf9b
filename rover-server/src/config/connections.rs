//! The keys that bound what one client may ask and hold. Comes in: a value. Goes out: sizes, counts and times. Must not
//! know: who enforces them.

use std::time::Duration;

use super::key::{ConfigKey, Group};
use super::kind::{count, count_in, flag, size, size_in, time};

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

/// The largest head, in bytes: less than hyper's own limit.
const MOST_HEAD: u64 = 256 * 1024;

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.connections)
        .key("header_size_limit", "largest head of a request, first line included; 431 above")
        .takes(size_in(1024..=MOST_HEAD), |connections| &mut connections.header_size_limit)
        .key("header_count_limit", "most header fields of a request; 431 above")
        .takes(count_in(1..=1000), |connections| &mut connections.header_count_limit)
        .key("uri_size_limit", "longest target of a request, path and query; 414 above")
        .takes(size_in(1..=60 * 1024), |connections| &mut connections.uri_size_limit)
        .key(
            "http1.lenient",
            "take HTTP/1 requests whose lines or chunks end in a bare LF, and others that servers read differently",
        )
        .takes(flag(), |connections| &mut connections.is_lenient)
        .key("header_timeout", "seconds a client gets to send a request's head before 408")
        .takes(time().above_zero(), |connections| &mut connections.header_timeout)
        .key("idle_timeout", "seconds a connection may stay open without a request")
        .takes(time().above_zero(), |connections| &mut connections.idle_timeout)
        .key("send_timeout", "seconds a client may take nothing of its answer before it is cut off")
        .takes(time().above_zero(), |connections| &mut connections.send_timeout)
        .key("handler_timeout", "seconds a handler may wait before it is cancelled with 503; 0 lets it wait")
        .takes(time(), |connections| &mut connections.handler_timeout)
        .key("requests_per_connection", "requests after which a connection is closed; 0 never")
        .takes(count(), |connections| &mut connections.requests_per_connection)
        .key(
            "buffer_limit",
            "bytes of large request bodies and answers that all connections hold at once; 503 above, 0 is no limit",
        )
        .takes(size().or("auto"), |connections| &mut connections.buffer_limit)
        .key(
            "buffer_limit_per_connection",
            "the same of one connection, which has many requests at once in HTTP/2; 503 above, 0 is no limit",
        )
        .takes(size().or("auto"), |connections| &mut connections.buffer_limit_per_connection)
        .needs_restart()
        .key("max_connections", "most connections at once; further ones get 503, 0 is no limit")
        .takes(count(), |connections| &mut connections.max_connections)
        .key("max_connections_per_ip", "most connections at once from one address; further ones get 503, 0 is no limit")
        .takes(count(), |connections| &mut connections.max_connections_per_ip)
        .keys()
}
