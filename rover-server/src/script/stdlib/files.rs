//! `rover.fs`: works with files without making the worker wait for a disk.
//!
//! Comes in: paths and options. Goes out: the result of the work on another thread, or `nil, err`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mlua::{Lua, Table};
use rover_lua::json::Vocabulary;
use rover_lua::{Name, Raise, Returns, Shared, Stack, Waits};

use super::blocking::off_thread;
use super::options::{are_options, as_text, bytes, flag};
use super::work::{self, Stat};
use crate::store::Stores;

/// The largest file that is read where nothing else is asked for, in bytes.
const USUAL_LIMIT: usize = 64 * 1024 * 1024;

struct FileFunctions {
    waits: Rc<Waits>,
    stores: Arc<Stores>,
    vocabulary: Rc<Vocabulary>,
}

/// The table of the functions.
pub(super) fn table(
    lua: &Lua,
    waits: &Rc<Waits>,
    stores: &Arc<Stores>,
    vocabulary: &Rc<Vocabulary>,
) -> mlua::Result<Table> {
    let functions = FileFunctions { waits: waits.clone(), stores: stores.clone(), vocabulary: vocabulary.clone() };
    let shared = Shared::new(lua, Rc::new(functions))?;
    let table = lua.create_table()?;
    table.raw_set("read", waits.waiting(lua, shared.function(lua, read)?)?)?;
    table.raw_set("write", waits.waiting(lua, shared.function(lua, write)?)?)?;
    table.raw_set("append", waits.waiting(lua, shared.function(lua, append)?)?)?;
    table.raw_set("stat", waits.waiting(lua, shared.function(lua, stat)?)?)?;
    table.raw_set("list", waits.waiting(lua, shared.function(lua, list)?)?)?;
    table.raw_set("remove", waits.waiting(lua, shared.function(lua, remove)?)?)?;
    table.raw_set("mkdir", waits.waiting(lua, shared.function(lua, mkdir)?)?)?;
    Ok(table)
}

/// Suspends the handler, does the work elsewhere, and pushes what it brings.
fn run<T: Send + 'static>(
    stack: &mut Stack<'_>,
    functions: &FileFunctions,
    call: &'static str,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
    push: fn(&mut Stack<'_>, T, &Vocabulary),
) -> Returns {
    let (stores, vocabulary) = (functions.stores.clone(), functions.vocabulary.clone());
    functions.waits.suspend(stack, Name::Own(call), async move {
        let done = off_thread(stores.files(), work).await;
        move |stack: &mut Stack<'_>| match done {
            Ok(value) => {
                push(stack, value, &vocabulary);
                Ok(1)
            }
            Err(message) => {
                stack.push_nil();
                stack.push_bytes(message.as_bytes());
                Ok(2)
            }
        }
    })
}

fn push_true(stack: &mut Stack<'_>, (): (), _: &Vocabulary) {
    stack.push_boolean(true);
}

/// The path at index 1.
fn path(stack: &Stack<'_>, call: &str) -> Result<PathBuf, Raise> {
    match stack.bytes(1) {
        Some(path) => Ok(PathBuf::from(OsStr::from_bytes(path))),
        None => Err(Raise::Mistake(format!("{call} expects a path as a string, not {}", stack.kind(1).name()))),
    }
}

/// The content at index 2: a string, a number as its text, or a request's body, which is shared.
fn content(stack: &mut Stack<'_>, functions: &FileFunctions, call: &str) -> Result<Bytes, Raise> {
    if let Some(body) = functions.vocabulary.text(stack, 2) {
        return body.map_err(|gone| Raise::Mistake(format!("{call}: the content is {gone}")));
    }
    match as_text(stack, 2) {
        Some(content) => Ok(content.into()),
        None => {
            let kind = stack.kind(2).name();
            Err(Raise::Mistake(format!("{call} expects a string, a number or a body to write, not {kind}")))
        }
    }
}

/// `read(path[, { limit }])` → the content.
fn read(stack: &mut Stack<'_>, functions: &FileFunctions) -> Returns {
    let call = "rover.fs.read";
    let path = path(stack, call)?;
    let limit = if are_options(stack, 2, call, &["limit"])? { bytes(stack, 2, "limit", call)? } else { None };
    let limit = limit.unwrap_or(USUAL_LIMIT);
    run(stack, functions, call, move || work::read(&path, limit), |stack, content, _| stack.push_bytes(&content))
}

/// `write(path, content[, { atomic }])` → true.
fn write(stack: &mut Stack<'_>, functions: &FileFunctions) -> Returns {
    let call = "rover.fs.write";
    let (path, content) = (path(stack, call)?, content(stack, functions, call)?);
    let atomic = are_options(stack, 3, call, &["atomic"])? && flag(stack, 3, "atomic", call)?;
    let work = move || if atomic { work::replace(&path, &content) } else { work::write(&path, &content) };
    run(stack, functions, call, work, push_true)
}

/// `append(path, content)` → true.
fn append(stack: &mut Stack<'_>, functions: &FileFunctions) -> Returns {
    let call = "rover.fs.append";
    let (path, content) = (path(stack, call)?, content(stack, functions, call)?);
    run(stack, functions, call, move || work::append(&path, &content), push_true)
}

/// `stat(path[, { link }])` → `{ type, size, modified, mode }`.
fn stat(stack: &mut Stack<'_>, functions: &FileFunctions) -> Returns {
    let call = "rover.fs.stat";
    let path = path(stack, call)?;
    let follow = !are_options(stack, 2, call, &["link"])? || !flag(stack, 2, "link", call)?;
    run(stack, functions, call, move || work::stat(&path, follow), push_stat)
}

fn push_stat(stack: &mut Stack<'_>, stat: Stat, _: &Vocabulary) {
    stack.push_table(0, 4);
    let table = stack.top();
    stack.push_bytes(b"type");
    stack.push_bytes(stat.kind.as_bytes());
    stack.set_field(table);
    for (name, value) in [("size", stat.size), ("modified", stat.modified), ("mode", stat.mode)] {
        stack.push_bytes(name.as_bytes());
        stack.push_number(value);
        stack.set_field(table);
    }
}

/// `list(path)` → an array of names.
fn list(stack: &mut Stack<'_>, functions: &FileFunctions) -> Returns {
    let call = "rover.fs.list";
    let path = path(stack, call)?;
    run(
        stack,
        functions,
        call,
        move || work::list(&path),
        |stack, names, vocabulary| {
            vocabulary.push_array(stack, names.len());
            let array = stack.top();
            for (n, name) in (1..).zip(names) {
                stack.push_bytes(&name);
                stack.set_item(array, n);
            }
        },
    )
}

/// `remove(path[, { recursive }])` → true.
fn remove(stack: &mut Stack<'_>, functions: &FileFunctions) -> Returns {
    let call = "rover.fs.remove";
    let path = path(stack, call)?;
    let recursive = are_options(stack, 2, call, &["recursive"])? && flag(stack, 2, "recursive", call)?;
    run(stack, functions, call, move || work::remove(&path, recursive), push_true)
}

/// `mkdir(path[, { parents }])` → true.
fn mkdir(stack: &mut Stack<'_>, functions: &FileFunctions) -> Returns {
    let call = "rover.fs.mkdir";
    let path = path(stack, call)?;
    let parents = are_options(stack, 2, call, &["parents"])? && flag(stack, 2, "parents", call)?;
    run(stack, functions, call, move || work::mkdir(&path, parents), push_true)
}
