//! The VM itself, and the passages between mlua's values and Rover's stacks.

use std::ffi::c_int;

use mlua::ffi;

use super::Stack;

/// How fast garbage is collected, in percent of how fast it is made. LuaJIT begins with 200, whose steps are twice as
/// long: a light route beside handlers that make garbage then waits nearly twice as long at p99 (`tests/perf/gc`).
const GC_STEP_MULTIPLIER: c_int = 100;

/// A fresh VM with every standard library, `debug`, `ffi` and C modules among them.
///
/// # Panics
/// When this program was linked with a LuaJIT that Rover cannot run with, see [`suited`](crate::suited).
pub fn new_vm() -> mlua::Lua {
    use mlua::state::{GcIncParams, GcMode};
    use mlua::{Lua, LuaOptions, StdLib};

    let suited = super::suited();
    assert!(suited.is_ok(), "{suited:?}");
    // SAFETY: an app is its operator's own code, and may do through `ffi` whatever a C program may.
    // Without this option mlua replaces `pcall` by a C function of its own, which no coroutine could yield through.
    let lua = unsafe { Lua::unsafe_new_with(StdLib::NONE, LuaOptions::new().catch_rust_panics(true)) };
    super::interrupt::install();
    let _ = super::memory::install(&lua);
    let _ = lua.load_std_libs(StdLib::ALL);
    let _ = super::pattern::install(&lua);
    lua.gc_set_mode(GcMode::Incremental(GcIncParams::default().step_multiplier(GC_STEP_MULTIPLIER)));
    lua
}

/// Pushes mlua's `values` onto `stack`, which may be another coroutine's than mlua's own.
///
/// # Errors
/// Memory errors of mlua, or no room on the stack.
pub fn push_values(lua: &mlua::Lua, stack: &mut Stack<'_>, values: mlua::MultiValue) -> mlua::Result<()> {
    let n = c_int::try_from(values.len()).unwrap_or(c_int::MAX);
    if !stack.reserve(n) {
        return Err(mlua::Error::StackError);
    }
    let target = stack.state();
    // SAFETY: both states belong to `lua`; the values are the only ones in the frame, and the target has room.
    unsafe {
        lua.exec_raw::<()>(values, |state| {
            if state != target {
                ffi::lua_xmove(state, target, ffi::lua_gettop(state));
            }
        })
    }
}

/// Pops the topmost value of `stack` as a value of mlua.
///
/// # Errors
/// Memory errors of mlua.
pub fn pop_value(lua: &mlua::Lua, stack: &mut Stack<'_>) -> mlua::Result<mlua::Value> {
    let source = stack.state();
    // SAFETY: both states belong to `lua`, and the source has a value to give.
    unsafe { lua.exec_raw::<mlua::Value>((), |state| ffi::lua_xmove(source, state, 1)) }
}

/// What a value is, as a message says it: `nil`, `a number`, `an error`.
pub fn described_type(value: &mlua::Value) -> String {
    match value {
        mlua::Value::Nil => "nil".to_owned(),
        mlua::Value::Integer(_) => "a number".to_owned(),
        mlua::Value::LightUserData(_) => "a userdata".to_owned(),
        mlua::Value::Error(_) => "an error".to_owned(),
        other => format!("a {}", other.type_name()),
    }
}

/// What an error says, without the names that mlua gives to kinds of errors, and without its traceback.
pub fn plain_message(error: &mlua::Error) -> String {
    use mlua::Error;
    match error {
        Error::CallbackError { cause, .. } | Error::WithContext { cause, .. } => plain_message(cause),
        Error::RuntimeError(message) | Error::SyntaxError { message, .. } | Error::MemoryError(message) => {
            let end = message.find("\nstack traceback:").unwrap_or(message.len());
            message[..end].to_owned()
        }
        Error::BadArgument { pos, cause, .. } => format!("bad argument #{pos}: {}", plain_message(cause)),
        Error::FromLuaConversionError { from, to, message } => {
            let (from, to) = (lua_type(from), lua_type(to));
            match message.as_deref().filter(|message| !message.starts_with("expected ")) {
                Some(message) if from == to => format!("{to}: {message}"),
                Some(message) => format!("expected {to}, got {from} ({message})"),
                None => format!("expected {to}, got {from}"),
            }
        }
        Error::ExternalError(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

/// What a Lua author calls values of a Rust type; a name that is Lua's already stays.
fn lua_type(name: &str) -> &str {
    match name {
        "integer" | "isize" | "usize" | "f32" | "f64" => "number",
        "i8" | "i16" | "i32" | "i64" | "i128" | "u8" | "u16" | "u32" | "u64" | "u128" => "number",
        "bool" => "boolean",
        "char" | "&str" | "PathBuf" => "string",
        _ if name.ends_with("String") || name.ends_with("str>") => "string",
        _ if name.starts_with(['[', '{']) || ["Vec", "Map", "Set"].iter().any(|part| name.contains(part)) => "table",
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Lua code is told when it hands `value` to a Rust function that takes a `T`.
    fn refusal<T: mlua::FromLua + 'static>(value: &str) -> String {
        let lua = new_vm();
        let function = lua.create_function(|_, _: T| Ok(())).unwrap();
        lua.globals().set("f", function).unwrap();
        plain_message(&lua.load(format!("f({value})")).exec().unwrap_err())
    }

    #[test]
    fn a_new_vm_collects_garbage_in_short_steps() {
        let before: c_int = new_vm().load("return collectgarbage('setstepmul', 1)").eval().unwrap();
        assert_eq!(before, GC_STEP_MULTIPLIER);
    }

    #[test]
    fn conversions_are_told_in_lua_s_own_words() {
        use std::collections::HashMap;
        assert_eq!(refusal::<i64>("'x'"), "bad argument #1: expected number, got string");
        assert_eq!(refusal::<u8>("256"), "bad argument #1: number: out of range");
        assert_eq!(refusal::<f64>("{}"), "bad argument #1: expected number, got table");
        assert_eq!(refusal::<String>("nil"), "bad argument #1: expected string, got nil");
        assert_eq!(refusal::<Vec<u8>>("true"), "bad argument #1: expected table, got boolean");
        assert_eq!(refusal::<HashMap<String, i64>>("1"), "bad argument #1: expected table, got number");
        assert_eq!(refusal::<mlua::Function>("1"), "bad argument #1: expected function, got number");
        assert!(refusal::<String>(r"'\255'").starts_with("bad argument #1: string: invalid utf-8"));
    }
}
