//! `rover.sleep(seconds)`.

use std::rc::Rc;

use mlua::{Lua, Table};
use rover_lua::{Name, Returns, Shared, Stack, Waits, seconds};

/// Adds the function to `rover`.
pub(super) fn install(lua: &Lua, rover: &Table, waits: &Rc<Waits>) -> mlua::Result<()> {
    let sleep = Shared::new(lua, waits.clone())?.function(lua, sleep)?;
    rover.raw_set("sleep", waits.waiting(lua, sleep)?)
}

fn sleep(stack: &mut Stack<'_>, waits: &Waits) -> Returns {
    let time = seconds(stack, 1, "rover.sleep")?;
    waits.suspend(stack, Name::Own("rover.sleep"), async move {
        if time.is_zero() {
            // A timer that has run out already would let nobody else run.
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(time).await;
        }
        |_: &mut Stack<'_>| Ok(0)
    })
}
