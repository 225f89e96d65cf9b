//! A Lua value as Rust sees it: its kind and its content in one look.
//!
//! Comes in: a place on the [`Stack`]. Goes out: a [`Value`] that borrows from there, or a reference that keeps a
//! table alive ([`anchor`]). Like the stack, it runs no metamethods.

use std::ffi::c_int;

use mlua::ffi;

use super::{Kind, Stack};

/// What stands at an index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'s> {
    /// Nothing at that index, or nil.
    Nil,
    Boolean(bool),
    Number(f64),
    String(&'s [u8]),
    Table,
    /// A kind without content of its own.
    Other(Kind),
}

impl Stack<'_> {
    /// The value at `index`; like [`Stack::kind`] and the getter for that kind, in two calls instead of three.
    #[inline]
    pub(crate) fn value(&self, index: c_int) -> Value<'_> {
        debug_assert!(index > 0);
        let state = self.state();
        // SAFETY: any positive index may be asked for. For a string `lua_tolstring` changes nothing and gives `len`
        // bytes that live as long as the value stays on the stack; popping it needs `&mut self`.
        unsafe {
            match ffi::lua_type(state, index) {
                ffi::LUA_TSTRING => {
                    let mut len = 0;
                    let data = ffi::lua_tolstring(state, index, &mut len);
                    Value::String(std::slice::from_raw_parts(data.cast(), len))
                }
                ffi::LUA_TNUMBER => Value::Number(ffi::lua_tonumber(state, index)),
                ffi::LUA_TTABLE => Value::Table,
                ffi::LUA_TBOOLEAN => Value::Boolean(ffi::lua_toboolean(state, index) != 0),
                ffi::LUA_TLIGHTUSERDATA => Value::Other(Kind::LightUserdata),
                ffi::LUA_TNIL | ffi::LUA_TNONE => Value::Nil,
                _ => Value::Other(self.kind(index)),
            }
        }
    }
}

/// Keeps a table or function alive as long as its VM; [`Stack::push_anchored`] pushes it.
///
/// # Errors
/// When Lua is out of memory.
pub(crate) fn anchor(lua: &mlua::Lua, value: impl mlua::IntoLua) -> mlua::Result<c_int> {
    let mut anchor = 0;
    // SAFETY: the value is the only argument, and is popped by `luaL_ref`.
    unsafe {
        lua.exec_raw::<()>(value, |l| {
            anchor = ffi::luaL_ref(l, ffi::LUA_REGISTRYINDEX);
        })?;
    }
    Ok(anchor)
}
