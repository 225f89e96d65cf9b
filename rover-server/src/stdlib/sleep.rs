//! `rover.sleep(seconds)`.

use std::rc::Rc;
use std::time::Duration;

use mlua::{Lua, Table};

use crate::lua::{Kind, Name, Raise, Returns, Shared, Stack, Waits};

/// The longest time that may be waited, in seconds: about thirty years.
const LONGEST: f64 = 1e9;

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

/// The argument at `index` as a time.
fn seconds(stack: &mut Stack<'_>, index: i32, call: &str) -> Result<Duration, Raise> {
    let expects = format!("{call} expects seconds, a number from 0 to {LONGEST}");
    match stack.kind(index) {
        Kind::Number if (0.0..=LONGEST).contains(&stack.number(index)) => {
            Ok(Duration::from_secs_f64(stack.number(index)))
        }
        Kind::Number => Err(Raise::Mistake(format!("{expects}, not {}", stack.number_text(index)))),
        kind => Err(Raise::Mistake(format!("{expects}, not {}", kind.name()))),
    }
}
