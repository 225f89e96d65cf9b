//! A Lua value as Rust sees it: its kind and its content in one look.
//!
//! Comes in: a place on the [`Stack`](super::Stack). Goes out: a [`Value`] that borrows from there, or a reference that keeps a
//! table alive ([`anchor`]). Like the stack, it runs no metamethods.

use std::ffi::c_int;

use mlua::ffi;

use super::Kind;

/// What stands at an index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'s> {
    /// Nothing at that index, or nil.
    Nil,
    /// `true` or `false`.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// The bytes of a string.
    String(&'s [u8]),
    /// A table, which is read through its place on the stack.
    Table,
    /// A kind without content of its own.
    Other(Kind),
}

/// Keeps a table or function alive as long as its VM; [`Stack::push_anchored`](super::Stack::push_anchored) pushes it.
///
/// # Errors
/// When Lua is out of memory.
pub fn anchor(lua: &mlua::Lua, value: impl mlua::IntoLua) -> mlua::Result<c_int> {
    let mut anchor = 0;
    // SAFETY: the value is the only argument, and is popped by `luaL_ref`.
    unsafe {
        lua.exec_raw::<()>(value, |l| {
            anchor = ffi::luaL_ref(l, ffi::LUA_REGISTRYINDEX);
        })?;
    }
    Ok(anchor)
}
