//! Rover's own Lua files.

use mlua::{Function, Lua};

/// One of Rover's own Lua files.
pub(super) fn own(lua: &Lua, name: &str, code: &str) -> mlua::Result<Function> {
    lua.load(code).set_name(format!("=rover/{name}")).into_function()
}
