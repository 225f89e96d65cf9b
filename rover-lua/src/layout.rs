//! Where LuaJIT keeps what the stack holds, so that reading a value costs a load instead of a call.
//!
//! A request reads some dozens of values off the Lua stack, and each costs 25 to 60 instructions through the C
//! interface, most of them spent on finding the slot. The layout below is that of `lj_obj.h` with 64-bit references
//! (`LJ_GC64`), which every 64-bit target of the bundled LuaJIT uses. [`holds`] compares it with what the C interface
//! says when a VM is made, so a LuaJIT that differs is found before it serves anything.
//!
//! Only what needs no barrier of the garbage collector is written: the stack, and numbers in the array part of tables.
//! This module must not know what the values mean.

use std::ffi::{c_int, c_void};

use mlua::ffi::lua_State;

use super::Kind;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("Rover needs a 64-bit target: it knows LuaJIT's values in their 64-bit form only");

/// Offsets in bytes.
mod offset {
    pub(super) const STATE_GLOBAL: usize = 16;
    pub(super) const STATE_BASE: usize = 32;
    pub(super) const STATE_TOP: usize = 40;
    pub(super) const STATE_LIMIT: usize = 48;
    pub(super) const STRING_LENGTH: usize = 20;
    pub(super) const STRING_DATA: usize = 24;
    pub(super) const TABLE_ARRAY: usize = 16;
    pub(super) const TABLE_PAIRS: usize = 40;
    pub(super) const TABLE_ARRAY_SIZE: usize = 48;
    /// The number of places for pairs, less 1.
    pub(super) const TABLE_PAIRS_MASK: usize = 52;
    /// The same in a userdata.
    pub(super) const METATABLE: usize = 32;
    pub(super) const USERDATA_DATA: usize = 48;
    pub(super) const CLOSURE_UPVALUES: usize = 48;
    /// Tells Lua's own functions apart from C functions. A coroutine, which stands for the function at the bottom of its
    /// stack, has the same value there as a C function.
    pub(super) const FUNCTION_KIND: usize = 10;
    /// The number of the type of an FFI object.
    pub(super) const CDATA_TYPE: usize = 10;
    pub(super) const CDATA_DATA: usize = 16;
}

/// The numbers of the types `int64_t` and `uint64_t`, as LuaJIT's FFI counts them.
const INT64: u16 = 11;
const UINT64: u16 = 12;

/// A value as LuaJIT stores it: a double, or a tag above 47 bits of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Slot(u64);

/// A place for a key and its value; free while the value is nil.
#[repr(C)]
pub(super) struct Pair {
    pub(super) value: Slot,
    pub(super) key: Slot,
    next: *const Pair,
}

const NIL: Slot = Slot(u64::MAX);

/// The one form in which LuaJIT knows what is no number.
const NAN: u64 = 0xfff8 << 48;

impl Slot {
    /// The complement of the tag; above 13 for doubles.
    #[inline(always)]
    fn tag(self) -> u32 {
        !((self.0.cast_signed() >> 47) as u32)
    }

    #[inline(always)]
    pub(super) fn kind(self) -> Kind {
        match self.tag() {
            0 => Kind::Nil,
            1 | 2 => Kind::Boolean,
            3 => Kind::LightUserdata,
            4 => Kind::String,
            6 => Kind::Thread,
            8 => Kind::Function,
            10 => Kind::Cdata,
            11 => Kind::Table,
            12 => Kind::Userdata,
            _ => Kind::Number,
        }
    }

    /// Whether the value is neither nil nor false.
    #[inline(always)]
    pub(super) fn is_true(self) -> bool {
        self.tag() > 1
    }

    /// The number; 0 for another kind.
    #[inline(always)]
    pub(super) fn number(self) -> f64 {
        match self.tag() {
            // Where LuaJIT has integers too, they are in the lower half.
            13 => f64::from(self.0 as u32 as i32),
            0..13 => 0.0,
            _ => f64::from_bits(self.0),
        }
    }

    /// The address of what a string, table, function, thread, userdata or cdata refers to.
    #[inline(always)]
    fn object(self) -> *const u8 {
        std::ptr::with_exposed_provenance((self.0 & ((1 << 47) - 1)) as usize)
    }

    /// The bytes of the string, or `None` for another kind.
    ///
    /// # Safety
    /// The value is alive for `'s`.
    #[inline(always)]
    pub(super) unsafe fn bytes<'s>(self) -> Option<&'s [u8]> {
        if self.tag() != 4 {
            return None;
        }
        // SAFETY: a string's bytes follow its head, which tells how many they are.
        unsafe {
            let length = self.object().add(offset::STRING_LENGTH).cast::<u32>().read();
            Some(std::slice::from_raw_parts(self.object().add(offset::STRING_DATA), length as usize))
        }
    }

    /// The integer of 64 bits that an FFI object is, such as `1LL`; `None` for another kind.
    ///
    /// # Safety
    /// The value is alive.
    pub(super) unsafe fn wide_integer(self) -> Option<i128> {
        if self.tag() != 10 {
            return None;
        }
        // SAFETY: the number of the type tells what follows.
        unsafe {
            let data = self.object().add(offset::CDATA_DATA);
            match self.object().add(offset::CDATA_TYPE).cast::<u16>().read() {
                INT64 => Some(data.cast::<i64>().read().into()),
                UINT64 => Some(data.cast::<u64>().read().into()),
                _ => None,
            }
        }
    }

    /// The address that tells this table from every other; null for another kind.
    #[inline(always)]
    pub(super) fn table_identity(self) -> *const c_void {
        if self.tag() == 11 { self.object().cast() } else { std::ptr::null() }
    }

    /// The identity of the value's metatable, if it is a table or userdata that has one; else null.
    ///
    /// # Safety
    /// The value is alive.
    #[inline(always)]
    pub(super) unsafe fn metatable_identity(self) -> *const c_void {
        if !matches!(self.tag(), 11 | 12) {
            return std::ptr::null();
        }
        // SAFETY: both kinds keep their metatable there.
        unsafe { self.object().add(offset::METATABLE).cast::<*const c_void>().read() }
    }

    /// The array part of the table, which begins with the item 0.
    ///
    /// # Safety
    /// The value is a table, alive and unchanged for `'s`.
    #[inline(always)]
    pub(super) unsafe fn array<'s>(self) -> &'s [Slot] {
        debug_assert_eq!(self.tag(), 11);
        // SAFETY: the array part holds as many slots as the table says; where there are none, it may be null.
        unsafe {
            let size = self.object().add(offset::TABLE_ARRAY_SIZE).cast::<u32>().read();
            if size == 0 {
                return &[];
            }
            let array = self.object().add(offset::TABLE_ARRAY).cast::<*const Slot>().read();
            std::slice::from_raw_parts(array, size as usize)
        }
    }

    /// Writes a number into the array part of a table; false where it has no such place.
    ///
    /// # Safety
    /// The value is a table, and nobody looks at what it holds.
    #[inline(always)]
    pub(super) unsafe fn set_number(self, n: c_int, value: f64) -> bool {
        // SAFETY: numbers need no barrier of the garbage collector, and the place is there.
        unsafe {
            let Some(place) = usize::try_from(n).ok().filter(|&n| n < self.array().len()) else { return false };
            self.object().add(offset::TABLE_ARRAY).cast::<*mut Slot>().read().add(place).write(number(value));
        }
        true
    }

    /// The places of the table's hash part.
    ///
    /// # Safety
    /// The value is a table, alive and unchanged for `'s`.
    #[inline(always)]
    pub(super) unsafe fn pairs<'s>(self) -> &'s [Pair] {
        debug_assert_eq!(self.tag(), 11);
        // SAFETY: there is at least one place: a table without pairs shares one that is always free.
        unsafe {
            let mask = self.object().add(offset::TABLE_PAIRS_MASK).cast::<u32>().read();
            let pairs = self.object().add(offset::TABLE_PAIRS).cast::<*const Pair>().read();
            std::slice::from_raw_parts(pairs, mask as usize + 1)
        }
    }
}

/// # Safety
/// `state` is alive.
#[inline(always)]
unsafe fn field(state: *mut lua_State, offset: usize) -> *mut *mut Slot {
    // SAFETY: the field lies within the state.
    unsafe { state.byte_add(offset).cast() }
}

/// The value at `index`, counted from 1; nil above the top.
///
/// # Safety
/// `state` is alive, and `index` positive.
#[inline(always)]
pub(super) unsafe fn get(state: *mut lua_State, index: c_int) -> Slot {
    // SAFETY: everything between base and top is a value.
    unsafe {
        let place = field(state, offset::STATE_BASE).read().add(index as usize - 1);
        if place < field(state, offset::STATE_TOP).read() { place.read() } else { NIL }
    }
}

/// How many values the running function's part of the stack holds.
///
/// # Safety
/// `state` is alive.
#[inline(always)]
pub(super) unsafe fn top(state: *mut lua_State) -> c_int {
    // SAFETY: both point into the stack.
    unsafe {
        let (base, top) = (field(state, offset::STATE_BASE).read(), field(state, offset::STATE_TOP).read());
        top.offset_from(base) as c_int
    }
}

/// Drops the values above `index`.
///
/// # Safety
/// `state` is alive, and has as many values.
#[inline(always)]
pub(super) unsafe fn truncate(state: *mut lua_State, index: c_int) {
    // SAFETY: the place lies between base and top.
    unsafe {
        field(state, offset::STATE_TOP).write(field(state, offset::STATE_BASE).read().add(index as usize));
    }
}

/// Pushes a value; false, without having done so, when the stack has to grow first.
///
/// # Safety
/// `state` and the value are alive.
#[inline(always)]
pub(super) unsafe fn push(state: *mut lua_State, value: Slot) -> bool {
    // SAFETY: below its limit the stack has room.
    unsafe {
        let top = field(state, offset::STATE_TOP).read();
        if top.add(1) >= field(state, offset::STATE_LIMIT).read() {
            return false;
        }
        top.write(value);
        field(state, offset::STATE_TOP).write(top.add(1));
        true
    }
}

/// `value` as LuaJIT stores it.
#[inline(always)]
pub(super) fn number(value: f64) -> Slot {
    Slot(if value.is_nan() { NAN } else { value.to_bits() })
}

/// Nil as LuaJIT stores it.
#[inline(always)]
pub(super) fn nil() -> Slot {
    NIL
}

/// The content of the userdata that is the first upvalue of the running C function.
///
/// # Safety
/// Called within a C function whose first upvalue is a userdata.
#[inline(always)]
pub(super) unsafe fn upvalue_data(state: *mut lua_State) -> *const c_void {
    // SAFETY: two slots below the base stands the running function; its upvalues follow its head, and a userdata's
    // content follows its own.
    unsafe {
        let function = field(state, offset::STATE_BASE).read().sub(2).read();
        let upvalue = function.object().add(offset::CLOSURE_UPVALUES).cast::<Slot>().read();
        upvalue.object().add(offset::USERDATA_DATA).cast()
    }
}

/// What all coroutines of a VM share.
///
/// # Safety
/// `state` is alive.
#[inline(always)]
pub(super) unsafe fn global(state: *mut lua_State) -> *const c_void {
    // SAFETY: the field lies within the state.
    unsafe { state.byte_add(offset::STATE_GLOBAL).cast::<*const c_void>().read() }
}

/// Where the VM keeps which of its coroutines runs, from the start of its [`global`] part; `None` where that cannot be
/// told.
///
/// It lies behind structures that differ between builds, so it is looked for: the one place that names a coroutine while
/// that runs.
pub(super) fn current_offset(lua: &mlua::Lua) -> Option<usize> {
    use mlua::ffi;
    /// All of the global part, and no more than the VM's first block of memory.
    const WORDS: usize = 128;

    unsafe fn places(state: *mut lua_State) -> impl Iterator<Item = usize> {
        // SAFETY: the words belong to the VM's first block, of which the global part is the beginning.
        let word = move |n: usize| unsafe { global(state).cast::<*const lua_State>().add(n).read() };
        (0..WORDS).filter(move |&n| std::ptr::eq(word(n), state)).map(|n| n * size_of::<usize>())
    }

    unsafe extern "C-unwind" fn look(state: *mut lua_State) -> c_int {
        // SAFETY: called below, in a coroutine; the answer is a number on its stack.
        unsafe {
            let place = places(state).next();
            ffi::lua_pushnumber(state, place.map_or(-1.0, |place| place as f64));
        }
        1
    }

    let mut found = None;
    // SAFETY: makes a coroutine, runs `look` in it, and drops it.
    let ran = unsafe {
        lua.exec_raw::<()>((), |state| {
            let coroutine = ffi::lua_newthread(state);
            ffi::lua_pushcclosure(coroutine, look, 0);
            if ffi::lua_resume_(coroutine, 0) == ffi::LUA_OK {
                found = usize::try_from(ffi::lua_tonumber(coroutine, -1) as isize).ok();
            }
            ffi::lua_settop(state, -2);
        })
    };
    ran.ok().and(found)
}

/// Whether the function that runs in the VM of `state` is Lua code or of Lua's own library: not a C function of somebody
/// else's, Rust code among them.
///
/// # Safety
/// `state` is alive, the VM is running, and `current` is its [`current_offset`].
pub(super) unsafe fn runs_lua(state: *mut lua_State, current: usize) -> bool {
    // SAFETY: the coroutine that runs is alive, and so is the function two slots below its base.
    unsafe {
        let running = global(state).byte_add(current).cast::<*mut lua_State>().read();
        let function = field(running, offset::STATE_BASE).read().sub(2).read();
        function.object().add(offset::FUNCTION_KIND).read() != 1
    }
}

/// Which function of Lua's library the C function on top of the stack is, as LuaJIT's compiler knows it; 1 for those of others.
///
/// # Safety
/// `state` is alive, and a C function is on top.
pub(super) unsafe fn function_kind(state: *mut lua_State) -> u8 {
    // SAFETY: the caller's promise.
    unsafe { get(state, top(state)).object().add(offset::FUNCTION_KIND).read() }
}

/// Has LuaJIT's compiler take the C function on top of the stack for that one of Lua's library.
///
/// # Safety
/// `state` is alive, and a C function is on top that does what the other one does.
pub(super) unsafe fn set_function_kind(state: *mut lua_State, kind: u8) {
    // SAFETY: the caller's promise.
    unsafe { get(state, top(state)).object().cast_mut().add(offset::FUNCTION_KIND).write(kind) }
}

/// Whether the LuaJIT behind `lua` keeps its values as this module believes.
pub(super) fn holds(lua: &mlua::Lua) -> bool {
    let mut holds = false;
    // SAFETY: pushes a handful of values, and reads of each what the C interface says is there.
    let ran = unsafe { lua.exec_raw::<()>((), |state| holds = agrees(state)) };
    ran.is_ok() && holds
}

/// # Safety
/// `state` is alive and has room for twenty values.
unsafe fn agrees(state: *mut lua_State) -> bool {
    use mlua::ffi;

    unsafe extern "C-unwind" fn own_upvalue(state: *mut lua_State) -> c_int {
        // SAFETY: called below, with a userdata for its upvalue.
        unsafe {
            let same = upvalue_data(state) == ffi::lua_touserdata(state, ffi::lua_upvalueindex(1)).cast_const();
            ffi::lua_pushboolean(state, c_int::from(same));
        }
        1
    }

    // SAFETY: nothing is read through the layout before the fields it is found by have been compared.
    unsafe {
        let before = ffi::lua_gettop(state);
        if top(state) != before || get(state, before + 1).0 != NIL.0 {
            return false;
        }
        let text = c"layout";
        ffi::lua_pushnumber(state, -1.5);
        ffi::lua_pushinteger(state, 7);
        ffi::lua_pushboolean(state, 1);
        ffi::lua_pushstring_(state, text.as_ptr());
        ffi::lua_createtable(state, 3, 0);
        ffi::lua_pushnumber(state, 2.5);
        ffi::lua_rawseti_(state, -2, 2);
        ffi::lua_pushnumber(state, 0.0);
        ffi::lua_rawseti_(state, -2, 3);
        ffi::lua_createtable(state, 0, 0);
        ffi::lua_setmetatable(state, -2);
        ffi::lua_newuserdata(state, 16);
        ffi::lua_pushlightuserdata(state, std::ptr::null_mut());
        ffi::lua_pushthread(state);
        let first = before + 1;
        let kinds = (first..=ffi::lua_gettop(state)).map(|index| get(state, index).kind());
        let expected = [
            Kind::Number,
            Kind::Number,
            Kind::Boolean,
            Kind::String,
            Kind::Table,
            Kind::Userdata,
            Kind::LightUserdata,
            Kind::Thread,
        ];
        let mut same = kinds.eq(expected);
        same = same && get(state, first).number() == -1.5 && get(state, first + 1).number() == 7.0;
        same = same && get(state, first + 2).is_true() && !get(state, 100).is_true();
        same = same && get(state, first + 3).bytes() == Some(text.to_bytes());
        let table = first + 4;
        same = same && get(state, table).table_identity() == ffi::lua_topointer(state, table);
        same = same && get(state, table).array().len() == 4 && get(state, table).array()[2].number() == 2.5;
        same = same && get(state, table).pairs().iter().all(|pair| pair.value.kind() == Kind::Nil);
        if same {
            same = get(state, table).set_number(3, 4.5) && !get(state, table).set_number(4, 0.0);
            ffi::lua_rawgeti_(state, table, 3);
            same = same && ffi::lua_tonumber(state, -1) == 4.5;
            ffi::lua_settop(state, -2);
        }
        ffi::lua_pushvalue(state, first);
        ffi::lua_setfield(state, table, text.as_ptr());
        if same {
            let mut pairs = get(state, table).pairs().iter().filter(|pair| pair.value.kind() != Kind::Nil);
            let only = pairs.next().map(|pair| (pair.key.bytes(), pair.value.number()));
            same = only == Some((Some(text.to_bytes()), -1.5)) && pairs.next().is_none();
        }
        if same && ffi::lua_getmetatable(state, table) != 0 {
            same = get(state, table).metatable_identity() == ffi::lua_topointer(state, -1);
            same = same && get(state, table + 1).metatable_identity().is_null();
            ffi::lua_settop(state, -2);
        }
        let kind = |index| get(state, index).object().add(offset::FUNCTION_KIND).read();
        ffi::lua_pushcclosure(state, own_upvalue, 0);
        same = same && kind(ffi::lua_gettop(state)) == 1 && kind(first + 7) == 1;
        ffi::lua_settop(state, -2);
        if ffi::luaL_loadstring(state, c"return".as_ptr()) == ffi::LUA_OK {
            same = same && kind(ffi::lua_gettop(state)) == 0;
        }
        ffi::lua_settop(state, -2);
        if ffi::luaL_loadstring(state, c"return -7LL, 18446744073709551615ULL".as_ptr()) == ffi::LUA_OK {
            // Without `ffi` there are no such values.
            if ffi::lua_pcall(state, 0, 2, 0) == ffi::LUA_OK {
                let top = ffi::lua_gettop(state);
                same = same && get(state, top - 1).wide_integer() == Some(-7);
                same = same && get(state, top).wide_integer() == Some(u64::MAX.into());
            }
        }
        ffi::lua_settop(state, first + 7);
        if same {
            let pushed = push(state, number(f64::NAN)) && push(state, get(state, table));
            same = pushed && ffi::lua_type(state, -2) == ffi::LUA_TNUMBER && ffi::lua_rawequal(state, -1, table) == 1;
            truncate(state, ffi::lua_gettop(state) - 2);
            ffi::lua_pushvalue(state, table + 1);
            ffi::lua_pushcclosure(state, own_upvalue, 1);
            ffi::lua_call(state, 0, 1);
            same = same && ffi::lua_toboolean(state, -1) == 1;
        }
        ffi::lua_settop(state, before);
        same
    }
}
