//! `rover.now()` and `rover.time()`.

use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mlua::{Lua, Table};
use rover_lua::Shared;

/// Where `rover.now()` counts from: one moment for all workers, so that what one measures means something to another.
static BEGINNING: OnceLock<Instant> = OnceLock::new();

/// Adds both functions to `rover`.
pub(super) fn install(lua: &Lua, rover: &Table) -> mlua::Result<()> {
    let beginning = *BEGINNING.get_or_init(Instant::now);
    let beginning = Shared::new(lua, Rc::new(beginning))?;
    rover.raw_set(
        "now",
        beginning.function(lua, |stack, beginning| {
            stack.push_number(beginning.elapsed().as_secs_f64());
            Ok(1)
        })?,
    )?;
    rover.raw_set(
        "time",
        beginning.function(lua, |stack, _| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            stack.push_number(since.as_secs_f64());
            Ok(1)
        })?,
    )?;
    Ok(())
}
