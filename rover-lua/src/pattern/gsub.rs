//! `string.gsub`.
//!
//! What replaces a match may be a function of the app's, which is called right here as LuaJIT's own function does it: it can
//! raise, and it cannot wait.

use std::ffi::c_int;

use mlua::ffi;

use super::buffer::Buffer;
use super::matcher::{Capture, Matcher};
use super::{argument, guarded, matcher, push_capture, push_captures, raise};
use crate::Stack;

/// Where the buffer keeps what it grows into.
const GROWN: c_int = 5;

pub(super) unsafe extern "C-unwind" fn string_gsub(l: *mut ffi::lua_State) -> isize {
    // SAFETY: called by Lua; nothing here is owned.
    unsafe {
        let (text, pattern) = (argument(l, 1), argument(l, 2));
        let most = match ffi::lua_type(l, 4) {
            ..=ffi::LUA_TNIL => i64::MAX,
            // As LuaJIT does: 64 bits, of which it takes the lower half.
            _ => i64::from(ffi::luaL_checknumber(l, 4) as i64 as i32),
        };
        let kind = ffi::lua_type(l, 3);
        if !matches!(kind, ffi::LUA_TNUMBER | ffi::LUA_TSTRING | ffi::LUA_TFUNCTION | ffi::LUA_TTABLE) {
            ffi::luaL_argerror(l, 3, c"string/function/table expected".as_ptr());
        }
        if kind == ffi::LUA_TNUMBER {
            argument(l, 3);
        }
        ffi::lua_settop(l, GROWN);
        let is_anchored = pattern.first() == Some(&b'^');
        let mut matcher = matcher(text, pattern);
        let mut buffer = Buffer::new(GROWN);
        let (mut place, mut copied, mut count) = (0, 0, 0_i64);
        while count < most {
            let found = match is_anchored {
                true => guarded(|| matcher.at(place).map(|end| end.map(|end| (place, end)))),
                false => guarded(|| matcher.from(place)),
            };
            let (start, end) = match found {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(problem) => raise(l, problem),
            };
            count += 1;
            buffer.append(l, &text[copied..start]);
            match kind {
                ffi::LUA_TFUNCTION | ffi::LUA_TTABLE => {
                    append_answer(l, &mut buffer, &matcher, text, (start, end), kind);
                }
                _ => append_template(l, &mut buffer, &matcher, text, (start, end)),
            }
            copied = end;
            place = end;
            if end == start {
                if start >= text.len() {
                    break;
                }
                place += 1;
            }
            if is_anchored {
                break;
            }
        }
        if count == 0 {
            ffi::lua_pushvalue(l, 1);
        } else {
            buffer.append(l, &text[copied..]);
            buffer.push(l);
        }
        ffi::lua_pushnumber(l, count as f64);
        2
    }
}

/// Appends the text at index 3 with captures in the places of `%1` and so on.
///
/// # Safety
/// As for [`raise`].
#[inline]
unsafe fn append_template(
    l: *mut ffi::lua_State,
    buffer: &mut Buffer,
    matcher: &Matcher<'_>,
    text: &[u8],
    (start, end): (usize, usize),
) {
    // SAFETY: the caller's promise; a string stands at index 3.
    unsafe {
        let template = argument(l, 3);
        let mut rest = template;
        while let Some(n) = memchr::memchr(b'%', rest) {
            buffer.append(l, &rest[..n]);
            // What follows the last byte is a zero, as for LuaJIT.
            let escaped = rest.get(n + 1).copied().unwrap_or(0);
            match escaped {
                b'0' => buffer.append(l, &text[start..end]),
                b'1'..=b'9' => match matcher.capture(usize::from(escaped - b'1'), start, end) {
                    Ok(Capture::Text(start, end)) => buffer.append(l, &text[start..end]),
                    Ok(Capture::Position(place)) => {
                        buffer.append(l, itoa::Buffer::new().format(place + 1).as_bytes());
                    }
                    Err(problem) => raise(l, problem),
                },
                other => buffer.append(l, &[other]),
            }
            rest = rest.get(n + 2..).unwrap_or_default();
        }
        buffer.append(l, rest);
    }
}

/// Appends what the function or table at index 3 has for the match.
///
/// # Safety
/// As for [`raise`].
#[inline]
unsafe fn append_answer(
    l: *mut ffi::lua_State,
    buffer: &mut Buffer,
    matcher: &Matcher<'_>,
    text: &[u8],
    (start, end): (usize, usize),
    kind: c_int,
) {
    // SAFETY: the caller's promise; a function or table stands at index 3. What Lua raises passes frames that own nothing.
    unsafe {
        if kind == ffi::LUA_TFUNCTION {
            ffi::lua_pushvalue(l, 3);
            let count = push_captures(l, matcher, text, (start, end), true);
            ffi::lua_call(l, count as c_int, 1);
        } else {
            match matcher.capture(0, start, end) {
                Ok(capture) => push_capture(l, text, capture),
                Err(problem) => raise(l, problem),
            }
            ffi::lua_gettable_(l, 3);
        }
        let top = Stack::new(l).top();
        match ffi::lua_type(l, top) {
            ffi::LUA_TSTRING | ffi::LUA_TNUMBER => {
                let answer = argument(l, top);
                buffer.append(l, answer);
            }
            _ if ffi::lua_toboolean(l, top) == 0 => buffer.append(l, &text[start..end]),
            _ => wrong_answer(l, top),
        }
        ffi::lua_settop(l, GROWN);
    }
}

/// # Safety
/// As for [`raise`].
#[cold]
unsafe fn wrong_answer(l: *mut ffi::lua_State, index: c_int) -> ! {
    // SAFETY: the caller's promise; the name of a type is text of the VM's.
    unsafe {
        ffi::luaL_where(l, 1);
        ffi::lua_pushlstring_(l, c"invalid replacement value (a ".as_ptr(), 29);
        ffi::lua_pushstring_(l, ffi::luaL_typename(l, index));
        ffi::lua_pushlstring_(l, c")".as_ptr(), 1);
        ffi::lua_concat(l, 4);
        ffi::lua_error(l)
    }
}
