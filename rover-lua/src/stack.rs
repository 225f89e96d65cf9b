//! The Lua stack as a Rust value: indices in, borrowed bytes and plain values out.
//!
//! Reading borrows the stack and pushing needs it mutably, so bytes of a Lua string cannot outlive their place on
//! the stack.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;

use mlua::ffi;

use super::layout::{self, Slot};
use super::{Kind, Value};

/// The stack of one coroutine.
///
/// Indices are positive and count from 1, as in C; an index above [`top`](Stack::top) reads as nil.
pub struct Stack<'lua> {
    state: *mut ffi::lua_State,
    lua: PhantomData<&'lua ()>,
}

impl<'lua> Stack<'lua> {
    /// Wraps the stack of `state`.
    ///
    /// # Safety
    /// `state` must be a live coroutine (or main thread) for as long as the result is used.
    pub(super) unsafe fn new(state: *mut ffi::lua_State) -> Stack<'lua> {
        Stack { state, lua: PhantomData }
    }

    pub(super) fn state(&self) -> *mut ffi::lua_State {
        self.state
    }

    /// The number of values, which is the index of the topmost.
    #[inline]
    pub fn top(&self) -> c_int {
        // SAFETY: the state is alive.
        unsafe { layout::top(self.state) }
    }

    /// Drops values above `index`.
    #[inline]
    pub fn truncate(&mut self, index: c_int) {
        debug_assert!(index >= 0 && index <= self.top());
        // SAFETY: the index is in range.
        unsafe { layout::truncate(self.state, index) }
    }

    /// Drops the `n` topmost values.
    #[inline]
    pub fn pop(&mut self, n: c_int) {
        debug_assert!(n >= 0 && n <= self.top());
        // SAFETY: there are at least `n` values.
        unsafe { layout::truncate(self.state, self.top() - n) }
    }

    /// Makes room for `n` more values; false when the stack would pass LuaJIT's limit.
    #[inline]
    pub fn reserve(&mut self, n: c_int) -> bool {
        // SAFETY: grows the stack or reports that it cannot.
        unsafe { ffi::lua_checkstack(self.state, n) != 0 }
    }

    /// The type of the value at `index`.
    #[inline]
    pub fn kind(&self, index: c_int) -> Kind {
        debug_assert!(index > 0);
        self.slot(index).kind()
    }

    #[inline(always)]
    pub(super) fn slot(&self, index: c_int) -> Slot {
        // SAFETY: the state is alive, and any positive index may be asked for.
        unsafe { layout::get(self.state, index) }
    }

    /// The number at `index`; 0 for anything that is not a number.
    #[inline]
    pub fn number(&self, index: c_int) -> f64 {
        debug_assert!(index > 0);
        self.slot(index).number()
    }

    /// The number at `index` as `tostring` shows it; an integer in full as far as each has a double of its own.
    pub fn number_text(&mut self, index: c_int) -> String {
        /// 2^53.
        const LAST_EXACT: u64 = 1 << 53;
        let number = self.number(index);
        let integer = number as i64;
        if (integer as f64).to_bits() == number.to_bits() && integer.unsigned_abs() <= LAST_EXACT {
            return integer.to_string();
        }
        self.push_number(number);
        // SAFETY: converts the copy on top in place, and reads it before it is dropped.
        let text = unsafe {
            let mut len = 0;
            let data = ffi::lua_tolstring(self.state, -1, &mut len);
            String::from_utf8_lossy(std::slice::from_raw_parts(data.cast(), len)).into_owned()
        };
        self.pop(1);
        text
    }

    /// Whether the value at `index` is neither nil nor false.
    #[inline]
    pub fn boolean(&self, index: c_int) -> bool {
        debug_assert!(index > 0);
        self.slot(index).is_true()
    }

    /// The bytes of the string at `index`, or `None` for any other type: numbers are not converted.
    #[inline]
    pub fn bytes(&self, index: c_int) -> Option<&[u8]> {
        debug_assert!(index > 0);
        // SAFETY: the bytes live as long as the value stays on the stack; popping it needs `&mut self`.
        unsafe { self.slot(index).bytes() }
    }

    /// The value at `index`: its kind and its content in one look.
    #[inline(always)]
    pub fn value(&self, index: c_int) -> Value<'_> {
        debug_assert!(index > 0);
        let slot = self.slot(index);
        match slot.kind() {
            // SAFETY: as for `bytes`.
            Kind::String => Value::String(unsafe { slot.bytes() }.unwrap_or_default()),
            Kind::Number => Value::Number(slot.number()),
            Kind::Table => Value::Table,
            Kind::Boolean => Value::Boolean(slot.is_true()),
            Kind::Nil => Value::Nil,
            other => Value::Other(other),
        }
    }

    /// The pointer of the light userdata at `index` is null, which is how `rover.null` is told.
    #[inline]
    pub fn is_null(&self, index: c_int) -> bool {
        // SAFETY: any positive index may be asked for.
        self.kind(index) == Kind::LightUserdata && unsafe { ffi::lua_touserdata(self.state, index).is_null() }
    }

    /// The integer of 64 bits that stands at `index` as an FFI object; `None` for another kind.
    pub fn wide_integer(&self, index: c_int) -> Option<i128> {
        // SAFETY: what stands on the stack is alive.
        unsafe { self.slot(index).wide_integer() }
    }

    /// Pushes the metatable of the value at `index`; false, and nothing pushed, where it has none.
    pub fn push_metatable(&mut self, index: c_int) -> bool {
        // SAFETY: rule 2; any positive index may be asked for.
        unsafe { ffi::lua_getmetatable(self.state, index) != 0 }
    }

    /// Whether the values at both places are the same one.
    pub fn is_same(&self, one: c_int, other: c_int) -> bool {
        self.slot(one) == self.slot(other)
    }

    /// The identity of the table, function, thread or userdata at `index`; null for other types.
    #[inline]
    pub fn identity(&self, index: c_int) -> *const c_void {
        let identity = self.slot(index).table_identity();
        if !identity.is_null() {
            return identity;
        }
        // SAFETY: any positive index may be asked for.
        unsafe { ffi::lua_topointer(self.state, index) }
    }

    /// The identity of the metatable of the value at `index`; null where there is none.
    #[inline]
    pub fn metatable_identity(&self, index: c_int) -> *const c_void {
        // SAFETY: what stands on the stack is alive.
        unsafe { self.slot(index).metatable_identity() }
    }

    /// The border of the table at `index` (`#t` without metamethods), or the length of the string there.
    #[inline]
    pub fn raw_len(&self, index: c_int) -> usize {
        // SAFETY: any positive index may be asked for.
        unsafe { ffi::lua_objlen(self.state, index) }
    }

    /// Pushes nil.
    #[inline]
    pub fn push_nil(&mut self) {
        // SAFETY: rule 2, as for every push below.
        unsafe {
            if !layout::push(self.state, layout::nil()) {
                ffi::lua_pushnil(self.state);
            }
        }
    }

    /// Pushes `true` or `false`.
    #[inline]
    pub fn push_boolean(&mut self, value: bool) {
        // SAFETY: rule 2.
        unsafe { ffi::lua_pushboolean(self.state, c_int::from(value)) }
    }

    /// Pushes a number.
    #[inline]
    pub fn push_number(&mut self, value: f64) {
        // SAFETY: rule 2.
        unsafe {
            if !layout::push(self.state, layout::number(value)) {
                ffi::lua_pushnumber(self.state, value);
            }
        }
    }

    /// Pushes a string.
    #[inline]
    pub fn push_bytes(&mut self, value: &[u8]) {
        // SAFETY: rule 2; Lua copies the bytes.
        unsafe { ffi::lua_pushlstring_(self.state, value.as_ptr().cast(), value.len()) }
    }

    /// Pushes a light userdata.
    #[inline]
    pub(super) fn push_light(&mut self, pointer: *const c_void) {
        // SAFETY: rule 2; the pointer is never followed.
        unsafe { ffi::lua_pushlightuserdata(self.state, pointer.cast_mut()) }
    }

    /// Pushes copies of the values `first..=last` of this stack onto `target`, of the same VM; false where there is no
    /// room for them.
    pub fn copy_to(&mut self, first: c_int, last: c_int, target: &mut Stack<'_>) -> bool {
        debug_assert!(self.state != target.state);
        let n = last - first + 1;
        if n <= 0 {
            return true;
        }
        if !self.reserve(n) || !target.reserve(n) {
            return false;
        }
        for index in first..=last {
            self.push_copy(index);
        }
        // SAFETY: both belong to one VM, this one holds the copies, and the target has room.
        unsafe { ffi::lua_xmove(self.state, target.state, n) };
        true
    }

    /// Whether the running coroutine could be suspended: no C function stands between it and its resumer.
    pub(super) fn can_yield(&self) -> bool {
        // SAFETY: only looks at the state.
        unsafe { lua_isyieldable(self.state) != 0 }
    }

    /// Pushes `rover.null`.
    #[inline]
    pub fn push_null(&mut self) {
        // SAFETY: rule 2.
        unsafe { ffi::lua_pushlightuserdata(self.state, std::ptr::null_mut()) }
    }

    /// Pushes a new table with room for `array` items and `hash` other keys.
    #[inline]
    pub fn push_table(&mut self, array: usize, hash: usize) {
        const MOST: usize = 1 << 16;
        // SAFETY: rule 2. The sizes are hints, so capping them is free of consequence.
        unsafe { ffi::lua_createtable(self.state, array.min(MOST) as c_int, hash.min(MOST) as c_int) }
    }

    /// Pushes a copy of the value at `index`.
    #[inline]
    pub fn push_copy(&mut self, index: c_int) {
        debug_assert!(index > 0);
        // SAFETY: rule 2; the value stands on the stack.
        unsafe {
            if !layout::push(self.state, self.slot(index)) {
                ffi::lua_pushvalue(self.state, index);
            }
        }
    }

    /// Pops the topmost value into position `index`, which is overwritten.
    #[inline]
    pub fn replace(&mut self, index: c_int) {
        debug_assert!(index > 0 && index <= self.top());
        // SAFETY: both places exist.
        unsafe { ffi::lua_replace(self.state, index) }
    }

    /// Pushes `table[n]` without metamethods. The value at `table` must be a table.
    #[inline]
    pub fn push_item(&mut self, table: c_int, n: c_int) {
        debug_assert_eq!(self.kind(table), Kind::Table);
        // SAFETY: rule 2; the caller has seen that it is a table, which the stack keeps alive.
        unsafe {
            match usize::try_from(n).ok().and_then(|n| self.slot(table).array().get(n)) {
                Some(item) if layout::push(self.state, *item) => {}
                _ => ffi::lua_rawgeti_(self.state, table, n),
            }
        }
    }

    /// Pops a value into `table[n]` without metamethods. The value at `table` must be a table.
    #[inline]
    pub fn set_item(&mut self, table: c_int, n: c_int) {
        debug_assert_eq!(self.kind(table), Kind::Table);
        // SAFETY: the caller has seen that it is a table.
        unsafe { ffi::lua_rawseti_(self.state, table, n) }
    }

    /// Sets `table[n]` to a number without metamethods. The value at `table` must be a table.
    #[inline]
    pub fn set_number(&mut self, table: c_int, n: c_int, value: f64) {
        debug_assert_eq!(self.kind(table), Kind::Table);
        // SAFETY: the caller has seen that it is a table; nothing borrows from it, since `self` is borrowed mutably.
        if !unsafe { self.slot(table).set_number(n, value) } {
            self.push_number(value);
            self.set_item(table, n);
        }
    }

    /// Replaces the key on top by `table[key]`, without metamethods. The value at `table` must be a table.
    #[inline]
    pub fn get_field(&mut self, table: c_int) {
        debug_assert_eq!(self.kind(table), Kind::Table);
        // SAFETY: the caller has seen that it is a table, and pushed the key.
        unsafe { ffi::lua_rawget_(self.state, table) }
    }

    /// Pops a value and, below it, a key into the table at `table`, without metamethods. The key must be neither nil
    /// nor NaN.
    #[inline]
    pub fn set_field(&mut self, table: c_int) {
        debug_assert_eq!(self.kind(table), Kind::Table);
        // SAFETY: the caller has seen that it is a table, and pushed a valid key and a value.
        unsafe { ffi::lua_rawset(self.state, table) }
    }

    /// Replaces the key on top by the next key and its value, or pops it and answers false at the end of the table.
    ///
    /// Start with nil. The key must be the one that the last call gave, and the table unchanged since.
    #[inline]
    pub fn next(&mut self, table: c_int) -> bool {
        debug_assert_eq!(self.kind(table), Kind::Table);
        // SAFETY: rule 2; a key that came from the table is never invalid.
        unsafe { ffi::lua_next(self.state, table) != 0 }
    }

    /// Pops a table and makes it the metatable of the table or userdata at `index`.
    #[inline]
    pub fn set_metatable(&mut self, index: c_int) {
        debug_assert!(matches!(self.kind(index), Kind::Table | Kind::Userdata));
        // SAFETY: a table is on top.
        unsafe {
            ffi::lua_setmetatable(self.state, index);
        }
    }

    /// Pushes the value that [`anchor`](super::anchor) keeps under this number.
    #[inline]
    pub fn push_anchored(&mut self, anchor: c_int) {
        // SAFETY: rule 2; the registry is a table.
        unsafe { ffi::lua_rawgeti_(self.state, ffi::LUA_REGISTRYINDEX, anchor) }
    }

    /// Whether functions can be called on this stack: its coroutine neither waits nor has raised.
    #[inline]
    pub fn can_call(&self) -> bool {
        // SAFETY: reads one field of a live state.
        unsafe { ffi::lua_status(self.state) == ffi::LUA_OK }
    }

    /// Calls the function below the `args` topmost values, which become `results` results; after an error only its
    /// value is there, and the answer is false.
    #[inline]
    pub fn call_protected(&mut self, args: c_int, results: c_int) -> bool {
        debug_assert!(self.can_call() && args < self.top());
        // SAFETY: the function and its arguments are there, the results have room by rule 2, and errors end here.
        unsafe { ffi::lua_pcall(self.state, args, results, 0) == ffi::LUA_OK }
    }

    /// Pops a value and keeps it alive under the number that is returned, until that is [released](Stack::release).
    #[inline]
    pub fn pop_anchor(&mut self) -> c_int {
        // SAFETY: there is a value.
        unsafe { ffi::luaL_ref(self.state, ffi::LUA_REGISTRYINDEX) }
    }

    /// Lets go of what was kept under this number.
    #[inline]
    pub fn release(&mut self, anchor: c_int) {
        // SAFETY: the number came from `pop_anchor`, and is used no more.
        unsafe { ffi::luaL_unref(self.state, ffi::LUA_REGISTRYINDEX, anchor) }
    }
}

unsafe extern "C-unwind" {
    /// LuaJIT has it as Lua 5.3 does; mlua's list for LuaJIT leaves it out.
    fn lua_isyieldable(state: *mut ffi::lua_State) -> c_int;
}
