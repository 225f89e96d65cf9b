//! What the person who runs a server sets: how it stops, what it logs of requests, where it tells of itself.

use std::fmt;
use std::io;

use super::key::ConfigKey;
use super::{Endpoint, Host};

/// What the log tells of each request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AccessLog {
    /// Nothing.
    Off,
    /// A line in the form of the log.
    #[default]
    Auto,
    /// A line of words, also where the log is JSON.
    Text,
    /// A JSON object, also on a terminal.
    Json,
}

/// What happens to a request that belongs to no trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TraceContext {
    /// It belongs to none.
    #[default]
    Keep,
    /// It begins one.
    New,
}

/// Where the server tells of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Management {
    host: Option<Host>,
    port: Option<u16>,
    /// Further names of it, in lower case.
    hosts: Vec<String>,
}

/// Where the management listens that has only a host.
const MANAGEMENT_PORT: u16 = 9090;

impl Management {
    /// Whether the server tells of itself at all: one of the two is set.
    pub(crate) fn is_on(&self) -> bool {
        self.host.is_some() || self.port.is_some()
    }

    /// Where it listens, if that is set.
    pub(super) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The names by which clients may know it, beside addresses.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let own = self.host.iter().map(|host| host.to_string().to_ascii_lowercase());
        own.chain(self.hosts.clone())
    }

    /// The addresses to bind.
    ///
    /// # Errors
    /// A name that does not resolve.
    pub(crate) fn endpoints(&self) -> io::Result<Vec<Endpoint>> {
        let host = self.host.clone().unwrap_or(Host::Ip(std::net::Ipv4Addr::LOCALHOST.into()));
        host.endpoints(self.port.unwrap_or(MANAGEMENT_PORT))
    }
}

/// The host, for messages.
impl fmt::Display for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{host}"),
            None => f.write_str("127.0.0.1"),
        }
    }
}

pub(super) static OPERATING_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "drain_delay",
        what: "seconds that the server goes on accepting after a stop signal, while it is no longer ready",
        takes: "a time: seconds, or text such as \"500ms\"",
        default: "0",
        example: "5",
        store: |config, value| {
            config.drain_delay = value.time().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "reload_timeout",
        what: "seconds in which a new version must have started, else the one before serves on",
        takes: "a time above 0",
        default: "60",
        example: "10",
        store: |config, value| {
            config.reload_timeout = value.time().filter(|time| !time.is_zero()).ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "access_log",
        what: "one line for each request, at level info; true is the form of the log",
        takes: "true, false, \"text\" or \"json\"",
        default: "true",
        example: "\"json\"",
        store: |config, value| {
            config.access_log = match (value.text(), value.truth()) {
                (Some("text"), _) => AccessLog::Text,
                (Some("json"), _) => AccessLog::Json,
                (_, Some(true)) => AccessLog::Auto,
                (_, Some(false)) => AccessLog::Off,
                _ => return Err(""),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "slow_request",
        what: "seconds from which on a request is logged as slow, with the place where its handler waited longest",
        takes: "a time above 0, or \"off\"",
        default: "off",
        example: "0.5",
        store: |config, value| {
            config.slow_request = match value.text() {
                Some("off") => None,
                _ => Some(value.time().filter(|time| !time.is_zero()).ok_or("")?),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "trace_context",
        what: "whether a request without a traceparent header gets a new one",
        takes: "\"keep\" or \"new\"",
        default: "keep",
        example: "\"new\"",
        store: |config, value| {
            config.trace_context = match value.text() {
                Some("keep") => TraceContext::Keep,
                Some("new") => TraceContext::New,
                _ => return Err(""),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "management.host",
        what: "where metrics and health are told; 127.0.0.1 where only the port is set",
        takes: "an IP address, a host name, a Unix socket (\"/path\" or \"unix:path\"), or \"off\"",
        default: "off",
        example: "\"127.0.0.1\"",
        store: |config, value| {
            config.management.host = match value.text() {
                Some("off") => None,
                text => Some(Host::parse(text.ok_or("")?)?),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "management.port",
        what: "TCP port of the management listener; 9090 where only the host is set, 0 picks a free one",
        takes: "a whole number from 0 to 65535, or \"off\"",
        default: "off",
        example: "9100",
        store: |config, value| {
            config.management.port = match value.text() {
                Some("off") => None,
                _ => Some(u16::try_from(value.whole(0, u16::MAX.into()).ok_or("")?).map_err(|_| "")?),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "management.hosts",
        what: "names with a dot by which requests to the management listener may call it",
        takes: "a list of host names, or \"*\" for any",
        default: "none",
        example: "\"rover.default.svc\"",
        store: |config, value| {
            let names = value.texts().ok_or("")?;
            config.management.hosts = match &names[..] {
                [none] if none == "none" => Vec::new(),
                names => names.iter().map(|name| name.to_ascii_lowercase()).collect(),
            };
            Ok(())
        },
    },
];
