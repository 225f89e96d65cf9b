//! The keys of WebSockets. Comes in and goes out: as for the other keys.

use std::time::Duration;

use super::key::{ConfigKey, Group};
use super::kind::{custom, size, time};
use super::value::ConfigValue;

/// How WebSockets behave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WebSocketConfig {
    /// Bytes of one message.
    pub(crate) max_message: u64,
    /// Bytes that may wait for one client.
    pub(crate) max_queue: u64,
    /// Never zero.
    pub(crate) ping_interval: Duration,
    /// Never zero.
    pub(crate) ping_timeout: Duration,
    pub(crate) origins: PageOrigins,
}

/// Whose pages may connect.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PageOrigins {
    pub(crate) any: bool,
    /// Those from the host that they connect to.
    pub(crate) same: bool,
    /// As browsers send them, such as `https://example.com`.
    pub(crate) others: Vec<String>,
}

impl Default for PageOrigins {
    fn default() -> PageOrigins {
        PageOrigins { any: false, same: true, others: Vec::new() }
    }
}

impl Default for WebSocketConfig {
    fn default() -> WebSocketConfig {
        WebSocketConfig {
            max_message: 1024 * 1024,
            max_queue: 1024 * 1024,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            origins: PageOrigins::default(),
        }
    }
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.websocket)
        .table("websocket")
        .key("max_message", "largest message of a client; a larger one closes its connection with 1009")
        .takes(size().above_zero(), |websocket| &mut websocket.max_message)
        .key("max_queue", "what may wait for one client; with more, it is dropped with 1013")
        .takes(size().above_zero(), |websocket| &mut websocket.max_queue)
        .key("ping_interval", "seconds of silence after which a client is sent a ping")
        .takes(time().above_zero(), |websocket| &mut websocket.ping_interval)
        .key("ping_timeout", "seconds that a client has to answer a ping")
        .takes(time().above_zero(), |websocket| &mut websocket.ping_timeout)
        .key("origins", "whose pages may connect: \"same\" those of the same host, \"*\" any, or origins")
        .takes(custom(ORIGINS, "same", |value| origins(value).ok_or("")), |websocket| &mut websocket.origins)
        .keys()
}

const ORIGINS: &str = "\"same\", \"*\" or origins such as \"https://example.com\", one or a list of them";

fn origins(value: &ConfigValue) -> Option<PageOrigins> {
    let words: Vec<&str> = match value {
        ConfigValue::Text(text) => text.split(',').collect(),
        ConfigValue::List(values) => values.iter().map(ConfigValue::text).collect::<Option<_>>()?,
        _ => return None,
    };
    let mut origins = PageOrigins { any: false, same: false, others: Vec::new() };
    for word in words {
        match word.trim() {
            "same" => origins.same = true,
            "*" => origins.any = true,
            word => {
                let (scheme, host) = word.split_once("://")?;
                // An origin ends with the host and its port: with a path it would never match.
                if scheme.is_empty() || host.is_empty() || host.contains('/') {
                    return None;
                }
                origins.others.push(word.to_owned());
            }
        }
    }
    Some(origins)
}
