//! Describes an error that is not a string.
//!
//! Comes in: the value. Goes out: text for the log, of a bounded length.

use rover_lua::json::{self, Vocabulary};
use rover_lua::{Busy, Kind, Stack};

/// How much of one field is shown of a table that JSON cannot hold, in bytes.
const FIELD_SHOWN: usize = 4 * 1024;
/// How much of the whole table.
const TABLE_SHOWN: usize = 64 * 1024;

/// The result of `__tostring` of the value at `index`, if there is one and it is a string.
pub(super) fn told(stack: &mut Stack<'_>, index: i32, lua: &mlua::Lua) -> Option<String> {
    let top = stack.top();
    if !stack.reserve(4) || !stack.push_metatable(index) {
        return None;
    }
    stack.push_bytes(b"__tostring");
    stack.get_field(top + 1);
    let mut text = None;
    if stack.kind(top + 2) == Kind::Function {
        stack.push_copy(index);
        if stack.can_call() {
            if stack.call_protected(1, 1) {
                text = stack.bytes(top + 2).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            }
        } else if let Ok(value) = rover_lua::pop_value(lua, stack) {
            // A coroutine that has raised runs nothing any more.
            let _busy = Busy::new(lua);
            text = value.to_string().ok();
        }
    }
    stack.truncate(top);
    text
}

/// The message of the error at `index`, where it is Rover's own of something that cannot answer now: 503.
pub(super) fn unavailable(stack: &mut Stack<'_>, index: i32) -> Option<String> {
    let top = stack.top();
    if !stack.reserve(3) || !stack.push_metatable(index) {
        return None;
    }
    stack.push_bytes(b"__unavailable");
    stack.get_field(top + 1);
    let is_so = stack.boolean(top + 2);
    stack.truncate(top);
    if !is_so {
        return None;
    }
    stack.push_bytes(b"message");
    stack.get_field(index);
    let message = stack.bytes(top + 1).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    stack.truncate(top);
    message
}

/// The table at `index` as JSON; field by field if JSON cannot hold it.
pub(super) fn shown(stack: &mut Stack<'_>, index: i32, vocabulary: &Vocabulary) -> String {
    let mut text = Vec::new();
    if json::encode_beginning(stack, index, vocabulary, TABLE_SHOWN, &mut text).is_err() {
        text = fields(stack, index, vocabulary);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The fields in the order of their names; a value that JSON cannot hold is shown by its type.
fn fields(stack: &mut Stack<'_>, index: i32, vocabulary: &Vocabulary) -> Vec<u8> {
    let top = stack.top();
    if !stack.reserve(3) {
        return b"a table".to_vec();
    }
    let (mut fields, mut size) = (Vec::new(), 0);
    stack.push_nil();
    while stack.next(index) {
        let mut field = Vec::new();
        match stack.kind(top + 1) {
            Kind::Number => json::push_text(stack.number_text(top + 1).as_bytes(), &mut field),
            Kind::String => json::push_text(stack.bytes(top + 1).unwrap_or_default(), &mut field),
            kind => field.extend_from_slice(format!("\"a {}\"", kind.name()).as_bytes()),
        }
        field.push(b':');
        let start = field.len();
        if json::encode_beginning(stack, top + 2, vocabulary, FIELD_SHOWN, &mut field).is_err() {
            field.truncate(start);
            field.extend_from_slice(format!("\"a {}\"", stack.kind(top + 2).name()).as_bytes());
        }
        stack.pop(1);
        size += field.len();
        fields.push(field);
        if size > TABLE_SHOWN {
            break;
        }
    }
    stack.truncate(top);
    fields.sort();
    [b"{", &*fields.join(&b","[..]), b"}"].concat()
}

/// A value that is neither text, a table nor a number.
pub(super) fn other(stack: &mut Stack<'_>, index: i32, lua: &mlua::Lua) -> String {
    let kind = stack.kind(index);
    if let Some(integer) = stack.wide_integer(index) {
        return integer.to_string();
    }
    if kind == Kind::Userdata {
        stack.push_copy(index);
        if let Ok(mlua::Value::Error(error)) = rover_lua::pop_value(lua, stack) {
            return rover_lua::plain_message(&error);
        }
        if let Some(text) = told(stack, index, lua) {
            return text;
        }
    }
    format!("an error value of type {}", kind.name())
}
