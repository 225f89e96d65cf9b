//! The `rover` table: what an app may use anywhere.
//!
//! Comes in: a VM. Goes out: the global `rover`. None of these modules knows of a request.

mod env;
mod log;
mod time;

use std::cell::Cell;
use std::rc::Rc;

use mlua::{LightUserData, Lua, Table};

use crate::json::{self, Vocabulary};

/// Makes the global `rover` and gives it back, for others to add to it.
///
/// `worker` is the number of the worker that the VM belongs to, from 1; `workers` is how many there are, which may be
/// decided later.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn install(
    lua: &Lua,
    vocabulary: &Rc<Vocabulary>,
    array_meta: Table,
    worker: usize,
    workers: Rc<Cell<usize>>,
) -> mlua::Result<Table> {
    let rover = lua.create_table()?;
    rover.raw_set("version", env!("CARGO_PKG_VERSION"))?;
    rover.raw_set("null", LightUserData(std::ptr::null_mut()))?;
    rover.raw_set("json", json::functions(lua, vocabulary.clone())?)?;
    rover.raw_set("env", env::table(lua)?)?;
    rover.raw_set("log", log::install(lua, vocabulary)?)?;
    time::install(lua, &rover)?;
    let array = lua
        .load("local meta = ...\nreturn function(t)\n  if t == nil then t = {} end\n  if type(t) ~= 'table' then error('rover.array expects a table, got a ' .. type(t), 2) end\n  return setmetatable(t, meta)\nend")
        .set_name("=rover/array")
        .call::<mlua::Function>(array_meta)?;
    rover.raw_set("array", array)?;

    let worker_meta = lua.create_table()?;
    worker_meta.raw_set(
        "__index",
        lua.create_function(move |_, (_, key): (Table, String)| {
            Ok(match key.as_str() {
                "id" => Some(worker),
                "count" => Some(workers.get()),
                _ => None,
            })
        })?,
    )?;
    let worker = lua.create_table()?;
    worker.set_metatable(Some(worker_meta))?;
    rover.raw_set("worker", worker)?;
    lua.globals().raw_set("rover", &rover)?;
    Ok(rover)
}
