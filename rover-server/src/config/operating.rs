//! What the person who runs a server sets: how it stops, what it logs of requests, where it tells of itself.

use std::fmt;
use std::io;

use super::key::{ConfigKey, Group};
use super::kind::{Kind, choice, custom, port, time};
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

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    let mut keys = Group::of(|config| config)
        .key(
            "drain_delay",
            "seconds that the server goes on accepting after a stop signal, while it is no longer ready",
        )
        .takes(time(), |config| &mut config.drain_delay)
        .key("reload_timeout", "seconds in which a new version must have started, else the one before serves on")
        .takes(time().above_zero(), |config| &mut config.reload_timeout)
        .key("access_log", "one line for each request, at level info; true is the form of the log")
        .takes(access_log(), |config| &mut config.access_log)
        .key(
            "slow_request",
            "seconds from which on a request is logged as slow, with the place where its handler waited longest",
        )
        .takes(time().above_zero().or("off"), |config| &mut config.slow_request)
        .key("trace_context", "whether a request without a traceparent header gets a new one")
        .takes(choice([("keep", TraceContext::Keep), ("new", TraceContext::New)]), |config| &mut config.trace_context)
        .keys();
    let management = Group::of(|config| &mut config.management)
        .table("management")
        .needs_restart()
        .key("host", "where metrics and health are told; 127.0.0.1 where only the port is set")
        .takes(Host::kind().or("off"), |management| &mut management.host)
        .key("port", "TCP port of the management listener; 9090 where only the host is set, 0 picks a free one")
        .takes(port().or("off"), |management| &mut management.port)
        .key("hosts", "names with a dot by which requests to the management listener may call it")
        .takes(hosts(), |management| &mut management.hosts)
        .keys();
    keys.extend(management);
    keys
}

fn access_log() -> Kind<AccessLog> {
    custom("true, false, \"text\" or \"json\"", "true", |value| match (value.text(), value.truth()) {
        (Some("text"), _) => Ok(AccessLog::Text),
        (Some("json"), _) => Ok(AccessLog::Json),
        (_, Some(true)) => Ok(AccessLog::Auto),
        (_, Some(false)) => Ok(AccessLog::Off),
        _ => Err(""),
    })
}

fn hosts() -> Kind<Vec<String>> {
    custom("a list of host names, or \"*\" for any", "none", |value| {
        let names = value.texts().ok_or("")?;
        let names = if names == ["none"] { Vec::new() } else { names };
        Ok(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    })
}
