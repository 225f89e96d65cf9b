//! The context of a handler: one small Lua object that refers to a request in Rust.
//!
//! Comes in: a request whose route is known and whose body, if any, has been collected or can be asked for. Goes out: `ctx`, whose fields
//! and methods turn into Lua values on first use. One metatable per VM holds every method; nothing per request is a
//! closure. The object knows its request by a slot and a serial number: once the request is over, its serial number is
//! gone for good, so a `ctx` that was kept finds nothing rather than somebody else's request.
//!
//! This module must not know of handlers, of responses, or of the connection that the request came on.

mod body;
mod certificate;
mod cookies;
mod fields;
mod lookup;
mod params;
mod peer;
mod query;
mod request;
pub(crate) mod trace;
mod unread;

use std::cell::OnceCell;
use std::ffi::c_int;
use std::rc::Rc;

use mlua::Lua;
use rover_lua::json::Vocabulary;
use rover_lua::{Kind, Raise, Shared, Stack, anchor, mistake_function};

pub(crate) use crate::route::SentPath;
pub(crate) use body::{Bodies, is_body};
pub(crate) use certificate::ClientCertificate;
pub(crate) use cookies::set_cookie;
pub(crate) use fields::version_name;
pub(crate) use params::ParamShapes;
pub(crate) use peer::{ForwardedClient, Peer};
pub(crate) use request::{
    Close, CurrentContext, Guarded, Request, RequestGuard, RequestKey, Requests, new_id, sent_id,
};
pub(crate) use trace::{TRACEPARENT, ensure_trace, trace_id};
pub(crate) use unread::{collecting, install_late};

use crate::message::header_names::HeaderNames;

/// What the functions of `ctx` share in one VM.
pub(crate) struct Contexts {
    pub(crate) requests: Rc<Requests>,
    pub(crate) vocabulary: Rc<Vocabulary>,
    pub(crate) bodies: Rc<Bodies>,
    pub(crate) header_names: HeaderNames,
    /// Set once the app has loaded.
    pub(crate) shapes: OnceCell<ParamShapes>,
    /// Registry reference of the metatable that makes look-ups in `ctx:headers()` ignore case.
    headers_meta: c_int,
}

/// Index 0 and 1 of the context hold its request's slot and serial number; what was built from the request is kept at
/// the indices below, which a Lua author never sees by name.
mod cached {
    use std::ffi::c_int;

    pub(super) const SLOT: c_int = 0;
    pub(super) const SERIAL: c_int = 1;
    pub(super) const HEADERS: c_int = 2;
    pub(super) const QUERY: c_int = 4;
    pub(super) const COOKIES: c_int = 5;
    pub(super) const BODY: c_int = 6;
    pub(super) const JSON: c_int = 7;
    /// `context.lua` keeps the path parameters at 3, and the values of `ctx:set` here.
    pub(super) const LAST: c_int = 8;
    /// What `ctx:queries` gave, by name. Beyond the numbered places, for few handlers ask: the first that does pays for
    /// another.
    pub(super) const QUERIES: c_int = 9;
}

/// Pushes a new context for the request in `request_key`'s slot. `metatable` is where the stack holds the context metatable.
#[inline]
pub(crate) fn push(stack: &mut Stack<'_>, request_key: RequestKey, metatable: c_int) -> CurrentContext {
    // One block holds the object and all its numbered places, so keeping something there never makes it grow.
    stack.push_table(cached::LAST as usize, 0);
    let ctx = stack.top();
    stack.set_number(ctx, cached::SLOT, f64::from(request_key.slot));
    stack.set_number(ctx, cached::SERIAL, request_key.serial as f64);
    stack.push_copy(metatable);
    stack.set_metatable(ctx);
    CurrentContext { context: stack.identity(ctx), request_key }
}

/// Makes the context at `index` refer to another request: that of `request_key`.
pub(crate) fn transfer(stack: &mut Stack<'_>, index: c_int, request_key: RequestKey) {
    stack.set_number(index, cached::SLOT, f64::from(request_key.slot));
    stack.set_number(index, cached::SERIAL, request_key.serial as f64);
}

/// The request key of the context at index 1, where a method finds its receiver.
///
/// That is nearly always the context of the handler that runs, which is known without a look into the object: five
/// calls of Lua's C interface less for each method.
#[inline]
pub(crate) fn request_key(stack: &mut Stack<'_>, contexts: &Contexts, call: &str) -> Result<RequestKey, Raise> {
    match contexts.requests.current(stack.identity(1)) {
        Some(request_key) => Ok(request_key),
        None => request_key_within(stack, call),
    }
}

#[cold]
fn request_key_within(stack: &mut Stack<'_>, call: &str) -> Result<RequestKey, Raise> {
    if stack.kind(1) != Kind::Table {
        return Err(not_a_context(call));
    }
    stack.push_item(1, cached::SLOT);
    stack.push_item(1, cached::SERIAL);
    let top = stack.top();
    let (slot, serial) = (stack.number(top - 1), stack.number(top));
    stack.pop(2);
    if serial == 0.0 {
        // Serial numbers begin with 1: this table is no context.
        return Err(not_a_context(call));
    }
    Ok(RequestKey { slot: slot as u32, serial: serial as u64 })
}

#[cold]
fn not_a_context(call: &str) -> Raise {
    Raise::mistake(format!("call it with a colon: ctx:{call}"))
}

/// Builds the context metatable and everything that it needs. Leaves nothing on any stack.
pub(crate) fn install(
    lua: &Lua,
    requests: Rc<Requests>,
    vocabulary: Rc<Vocabulary>,
    bodies: Rc<Bodies>,
    body_meta: &mlua::Table,
) -> mlua::Result<Installed> {
    let headers_meta: mlua::Table = lua.load(include_str!("headers.lua")).set_name("=rover/headers").eval()?;
    let contexts = Rc::new(Contexts {
        requests,
        vocabulary,
        bodies,
        header_names: HeaderNames::default(),
        shapes: OnceCell::new(),
        headers_meta: anchor(lua, &headers_meta)?,
    });
    let shared = Shared::new(lua, contexts.clone())?;
    body::install(lua, &shared, body_meta)?;

    let methods = lua.create_table()?;
    methods.raw_set("header", shared.function(lua, lookup::header)?)?;
    methods.raw_set("headers", shared.function(lua, lookup::headers)?)?;
    methods.raw_set("query", shared.function(lua, query::query)?)?;
    methods.raw_set("queries", shared.function(lua, query::queries)?)?;
    methods.raw_set("cookie", shared.function(lua, cookies::cookie)?)?;
    methods.raw_set("cookies", shared.function(lua, cookies::cookies)?)?;
    methods.raw_set("body", shared.function(lua, body::body)?)?;
    methods.raw_set("json", shared.function(lua, body::json)?)?;
    methods.raw_set("request_id", shared.function(lua, fields::request_id)?)?;
    methods.raw_set("client_certificate", shared.function(lua, certificate::client_certificate)?)?;
    methods.raw_set("trace_id", shared.function(lua, trace::function)?)?;
    let field = shared.function(lua, fields::field)?;
    let metatable: mlua::Table = lua.load(include_str!("context.lua")).set_name("=rover/context").call((
        &methods,
        field,
        shared.function(lua, params::values)?,
        shared.function(lua, params::names)?,
        mistake_function(lua)?,
    ))?;
    Ok(Installed { metatable, methods, contexts, shared })
}

/// What [`install`] leaves behind.
pub(crate) struct Installed {
    /// The metatable of every context.
    pub(crate) metatable: mlua::Table,
    /// The methods of a context; more may be added.
    pub(crate) methods: mlua::Table,
    pub(crate) contexts: Rc<Contexts>,
    /// For further functions that need a request.
    pub(crate) shared: Shared<Contexts>,
}
