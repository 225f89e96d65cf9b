//! Comes in: a message with fields. Goes out: the bytes of its line, in the form that the output wants.
//! Must not know: where lines go. Text from requests cannot end a line early nor steer a terminal.

use std::io::Write;

use smallvec::SmallVec;

use super::{Level, Timestamp};

/// The longest message or field in bytes; the rest is cut, so that one line cannot crowd out the others.
pub(crate) const LONGEST_TEXT: usize = 32 * 1024;

/// The names that every JSON line has already.
const RESERVED: [&str; 4] = ["time", "level", "msg", "worker"];

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One JSON object on each line.
    Json,
    /// The same, to be read back by the embedding program's end of the log.
    Record,
    /// For a person's eyes.
    Terminal(Colour),
}

/// Whether a terminal gets colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    On,
    Off,
}

impl Colour {
    pub(crate) const DIM: &'static str = "2";
    pub(crate) const RED: &'static str = "31";
    pub(crate) const GREEN: &'static str = "32";
    pub(crate) const YELLOW: &'static str = "33";
    pub(crate) const CYAN: &'static str = "36";

    /// Appends `text` in a colour, one of the constants.
    pub(crate) fn paint(self, colour: &str, text: &[u8], out: &mut Vec<u8>) {
        if self == Colour::Off {
            out.extend_from_slice(text);
            return;
        }
        for part in [b"\x1b[", colour.as_bytes(), b"m", text, b"\x1b[0m"] {
            out.extend_from_slice(part);
        }
    }
}

/// A field's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FieldValue<'a> {
    /// Plain text.
    Text(&'a str),
    /// Valid JSON on one line, taken as it is, however long.
    Json(&'a str),
    /// A count.
    Number(u64),
}

impl<'a> From<&'a str> for FieldValue<'a> {
    fn from(text: &'a str) -> Self {
        FieldValue::Text(text)
    }
}

impl From<u64> for FieldValue<'_> {
    fn from(number: u64) -> Self {
        FieldValue::Number(number)
    }
}

/// A line in the making.
#[derive(Debug)]
#[must_use = "a line is written by `emit`"]
pub(crate) struct LogEvent<'a> {
    level: Level,
    message: &'a str,
    fields: SmallVec<[(&'a str, FieldValue<'a>); 4]>,
}

/// The field that a terminal shows below its line.
const TRACEBACK: &str = "traceback";

impl<'a> LogEvent<'a> {
    pub(super) fn new(level: Level, message: &'a str) -> Self {
        LogEvent { level, message, fields: SmallVec::new() }
    }

    /// Adds a field. `time`, `level`, `msg` and `worker` are taken; a field of that name gets a `_` behind it, or as many
    /// as no other field has.
    pub(crate) fn field(mut self, key: &'a str, value: impl Into<FieldValue<'a>>) -> Self {
        self.fields.push((key, value.into()));
        self
    }

    /// Writes the line, if its level is enabled.
    pub(crate) fn emit(self) {
        super::write_line(self.level, |form, stamp, out| self.write(form, stamp, out));
    }

    pub(super) fn write(&self, form: Form, stamp: &Timestamp, out: &mut Vec<u8>) {
        match form {
            Form::Json | Form::Record => self.write_json(stamp, out),
            Form::Terminal(colour) => self.write_terminal(colour, stamp, out),
        }
        out.push(b'\n');
    }

    fn write_json(&self, stamp: &Timestamp, out: &mut Vec<u8>) {
        push_json_head(stamp, self.level, self.message, out);
        for (key, value) in &self.fields {
            out.push(b',');
            if RESERVED.contains(key) {
                push_json_text(&self.free_name(key), out);
            } else {
                push_json_text(key, out);
            }
            out.push(b':');
            match value {
                FieldValue::Text(text) => push_json_text(text, out),
                FieldValue::Json(json) => out.extend_from_slice(json.as_bytes()),
                FieldValue::Number(number) => push_number(*number, out),
            }
        }
        out.push(b'}');
    }

    /// The name with as many `_` behind it as it takes.
    #[cold]
    fn free_name(&self, key: &str) -> String {
        let mut name = format!("{key}_");
        while self.fields.iter().any(|(own, _)| *own == name) {
            name.push('_');
        }
        name
    }

    fn write_terminal(&self, colour: Colour, stamp: &Timestamp, out: &mut Vec<u8>) {
        let (name, shade) = match self.level {
            Level::Debug => ("debug", Colour::DIM),
            Level::Info | Level::Off => ("info ", Colour::GREEN),
            Level::Warn => ("warn ", Colour::YELLOW),
            Level::Error => ("error", Colour::RED),
        };
        stamp.push_clock(out);
        out.push(b' ');
        colour.paint(shade, name.as_bytes(), out);
        out.push(b' ');
        push_indented(cut(self.message), out);
        let mut text = Vec::new();
        for (key, value) in &self.fields {
            // A traceback stands below, a line for each level.
            if *key != TRACEBACK {
                push_field(key, value, &mut text);
            }
        }
        if let Some(worker) = stamp.worker() {
            push_field("worker", &FieldValue::Number(worker.into()), &mut text);
        }
        for (key, value) in &self.fields {
            if let (TRACEBACK, FieldValue::Text(lines)) = (*key, value) {
                text.push(b'\n');
                text.extend_from_slice(b"    ");
                push_indented(cut(lines), &mut text);
            }
        }
        if !text.is_empty() {
            colour.paint(Colour::DIM, &text, out);
        }
    }
}

/// Appends `{"time":…,"level":…,"msg":…,"worker":…`, without the closing brace.
pub(crate) fn push_json_head(stamp: &Timestamp, level: Level, message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    stamp.push_iso(out);
    out.extend_from_slice(b"\",\"level\":\"");
    out.extend_from_slice(level.name().as_bytes());
    out.extend_from_slice(b"\",\"msg\":");
    push_json_text(message, out);
    if let Some(worker) = stamp.worker() {
        out.extend_from_slice(b",\"worker\":");
        push_number(worker.into(), out);
    }
}

/// Appends the text as a JSON string, quotes included.
pub(crate) fn push_json_text(text: &str, out: &mut Vec<u8>) {
    // Writing text into memory does not fail.
    let _ = serde_json::to_writer(out, cut(text));
}

/// Appends the number in decimal.
pub(crate) fn push_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends text for a terminal on one line: whatever could steer the terminal or end the line is shown as an escape.
pub(crate) fn push_plain(text: &str, out: &mut Vec<u8>) {
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for c in text.chars() {
        if is_harmless(c) {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            let _ = write!(out, "{}", c.escape_default());
        }
    }
}

/// Control characters steer a terminal; the bidirectional ones make a line read differently from what it says.
fn is_harmless(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Like `push_plain`, but keeps the lines and tabs of a traceback; lines after the first are indented, so that none
/// of them passes for a line of the log.
fn push_indented(text: &str, out: &mut Vec<u8>) {
    for (number, line) in text.trim_end_matches('\n').split('\n').enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\n    ");
        }
        for (number, piece) in line.split('\t').enumerate() {
            if number > 0 {
                out.push(b'\t');
            }
            push_plain(piece, out);
        }
    }
}

/// Appends ` key=value`, with quotes where blanks would hide the end of the value.
fn push_field(key: &str, value: &FieldValue<'_>, out: &mut Vec<u8>) {
    out.push(b' ');
    push_plain(key, out);
    out.push(b'=');
    match value {
        FieldValue::Number(number) => push_number(*number, out),
        FieldValue::Json(json) => push_plain(cut(json), out),
        FieldValue::Text(text) => {
            let quote = text.is_empty() || text.contains([' ', '"', '=']);
            if quote {
                let _ = write!(out, "\"");
            }
            push_plain(cut(text), out);
            if quote {
                let _ = write!(out, "\"");
            }
        }
    }
}

/// The text up to the longest that a line takes.
fn cut(text: &str) -> &str {
    if text.len() <= LONGEST_TEXT {
        return text;
    }
    // A character has four bytes at most, so one of the last four places is a boundary.
    let end = (LONGEST_TEXT - 3..=LONGEST_TEXT).rfind(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
