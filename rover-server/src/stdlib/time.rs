//! `rover.now()` and `rover.time()`.

use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mlua::{Lua, Table};

use crate::lua::Shared;

/// Adds both functions to `rover`.
pub(super) fn install(lua: &Lua, rover: &Table) -> mlua::Result<()> {
    let started = Shared::new(lua, Rc::new(Instant::now()))?;
    rover.raw_set(
        "now",
        started.function(lua, |stack, started| {
            stack.push_number(started.elapsed().as_secs_f64());
            Ok(1)
        })?,
    )?;
    rover.raw_set(
        "time",
        started.function(lua, |stack, _| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            stack.push_number(since.as_secs_f64());
            Ok(1)
        })?,
    )?;
    Ok(())
}
