//! Which coroutines are Rover's own: those that no app may resume.

use std::ffi::c_int;

use super::anchor;

/// The registry reference of a table whose keys are the coroutines of Rover's.
#[derive(Clone, Copy, Debug)]
pub struct Marks(pub(super) c_int);

impl Marks {
    /// A table for `lua`, which keeps no coroutine alive; and the reference to it.
    ///
    /// # Errors
    /// Memory errors of mlua.
    pub(super) fn new(lua: &mlua::Lua) -> mlua::Result<(mlua::Table, Marks)> {
        let marks = lua.create_table()?;
        let weak = lua.create_table()?;
        weak.raw_set("__mode", "k")?;
        marks.set_metatable(Some(weak))?;
        let anchor = anchor(lua, &marks)?;
        Ok((marks, Marks(anchor)))
    }
}
