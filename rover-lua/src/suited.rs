//! Whether the LuaJIT that this program was linked with is one that Rover can run with.
//!
//! This crate builds such a LuaJIT, but what is linked in the end is up to the program: it may replace the crate that the
//! source comes from, or link another library with the same symbols. Such a LuaJIT is told by what it does.

use std::cell::Cell;
use std::fmt;
use std::ptr::null_mut;
use std::sync::OnceLock;

use mlua::ffi::{self, lua_Debug, lua_State};
use mlua::{LightUserData, Lua, LuaOptions, StdLib};

use super::layout;

/// Why Rover cannot run with the LuaJIT that this program was linked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsuited {
    /// It keeps its values in a form that is unknown to Rover.
    Layout,
    /// Code that it has compiled does not look at the hook.
    CheckHook,
    /// It could not be tested, for this reason.
    Untested(String),
}

impl fmt::Display for Unsuited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this program was linked with a LuaJIT that Rover cannot run with: ")?;
        match self {
            Unsuited::Layout => f.write_str("it keeps its values in another form")?,
            Unsuited::CheckHook => f.write_str(
                "it was built without LUAJIT_ENABLE_CHECKHOOK, so a compiled loop that never ends could not be stopped",
            )?,
            Unsuited::Untested(why) => write!(f, "it does not run the test of it ({why})")?,
        }
        f.write_str(
            "; the crate rover-lua builds the right one: link no other, and do not replace the crate luajit-src",
        )
    }
}

impl std::error::Error for Unsuited {}

/// Whether Rover can run with the LuaJIT that this program was linked with. Tested once, in some hundred microseconds.
///
/// # Errors
/// Why it cannot.
pub fn suited() -> Result<(), Unsuited> {
    static SUITED: OnceLock<Result<(), Unsuited>> = OnceLock::new();
    SUITED.get_or_init(test).clone()
}

fn test() -> Result<(), Unsuited> {
    let untested = |error: mlua::Error| Unsuited::Untested(error.to_string());
    // SAFETY: the only code that this VM runs is the loop below.
    let lua = unsafe { Lua::unsafe_new_with(StdLib::FFI | StdLib::JIT, LuaOptions::new()) };
    if !layout::holds(&lua) {
        return Err(Unsuited::Layout);
    }
    let hooked_after = hooked_after(&lua).map_err(untested)?;
    if (HOOKED..ROUNDS).contains(&hooked_after) { Ok(()) } else { Err(Unsuited::CheckHook) }
}

/// How often the loop goes round: far more often than LuaJIT needs to compile it.
const ROUNDS: u32 = 1000;

/// In which of these rounds the hook is installed.
const HOOKED: u32 = 900;

/// The loop. What it calls, it calls from compiled code.
const LOOP: &str = "local tick = ffi.cast('void (*)(void)', (...)) for _ = 1, 1000 do tick() end";

thread_local! {
    /// The VM that is tested on this thread.
    static TESTED: Cell<*mut lua_State> = const { Cell::new(null_mut()) };
    /// How often its loop has gone round.
    static ROUND: Cell<u32> = const { Cell::new(0) };
    /// In which round the hook was called; 0 where it was not.
    static CALLED: Cell<u32> = const { Cell::new(0) };
}

/// Installs the hook as a signal's handler does, while the loop runs; and counts the rounds until then.
extern "C" fn tick() {
    let round = ROUND.get() + 1;
    ROUND.set(round);
    if round == HOOKED {
        // SAFETY: called by the VM that is tested, on its thread; `lua_sethook` may be called at any time.
        unsafe { ffi::lua_sethook(TESTED.get(), Some(hook), ffi::LUA_MASKCOUNT, 1) };
    }
}

unsafe extern "C-unwind" fn hook(state: *mut lua_State, _: *mut lua_Debug) {
    CALLED.set(ROUND.get());
    // SAFETY: LuaJIT hands in the VM whose hook this is.
    unsafe { ffi::lua_sethook(state, None, 0, 0) };
}

/// The round of a compiled loop in which the hook was called that [`tick`] installs; 0 where it was not.
fn hooked_after(lua: &Lua) -> mlua::Result<u32> {
    ROUND.set(0);
    CALLED.set(0);
    // SAFETY: only copies the pointer.
    unsafe { lua.exec_raw::<()>((), |state| TESTED.set(state))? };
    let ran = lua.load(LOOP).call::<()>(LightUserData(tick as extern "C" fn() as *mut _));
    TESTED.set(null_mut());
    ran.map(|()| CALLED.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_luajit_of_this_crate_suits_rover() {
        assert_eq!(suited(), Ok(()));
    }

    #[test]
    fn the_hook_is_called_in_the_round_that_installs_it() {
        // SAFETY: as above.
        let lua = unsafe { Lua::unsafe_new_with(StdLib::FFI | StdLib::JIT, LuaOptions::new()) };
        assert!(lua.load("return jit.status()").eval::<bool>().unwrap());
        assert_eq!(hooked_after(&lua).unwrap(), HOOKED);
        // Nothing is left behind that a second VM would trip over.
        assert_eq!(hooked_after(&lua).unwrap(), HOOKED);
    }

    #[test]
    fn the_error_says_what_is_missing_and_where_it_comes_from() {
        let text = Unsuited::CheckHook.to_string();
        assert!(text.contains("without LUAJIT_ENABLE_CHECKHOOK"), "{text}");
        assert!(text.contains("rover-lua builds the right one"), "{text}");
    }
}
