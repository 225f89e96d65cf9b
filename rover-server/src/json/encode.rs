//! From the Lua stack to JSON.
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
use super::{MOST_LEVELS, Vocabulary, number, text};
use crate::lua::{Kind, Stack, Value};

/// Slots of the stack that one level takes: its key and its value.
const SLOTS: c_int = 2;

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
pub(crate) fn encode(
    stack: &mut Stack<'_>,
    index: c_int,
    vocabulary: &Vocabulary,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    run::<false>(stack, index, vocabulary, out)
}

/// Like [`encode`], for people to read: one item a line, indented by two spaces a level.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_pretty(
    stack: &mut Stack<'_>,
    index: c_int,
    vocabulary: &Vocabulary,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    run::<true>(stack, index, vocabulary, out)
}

fn run<const PRETTY: bool>(
    stack: &mut Stack<'_>,
    index: c_int,
    vocabulary: &Vocabulary,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let (start, top) = (out.len(), stack.top());
    let mut encoder = Encoder::<PRETTY> {
        stack,
        vocabulary,
        out,
        bottom: top + 1,
        hopes: 0,
    };
    encoder.value(index, top + 1).map_err(|problem| {
        out.truncate(start);
        let error = locate(stack, index, top, problem);
        stack.truncate(top);
        error
    })
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
    #[inline]
    fn value(&mut self, index: c_int, key: c_int) -> Result<(), Problem> {
        match self.stack.value(index) {
            Value::String(bytes) => text::write(bytes, self.out),
            Value::Number(number) => {
                if !number::write(number, self.out) {
                    return Err(Problem::NotFinite(number));
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
    fn other(&mut self, index: c_int, kind: Kind) -> Result<(), Problem> {
        if self.stack.is_null(index) {
            self.out.extend_from_slice(b"null");
            return Ok(());
        }
        if kind == Kind::Userdata
            && let Some(bytes) = self.vocabulary.texts.get(self.stack, index)
        {
            text::write(bytes, self.out);
            return Ok(());
        }
        Err(Problem::Kind(kind))
    }

    #[inline(never)]
    fn table(&mut self, index: c_int, key: c_int) -> Result<(), Problem> {
        let level = (key - self.bottom) / SLOTS;
        if level >= MOST_LEVELS {
            return Err(Problem::Depth);
        }
        // One more slot than the levels take is for the metatable of an empty table.
        if level % LEVELS_AT_ONCE == 0 && !self.stack.reserve(SLOTS * LEVELS_AT_ONCE + 1) {
            return Err(Problem::Room);
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

    fn empty(&mut self, index: c_int) {
        let array = self.stack.metatable_identity(index) == self.vocabulary.array_identity;
        self.out.extend_from_slice(if array { b"[]" } else { b"{}" });
    }

    /// Writes an object whose first pair is on the stack.
    fn object(&mut self, index: c_int, key: c_int) -> Result<(), Problem> {
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
    fn key(&mut self, key: c_int) -> Result<(), Problem> {
        match self.stack.value(key) {
            Value::String(bytes) => text::write(bytes, self.out),
            Value::Number(number) => {
                self.out.push(b'"');
                if !number::write(number, self.out) {
                    return Err(Problem::KeyNotFinite(number));
                }
                self.out.push(b'"');
            }
            _ => return Err(Problem::Key(self.stack.kind(key))),
        }
        self.out
            .extend_from_slice(if PRETTY { b": " } else { b":" });
        Ok(())
    }

    /// Writes an array as long as the keys keep coming in order; the pair of key 1 is on the stack.
    fn hopeful(&mut self, index: c_int, key: c_int) -> Result<(), Problem> {
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
    fn doubtful(&mut self, index: c_int, key: c_int) -> Result<(), Problem> {
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
    fn indexed(&mut self, index: c_int, key: c_int, length: u32) -> Result<(), Problem> {
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

/// Reads off the stack where a problem is: the value at `index`, and above `top` the keys and values down to it.
#[cold]
fn locate(stack: &Stack<'_>, index: c_int, top: c_int, problem: Problem) -> EncodeError {
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
                return EncodeError {
                    path: path(stack, top, lower),
                    problem: Problem::Cycle(path(stack, top, upper)),
                };
            }
        }
    }
    EncodeError {
        path: path(stack, top, steps),
        problem,
    }
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
