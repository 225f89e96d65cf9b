//! Rust functions of an embedding program as Lua functions: what they raise is text with the caller's file and line,
//! as if Lua code had raised it.

use mlua::{FromLuaMulti, Function, IntoLuaMulti, Lua, Value};

use super::native::mistake_function;
use super::vm::plain_message;

/// Makes a Lua function of a Rust function that does not wait.
///
/// # Errors
/// Memory errors of mlua.
pub fn function<A, R, F>(lua: &Lua, function: F) -> mlua::Result<Function>
where
    A: FromLuaMulti,
    R: IntoLuaMulti,
    F: Fn(&Lua, A) -> mlua::Result<R> + 'static,
{
    let call = lua.create_function(function)?;
    lua.load(include_str!("function.lua")).set_name("=rover/function").call((call, plain(lua)?, mistake_function(lua)?))
}

/// The Lua function that turns an error of mlua into its text, and leaves other errors alone.
pub(super) fn plain(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|lua, error: Value| match &error {
        Value::Error(error) => lua.create_string(plain_message(error)).map(Value::String),
        _ => Ok(error),
    })
}
