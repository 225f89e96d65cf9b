//! Where a coroutine stands: its call stack as data, without Rover's own frames.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;

use mlua::ffi;

use super::Stack;

/// Chunks whose names begin like this are Rover's own and are left out.
const OWN_CHUNK: &[u8] = b"=rover";

/// The deepest traceback that is kept, in frames.
const MOST_FRAMES: usize = 32;

/// One level of a call stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The file as it was named to Lua, e.g. `app.lua`.
    pub file: String,
    /// The line being run, counted from 1; 0 where LuaJIT has forgotten it, as it does for the function that an error of
    /// the language itself ended.
    pub line: u32,
    /// The function's name, where Lua knows one.
    pub function: Option<String>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        match &self.function {
            Some(name) => write!(f, ": in function '{name}'"),
            None => Ok(()),
        }
    }
}

impl Frame {
    /// Takes the line from `message` where it begins with this frame's file: `app.lua:12: …`.
    pub fn learn_line(&mut self, message: &str) {
        let rest = message.strip_prefix(self.file.as_str()).and_then(|rest| rest.strip_prefix(':'));
        let digits = rest.and_then(|rest| rest.split_once(':')).map(|(digits, _)| digits);
        if let Some(line) = digits.and_then(|digits| digits.parse().ok()).filter(|_| self.line == 0) {
            self.line = line;
        }
    }
}

/// The Lua functions that are active on `stack`, innermost first, from `level` on (0 is the running function).
///
/// C functions and Rover's own Lua code are left out.
pub fn traceback(stack: &Stack<'_>, level: c_int) -> Vec<Frame> {
    frames(stack, level, MOST_FRAMES)
}

/// The app's code that called the running native function, directly or through C functions and Rover's own Lua code.
#[cold]
pub fn caller(stack: &Stack<'_>) -> Option<Frame> {
    frames(stack, 1, 1).pop()
}

fn frames(stack: &Stack<'_>, mut level: c_int, most: usize) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    // Whether the level before was the app's: what it is called was said by the level that comes now.
    let mut is_called_here = false;
    // SAFETY: the record is filled by `lua_getstack` before `lua_getinfo` reads it; its strings live as long as the
    // function on the call stack, and are copied at once.
    unsafe {
        let mut record: ffi::lua_Debug = std::mem::zeroed();
        while ffi::lua_getstack(stack.state(), level, &mut record) != 0 {
            level += 1;
            let known = ffi::lua_getinfo(stack.state(), c"Sln".as_ptr(), &mut record) != 0;
            let is_own = !known || is_own(&record);
            if is_own
                && is_called_here
                && let Some(frame) = frames.last_mut()
            {
                // Rover's own variables tell the app's author nothing.
                frame.function = None;
            }
            is_called_here = !is_own;
            if is_own {
                continue;
            }
            if frames.len() == most {
                break;
            }
            frames.push(Frame {
                file: text(record.short_src.as_ptr()),
                line: u32::try_from(record.currentline).unwrap_or(0),
                function: (!record.name.is_null()).then(|| text(record.name)),
            });
        }
    }
    frames
}

/// The innermost C function around the running one through which nothing can be suspended, by the name that `known` has
/// for it, else the one that its caller has.
///
/// `Some(None)` where there is one without a name.
#[cold]
pub(super) fn outer_c_function(
    stack: &mut Stack<'_>,
    known: impl Fn(*const c_void) -> Option<String>,
) -> Option<Option<String>> {
    let mut unknown = None;
    let mut level = 1;
    // SAFETY: as in `frames`; the function that `f` pushes is popped again.
    unsafe {
        let mut record: ffi::lua_Debug = std::mem::zeroed();
        while ffi::lua_getstack(stack.state(), level, &mut record) != 0 {
            level += 1;
            if ffi::lua_getinfo(stack.state(), c"Snf".as_ptr(), &mut record) == 0 {
                continue;
            }
            let identity = stack.identity(stack.top());
            stack.pop(1);
            if text(record.what) != "C" {
                continue;
            }
            if let Some(name) = known(identity) {
                return Some(Some(name));
            }
            let name = (!record.name.is_null()).then(|| text(record.name));
            if unknown.is_none() && !matches!(name.as_deref(), Some("pcall" | "xpcall")) {
                unknown = Some(name);
            }
        }
    }
    unknown
}

/// What [`outer_c_function`] found, in words.
pub(super) fn frame_text(found: Option<Option<String>>) -> String {
    match found.flatten() {
        Some(name) => format!("a C function ({name})"),
        None => "a C function".to_owned(),
    }
}

/// Whether the function is written in C, or is Rover's own.
///
/// # Safety
/// `lua_getinfo` has filled the record with `S`.
pub(super) unsafe fn is_own(record: &ffi::lua_Debug) -> bool {
    // SAFETY: the caller's promise.
    unsafe { text(record.what) == "C" || text(record.source).as_bytes().starts_with(OWN_CHUNK) }
}

/// # Safety
/// `data` must be null or a C string.
pub(super) unsafe fn text(data: *const c_char) -> String {
    if data.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(data) }.to_string_lossy().into_owned()
}
