//! From the Lua stack to JSON, for every value: [`direct`] has refused what comes here, unless it is to be pretty.
//!
//! One pass over each table: `next` gives the pairs and they are written as they come. A table whose first key is 1
//! is written as an array until a key disproves it, which throws away that array's output and asks
//! [`classify`](super::classify).
//!
//! While a table is being read its current key and value stand on the stack, and the value is the table of the next
//! level. After a failure the whole path therefore still stands there, and is read off once; a success never pays
//! for it.

use std::ffi::c_int;

use super::classify::{Shape, shape};
use super::error::{EncodeError, Problem};
use super::foreign::{Foreign, meaning};
use super::locate::{SLOTS, locate};
use super::rows::Columns;
use super::{MOST_LEVELS, Vocabulary, direct, number, text};
use crate::{Kind, Stack, Value, View};

/// Room is made for so many levels at once, to save calls.
const LEVELS_AT_ONCE: c_int = 8;

/// So many tables inside one another may be taken for arrays unseen. Each mistaken one is written twice, so without
/// a bound a nest of them would take time exponential in its depth.
const HOPES: u32 = 3;

/// Appends the value at `index` as compact JSON to `out`.
///
/// # Errors
/// Names the first part of the value that JSON cannot hold. `out` is as it was then, and so is the stack always.
#[inline]
pub fn encode(
    stack: &mut Stack<'_>,
    index: c_int,
    vocabulary: &Vocabulary,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    vocabulary.known.bounds.begin(usize::MAX, out);
    if direct::write(stack.view(index), &vocabulary.known, out).is_ok() {
        return Ok(());
    }
    again(stack, index, vocabulary, start, out)
}

/// What [`direct`] has refused.
#[cold]
fn again(
    stack: &mut Stack<'_>,
    index: c_int,
    vocabulary: &Vocabulary,
    start: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    out.truncate(start);
    if vocabulary.known.bounds.is_exceeded() {
        return Err(EncodeError::size(vocabulary.size_limit()));
    }
    vocabulary.known.bounds.begin(usize::MAX, out);
    run::<false>(stack, index, vocabulary, out).inspect_err(|_| out.truncate(start))
}

/// Like [`encode`], but of JSON that becomes longer than `most` bytes `out` gets only the beginning, of about that length.
/// Whether it is all.
///
/// # Errors
/// As [`encode`], for what comes within the beginning.
#[cold]
pub fn encode_beginning(
    stack: &mut Stack<'_>,
    index: c_int,
    vocabulary: &Vocabulary,
    most: usize,
    out: &mut Vec<u8>,
) -> Result<bool, EncodeError> {
    let start = out.len();
    let bounds = &vocabulary.known.bounds;
    bounds.begin(most, out);
    if direct::write(stack.view(index), &vocabulary.known, out).is_ok() {
        return Ok(true);
    }
    if !bounds.is_exceeded() {
        out.truncate(start);
        bounds.begin(most, out);
        match run::<false>(stack, index, vocabulary, out) {
            Ok(()) => return Ok(true),
            Err(_) if bounds.is_exceeded() => {}
            Err(error) => {
                out.truncate(start);
                return Err(error);
            }
        }
    }
    Ok(false)
}

/// Like [`encode`], for people to read: one item a line, indented by two spaces a level.
///
/// # Errors
/// As [`encode`].
pub fn encode_pretty(
    stack: &mut Stack<'_>,
    index: c_int,
    vocabulary: &Vocabulary,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    vocabulary.known.bounds.begin(usize::MAX, out);
    run::<true>(stack, index, vocabulary, out).inspect_err(|_| out.truncate(start))
}

/// Leaves in `out` what there was until an error.
#[cold]
fn run<const PRETTY: bool>(
    stack: &mut Stack<'_>,
    index: c_int,
    vocabulary: &Vocabulary,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let top = stack.top();
    let mut encoder = Encoder::<PRETTY> { stack, vocabulary, out, bottom: top + 1, hopes: 0 };
    encoder.value(index, top + 1).map_err(|problem| {
        let error = match *problem {
            Problem::Size(limit) => EncodeError::size(limit),
            problem => locate(stack, index, top, problem),
        };
        stack.truncate(top);
        error
    })
}

/// A box keeps the result that every value is checked for in one register.
type Encoded = Result<(), Box<Problem>>;

#[cold]
fn fail(problem: Problem) -> Encoded {
    Err(Box::new(problem))
}

struct Encoder<'e, 'lua, const PRETTY: bool> {
    stack: &'e mut Stack<'lua>,
    vocabulary: &'e Vocabulary,
    out: &'e mut Vec<u8>,
    /// Where the outermost table's key stands.
    bottom: c_int,
    /// How many open tables are taken for arrays unseen.
    hopes: u32,
}

/// In all methods `index` is where the value stands and `key` the free slot above, where a table puts its keys.
impl<const PRETTY: bool> Encoder<'_, '_, PRETTY> {
    #[inline(always)]
    fn value(&mut self, index: c_int, key: c_int) -> Encoded {
        let length = match self.stack.value(index) {
            Value::String(bytes) => bytes.len(),
            _ => 0,
        };
        if !self.vocabulary.known.bounds.has_room(length, self.out) {
            return fail(Problem::Size(self.vocabulary.size_limit()));
        }
        match self.stack.value(index) {
            Value::String(bytes) => text::write(bytes, self.out),
            Value::Number(number) => {
                if !number::write(number, self.out) {
                    return fail(Problem::NotFinite(number));
                }
            }
            Value::Table => return self.table(index, key),
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::Other(kind) => return self.other(index, kind),
        }
        Ok(())
    }

    #[inline(never)]
    fn other(&mut self, index: c_int, kind: Kind) -> Encoded {
        if self.stack.is_null(index) {
            self.out.extend_from_slice(b"null");
            return Ok(());
        }
        if kind == Kind::Userdata
            && let Some(text) = self.vocabulary.texts.text(self.stack, index)
        {
            let Ok(bytes) = text else { return fail(Problem::Gone) };
            text::write(&bytes, self.out);
            return Ok(());
        }
        if let Some(integer) = self.stack.wide_integer(index) {
            self.out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
            return Ok(());
        }
        if kind == Kind::LightUserdata
            && let Some(Foreign::Array) = meaning(self.stack, index, self.vocabulary.loaded)
        {
            self.out.extend_from_slice(b"[]");
            return Ok(());
        }
        fail(Problem::Kind(kind))
    }

    #[inline(never)]
    fn table(&mut self, index: c_int, key: c_int) -> Encoded {
        let level = (key - self.bottom) / SLOTS;
        if level >= MOST_LEVELS {
            return fail(Problem::Depth);
        }
        if let View::Table(table) = self.stack.view(index)
            && !self.vocabulary.known.bounds.admit(table, self.out)
        {
            return fail(Problem::Size(self.vocabulary.size_limit()));
        }
        let metatable = self.stack.metatable_identity(index);
        if metatable == self.vocabulary.known.context.get() {
            return fail(Problem::Context);
        }
        if metatable == self.vocabulary.known.response.get() {
            return fail(Problem::Response);
        }
        // One more slot than the levels take is for the metatable of an empty table.
        if level % LEVELS_AT_ONCE == 0 && !self.stack.reserve(SLOTS * LEVELS_AT_ONCE + 1) {
            return fail(Problem::Room);
        }
        if !metatable.is_null()
            && let Some(columns) = self.vocabulary.known.rows.get(metatable)
        {
            return self.row(index, key, &columns);
        }
        self.stack.push_nil();
        if !self.stack.next(index) {
            self.empty(index);
            return Ok(());
        }
        match self.stack.value(key) {
            Value::String(_) => self.object(index, key),
            Value::Number(1.0) if self.hopes < HOPES => self.hopeful(index, key),
            _ => self.doubtful(index, key),
        }
    }

    /// Writes a row of a database: its columns in their order, then what has been added to it.
    fn row(&mut self, index: c_int, key: c_int, columns: &Columns) -> Encoded {
        self.out.push(b'{');
        for name in columns.names() {
            self.line(key, 1);
            self.stack.push_bytes(name);
            self.stack.push_copy(key);
            self.stack.get_field(index);
            self.key(key)?;
            self.value(key + 1, key + 2)?;
            self.out.push(b',');
            self.stack.truncate(key - 1);
        }
        self.stack.push_nil();
        while self.stack.next(index) {
            let is_column = self.stack.bytes(key).is_some_and(|own| columns.names().iter().any(|name| **name == *own));
            if !is_column {
                self.line(key, 1);
                self.key(key)?;
                self.value(key + 1, key + 2)?;
                self.out.push(b',');
            }
            self.stack.truncate(key);
        }
        if self.out.last() == Some(&b',') {
            self.out.pop();
            self.line(key, 0);
        }
        self.out.push(b'}');
        Ok(())
    }

    fn empty(&mut self, index: c_int) {
        let metatable = self.stack.metatable_identity(index);
        let text: &[u8] = if metatable == self.vocabulary.known.array {
            b"[]"
        } else if metatable.is_null() {
            b"{}"
        } else {
            match meaning(self.stack, index, self.vocabulary.loaded) {
                Some(Foreign::Array) => b"[]",
                Some(Foreign::Null) => b"null",
                None => b"{}",
            }
        };
        self.out.extend_from_slice(text);
    }

    /// Writes an object whose first pair is on the stack.
    fn object(&mut self, index: c_int, key: c_int) -> Encoded {
        self.out.push(b'{');
        loop {
            self.line(key, 1);
            self.key(key)?;
            self.value(key + 1, key + 2)?;
            self.out.push(b',');
            self.stack.truncate(key);
            if !self.stack.next(index) {
                break;
            }
        }
        self.close(key, b'}');
        Ok(())
    }

    #[inline]
    fn key(&mut self, key: c_int) -> Encoded {
        match self.stack.value(key) {
            Value::String(bytes) => text::write(bytes, self.out),
            Value::Number(number) => {
                self.out.push(b'"');
                if !number::write(number, self.out) {
                    return fail(Problem::KeyNotFinite(number));
                }
                self.out.push(b'"');
            }
            _ => return fail(Problem::Key(self.stack.kind(key))),
        }
        self.out.extend_from_slice(if PRETTY { b": " } else { b":" });
        Ok(())
    }

    /// Writes an array as long as the keys keep coming in order; the pair of key 1 is on the stack.
    fn hopeful(&mut self, index: c_int, key: c_int) -> Encoded {
        let start = self.out.len();
        let mut place = 1.0;
        self.hopes += 1;
        self.out.push(b'[');
        loop {
            self.line(key, 1);
            self.value(key + 1, key + 2)?;
            self.out.push(b',');
            self.stack.truncate(key);
            if !self.stack.next(index) {
                break;
            }
            place += 1.0;
            if self.stack.value(key) != Value::Number(place) {
                self.hopes -= 1;
                self.out.truncate(start);
                return self.doubtful(index, key);
            }
        }
        self.hopes -= 1;
        self.close(key, b']');
        Ok(())
    }

    /// Looks at all keys before it writes anything; some pair of the table is on the stack.
    #[cold]
    fn doubtful(&mut self, index: c_int, key: c_int) -> Encoded {
        self.stack.truncate(key - 1);
        match shape(self.stack, index, self.vocabulary)? {
            Shape::Array(length) => self.indexed(index, key, length),
            Shape::Object => {
                self.stack.push_nil();
                self.stack.next(index);
                self.object(index, key)
            }
        }
    }

    /// Writes the items 1 to `length`, in whatever order the table keeps them.
    fn indexed(&mut self, index: c_int, key: c_int, length: u32) -> Encoded {
        self.out.push(b'[');
        for place in 1..=length {
            self.line(key, 1);
            self.stack.push_number(f64::from(place));
            self.stack.push_item(index, place as c_int);
            self.value(key + 1, key + 2)?;
            self.out.push(b',');
            self.stack.truncate(key - 1);
        }
        self.close(key, b']');
        Ok(())
    }

    /// Ends a table that has written at least one item, whose comma gives way.
    #[inline]
    fn close(&mut self, key: c_int, bracket: u8) {
        self.out.pop();
        self.line(key, 0);
        self.out.push(bracket);
    }

    /// Begins a line for the table whose keys stand at `key`, or for something `inside` levels deeper.
    #[inline]
    fn line(&mut self, key: c_int, inside: c_int) {
        if PRETTY {
            self.out.push(b'\n');
            for _ in 0..(key - self.bottom) / SLOTS + inside {
                self.out.extend_from_slice(b"  ");
            }
        }
    }
}
