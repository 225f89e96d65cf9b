//! `rover.env.NAME`: the environment of the process, or nil.

use std::os::unix::ffi::{OsStrExt, OsStringExt};

use mlua::{Lua, Table};

/// A table that looks names up when they are asked for.
pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
    let meta = lua.create_table()?;
    meta.raw_set(
        "__index",
        lua.create_function(|lua, (_, name): (Table, mlua::Value)| {
            let Some(name) = name.as_string() else { return Ok(None) };
            let name = std::ffi::OsStr::from_bytes(&name.as_bytes()).to_owned();
            // The system cannot hold such names, and asking for them would panic.
            if name.is_empty() || name.as_bytes().iter().any(|&b| b == b'=' || b == 0) {
                return Ok(None);
            }
            std::env::var_os(name).map(|value| lua.create_string(value.into_vec())).transpose()
        })?,
    )?;
    meta.raw_set(
        "__newindex",
        lua.create_function(|_, (): ()| -> mlua::Result<()> { Err(mlua::Error::runtime("rover.env is read-only")) })?,
    )?;
    let table = lua.create_table()?;
    table.set_metatable(Some(meta))?;
    Ok(table)
}
