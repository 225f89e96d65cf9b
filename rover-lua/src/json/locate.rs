//! Where in a value an encoding failed, read off the stack that the encoder left behind.
//!
//! Comes in: the stack with the keys and values of every open level. Goes out: a path as Lua would write it.

use std::ffi::c_int;

use super::error::{EncodeError, Problem};
use crate::{Stack, Value};

/// Slots of the stack that one level takes: its key and its value.
pub(super) const SLOTS: c_int = 2;

/// Reads off the stack where a problem is: the value at `index`, and above `top` the keys and values down to it.
#[cold]
pub(super) fn locate(stack: &Stack<'_>, index: c_int, top: c_int, problem: Problem) -> EncodeError {
    let levels = (stack.top() - top) / SLOTS;
    let key_problem = matches!(problem, Problem::Key(_) | Problem::KeyNotFinite(_));
    let steps = if key_problem { levels - 1 } else { levels };
    let table = |level: c_int| match level {
        0 => index,
        _ => top + SLOTS * level,
    };
    if problem == Problem::Depth {
        for lower in 1..=levels {
            let identity = stack.identity(table(lower));
            if let Some(upper) = (0..lower).find(|&l| stack.identity(table(l)) == identity) {
                return EncodeError { path: path(stack, top, lower), problem: Problem::Cycle(path(stack, top, upper)) };
            }
        }
    }
    EncodeError { path: path(stack, top, steps), problem }
}

/// The longest part of a key that a path shows, in characters.
const KEY_SHOWN: usize = 40;

/// The keys of the first `steps` levels above `top`, as Lua would write them.
fn path(stack: &Stack<'_>, top: c_int, steps: c_int) -> String {
    let mut path = String::new();
    for step in 0..steps {
        match stack.value(top + SLOTS * step + 1) {
            Value::String(name) => {
                let name = String::from_utf8_lossy(name);
                let identifier = !name.starts_with(|c: char| c.is_ascii_digit())
                    && !name.is_empty()
                    && name.len() <= KEY_SHOWN
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                if !identifier {
                    let shown: String = name.chars().take(KEY_SHOWN).collect();
                    path.push_str(&format!("[{shown:?}]"));
                } else {
                    if step > 0 {
                        path.push('.');
                    }
                    path.push_str(&name);
                }
            }
            Value::Number(number) => path.push_str(&format!("[{number}]")),
            _ => path.push_str("[?]"),
        }
    }
    path
}
