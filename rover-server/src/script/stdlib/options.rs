//! Reads the arguments of functions that take a table of options.

use rover_lua::{Kind, Raise, Stack, Value, View};

use crate::config::ConfigValue;

/// Checks that at `index` there is nil, or a table with no other keys than `known`; then says whether it is a table.
pub(super) fn are_options(stack: &Stack<'_>, index: i32, call: &str, known: &[&str]) -> Result<bool, Raise> {
    let table = match stack.view(index) {
        View::Nil => return Ok(false),
        View::Table(table) => table,
        _ => {
            let kind = stack.kind(index).name();
            return Err(Raise::Mistake(format!("{call} expects a table of options, not {kind}")));
        }
    };
    let unknown = |name: &[u8]| {
        let name = String::from_utf8_lossy(name).into_owned();
        Raise::Mistake(format!("{call} has no option {name:?}: there are {}", known.join(", ")))
    };
    if table.items().any(|item| !matches!(item, View::Nil)) {
        return Err(unknown(b"1"));
    }
    for (key, _) in table.pairs() {
        match key {
            View::String(name) if known.iter().any(|known| known.as_bytes() == name) => {}
            View::String(name) => return Err(unknown(name)),
            _ => return Err(unknown(b"?")),
        }
    }
    Ok(true)
}

/// Pushes the option `name` of the table at `table`, and returns its index.
pub(super) fn push_option(stack: &mut Stack<'_>, table: i32, name: &str) -> i32 {
    stack.push_bytes(name.as_bytes());
    stack.get_field(table);
    stack.top()
}

/// An option that is true or false; false where it is not set.
pub(super) fn flag(stack: &mut Stack<'_>, table: i32, name: &str, call: &str) -> Result<bool, Raise> {
    let index = push_option(stack, table, name);
    let found = match stack.kind(index) {
        Kind::Nil => Ok(false),
        Kind::Boolean => Ok(stack.boolean(index)),
        kind => Err(Raise::Mistake(format!("{call}: {name} must be true or false, not {}", kind.name()))),
    };
    stack.pop(1);
    found
}

/// An option that is a size of at least 1 byte: a number, or text with a unit as the config takes it.
pub(super) fn bytes(stack: &mut Stack<'_>, table: i32, name: &str, call: &str) -> Result<Option<usize>, Raise> {
    /// The longest string of Lua.
    const MOST: f64 = 2_147_483_647.0;
    let index = push_option(stack, table, name);
    let size = match stack.value(index) {
        Value::Nil => None,
        Value::Number(number) => Some(number),
        Value::String(text) => {
            let size = ConfigValue::Text(String::from_utf8_lossy(text).into_owned()).size();
            Some(size.map_or(f64::NAN, |size| size as f64))
        }
        _ => Some(f64::NAN),
    };
    stack.pop(1);
    match size {
        None => Ok(None),
        Some(size) if (1.0..=MOST).contains(&size) => Ok(Some(size as usize)),
        Some(_) => Err(Raise::Mistake(format!(
            "{call}: {name} must be a size from 1 to {MOST} bytes: a number, or text such as \"64MB\""
        ))),
    }
}

/// An option that is text, or a number as text.
pub(super) fn text(stack: &mut Stack<'_>, table: i32, name: &str, call: &str) -> Result<Option<Vec<u8>>, Raise> {
    let index = push_option(stack, table, name);
    let found = match stack.kind(index) {
        Kind::Nil => Ok(None),
        _ => as_text(stack, index).map(Some).ok_or_else(|| {
            Raise::Mistake(format!("{call}: {name} must be a string, not {}", stack.kind(index).name()))
        }),
    };
    stack.pop(1);
    found
}

/// The string or number at `index` as text.
pub(super) fn as_text(stack: &mut Stack<'_>, index: i32) -> Option<Vec<u8>> {
    match stack.kind(index) {
        Kind::Number => Some(stack.number_text(index).into_bytes()),
        _ => stack.bytes(index).map(<[u8]>::to_vec),
    }
}
