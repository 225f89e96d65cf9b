//! Times in the configs of calls, in seconds or milliseconds by their names; `times.lua` has the rules.

use std::collections::BTreeSet;
use std::rc::Rc;

use mlua::{Lua, Table};
use parking_lot::Mutex;

use super::native::mistake_function;
use super::{Shared, caller};

/// The names that have been warned of, by whatever worker: each is told once.
static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The functions of `times.lua`. `warn` tells the log.
///
/// # Errors
/// Memory errors of mlua.
pub fn times(lua: &Lua, warn: fn(&str)) -> mlua::Result<Table> {
    let warn = Shared::new(lua, Rc::new(warn))?.function(lua, |stack, warn| {
        let text = |index| String::from_utf8_lossy(stack.bytes(index).unwrap_or_default()).into_owned();
        if WARNED.lock().insert(text(1)) {
            let place = caller(stack).map(|frame| format!("{}:{}: ", frame.file, frame.line));
            warn(&(place.unwrap_or_default() + &text(2)));
        }
        Ok(0)
    })?;
    lua.load(include_str!("times.lua")).set_name("=rover/times").call((mistake_function(lua)?, warn))
}
