//! A whole value in LuaJIT's serialization format by one call of its `string.buffer` library.
//!
//! The library walks tables from inside, where the C API looks each key up again to find the next one. The call itself
//! costs as much as a small table.
//!
//! Comes in: a value on a [`Stack`]. Goes out: bytes, which [`serialized`](super::serialized) reads.

use std::cell::Cell;
use std::ffi::c_int;

use mlua::ffi;

use super::Stack;
use super::value::anchor;

/// A buffer that has grown beyond this many bytes is not kept for the next value.
const KEPT_CAPACITY: usize = 1 << 20;

/// Writes values of one VM.
pub(crate) struct Serializer {
    write: c_int,
    free: c_int,
    /// Collecting garbage may call a finalizer, and that one may come here again.
    busy: Cell<bool>,
}

impl Serializer {
    /// A serializer that knows the metatable `tagged`, and no other.
    ///
    /// # Errors
    /// Memory errors of mlua, or no `string.buffer` in this VM.
    pub(crate) fn new(lua: &mlua::Lua, tagged: &mlua::Table) -> mlua::Result<Serializer> {
        let chunk = lua.load(include_str!("serializer.lua")).set_name("=rover/serializer");
        let (write, free): (mlua::Function, mlua::Function) = chunk.call(lua.create_sequence_from([tagged])?)?;
        Ok(Serializer { write: anchor(lua, write)?, free: anchor(lua, free)?, busy: Cell::default() })
    }

    /// What `work` makes of the serialized value at `index`; `None` for a value that cannot be serialized: one that holds
    /// a function, a thread, a userdata with an address, a cycle or more than 100 levels of tables.
    ///
    /// No metamethod is called.
    pub(crate) fn write<R>(&self, stack: &mut Stack<'_>, index: c_int, work: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if self.busy.get() || !stack.can_call() || !stack.reserve(3) {
            return None;
        }
        self.busy.set(true);
        let top = stack.top();
        stack.push_anchored(self.write);
        stack.push_copy(index);
        let mut result = None;
        if stack.call_protected(1, 2) {
            let length = stack.number(top + 2) as usize;
            // SAFETY: the first result is a `uint8_t *` as cdata, to whose content `lua_topointer` leads: the bytes of the
            // buffer, of which the second is the number. Nothing changes them while `busy` is set.
            let bytes = unsafe {
                let data = ffi::lua_topointer(stack.state(), top + 1).cast::<*const u8>();
                if length == 0 { &[] } else { std::slice::from_raw_parts(*data, length) }
            };
            result = Some(work(bytes));
            if length > KEPT_CAPACITY {
                stack.push_anchored(self.free);
                stack.call_protected(0, 0);
            }
        }
        stack.truncate(top);
        self.busy.set(false);
        result
    }
}
