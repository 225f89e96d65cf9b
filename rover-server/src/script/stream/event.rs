//! Encodes one server-sent event (HTML standard, section 9.2).

use std::ffi::c_int;

use rover_lua::json::{self, Vocabulary};
use rover_lua::{Kind, Stack};

/// Sent after a while of silence, so that proxies do not close the connection.
pub(super) const KEEP_ALIVE: &[u8] = b":\n\n";

/// The first event: for how many milliseconds the client waits before it connects again.
pub(super) fn retry(milliseconds: u64) -> String {
    format!("retry: {milliseconds}\n\n")
}

/// The event that a producer returned: text, or a table of `event`, `id`, `data` and `retry`.
///
/// # Errors
/// What makes it impossible to send.
pub(super) fn encode(stack: &mut Stack<'_>, index: c_int, vocabulary: &Vocabulary) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    if stack.kind(index) != Kind::Table {
        data(stack, index, vocabulary, &mut out)?;
        out.push(b'\n');
        return Ok(out);
    }
    for name in ["event", "id", "retry", "data"] {
        stack.push_bytes(name.as_bytes());
        stack.get_field(index);
        let top = stack.top();
        match (name, stack.kind(top)) {
            (_, Kind::Nil) => {}
            ("data", _) => data(stack, top, vocabulary, &mut out)?,
            ("retry", kind) => {
                let time = stack.number(top);
                if kind != Kind::Number || time < 0.0 || time.fract() != 0.0 || time > 1e12 {
                    return Err("the field 'retry' of an event is a whole number of milliseconds".to_owned());
                }
                out.extend_from_slice(format!("retry: {time}\n").as_bytes());
            }
            (name, _) => line(name, &text(stack, top, name)?, &mut out)?,
        }
        stack.pop(1);
    }
    if out.is_empty() {
        return Err("an event is a string, or a table with event, id, data or retry".to_owned());
    }
    out.push(b'\n');
    Ok(out)
}

fn text(stack: &mut Stack<'_>, index: c_int, name: &str) -> Result<Vec<u8>, String> {
    match stack.kind(index) {
        Kind::String => Ok(stack.bytes(index).unwrap_or_default().to_vec()),
        Kind::Number => Ok(stack.number_text(index).into_bytes()),
        Kind::Boolean => Ok(stack.boolean(index).to_string().into_bytes()),
        kind => Err(format!("the field '{name}' of an event is a string, not {}", kind.name())),
    }
}

/// A field that has one line: what ends a line would end the event, and NUL makes clients ignore an id.
fn line(name: &str, value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    if value.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
        return Err(format!("the field '{name}' of an event holds a line break or a NUL"));
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.push(b'\n');
    Ok(())
}

/// The data, a field for each of its lines. A table goes as JSON.
fn data(stack: &mut Stack<'_>, index: c_int, vocabulary: &Vocabulary, out: &mut Vec<u8>) -> Result<(), String> {
    let value = match stack.kind(index) {
        Kind::Table => {
            let mut json = Vec::new();
            json::encode(stack, index, vocabulary, &mut json).map_err(|error| error.to_string())?;
            json
        }
        _ => text(stack, index, "data")?,
    };
    let mut rest = &value[..];
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let (one, after) = match end {
            Some(end) if rest[end..].starts_with(b"\r\n") => (&rest[..end], Some(&rest[end + 2..])),
            Some(end) => (&rest[..end], Some(&rest[end + 1..])),
            None => (rest, None),
        };
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(one);
        out.push(b'\n');
        match after {
            Some(after) => rest = after,
            None => return Ok(()),
        }
    }
}
