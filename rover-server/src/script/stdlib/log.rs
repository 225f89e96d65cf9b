//! `rover.log.debug|info|warn|error(msg[, fields])`.

use std::ffi::c_int;
use std::rc::Rc;

use mlua::{Lua, Table};
use rover_lua::json::{self, Vocabulary};
use rover_lua::{Kind, Raise, Returns, Shared, Stack};

use crate::log::{self, LONGEST_TEXT, Level};

/// How many bytes of a field's JSON are made before it is cut; a long text in a table is whole until then.
const LOOKED_AT: usize = 1 << 20;

/// The table of the four functions.
pub(super) fn functions(lua: &Lua, vocabulary: &Rc<Vocabulary>) -> mlua::Result<Table> {
    let shared = Shared::new(lua, vocabulary.clone())?;
    let table = lua.create_table()?;
    table.raw_set("debug", shared.function(lua, |stack, words| write(stack, words, Level::Debug))?)?;
    table.raw_set("info", shared.function(lua, |stack, words| write(stack, words, Level::Info))?)?;
    table.raw_set("warn", shared.function(lua, |stack, words| write(stack, words, Level::Warn))?)?;
    table.raw_set("error", shared.function(lua, |stack, words| write(stack, words, Level::Error))?)?;
    Ok(table)
}

/// Writes a message and the fields of the table at index 2, each encoded as JSON.
fn write(stack: &mut Stack<'_>, vocabulary: &Vocabulary, level: Level) -> Returns {
    let message = match stack.kind(1) {
        Kind::String => String::from_utf8_lossy(stack.bytes(1).unwrap_or_default()).into_owned(),
        Kind::Number => stack.number_text(1),
        Kind::Boolean => stack.boolean(1).to_string(),
        kind => {
            return Err(Raise::mistake(format!("rover.log expects a message as a string, got {}", kind.name())));
        }
    };
    if !matches!(stack.kind(2), Kind::Table | Kind::Nil) {
        let kind = stack.kind(2).name();
        return Err(Raise::mistake(format!("the fields of a log line are a table, not a {kind}")));
    }
    if !log::enabled(level) {
        return Ok(0);
    }
    let fields = fields(stack, vocabulary)?;
    let mut event = log::event(level, &message);
    for (key, value) in &fields {
        event = event.field(key, log::FieldValue::Json(value));
    }
    event.emit();
    Ok(0)
}

/// The fields at index 2 in the order of their names, as names and JSON texts.
fn fields(stack: &mut Stack<'_>, vocabulary: &Vocabulary) -> Result<Vec<(String, String)>, Raise> {
    let mut fields = Vec::new();
    if stack.kind(2) != Kind::Table {
        return Ok(fields);
    }
    stack.push_nil();
    while stack.next(2) {
        let value = stack.top();
        let key = match stack.kind(value - 1) {
            Kind::String => String::from_utf8_lossy(stack.bytes(value - 1).unwrap_or_default()).into_owned(),
            Kind::Number => stack.number_text(value - 1),
            kind => return Err(Raise::mistake(format!("a field of a log line is named by a {}", kind.name()))),
        };
        let encoded = encode(stack, value, vocabulary);
        fields.push((key.clone(), encoded.map_err(|error| Raise::mistake(format!("the field {key:?}: {error}")))?));
        stack.pop(1);
    }
    fields.sort();
    Ok(fields)
}

/// A value as JSON of a bounded length: the beginning of a text; for a table whose JSON is too long, the beginning of
/// that as a text.
fn encode(stack: &mut Stack<'_>, value: c_int, vocabulary: &Vocabulary) -> Result<String, String> {
    let mut json = Vec::new();
    let long = stack.bytes(value).filter(|bytes| stack.kind(value) == Kind::String && bytes.len() > LONGEST_TEXT);
    if let Some(long) = long {
        let is_within = |end: &usize| long[*end] & 0xc0 == 0x80;
        // A character has four bytes at most.
        let end = (LONGEST_TEXT - 3..=LONGEST_TEXT).rfind(|end| !is_within(end)).unwrap_or(LONGEST_TEXT);
        let begin = long[..end].to_vec();
        stack.push_bytes(&begin);
        let encoded = json::encode(stack, value + 1, vocabulary, &mut json);
        stack.pop(1);
        encoded.map_err(|error| error.to_string())?;
        return Ok(String::from_utf8(json).unwrap_or_default());
    }
    let is_all = json::encode_beginning(stack, value, vocabulary, LOOKED_AT, &mut json);
    let is_all = is_all.map_err(|error| error.to_string())?;
    let mut json = String::from_utf8_lossy(&json).into_owned();
    if !is_all || stack.kind(value) != Kind::String && json.len() > LONGEST_TEXT {
        let mut text = Vec::new();
        log::push_json_text(&json, &mut text);
        json = String::from_utf8(text).unwrap_or_default();
    }
    Ok(json)
}
