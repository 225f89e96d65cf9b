//! The keys of `http2 = { … }`. Comes in: a value. Goes out: what a client may do within one connection. Must not know:
//! who enforces it.

use std::time::Duration;

use super::key::ConfigKey;

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
fn window(bytes: Option<u64>) -> Result<u32, &'static str> {
    let bytes = bytes.filter(|bytes| (65_535..=(1 << 30)).contains(bytes)).ok_or("")?;
    u32::try_from(bytes).map_err(|_| "")
}

pub(super) static HTTP2_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "http2.enabled",
        what: "HTTP/2, over TLS and by prior knowledge",
        takes: "true or false",
        default: "true",
        example: "false",
        store: |config, value| {
            config.http2.enabled = value.truth().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "http2.max_streams",
        what: "most requests at once on a connection",
        takes: "a whole number from 1 to 10000",
        default: "128",
        example: "32",
        store: |config, value| {
            config.http2.max_streams = u32::try_from(value.whole(1, 10_000).ok_or("")?).map_err(|_| "")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "http2.max_pending_resets",
        what: "requests that a client may take back before they are looked at; the connection ends above",
        takes: "a whole number from 1 to 10000",
        default: "20",
        example: "50",
        store: |config, value| {
            config.http2.max_pending_resets = usize::try_from(value.whole(1, 10_000).ok_or("")?).map_err(|_| "")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "http2.stream_window",
        what: "bytes of one body that a client may send ahead",
        takes: "a size from 65535 bytes to 1GB",
        default: "256KB",
        example: "\"1MB\"",
        store: |config, value| {
            config.http2.stream_window = window(value.size())?;
            Ok(())
        },
    },
    ConfigKey {
        name: "http2.connection_window",
        what: "bytes of all bodies of a connection that a client may send ahead",
        takes: "a size from 65535 bytes to 1GB",
        default: "1MB",
        example: "\"4MB\"",
        store: |config, value| {
            config.http2.connection_window = window(value.size())?;
            Ok(())
        },
    },
    ConfigKey {
        name: "http2.ping_interval",
        what: "seconds of silence after which a client is asked whether it is there; 0 never asks",
        takes: "a time: seconds, or text such as \"500ms\"",
        default: "30",
        example: "10",
        store: |config, value| {
            config.http2.ping_interval = value.time().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "http2.ping_timeout",
        what: "seconds that a client gets to answer that",
        takes: "a time above 0: seconds, or text such as \"500ms\"",
        default: "20",
        example: "5",
        store: |config, value| {
            config.http2.ping_timeout = value.time().filter(|time| !time.is_zero()).ok_or("")?;
            Ok(())
        },
    },
];
