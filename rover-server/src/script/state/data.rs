//! Turns plain data into a Lua value. The reverse is [`read`](super::read).

use rover_lua::json::Vocabulary;
use rover_lua::{Raise, Stack};

use super::read::tag;
use crate::store::Datum;

/// Pushes a copy of `datum`.
///
/// # Errors
/// The stack has no room for it.
pub(super) fn push(stack: &mut Stack<'_>, datum: &Datum, vocabulary: &Vocabulary) -> Result<(), Raise> {
    match datum {
        Datum::Null => stack.push_null(),
        Datum::Boolean(value) => stack.push_boolean(*value),
        Datum::Number(value) => stack.push_number(*value),
        Datum::String(bytes) => stack.push_bytes(bytes),
        Datum::Table(bytes) => {
            let mut reader = DatumReader { bytes, vocabulary };
            let top = stack.top();
            if reader.value(stack).is_none() {
                stack.truncate(top);
                return Err(Raise::mistake("the stored table has no room on the stack"));
            }
        }
    }
    Ok(())
}

struct DatumReader<'b> {
    bytes: &'b [u8],
    vocabulary: &'b Vocabulary,
}

impl DatumReader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    fn length(&mut self) -> Option<usize> {
        let mut length = 0usize;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(length);
            }
        }
        None
    }

    /// Pushes the next value.
    fn value(&mut self, stack: &mut Stack<'_>) -> Option<()> {
        match self.byte()? {
            tag::NIL => stack.push_nil(),
            tag::FALSE => stack.push_boolean(false),
            tag::TRUE => stack.push_boolean(true),
            tag::NULL => stack.push_null(),
            tag::NUMBER => {
                let (number, rest) = self.bytes.split_first_chunk()?;
                self.bytes = rest;
                stack.push_number(f64::from_le_bytes(*number));
            }
            tag::STRING => {
                let length = self.length()?;
                let (text, rest) = self.bytes.split_at_checked(length)?;
                self.bytes = rest;
                stack.push_bytes(text);
            }
            kind => self.table(stack, kind == tag::ARRAY)?,
        }
        Some(())
    }

    fn table(&mut self, stack: &mut Stack<'_>, is_array: bool) -> Option<()> {
        // The table, a key and a value, and what marks an array.
        if !stack.reserve(4) {
            return None;
        }
        let (items, pairs) = (self.length()?, self.length()?);
        stack.push_table(items, pairs);
        let table = stack.top();
        for n in 1..=items {
            self.value(stack)?;
            stack.set_item(table, i32::try_from(n).ok()?);
        }
        for _ in 0..pairs {
            self.value(stack)?;
            self.value(stack)?;
            stack.set_field(table);
        }
        if is_array {
            self.vocabulary.mark_array(stack, table);
        }
        Some(())
    }
}
