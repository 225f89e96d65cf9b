//! The `rover` table: what an app may use anywhere.
//!
//! Comes in: a VM. Goes out: the global `rover`. None of these modules knows of a request.

mod blocking;
mod env;
mod exec;
mod files;
mod json;
mod log;
mod options;
mod random;
mod sleep;
mod time;
mod work;

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Function, LightUserData, Lua, Table};
use rover_lua::{Raise, Shared, number_text_function};

use crate::runtime::resources;
use crate::script::vm::Vm;

/// Makes the table of `vm` the global `rover`, and fills it.
///
/// `workers` is how many there are as far as is known: the config decides it.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn install(vm: &Vm, workers: usize) -> mlua::Result<()> {
    let Vm { lua, rover, vocabulary, waits, stores, .. } = vm;
    rover.raw_set("version", env!("CARGO_PKG_VERSION"))?;
    rover.raw_set("null", LightUserData(std::ptr::null_mut()))?;
    rover.raw_set("json", json::functions(lua, vocabulary.clone())?)?;
    rover.raw_set("env", env::table(lua)?)?;
    let log = log::functions(lua, vocabulary)?;
    rover.raw_set("log", &log)?;
    time::install(lua, rover)?;
    random::install(lua, rover)?;
    sleep::install(lua, rover, waits)?;
    rover.raw_set("fs", files::table(lua, waits, stores, vocabulary)?)?;
    exec::install(lua, rover, waits, stores)?;
    let native = lua.create_table()?;
    native.raw_set("array", &vm.array_meta)?;
    native.raw_set("number_text", number_text_function(lua)?)?;
    native.raw_set("log", log.raw_get::<Function>("info")?)?;
    let (array, print): (Function, Function) =
        vm.file("stdlib", include_str!("stdlib.lua"))?.call((native, &vm.mistake))?;
    if let Some(most) = resources::lowered() {
        vm.file("shell", include_str!("shell.lua"))?.call::<()>(most as f64)?;
    }
    rover.raw_set("array", array)?;
    lua.globals().raw_set("print", print)?;
    let workers = Rc::new(Cell::new(workers));
    rover.raw_set("worker", worker_table(lua, vm.worker, workers.clone())?)?;
    vm.settling.add(move |config| workers.set(config.workers));
    lua.globals().raw_set("rover", rover)
}

/// `rover.worker`, whose `count` is known only once the app has loaded.
fn worker_table(lua: &Lua, worker: usize, workers: Rc<Cell<usize>>) -> mlua::Result<Table> {
    let shared = Shared::new(lua, Rc::new((worker, workers)))?;
    let meta = lua.create_table()?;
    meta.raw_set(
        "__index",
        shared.function(lua, |stack, (worker, workers)| {
            match stack.bytes(2) {
                Some(b"id") => stack.push_number(*worker as f64),
                Some(b"count") => stack.push_number(workers.get() as f64),
                _ => stack.push_nil(),
            }
            Ok(1)
        })?,
    )?;
    meta.raw_set("__newindex", shared.function(lua, |_, _| Err(Raise::mistake("rover.worker cannot be changed")))?)?;
    let table = lua.create_table()?;
    table.set_metatable(Some(meta))?;
    Ok(table)
}
