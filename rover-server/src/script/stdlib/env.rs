//! `rover.env.NAME`: reads the environment of the process.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use mlua::{Lua, Table};
use rover_lua::{Raise, Returns, Shared, Stack};

/// A table that looks names up when they are asked for.
pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let shared = Shared::new(lua, Rc::new(()))?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", shared.function(lua, look_up)?)?;
    meta.raw_set(
        "__newindex",
        shared.function(lua, |_, ()| {
            Err(Raise::mistake("rover.env cannot be changed: it is the server's environment"))
        })?,
    )?;
    let table = lua.create_table()?;
    table.set_metatable(Some(meta))?;
    Ok(table)
}

/// `env[name]`.
fn look_up(stack: &mut Stack<'_>, (): &()) -> Returns {
    // The system cannot hold the other names, and asking for them would panic.
    let possible = |name: &&[u8]| !name.is_empty() && !name.iter().any(|&b| b == b'=' || b == 0);
    match stack.bytes(2).filter(possible).and_then(|name| std::env::var_os(OsStr::from_bytes(name))) {
        Some(value) => stack.push_bytes(value.as_bytes()),
        None => stack.push_nil(),
    }
    Ok(1)
}
