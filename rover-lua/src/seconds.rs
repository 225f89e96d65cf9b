//! Times as arguments of Lua functions.

use std::time::Duration;

use super::{Kind, Raise, Stack};

/// The longest time that may be waited, in seconds: about thirty years.
const LONGEST: f64 = 1e9;

/// The argument at `index` as a time, for the function `call`.
///
/// # Errors
/// It is no number of seconds, or too many.
pub fn seconds(stack: &mut Stack<'_>, index: i32, call: &str) -> Result<Duration, Raise> {
    let expects = format!("{call} expects seconds, a number from 0 to {LONGEST}");
    match stack.kind(index) {
        Kind::Number if (0.0..=LONGEST).contains(&stack.number(index)) => {
            Ok(Duration::from_secs_f64(stack.number(index)))
        }
        Kind::Number => Err(Raise::Mistake(format!("{expects}, not {}", stack.number_text(index)))),
        kind => Err(Raise::Mistake(format!("{expects}, not {}", kind.name()))),
    }
}
