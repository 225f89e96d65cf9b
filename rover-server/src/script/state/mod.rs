//! `rover.shared` and `rover.cache`: shows the state that all workers share to Lua.
//!
//! Comes in: Lua values, which are copied into plain data. Goes out: copies of that data. `store` keeps it. This module
//! must not know of requests.

mod cache;
mod data;
mod read;
mod shared;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, Table};
use rover_lua::{Kind, Raise, Returns, Stack, seconds};

use crate::script::vm::Vm;

/// The longest name of a dictionary or cache, in bytes.
const LONGEST_NAME: usize = 128;

/// The longest key, in bytes.
const LONGEST_KEY: usize = 64 * 1024;

/// Adds `shared` and `cache` to `rover`.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn install(vm: &Vm) -> mlua::Result<()> {
    let Vm { lua, rover, tasks, vocabulary, stores, .. } = vm;
    shared::install(lua, rover, vocabulary, stores)?;
    cache::install(lua, rover, tasks, vocabulary, stores)
}

/// Something of the server's as one VM holds it: counted here, so that no call changes a count that other threads share.
struct Own<T: ?Sized>(Arc<T>);

impl<T: ?Sized> Deref for Own<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.0
    }
}

/// A table whose fields `index` makes when they are asked for.
fn named(lua: &Lua, index: mlua::Function, refuse: mlua::Function) -> mlua::Result<Table> {
    let meta = lua.create_table()?;
    meta.raw_set("__index", index)?;
    meta.raw_set("__newindex", refuse)?;
    let table = lua.create_table()?;
    table.set_metatable(Some(meta))?;
    Ok(table)
}

/// The name that a field of a [`named`] table is asked for by.
fn name<'s>(stack: &'s Stack<'_>, table: &str) -> Result<&'s [u8], Raise> {
    match stack.bytes(2) {
        Some(name) if (1..=LONGEST_NAME).contains(&name.len()) => Ok(name),
        Some(_) => Err(Raise::Mistake(format!("a name in {table} has 1 to {LONGEST_NAME} bytes"))),
        None => Err(Raise::Mistake(format!("{table} has names of type string, not {}", stack.kind(2).name()))),
    }
}

/// Keeps the value on top as the field that was asked for, so that it is made once; the value stays on top.
fn keep_field(stack: &mut Stack<'_>) {
    let value = stack.top();
    if stack.kind(1) == Kind::Table {
        stack.push_copy(2);
        stack.push_copy(value);
        stack.set_field(1);
    }
}

/// The key at index 2, which stands there as a string afterwards: a number as it is written.
fn key<'s>(stack: &'s mut Stack<'_>, call: &str) -> Result<&'s [u8], Raise> {
    if stack.kind(2) == Kind::Number {
        let text = stack.number_text(2);
        stack.push_bytes(text.as_bytes());
        stack.replace(2);
    }
    let kind = stack.kind(2);
    match stack.bytes(2) {
        Some(key) if key.len() > LONGEST_KEY => {
            Err(Raise::Mistake(format!("{call}: a key of {} bytes is too long, {LONGEST_KEY} is the most", key.len())))
        }
        Some(key) => Ok(key),
        None => Err(Raise::Mistake(format!("{call} expects a key as a string, not {}", kind.name()))),
    }
}

/// The time to live at `index`: none for nil and 0.
fn ttl(stack: &mut Stack<'_>, index: i32, call: &str) -> Result<Option<Duration>, Raise> {
    if stack.kind(index) == Kind::Nil {
        return Ok(None);
    }
    let time = seconds(stack, index, call)?;
    Ok((!time.is_zero()).then_some(time))
}

/// Answers `nil, message`.
fn fails(stack: &mut Stack<'_>, message: &str) -> Returns {
    stack.push_nil();
    stack.push_bytes(message.as_bytes());
    Ok(2)
}
