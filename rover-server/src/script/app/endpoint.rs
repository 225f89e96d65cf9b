//! What the table of an endpoint says beside its function: `api.x.post = { body_size_limit = "1MB", function(ctx) … end }`.
//!
//! Comes in: the keys of such a table, as Lua values. Goes out: an [`Endpoint`], or what is wrong with a key.

use std::ffi::c_int;
use std::time::Duration;

use http::Method;
use mlua::{Function, Table};

use crate::config::ConfigValue;
use crate::message::unread::Purpose;

/// What is known of a route's requests before its function runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The function that waits for the body between the hooks and the handler, by its place among the app's entries; 0 where
    /// there are no hooks, and the body is collected before Lua runs.
    pub(crate) later: c_int,
    /// The body is collected whatever the method is.
    pub(super) collects_all: bool,
    /// The handler passes the body on.
    pub(super) passes: bool,
    /// The handler reads the body in pieces.
    pub(super) streams: bool,
    /// `None`: what the config says.
    pub(crate) body_size_limit: Option<u64>,
    /// How long the handler may wait in all; `None`: what the config says.
    pub(crate) timeout: Option<Duration>,
}

impl Endpoint {
    /// What the body of a request with this method is there for.
    #[inline]
    pub(crate) fn purpose(&self, method: &Method) -> Purpose {
        match self {
            Endpoint { streams: false, passes: false, .. } => {
                let has_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
                if has_body || self.collects_all { Purpose::Collect } else { Purpose::Nothing }
            }
            Endpoint { passes: true, .. } => Purpose::Pass,
            Endpoint { .. } => Purpose::Read,
        }
    }

    /// Reads one key.
    ///
    /// # Errors
    /// What the value must be.
    pub(super) fn set(&mut self, key: &str, value: &ConfigValue) -> Result<(), &'static str> {
        match key {
            "body" => match value {
                ConfigValue::Bool(true) => self.collects_all = true,
                _ => return Err("true"),
            },
            "stream_body" => match value {
                ConfigValue::Bool(on) => self.streams = *on,
                _ => return Err("true or false"),
            },
            "body_size_limit" => match value.size() {
                Some(size) => self.body_size_limit = Some(size),
                None => return Err("a size: a number of bytes, or text such as \"10MB\""),
            },
            "timeout" => match value.time() {
                Some(time) => self.timeout = Some(time),
                None => return Err("a time: seconds, or text such as \"500ms\"; 0 lets the handler wait"),
            },
            _ => return Err("left out"),
        }
        Ok(())
    }
}

/// The keys that an endpoint's table may have beside its function, in the order of the alphabet.
pub(super) const KEYS: [&str; 4] = ["body", "body_size_limit", "stream_body", "timeout"];

/// The endpoints of all routes: whether each `passes` its bodies on, and what tables `told` of some.
pub(super) fn of_routes(passes: Vec<bool>, told: &[(usize, Endpoint)]) -> Vec<Endpoint> {
    let of_route = |passes| Endpoint { passes, ..Endpoint::default() };
    let mut endpoints: Vec<Endpoint> = passes.into_iter().map(of_route).collect();
    for (place, told) in told {
        if let Some(endpoint) = endpoints.get_mut(*place) {
            *endpoint = Endpoint { passes: endpoint.passes, ..*told };
        }
    }
    endpoints
}

/// Adds the functions of requests whose body comes late to the `entries`: `late` holds each behind its route's number.
///
/// # Errors
/// Memory errors of mlua.
pub(super) fn add_late(late: &Table, entries: &Table, endpoints: &mut [Endpoint]) -> mlua::Result<()> {
    for n in (1..late.raw_len()).step_by(2) {
        let (number, function): (usize, Function) = (late.raw_get(n)?, late.raw_get(n + 1)?);
        entries.raw_push(function)?;
        if let Some(endpoint) = endpoints.get_mut(number.wrapping_sub(1)) {
            endpoint.later = c_int::try_from(entries.raw_len()).unwrap_or_default();
        }
    }
    Ok(())
}
