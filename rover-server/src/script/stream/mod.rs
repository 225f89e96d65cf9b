//! `api.stream` and `api.sse`: bodies that a Lua function makes piece by piece.
//!
//! Comes in: a producer. Goes out: a body, which calls the producer whenever the client has room for the next piece, and
//! cancels it when the client is gone. This module must not know of handlers or connections.

mod event;
mod producer;

use std::rc::{Rc, Weak};

use rover_lua::{Returns, Shared, Stack};

use crate::exchange::response::Responder;
use crate::script::tasks::{Held, Tasks, alive};
use crate::script::vm::Vm;

use producer::{Events, Producer};

struct Streams {
    tasks: Weak<Tasks>,
    responder: Rc<Responder>,
}

/// Adds the function behind the builders to `native`.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn install(vm: &Vm) -> mlua::Result<()> {
    let streams = Streams { tasks: Rc::downgrade(&vm.tasks), responder: vm.responder.clone() };
    vm.native.raw_set("stream", Shared::new(&vm.lua, Rc::new(streams))?.function(&vm.lua, stream)?)
}

/// `stream(producer, place, is_sse, retry)`: what a response of the kind STREAM holds. The arguments have been checked.
fn stream(stack: &mut Stack<'_>, streams: &Streams) -> Returns {
    let tasks = alive(&streams.tasks)?;
    let place = String::from_utf8_lossy(stack.bytes(2).unwrap_or_default()).into();
    let function = Held::copies(&tasks, stack, 1, 1)?;
    let events = stack.boolean(3).then(|| {
        let retry = stack.number(4);
        Events::new(&tasks, (retry > 0.0).then_some(retry as u64))
    });
    streams.responder.push_stream(stack, Box::pin(Producer::new(&tasks, function, place, events)));
    Ok(1)
}
