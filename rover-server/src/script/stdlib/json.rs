//! `rover.json`: JSON as Lua authors call it.

use std::cell::Cell;
use std::rc::Rc;

use rover_lua::json::{Vocabulary, decode, encode, encode_pretty};
use rover_lua::{Raise, Returns, Shared, Stack};

use super::options::{are_options, flag};

/// A buffer that has grown beyond this many bytes is not kept for the next call.
const KEPT_CAPACITY: usize = 1 << 20;

struct Json {
    vocabulary: Rc<Vocabulary>,
    /// Reused by all calls. Taken out while one uses it, for a finalizer may call in between.
    buffer: Cell<Vec<u8>>,
}

impl Json {
    fn with_buffer<R>(&self, work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut buffer = self.buffer.take();
        buffer.clear();
        let result = work(&mut buffer);
        if buffer.capacity() <= KEPT_CAPACITY {
            self.buffer.set(buffer);
        }
        result
    }
}

/// A table with `encode` and `decode`.
///
/// # Errors
/// When Lua is out of memory.
pub(super) fn functions(lua: &mlua::Lua, vocabulary: Rc<Vocabulary>) -> mlua::Result<mlua::Table> {
    let json = Rc::new(Json { vocabulary, buffer: Cell::default() });
    let shared = Shared::new(lua, json)?;
    let table = lua.create_table()?;
    table.raw_set("encode", shared.function(lua, encode_function)?)?;
    table.raw_set("decode", shared.function(lua, decode_function)?)?;
    Ok(table)
}

/// `encode(v[, {pretty = true}])` → string. What JSON cannot hold is a mistake.
fn encode_function(stack: &mut Stack<'_>, json: &Json) -> Returns {
    if stack.top() == 0 {
        return Err(Raise::mistake("rover.json.encode needs a value"));
    }
    let call = "rover.json.encode";
    let pretty = are_options(stack, 2, call, &["pretty"])? && flag(stack, 2, "pretty", call)?;
    let write = if pretty { encode_pretty } else { encode };
    json.with_buffer(|buffer| {
        write(stack, 1, &json.vocabulary, buffer).map_err(|error| Raise::mistake(error.to_string()))?;
        stack.push_bytes(buffer);
        Ok(1)
    })
}

/// `decode(s)` → value, or `nil, err`. Anything but a string is a mistake.
fn decode_function(stack: &mut Stack<'_>, json: &Json) -> Returns {
    json.with_buffer(|buffer| {
        // The decoder needs the stack to itself, so it cannot borrow the string from there.
        match stack.bytes(1) {
            Some(bytes) => buffer.extend_from_slice(bytes),
            None => {
                return Err(Raise::mistake(format!(
                    "rover.json.decode needs a string, not a {}",
                    stack.kind(1).name()
                )));
            }
        }
        match decode(stack, buffer, &json.vocabulary) {
            Ok(()) => Ok(1),
            Err(error) => {
                stack.push_nil();
                stack.push_bytes(error.to_string().as_bytes());
                Ok(2)
            }
        }
    })
}
