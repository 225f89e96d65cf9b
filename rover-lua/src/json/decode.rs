//! From JSON to the Lua stack.
//!
//! serde_json reads; this module answers each of its events by pushing. The items of a table wait on the stack until
//! their number is known, so that most tables are made in their final size and never grow.

use std::borrow::Cow;
use std::ffi::c_int;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::error::DecodeError;
use super::shapes::Shapes;
use super::{MOST_LEVELS, Vocabulary};
use crate::Stack;

/// How many slots of items may wait on the stack for their table. With [`MOST_LEVELS`] tables open this stays below
/// the 8 000 slots that LuaJIT grants one function.
const WAITING: c_int = 32;

/// Room is made for so many levels at once, to save calls.
const LEVELS_AT_ONCE: c_int = 8;

/// Pushes the value that the JSON text in `bytes` stands for: always exactly one, `rover.null` for null.
///
/// Arrays get the array metatable, so that they stay arrays when they are encoded again, however empty by then. Of
/// a repeated key the last value counts.
///
/// # Errors
/// Says what is wrong and where. The stack is as it was then.
pub fn decode(stack: &mut Stack<'_>, bytes: &[u8], vocabulary: &Vocabulary) -> Result<(), DecodeError> {
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| invalid_utf8(bytes))?;
    let top = stack.top();
    let mut reader = serde_json::Deserializer::from_str(text);
    // serde_json stops one level too early; `Builder` counts.
    reader.disable_recursion_limit();
    let shapes = stack.can_call().then_some(&vocabulary.shapes);
    vocabulary.shapes.allow(text.len());
    let builder = &mut Builder { stack, array: vocabulary.array, shapes, keys: SmallVec::new(), level: 0 };
    let end = builder.deserialize(&mut reader).and_then(|()| reader.end());
    end.map_err(|error| {
        stack.truncate(top);
        explain(text, &error)
    })
}

#[cold]
fn invalid_utf8(bytes: &[u8]) -> DecodeError {
    let valid = match simdutf8::compat::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(error) => error.valid_up_to(),
    };
    DecodeError { message: format!("invalid UTF-8 at byte {}", valid + 1) }
}

#[cold]
fn explain(text: &str, error: &serde_json::Error) -> DecodeError {
    let message = if text.starts_with('\u{FEFF}') {
        "a byte order mark, which JSON does not allow, at line 1 column 1".to_owned()
    } else if text.trim_ascii().is_empty() {
        "the text is empty".to_owned()
    } else if error.is_eof() {
        format!("unexpected end at line {} column {}", error.line(), error.column())
    } else {
        error.to_string()
    };
    DecodeError { message }
}

struct Builder<'b, 'lua, 'de> {
    stack: &'b mut Stack<'lua>,
    /// `None` where no function can be called.
    shapes: Option<&'b Shapes>,
    /// The keys of all open objects whose values wait on the stack.
    keys: SmallVec<[Cow<'de, str>; WAITING as usize]>,
    /// Where the array metatable is kept.
    array: c_int,
    /// How many tables are open.
    level: c_int,
}

impl Builder<'_, '_, '_> {
    /// Opens a table: reserves its room, and a slot for it below its items. Answers where that slot is.
    #[inline]
    fn open<E: Error>(&mut self) -> Result<c_int, E> {
        if self.level >= MOST_LEVELS {
            return Err(E::custom(format_args!("nested more than {MOST_LEVELS} levels")));
        }
        // Each level takes its slot and its items, and the innermost one a function, keys and a value on their way.
        if self.level % LEVELS_AT_ONCE == 0 && !self.stack.reserve((LEVELS_AT_ONCE + 1) * (WAITING + 3)) {
            return Err(E::custom("nested too deeply for the Lua stack"));
        }
        self.level += 1;
        self.stack.push_nil();
        Ok(self.stack.top())
    }

    /// Puts a new table into `slot`.
    #[inline]
    fn create(&mut self, slot: c_int, array: c_int, hash: c_int) {
        self.stack.push_table(array as usize, hash as usize);
        self.stack.replace(slot);
    }

    /// Moves the topmost `items` into a new array in `slot`, right below them.
    #[inline]
    fn gather_items(&mut self, slot: c_int, items: c_int, room: c_int) {
        self.create(slot, room, 0);
        for place in (1..=items).rev() {
            self.stack.set_item(slot, place);
        }
    }

    /// Moves the topmost values, of the keys from the one numbered `first` on, into a new table in `slot`, right below
    /// them.
    #[inline]
    fn gather_pairs(&mut self, slot: c_int, first: usize, room: c_int) {
        let keys = &self.keys[first..];
        self.stack.push_table(0, room as usize);
        self.stack.replace(slot);
        // From the first to the last, for the last of equal keys counts.
        for (value, key) in (slot + 1..).zip(keys) {
            self.stack.push_bytes(key.as_bytes());
            self.stack.push_copy(value);
            self.stack.set_field(slot);
        }
        self.stack.truncate(slot);
        self.keys.truncate(first);
    }

    /// Does the same by the function that belongs to the keys, if there is one.
    #[inline]
    fn make_pairs<E: Error>(&mut self, slot: c_int, first: usize) -> Result<(), E> {
        let keys = &self.keys[first..];
        let known = keys.len() > 1 && self.shapes.is_some_and(|shapes| shapes.push(self.stack, keys));
        if !known {
            self.gather_pairs(slot, first, keys.len() as c_int);
            return Ok(());
        }
        self.stack.replace(slot);
        if !self.stack.call_protected(keys.len() as c_int, 1) {
            // Such a function does nothing that could fail, but a debug hook of the app's may raise in it.
            return Err(E::custom("interrupted by a debug hook"));
        }
        self.keys.truncate(first);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Builder<'_, '_, 'de> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Builder<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    #[inline]
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.stack.push_bytes(text.as_bytes());
        Ok(())
    }

    #[inline]
    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.stack.push_number(number as f64);
        Ok(())
    }

    #[inline]
    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.stack.push_number(number as f64);
        Ok(())
    }

    #[inline]
    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.stack.push_number(number);
        Ok(())
    }

    #[inline]
    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.stack.push_boolean(value);
        Ok(())
    }

    #[inline]
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.stack.push_null();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let slot = self.open()?;
        let mut count = 0;
        while items.next_element_seed(&mut *self)?.is_some() {
            count += 1;
            if count < WAITING {
                continue;
            }
            if count == WAITING {
                self.gather_items(slot, count, 2 * WAITING);
            } else {
                self.stack.set_item(slot, count);
            }
        }
        if count < WAITING {
            self.gather_items(slot, count, count);
        }
        self.stack.push_anchored(self.array);
        self.stack.set_metatable(slot);
        self.level -= 1;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<(), A::Error> {
        let slot = self.open()?;
        let first = self.keys.len();
        let mut count = 0;
        while let Some(key) = pairs.next_key_seed(Key)? {
            if count == WAITING {
                self.stack.push_bytes(key.as_bytes());
                pairs.next_value_seed(&mut *self)?;
                self.stack.set_field(slot);
                continue;
            }
            self.keys.push(key);
            pairs.next_value_seed(&mut *self)?;
            count += 1;
            if count == WAITING {
                self.gather_pairs(slot, first, 2 * WAITING);
            }
        }
        if count < WAITING {
            self.make_pairs(slot, first)?;
        }
        self.level -= 1;
        Ok(())
    }
}

/// Reads the key of an object.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    #[inline]
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    /// A key with escapes.
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}
