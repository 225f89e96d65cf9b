//! The functions that Rust lends to `dsl.lua`, `response.lua` and `chain.lua`.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use mlua::{Lua, Table, Value};
use rover_lua::{Kind, Raise, Returns, Shared, Stack, Waits, number_text_function, traceback};

use crate::exchange::context::{self, Contexts, Installed};
use crate::exchange::failure::{Failure, RaisedAnswer};
use crate::exchange::response::Responder;
use crate::message::header_names::MOST_FIELDS;
use crate::policy::rate_limit::RateLimits;
use crate::route::Verb;
use crate::script::vm::Vm;
use crate::spelling;

use super::declared::{self, Declared};
use super::draft::{self, Draft};

/// Everything that `response.lua` and `dsl.lua` need before there are responses.
///
/// `name` is what messages call the app's file.
pub(super) fn early(
    lua: &Lua,
    name: &str,
    installed: &Installed,
    declared: &Rc<RefCell<Declared>>,
    draft: &Rc<RefCell<Draft>>,
) -> mlua::Result<Table> {
    let native = lua.create_table()?;
    native.raw_set("name", name)?;
    native.raw_set("number_text", number_text_function(lua)?)?;
    native.raw_set("most_fields", MOST_FIELDS)?;
    native.raw_set("set_cookie", lua.create_function(context::set_cookie)?)?;
    native.raw_set("is_body", installed.shared.function(lua, context::is_body)?)?;
    native.raw_set("header_problem", installed.shared.function(lua, header_problem)?)?;
    native.raw_set(
        "reason",
        lua.create_function(|_, status: u16| {
            let status = StatusCode::from_u16(status).ok();
            Ok(status.and_then(|status| status.canonical_reason()).unwrap_or("Error"))
        })?,
    )?;
    native.raw_set("unknown_verb", lua.create_function(|_, (name, verb)| Ok(unknown_verb(name, verb)))?)?;
    let tell = Shared::new(lua, draft.clone())?;
    native.raw_set("route", tell.function(lua, draft::route)?)?;
    native.raw_set("limit", tell.function(lua, draft::limit)?)?;
    let reading = draft.clone();
    let key =
        lua.create_function(move |_, (key, value): (Value, Value)| Ok(draft::endpoint_key(&reading, &key, value)))?;
    native.raw_set("endpoint_key", key)?;
    let reading = draft.clone();
    native.raw_set("endpoint_end", lua.create_function(move |_, ()| Ok(draft::endpoint_end(&reading)))?)?;
    let reading = draft.clone();
    let belongs = move |_: &Lua, (number, route): (usize, usize)| {
        draft::endpoint_of(&reading, number, route);
        Ok(())
    };
    native.raw_set("endpoint_of", lua.create_function(belongs)?)?;
    let mounting = declared.clone();
    native.raw_set(
        "mount",
        lua.create_function(move |_, mount| {
            mounting.borrow_mut().mounts.push(declared::mount(mount));
            Ok(())
        })?,
    )?;
    let declared = declared.clone();
    native.raw_set(
        "configure",
        lua.create_function(move |_, (config, origin): (Table, String)| {
            let mut declared = declared.borrow_mut();
            declared.origin = origin;
            declared::config(&config, &mut declared);
            Ok(())
        })?,
    )?;
    Ok(native)
}

/// `header_problem(name, value, is_stream)`: why a response cannot carry this header, or nil. One that streams may say how
/// long it will be.
///
/// What could end the field line, or let an app frame the message by itself, is refused: RFC 9110, section 5.5 and
/// RFC 9112, section 6.
fn header_problem(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let problem = match stack.bytes(1).and_then(|name| contexts.header_names.get(name)) {
        None => Some(match stack.bytes(1) {
            Some(name) => format!("{:?} is not a header name", String::from_utf8_lossy(name)),
            None => format!("a header's name is a string, not {}", shown(stack, 1)),
        }),
        Some(name) if name == CONTENT_LENGTH && stack.boolean(3) => {
            let digits = stack.bytes(2).unwrap_or_default();
            let is_length = (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
            (!is_length).then(|| "the Content-Length of a stream is a whole number of bytes, below 10^15".to_owned())
        }
        Some(name) if name == CONTENT_LENGTH || name == TRANSFER_ENCODING => {
            Some(format!("the header {name} is set by Rover and cannot be changed"))
        }
        Some(name) => {
            let is_control = |&byte: &u8| (byte < 32 && byte != b'\t') || byte == 127;
            let value = stack.bytes(2).unwrap_or_default();
            value
                .iter()
                .any(is_control)
                .then(|| format!("the value of the header {name} has a control character in it"))
        }
    };
    match problem {
        Some(problem) => stack.push_bytes(problem.as_bytes()),
        None => stack.push_nil(),
    }
    Ok(1)
}

/// A wrong argument in a message: numbers as they are, everything else by its type.
fn shown(stack: &mut Stack<'_>, index: i32) -> String {
    match stack.kind(index) {
        Kind::Number => stack.number_text(index),
        Kind::Nil => "nil".to_owned(),
        kind => format!("a {}", kind.name()),
    }
}

/// The message for a function assigned to a field that is no verb.
fn unknown_verb(name: String, verb: String) -> String {
    let hint = match spelling::nearest(&verb, Verb::ALL.map(Verb::name)) {
        Some(known) => format!("did you mean '{known}'? "),
        None => String::new(),
    };
    let known = Verb::ALL.map(|verb| verb.name()).join(", ");
    format!("{name}: unknown verb '{verb}'; {hint}The verbs are {known}; for a path, write function {name}.get(ctx)")
}

/// What the functions of failing requests share.
struct Failing {
    contexts: Rc<Contexts>,
    responder: Rc<Responder>,
    lua: mlua::WeakLua,
    /// Answers show details of errors.
    debug: Cell<bool>,
    waits: Rc<Waits>,
}

/// Everything that `chain.lua` needs to survive a failing handler.
pub(super) fn failing(vm: &Vm) -> mlua::Result<()> {
    let (lua, native) = (&vm.lua, &vm.native);
    let failing = Rc::new(Failing {
        contexts: vm.contexts().clone(),
        responder: vm.responder.clone(),
        lua: lua.weak(),
        debug: Cell::default(),
        waits: vm.waits.clone(),
    });
    let shared = Shared::new(lua, failing.clone())?;
    vm.settling.add(move |config| failing.debug.set(config.debug));
    native.raw_set("failure", shared.function(lua, failure)?)?;
    native.raw_set("log_failure", shared.function(lua, log_failure)?)?;
    native.raw_set("default_answer", shared.function(lua, default_answer)?)?;
    let is_cancelling = shared.function(lua, |stack, failing| {
        stack.push_boolean(failing.waits.is_cancelling());
        Ok(1)
    })?;
    native.raw_set("is_cancelling", is_cancelling)?;
    native.raw_set("described", shared.function(lua, described)?)?;
    Ok(())
}

/// What limits share whose clients a function of the app names.
pub(super) struct Limiting {
    contexts: Rc<Contexts>,
    /// Known once the server starts.
    pub(super) limits: OnceCell<Arc<RateLimits>>,
}

/// Everything that `chain.lua` needs to count requests.
pub(super) fn limiting(vm: &Vm) -> mlua::Result<Rc<Limiting>> {
    let limiting = Rc::new(Limiting { contexts: vm.contexts().clone(), limits: OnceCell::new() });
    vm.native.raw_set("allow", Shared::new(&vm.lua, limiting.clone())?.function(&vm.lua, allow)?)?;
    Ok(limiting)
}

/// `allow(ctx, limit, key)`: whether the request may go on. The answer will tell of it.
fn allow(stack: &mut Stack<'_>, limiting: &Limiting) -> Returns {
    let request_key = context::request_key(stack, &limiting.contexts, "request_id()")?;
    let place = (stack.number(2) as usize).saturating_sub(1);
    let Some(key) = stack.bytes(3) else {
        let kind = stack.kind(3).name();
        return Err(Raise::mistake(format!("the function of a limit returns a string or nil, not a {kind}")));
    };
    let decision = limiting.limits.get().and_then(|limits| limits.check_key(place, key));
    if let Some(decision) = decision {
        let mut request = limiting.contexts.requests.get_mut(request_key)?;
        decision.write(request.told.get_or_insert_default());
    }
    stack.push_boolean(!decision.is_some_and(|decision| decision.is_refusal()));
    Ok(1)
}

/// `failure(err)`, called where the error was raised: `{ err, traceback… }`.
fn failure(stack: &mut Stack<'_>, _: &Failing) -> Returns {
    let frames = traceback(stack, 1);
    stack.push_table(2, 0);
    let table = stack.top();
    stack.push_copy(1);
    stack.set_item(table, 1);
    for (n, frame) in (2..).zip(&frames) {
        stack.push_table(3, 0);
        let entry = stack.top();
        stack.push_bytes(frame.file.as_bytes());
        stack.set_item(entry, 1);
        stack.push_number(f64::from(frame.line));
        stack.set_item(entry, 2);
        if let Some(function) = &frame.function {
            stack.push_bytes(function.as_bytes());
            stack.set_item(entry, 3);
        }
        stack.set_item(table, n);
    }
    Ok(1)
}

/// Reads back the table that [`failure`] made, at index 2; at index 3 is the place of the route that failed.
fn read(stack: &mut Stack<'_>, failing: &Failing) -> Option<Failure> {
    if stack.kind(2) != Kind::Table {
        return None;
    }
    let mut frames = Vec::new();
    for n in 2.. {
        stack.push_item(2, n);
        let entry = stack.top();
        if stack.kind(entry) != Kind::Table {
            stack.pop(1);
            break;
        }
        for part in 1..=3 {
            stack.push_item(entry, part);
        }
        let text = |index| stack.bytes(index).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        frames.push(rover_lua::Frame {
            file: text(entry + 1).unwrap_or_default(),
            line: stack.number(entry + 2) as u32,
            function: text(entry + 3),
        });
        stack.truncate(entry - 1);
    }
    stack.push_item(2, 1);
    let index = stack.top();
    let lua = failing.lua.try_upgrade()?;
    let failure = Failure::read(stack, index, &lua, &failing.contexts, &failing.responder, frames);
    Some(failure.placed(&String::from_utf8_lossy(stack.bytes(3).unwrap_or_default())))
}

/// `log_failure(ctx, failed, place)`: whether there was something to log, rather than an error that is an answer.
fn log_failure(stack: &mut Stack<'_>, failing: &Failing) -> Returns {
    let request_key = context::request_key(stack, &failing.contexts, "request_id()")?;
    if let Some(failure) = read(stack, failing) {
        let mut request = failing.contexts.requests.get_mut(request_key)?;
        let id = request.id().clone();
        failure.log(request.head.method.as_str(), request.head.uri.path(), &id);
        stack.push_boolean(failure.asked.is_none());
        return Ok(1);
    }
    Ok(0)
}

/// `described(nil, failed, place)`: message and traceback as text.
fn described(stack: &mut Stack<'_>, failing: &Failing) -> Returns {
    let text = read(stack, failing).map(|failure| failure.described());
    stack.push_bytes(text.unwrap_or_else(|| "the Lua stack is full".to_owned()).as_bytes());
    Ok(1)
}

/// `default_answer(ctx, failed, place)`: what to respond with, as a value that a handler might have returned.
fn default_answer(stack: &mut Stack<'_>, failing: &Failing) -> Returns {
    let request_key = context::request_key(stack, &failing.contexts, "request_id()")?;
    let failure = read(stack, failing);
    let asked = failure.as_ref().and_then(|failure| failure.asked.as_ref());
    if let Some(RaisedAnswer::Response(_)) = asked {
        stack.push_item(2, 1);
        return Ok(1);
    }
    let id = failing.contexts.requests.get_mut(request_key)?.id().clone();
    let status = match asked {
        Some(RaisedAnswer::Table(status, _)) => *status,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    stack.push_table(3, 0);
    let response = stack.top();
    stack.push_number(1.0);
    stack.set_item(response, 1);
    stack.push_number(f64::from(status.as_u16()));
    stack.set_item(response, 2);
    if asked.is_some() {
        stack.push_item(2, 1);
    } else {
        stack.push_table(0, 4);
        let body = stack.top();
        let mut field = |name: &[u8], value: &[u8]| {
            stack.push_bytes(name);
            stack.push_bytes(value);
            stack.set_field(body);
        };
        field(b"error", b"Internal Server Error");
        field(b"request_id", id.as_bytes());
        if let Some(failure) = failure.filter(|_| failing.debug.get()) {
            field(b"message", failure.message.as_bytes());
            field(b"traceback", failure.trace().as_bytes());
        }
    }
    stack.set_item(response, 3);
    stack.push_anchored(failing.responder.anchor);
    stack.set_metatable(response);
    Ok(1)
}
