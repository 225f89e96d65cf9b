//! What Lua code waits for: the request's body, where it was not collected before its handler ran.
//!
//! The functions here say how it went; `unread.lua` makes answers of that. A body that cannot be had ends its connection,
//! for where the next request begins on it nobody knows.

use std::future::poll_fn;
use std::rc::Rc;

use http::header::{ACCEPT_ENCODING, CONNECTION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use mlua::{Function, Lua, Table};
use rover_lua::{Name, OwnedMeta, Raise, Returns, Shared, Stack, Waits};

use crate::message::decode;
use crate::message::unread::{Purpose, Unavailable, Unread};

use super::{Contexts, Installed, Request, RequestKey, Requests, request_key};

/// A body in pieces as Lua holds it; `None` where the request has none.
pub(super) struct BodyReader(Option<Rc<Unread>>, RequestKey);

/// What the functions of this file share.
struct ReaderFunctions {
    contexts: Rc<Contexts>,
    waits: Rc<Waits>,
    readers: OwnedMeta<BodyReader>,
}

/// Adds `ctx:reader()`, and lets `ctx:body()` and `ctx:json()` wait where a body `may_be_late`. `refusal` makes the response
/// of a status.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn install_late(
    lua: &Lua,
    installed: &Installed,
    waits: &Rc<Waits>,
    collect: &Function,
    refusal: Function,
    may_be_late: bool,
) -> mlua::Result<()> {
    let meta = lua.create_table()?;
    let readers = OwnedMeta::new(lua, &meta)?;
    let shared = Shared::new(
        lua,
        Rc::new(ReaderFunctions { contexts: installed.contexts.clone(), waits: waits.clone(), readers }),
    )?;
    let methods = &installed.methods;
    methods.raw_set("reader", shared.function(lua, reader)?)?;
    let read = waits.waiting(lua, shared.function(lua, read)?)?;
    let reader_methods: Table = lua.create_table()?;
    let code = lua.load(include_str!("unread.lua")).set_name("=rover/unread");
    code.call::<()>((methods, may_be_late, collect, refusal, (read, &reader_methods, &meta)))?;
    meta.raw_set("__index", reader_methods)?;
    meta.raw_set("__name", "reader")?;
    meta.raw_set("__metatable", false)
}

/// `collect(ctx)`, which waits for the body of the request, where it is to be collected: nothing, or the status to refuse
/// it with.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn collecting(lua: &Lua, installed: &Installed, waits: &Rc<Waits>) -> mlua::Result<Function> {
    let shared = Shared::new(lua, Rc::new((installed.contexts.clone(), waits.clone())))?;
    waits.waiting(lua, shared.function(lua, |stack, (contexts, waits)| collect(stack, contexts, waits))?)
}

fn collect(stack: &mut Stack<'_>, contexts: &Rc<Contexts>, waits: &Waits) -> Returns {
    let request_key = request_key(stack, contexts, "body()")?;
    let unread = contexts.requests.get(request_key)?.unread.clone().filter(|unread| unread.is_to_collect());
    let Some(unread) = unread else {
        stack.push_boolean(true);
        return Ok(1);
    };
    let (requests, awaiting) = (contexts.requests.clone(), unread.awaited());
    waits.suspend(stack, Name::Own("ctx:body"), async move {
        let collected = poll_fn(|cx| awaiting.poll_collect(cx)).await;
        drop(awaiting);
        if let Ok(Some((body, is_coded))) = &collected
            && let Ok(mut request) = requests.get_mut(request_key)
        {
            request.collected(body.clone(), *is_coded);
        }
        let status = collected.err();
        move |stack: &mut Stack<'_>| push_refusal(stack, &requests, request_key, status)
    })
}

/// Pushes the status, and lets the answer end its connection.
fn push_refusal(
    stack: &mut Stack<'_>,
    requests: &Requests,
    request_key: RequestKey,
    status: Option<StatusCode>,
) -> Returns {
    let Some(status) = status else { return Ok(0) };
    if let Ok(mut request) = requests.get_mut(request_key) {
        let told = request.told.get_or_insert_default();
        told.insert(CONNECTION, HeaderValue::from_static("close"));
        match status {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                told.insert(ACCEPT_ENCODING, HeaderValue::from_static(decode::ACCEPTED));
            }
            // There is no room at the moment.
            StatusCode::SERVICE_UNAVAILABLE => {
                told.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
    }
    stack.push_number(f64::from(status.as_u16()));
    Ok(1)
}

/// Whether the body is still to be waited for, where there is none yet.
///
/// # Errors
/// It was sent, but nobody will collect it: says what to do.
#[cold]
pub(super) fn is_late(request: &Request) -> Result<bool, Raise> {
    let Some(unread) = &request.unread else { return Ok(false) };
    let method = &request.head.method;
    Err(Raise::Mistake(match (unread.purpose(), unread.gone()) {
        (Purpose::Collect, None) => return Ok(true),
        (Purpose::Collect, Some(Unavailable::Over)) => return Ok(false),
        (_, Some(Unavailable::Passed)) => "the body of this request has been passed on by ctx:proxy".to_owned(),
        (Purpose::Read, _) => {
            "the route has stream_body = true, so its body comes in pieces: read them with ctx:reader()".to_owned()
        }
        (Purpose::Pass, _) => "the route is a proxy's, which passes the body on unread: to read the body, write a \
                               handler that calls ctx:proxy"
            .to_owned(),
        _ => format!(
            "the body of this {method} request was not collected, as only those of POST, PUT and PATCH are by \
             themselves: declare its route as a table, {{ body = true, function(ctx) … end }}, or pass the body on with \
             ctx:proxy"
        ),
    }))
}

/// `ctx:reader()`.
fn reader(stack: &mut Stack<'_>, shared: &ReaderFunctions) -> Returns {
    let request_key = request_key(stack, &shared.contexts, "reader()")?;
    let request = shared.contexts.requests.get(request_key)?;
    let unread = match &request.unread {
        Some(unread) if unread.purpose() == Purpose::Read && unread.gone() != Some(Unavailable::Passed) => {
            Some(unread.clone())
        }
        None if request.body.is_none() => None,
        _ => {
            return Err(Raise::mistake(
                "ctx:reader() needs a route with stream_body = true: declare it as a table, \
                 { stream_body = true, body_size_limit = \"1GB\", function(ctx) … end }",
            ));
        }
    };
    drop(request);
    shared.readers.push(stack, BodyReader(unread, request_key));
    Ok(1)
}

/// `read(reader)` → a piece; nothing at the end; nil and the status that says why there is none.
fn read(stack: &mut Stack<'_>, shared: &ReaderFunctions) -> Returns {
    let Some(BodyReader(unread, request_key)) = shared.readers.get(stack, 1) else {
        return Err(Raise::mistake("call it with a colon: reader:read()"));
    };
    let request_key = *request_key;
    let Some(unread) = unread.clone() else {
        stack.push_boolean(true);
        return Ok(1);
    };
    if unread.is_awaited() {
        return Err(Raise::mistake("this body is being read already"));
    }
    let (requests, awaiting) = (shared.contexts.requests.clone(), unread.awaited());
    shared.waits.suspend(stack, Name::Own("reading the request's body"), async move {
        let piece = poll_fn(|cx| awaiting.poll_piece(cx)).await;
        drop(awaiting);
        move |stack: &mut Stack<'_>| match piece {
            Ok(Some(piece)) => {
                stack.push_bytes(&piece);
                Ok(1)
            }
            Ok(None) => Ok(0),
            Err(status) => {
                stack.push_nil();
                push_refusal(stack, &requests, request_key, Some(status)).map(|results| results + 1)
            }
        }
    })
}
