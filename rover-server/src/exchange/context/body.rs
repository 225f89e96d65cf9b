//! Shows the request body to Lua: `ctx:body()`, `ctx:json()` and the Body object.

use std::rc::Rc;

use bytes::Bytes;
use http::HeaderMap;
use mlua::{Lua, Table};
use rover_lua::json::{self, Gone, Texts};
use rover_lua::{OwnedMeta, Raise, Returns, Shared, Stack};

use super::lookup::{keep, push_cached};
use super::request::{RequestKey, Requests};
use super::unread::is_late;
use super::{Contexts, cached, request_key};

/// Makes and reads Body objects. A Body owns nothing: its bytes belong to the request and are freed with it, however
/// long Lua keeps the object.
pub(crate) struct Bodies {
    meta: OwnedMeta<RequestKey>,
    requests: Rc<Requests>,
}

impl Bodies {
    /// Body objects with the metatable `meta`, for the bodies of `requests`.
    ///
    /// # Errors
    /// Memory errors of mlua.
    pub(crate) fn new(lua: &Lua, meta: &Table, requests: &Rc<Requests>) -> mlua::Result<Bodies> {
        let bodies = Bodies { meta: OwnedMeta::new(lua, meta)?, requests: requests.clone() };
        meta.raw_set("__name", "body")?;
        Ok(bodies)
    }

    /// The bytes of the Body at `index`, as long as its request lasts; `None` for another value.
    pub(crate) fn get(&self, stack: &mut Stack<'_>, index: i32) -> Option<Result<Bytes, Gone>> {
        let request_key = *self.meta.get(stack, index)?;
        Some(self.requests.body(request_key).ok_or(Gone))
    }
}

impl Texts for Bodies {
    fn text(&self, stack: &mut Stack<'_>, index: i32) -> Option<Result<Bytes, Gone>> {
        self.get(stack, index)
    }
}

/// Gives the metatable of Body objects its methods.
pub(super) fn install(lua: &Lua, shared: &Shared<Contexts>, meta: &Table) -> mlua::Result<()> {
    let methods = lua.create_table()?;
    let text = shared.function(lua, text)?;
    methods.raw_set("json", shared.function(lua, body_json)?)?;
    methods.raw_set("text", &text)?;
    methods.raw_set("as_string", &text)?;
    methods.raw_set("bytes", shared.function(lua, bytes)?)?;
    meta.raw_set("__index", methods)?;
    meta.raw_set("__tostring", text)?;
    meta.raw_set("__len", shared.function(lua, length)?)?;
    Ok(())
}

/// `ctx:body()`. False if the body has yet to be waited for.
pub(super) fn body(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "body()")?;
    if push_cached(stack, cached::BODY) {
        return Ok(1);
    }
    let request = contexts.requests.get(request_key)?;
    if request.body.is_some() {
        drop(request);
        contexts.bodies.meta.push(stack, request_key);
        keep(stack, cached::BODY);
    } else if is_late(&request)? {
        stack.push_boolean(false);
    } else {
        stack.push_nil();
    }
    Ok(1)
}

/// `ctx:json()`: the decoded body, or an answer of 400 or 415. Nil if the body has yet to be waited for.
pub(super) fn json(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "json()")?;
    if push_cached(stack, cached::JSON) {
        return Ok(1);
    }
    let request = contexts.requests.get(request_key)?;
    let problem = if !is_json(&request.head.headers) {
        (415, "the request body must be application/json".to_owned())
    } else {
        match &request.body {
            None if is_late(&request)? => {
                stack.push_nil();
                return Ok(1);
            }
            None => (400, "the request has no body".to_owned()),
            Some(body) => match json::decode(stack, body, &contexts.vocabulary) {
                Ok(()) => {
                    keep(stack, cached::JSON);
                    return Ok(1);
                }
                Err(error) => (400, format!("the request body is not valid JSON: {error}")),
            },
        }
    };
    Err(raise_status(stack, problem.0, &problem.1))
}

/// Raises `{ status = …, error = … }`, which answers the request.
fn raise_status(stack: &mut Stack<'_>, status: u16, message: &str) -> Raise {
    stack.push_table(0, 2);
    let table = stack.top();
    stack.push_bytes(b"status");
    stack.push_number(f64::from(status));
    stack.set_field(table);
    stack.push_bytes(b"error");
    stack.push_bytes(message.as_bytes());
    stack.set_field(table);
    Raise::Value
}

/// Whether the body claims to be JSON (RFC 8259; RFC 6839 for `+json`), or makes no claim.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(http::header::CONTENT_TYPE) else { return true };
    let value = value.as_bytes();
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    let essence = value[..end].trim_ascii();
    let is = |ending: &[u8]| {
        essence.len() >= ending.len() && essence[essence.len() - ending.len()..].eq_ignore_ascii_case(ending)
    };
    essence.len() == b"application/json".len() && is(b"application/json") || is(b"+json")
}

/// The places in which a Body caches values, by number.
mod kept {
    pub(super) const JSON: i32 = 1;
    pub(super) const BYTES: i32 = 2;
}

fn receiver(stack: &mut Stack<'_>, contexts: &Contexts, method: &str) -> Result<Bytes, Raise> {
    match contexts.bodies.get(stack, 1) {
        Some(body) => body.map_err(|gone| Raise::mistake(format!("this is {gone}"))),
        None => Err(Raise::mistake(format!("call it with a colon: body:{method}()"))),
    }
}

/// `body:text()`, `body:as_string()` and `tostring(body)`.
fn text(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let body = receiver(stack, contexts, "text")?;
    stack.push_bytes(&body);
    Ok(1)
}

/// `#body`.
fn length(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let body = receiver(stack, contexts, "text")?;
    stack.push_number(body.len() as f64);
    Ok(1)
}

/// `body:bytes()`, the same table at every call.
fn bytes(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let body = receiver(stack, contexts, "bytes")?;
    if contexts.bodies.meta.push_kept(stack, 1, kept::BYTES) {
        return Ok(1);
    }
    contexts.vocabulary.push_array(stack, body.len());
    let table = stack.top();
    for (n, &byte) in (1..).zip(body.iter()) {
        stack.push_number(f64::from(byte));
        stack.set_item(table, n);
    }
    contexts.bodies.meta.keep(stack, 1, kept::BYTES);
    Ok(1)
}

/// `body:json()`: the value, the same at every call, or `nil, err`.
fn body_json(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let body = receiver(stack, contexts, "json")?;
    if contexts.bodies.meta.push_kept(stack, 1, kept::JSON) {
        return Ok(1);
    }
    match json::decode(stack, &body, &contexts.vocabulary) {
        Ok(()) => {
            contexts.bodies.meta.keep(stack, 1, kept::JSON);
            Ok(1)
        }
        Err(error) => {
            stack.push_nil();
            stack.push_bytes(error.to_string().as_bytes());
            Ok(2)
        }
    }
}

/// Whether the value at index 1 is a Body.
pub(crate) fn is_body(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let is = contexts.bodies.get(stack, 1).is_some();
    stack.push_boolean(is);
    Ok(1)
}
