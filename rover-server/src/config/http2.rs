//! The keys of `http2 = { … }`. Comes in: a value. Goes out: what a client may do within one connection. Must not know:
//! who enforces it.

use std::time::Duration;

use super::key::{ConfigKey, Group};
use super::kind::{Kind, count_in, flag, size_in, time};

/// What HTTP/2 lets a client do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Http2Settings {
    pub(crate) enabled: bool,
    pub(crate) max_streams: u32,
    pub(crate) max_pending_resets: usize,
    /// Bytes.
    pub(crate) stream_window: u32,
    /// Bytes.
    pub(crate) connection_window: u32,
    /// Zero: no pings.
    pub(crate) ping_interval: Duration,
    /// Never zero.
    pub(crate) ping_timeout: Duration,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Http2Settings {
            enabled: true,
            max_streams: 128,
            max_pending_resets: 20,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// A window that RFC 9113, section 6.9.1 allows, and not below its initial size.
fn window() -> Kind<u32> {
    size_in(65_535..=1 << 30)
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.http2)
        .table("http2")
        .key("enabled", "HTTP/2, over TLS and by prior knowledge")
        .takes(flag(), |http2| &mut http2.enabled)
        .key("max_streams", "most requests at once on a connection")
        .takes(count_in(1..=10_000), |http2| &mut http2.max_streams)
        .key(
            "max_pending_resets",
            "requests that a client may take back before they are looked at; the connection ends above",
        )
        .takes(count_in(1..=10_000), |http2| &mut http2.max_pending_resets)
        .key("stream_window", "bytes of one body that a client may send ahead")
        .takes(window(), |http2| &mut http2.stream_window)
        .key("connection_window", "bytes of all bodies of a connection that a client may send ahead")
        .takes(window(), |http2| &mut http2.connection_window)
        .key("ping_interval", "seconds of silence after which a client is asked whether it is there; 0 never asks")
        .takes(time(), |http2| &mut http2.ping_interval)
        .key("ping_timeout", "seconds that a client gets to answer that")
        .takes(time().above_zero(), |http2| &mut http2.ping_timeout)
        .keys()
}
