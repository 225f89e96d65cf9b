//! Array or object? Asked of a table whose keys do not simply come as 1, 2, 3, …

use std::ffi::c_int;

use super::Vocabulary;
use super::error::Problem;
use crate::{Stack, Value};

/// Tagged arrays may have holes up to this index however few items they hold, …
const HOLES_FREELY: u32 = 1024;
/// … and beyond it as long as one place in so many is filled.
const HOLES_PER_ITEM: u32 = 4;

/// How a table is written.
#[derive(Debug, PartialEq)]
pub(super) enum Shape {
    /// An array of this length, with null in its holes.
    Array(u32),
    Object,
}

/// Decides by the keys of the table at `index`, of which it must have at least one.
///
/// # Errors
/// [`Problem::Holes`] for a tagged array that is nearly all holes.
pub(super) fn shape(stack: &mut Stack<'_>, index: c_int, vocabulary: &Vocabulary) -> Result<Shape, Problem> {
    let Some((items, last)) = extent(stack, index) else {
        return Ok(Shape::Object);
    };
    if items == last {
        return Ok(Shape::Array(last));
    }
    if stack.metatable_identity(index) != vocabulary.known.array {
        return Ok(Shape::Object);
    }
    if last > HOLES_FREELY && last / HOLES_PER_ITEM > items {
        return Err(Problem::Holes { items, last });
    }
    Ok(Shape::Array(last))
}

/// The number of keys and the largest, if all of them are positive integers.
fn extent(stack: &mut Stack<'_>, index: c_int) -> Option<(u32, u32)> {
    let (mut items, mut last) = (0, 0);
    let bottom = stack.top();
    stack.push_nil();
    while stack.next(index) {
        let place = match stack.value(bottom + 1) {
            // The cast saturates and truncates, so only an integer in range compares equal.
            Value::Number(key) if f64::from(key as i32) == key && key >= 1.0 => key as u32,
            _ => {
                stack.truncate(bottom);
                return None;
            }
        };
        items += 1;
        last = last.max(place);
        stack.pop(1);
    }
    Some((items, last))
}
