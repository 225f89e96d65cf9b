//! `string.find`, `match`, `gmatch` and `gsub` with Lua's own semantics, in place of LuaJIT's: these can be stopped.
//!
//! A pattern that backtracks may take longer than anybody waits, and LuaJIT's own functions have no instruction at which a
//! hook could end them. [`matcher`] counts its steps, and looks now and then at the mark that a watchdog's signal leaves;
//! then the error of the hook is raised right here. `pattern.lua` keeps LuaJIT's compiled way for searches without a
//! pattern.
//!
//! Comes in: a fresh VM. Goes out: the four functions in its library `string`, and `table.sort` and `table.insert` with
//! bounds. This module must not know of limits.
//!
//! Errors are those of LuaJIT, raised by LuaJIT. No frame here owns anything when Lua is called or an error is thrown: what
//! grows belongs to the VM ([`buffer`]).

mod buffer;
mod gsub;
mod matcher;
mod set;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU8, Ordering};

use mlua::ffi;

use self::matcher::{Capture, Matcher, Problem};
use super::{Stack, interrupt, layout, native, pulse};

/// What LuaJIT's compiler knows the iterators of `string.gmatch` by. Other functions in C it tells apart one by one, and would
/// compile every loop anew.
static ITERATOR: AtomicU8 = AtomicU8::new(1);

/// Where the VM's registry has LuaJIT's own functions by their names, behind those that have taken their places.
pub(super) const OWN: &str = "rover/own";

/// Puts the functions into the library of `lua`.
///
/// # Errors
/// When Lua is out of memory.
pub(super) fn install(lua: &mlua::Lua) -> mlua::Result<()> {
    let string: mlua::Table = lua.globals().get("string")?;
    let iterator: mlua::Function = string.get::<mlua::Function>("gmatch")?.call(("", ""))?;
    // SAFETY: LuaJIT's own iterator is the only value on the stack, and is read.
    let kind = unsafe {
        let mut kind = 1;
        lua.exec_raw::<()>(iterator, |l| {
            kind = layout::function_kind(l);
            ffi::lua_settop(l, 0);
        })?;
        kind
    };
    ITERATOR.store(kind, Ordering::Relaxed);
    string.raw_set("match", native::plain_function(lua, string_match)?)?;
    string.raw_set("gmatch", native::plain_function(lua, string_gmatch)?)?;
    string.raw_set("gsub", native::plain_function(lua, gsub::string_gsub)?)?;
    let find = native::plain_function(lua, string_find)?;
    let chunk = lua.load(include_str!("../pattern.lua")).set_name("=rover/pattern");
    lua.set_named_registry_value(OWN, chunk.call::<mlua::Table>(find)?)
}

impl Problem {
    fn text(self) -> &'static CStr {
        match self {
            Problem::EndsWithEscape => c"malformed pattern (ends with '%')",
            Problem::MissingBracket => c"malformed pattern (missing ']')",
            Problem::MissingFrontierBracket => c"missing '[' after '%f' in pattern",
            Problem::UnbalancedPattern => c"unbalanced pattern",
            Problem::InvalidCapture => c"invalid pattern capture",
            Problem::InvalidCaptureIndex => c"invalid capture index",
            Problem::TooManyCaptures => c"too many captures",
            Problem::UnfinishedCapture => c"unfinished capture",
            Problem::TooComplex => c"pattern too complex",
            Problem::Stopped => c"stopped",
            Problem::Internal => c"internal error in Rover (see the log)",
        }
    }
}

/// Raises `problem` as an error of the running C function.
///
/// # Safety
/// `l` is alive, and no frame up to the next protected call owns anything.
#[cold]
unsafe fn raise(l: *mut ffi::lua_State, problem: Problem) -> ! {
    // SAFETY: the caller's promise.
    unsafe {
        if problem == Problem::Stopped {
            interrupt::end_here(l);
        }
        raise_text(l, problem.text())
    }
}

/// # Safety
/// As for [`raise`].
#[cold]
unsafe fn raise_text(l: *mut ffi::lua_State, text: &CStr) -> ! {
    // SAFETY: the caller's promise; where the stack is full, that is the error.
    unsafe {
        ffi::luaL_checkstack_(l, 4, null_mut());
        ffi::luaL_where(l, 1);
        ffi::lua_pushlstring_(l, text.as_ptr(), text.count_bytes());
        ffi::lua_concat(l, 2);
        ffi::lua_error(l)
    }
}

/// Runs what owns nothing that Lua must not know of; a panic becomes a problem.
#[inline]
fn guarded<R>(work: impl FnOnce() -> Result<R, Problem>) -> Result<R, Problem> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Problem::Internal))
}

/// The argument at `index` as bytes, a number as its text; raises where it is neither.
///
/// # Safety
/// `l` is alive, as for [`raise`], and the argument stays where it is while the result is used.
#[inline]
unsafe fn argument<'s>(l: *mut ffi::lua_State, index: c_int) -> &'s [u8] {
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(bytes) = Stack::new(l).slot(index).bytes() {
            return bytes;
        }
        let mut length = 0;
        let data = ffi::luaL_checklstring(l, index, &raw mut length);
        std::slice::from_raw_parts(data.cast(), length)
    }
}

/// Where to begin in a text of `length` bytes, by the third argument; `None` beyond its end.
///
/// # Safety
/// As for [`argument`].
#[inline]
unsafe fn start(l: *mut ffi::lua_State, length: usize) -> Option<usize> {
    // SAFETY: the caller's promise.
    let start = unsafe { if ffi::lua_type(l, 3) <= ffi::LUA_TNIL { 1 } else { int(ffi::luaL_checknumber(l, 3)) } };
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let start = i64::from(start);
    let start = if start < 0 { (start + length).max(0) } else { (start - 1).max(0) };
    (start <= length).then_some(start as usize)
}

/// A number as LuaJIT takes it for one of C's `int`s.
fn int(number: f64) -> i32 {
    let is_in = number > -2_147_483_649.0 && number < 2_147_483_648.0;
    if is_in || cfg!(not(target_arch = "x86_64")) { number as i32 } else { i32::MIN }
}

/// Pushes the captures of a match, or where `whole` says so and there are none, all of it.
///
/// # Safety
/// As for [`raise`]; `text` is alive.
#[inline]
unsafe fn push_captures(
    l: *mut ffi::lua_State,
    matcher: &Matcher<'_>,
    text: &[u8],
    (start, end): (usize, usize),
    whole: bool,
) -> isize {
    let count = if whole { matcher.captures().max(1) } else { matcher.captures() };
    // SAFETY: the caller's promise; room is asked for.
    unsafe {
        if count > 8 {
            ffi::luaL_checkstack_(l, count as c_int, c"too many captures".as_ptr());
        }
        for n in 0..count {
            match matcher.capture(n, start, end) {
                Ok(capture) => push_capture(l, text, capture),
                Err(problem) => raise(l, problem),
            }
        }
    }
    count as isize
}

/// # Safety
/// As for [`push_captures`].
#[inline]
unsafe fn push_capture(l: *mut ffi::lua_State, text: &[u8], capture: Capture) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut stack = Stack::new(l);
        match capture {
            Capture::Position(place) => stack.push_number((place + 1) as f64),
            Capture::Text(start, end) => stack.push_bytes(text.get(start..end).unwrap_or_default()),
        }
    }
}

/// `string.find` for patterns and for what is too long to be searched for by LuaJIT's own.
unsafe extern "C-unwind" fn string_find(l: *mut ffi::lua_State) -> isize {
    // SAFETY: called by Lua; nothing here is owned.
    unsafe {
        let (text, pattern) = (argument(l, 1), argument(l, 2));
        let Some(from) = start(l, text.len()) else {
            ffi::lua_pushnil(l);
            return 1;
        };
        if ffi::lua_toboolean(l, 4) != 0 || !has_specials(pattern) {
            let Some(n) = memchr::memmem::find(&text[from..], pattern) else {
                ffi::lua_pushnil(l);
                return 1;
            };
            let mut stack = Stack::new(l);
            stack.push_number((from + n + 1) as f64);
            stack.push_number((from + n + pattern.len()) as f64);
            return 2;
        }
        let mut matcher = matcher(text, pattern);
        match search(&mut matcher, pattern, from) {
            Ok(Some((start, end))) => {
                let mut stack = Stack::new(l);
                stack.push_number((start + 1) as f64);
                stack.push_number(end as f64);
                2 + push_captures(l, &matcher, text, (start, end), false)
            }
            Ok(None) => {
                ffi::lua_pushnil(l);
                1
            }
            Err(problem) => raise(l, problem),
        }
    }
}

unsafe extern "C-unwind" fn string_match(l: *mut ffi::lua_State) -> isize {
    // SAFETY: called by Lua; nothing here is owned.
    unsafe {
        let (text, pattern) = (argument(l, 1), argument(l, 2));
        if let Some(from) = start(l, text.len()) {
            let mut matcher = matcher(text, pattern);
            match search(&mut matcher, pattern, from) {
                Ok(Some(place)) => return push_captures(l, &matcher, text, place, true),
                Ok(None) => {}
                Err(problem) => raise(l, problem),
            }
        }
        ffi::lua_pushnil(l);
        1
    }
}

/// The iterator has the text, the pattern and the place of the next match as its upvalues.
unsafe extern "C-unwind" fn string_gmatch(l: *mut ffi::lua_State) -> isize {
    // SAFETY: called by Lua; nothing here is owned.
    unsafe {
        argument(l, 1);
        argument(l, 2);
        ffi::lua_settop(l, 2);
        ffi::lua_pushnumber(l, 0.0);
        native::push_plain(l, gmatch_next, 3);
        layout::set_function_kind(l, ITERATOR.load(Ordering::Relaxed));
        1
    }
}

unsafe extern "C-unwind" fn gmatch_next(l: *mut ffi::lua_State) -> isize {
    // SAFETY: called by Lua with the upvalues that `string_gmatch` gave; nothing here is owned.
    unsafe {
        let upvalue = |n| {
            let mut length = 0;
            let data = ffi::lua_tolstring(l, ffi::lua_upvalueindex(n), &raw mut length);
            std::slice::from_raw_parts(data.cast::<u8>(), length)
        };
        let (text, pattern) = (upvalue(1), upvalue(2));
        let from = ffi::lua_tonumber(l, ffi::lua_upvalueindex(3)) as usize;
        if from > text.len() {
            return 0;
        }
        let mut matcher = Matcher::new(text, pattern, pulse::is_condemned);
        match guarded(|| matcher.from(from)) {
            Ok(Some((start, end))) => {
                let next = if end == start { end + 1 } else { end };
                ffi::lua_pushnumber(l, next as f64);
                ffi::lua_replace(l, ffi::lua_upvalueindex(3));
                push_captures(l, &matcher, text, (start, end), true)
            }
            Ok(None) => 0,
            Err(problem) => raise(l, problem),
        }
    }
}

/// A matcher for `pattern`, whose `^` is for [`search`].
#[inline]
fn matcher<'s>(text: &'s [u8], pattern: &'s [u8]) -> Matcher<'s> {
    Matcher::new(text, pattern.strip_prefix(b"^").unwrap_or(pattern), pulse::is_condemned)
}

#[inline]
fn search(matcher: &mut Matcher<'_>, pattern: &[u8], from: usize) -> Result<Option<(usize, usize)>, Problem> {
    let is_anchored = pattern.first() == Some(&b'^');
    guarded(|| match is_anchored {
        true => matcher.at(from).map(|end| end.map(|end| (from, end))),
        false => matcher.from(from),
    })
}

/// Whether `pattern` is more than the bytes that are looked for.
fn has_specials(pattern: &[u8]) -> bool {
    pattern.iter().any(|byte| b"^$*+?.([%-".contains(byte))
}
