//! Turns a Lua value into plain data: a deep copy, made in place without a call into Lua.
//!
//! A table becomes bytes: its items in a row, then its other pairs. Comes in: a place on the stack. Goes out: a [`Datum`],
//! or what cannot be copied and where it stands.

use rover_lua::json::{MOST_LEVELS, Vocabulary};
use rover_lua::{Raise, Stack, TableView, View, is_condemned};

use crate::store::Datum;

/// The first byte of each value within a table.
pub(super) mod tag {
    pub(in super::super) const NIL: u8 = 0;
    pub(in super::super) const FALSE: u8 = 1;
    pub(in super::super) const TRUE: u8 = 2;
    pub(in super::super) const NULL: u8 = 3;
    /// Eight bytes follow.
    pub(in super::super) const NUMBER: u8 = 4;
    /// A length and the bytes follow.
    pub(in super::super) const STRING: u8 = 5;
    /// The number of items, the number of pairs, and both follow.
    pub(in super::super) const TABLE: u8 = 6;
    /// As a table, with the metatable that marks arrays.
    pub(in super::super) const ARRAY: u8 = 7;
}

enum Unstorable {
    Kind(&'static str),
    Key(&'static str),
    Levels,
    /// More bytes than this; a table may hold another twice, which holds another twice, and so on.
    Size(usize),
}

/// What went wrong, and the way there, innermost first.
struct Trouble {
    problem: Unstorable,
    path: Vec<String>,
}

impl Trouble {
    #[cold]
    fn new(problem: Unstorable) -> Box<Trouble> {
        Box::new(Trouble { problem, path: Vec::new() })
    }

    fn message(&self, call: &str) -> String {
        let path: String = self.path.iter().rev().map(String::as_str).collect();
        match &self.problem {
            Unstorable::Kind(what) => format!("{call} cannot store the value{path}: it is {what}"),
            Unstorable::Key(what) => format!("{call} cannot store the value{path}: {what} is a key"),
            Unstorable::Levels => {
                format!("{call} cannot store a value of more than {MOST_LEVELS} levels, or one that holds itself")
            }
            Unstorable::Size(limit) => {
                format!("{call} cannot store a table of more than {limit} bytes (json_size_limit)")
            }
        }
    }
}

/// Copies the value at `index`; `None` for nil.
///
/// # Errors
/// Something in it is no data.
pub(super) fn read(stack: &Stack<'_>, index: i32, vocabulary: &Vocabulary, call: &str) -> Result<Option<Datum>, Raise> {
    let datum = match stack.view(index) {
        View::Nil => return Ok(None),
        View::Boolean(value) => Datum::Boolean(value),
        View::Number(value) => Datum::Number(value),
        View::String(bytes) => Datum::String(bytes.into()),
        View::Light(light) if vocabulary.is_null(light) => Datum::Null,
        View::Table(table) => {
            let mut writer = Writer { vocabulary, out: Vec::new(), left: vocabulary.size_limit() };
            writer.table(table, 1).map_err(|trouble| Raise::Mistake(trouble.message(call)))?;
            Datum::Table(writer.out.into())
        }
        View::Light(_) | View::Other => {
            let kind = stack.kind(index).name();
            return Err(Raise::Mistake(format!("{call} cannot store a {kind}")));
        }
    };
    Ok(Some(datum))
}

struct Writer<'v> {
    vocabulary: &'v Vocabulary,
    out: Vec<u8>,
    /// How long the output may become; less, where looking through tables takes more time than writing them.
    left: usize,
}

/// How many places of a table take as long to be looked through as one byte to be written.
const PLACES_PER_BYTE: usize = 8;

impl Writer<'_> {
    fn table(&mut self, table: TableView<'_>, level: i32) -> Result<(), Box<Trouble>> {
        if level > MOST_LEVELS {
            return Err(Trouble::new(Unstorable::Levels));
        }
        self.left = self.left.saturating_sub(table.places() / PLACES_PER_BYTE);
        if self.out.len() > self.left || is_condemned() {
            return Err(Trouble::new(Unstorable::Size(self.vocabulary.size_limit())));
        }
        let is_array = self.vocabulary.is_array(table.metatable_identity());
        self.out.push(if is_array { tag::ARRAY } else { tag::TABLE });
        let mut length = 0;
        for (n, item) in table.items().enumerate() {
            if !matches!(item, View::Nil) {
                length = n + 1;
            }
        }
        let zeroth = table.has_zeroth().then(|| (View::Number(0.0), table.zeroth()));
        self.length(length);
        self.length(table.pairs().count() + usize::from(zeroth.is_some()));
        for (n, item) in table.items().take(length).enumerate() {
            self.value(item, level).map_err(|trouble| behind(trouble, format!("[{}]", n + 1)))?;
        }
        for (key, value) in zeroth.into_iter().chain(table.pairs()) {
            match key {
                View::String(_) | View::Number(_) | View::Boolean(_) => self.value(key, level)?,
                View::Table(_) => return Err(Trouble::new(Unstorable::Key("a table"))),
                View::Nil | View::Light(_) | View::Other => {
                    return Err(Trouble::new(Unstorable::Key("something other than a string, a number or a boolean")));
                }
            }
            self.value(value, level).map_err(|trouble| behind(trouble, shown(key)))?;
        }
        Ok(())
    }

    fn value(&mut self, value: View<'_>, level: i32) -> Result<(), Box<Trouble>> {
        match value {
            View::Nil => self.out.push(tag::NIL),
            View::Boolean(value) => self.out.push(if value { tag::TRUE } else { tag::FALSE }),
            View::Number(number) => {
                self.out.push(tag::NUMBER);
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            View::String(bytes) => {
                self.out.push(tag::STRING);
                self.length(bytes.len());
                self.out.extend_from_slice(bytes);
            }
            View::Light(light) if self.vocabulary.is_null(light) => self.out.push(tag::NULL),
            View::Table(table) => self.table(table, level + 1)?,
            View::Light(_) | View::Other => {
                return Err(Trouble::new(Unstorable::Kind(
                    "neither nil, a boolean, a number, a string nor a table of these",
                )));
            }
        }
        match self.out.len() > self.left {
            true => Err(Trouble::new(Unstorable::Size(self.vocabulary.size_limit()))),
            false => Ok(()),
        }
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow.
    fn length(&mut self, mut length: usize) {
        while length >= 0x80 {
            self.out.push(length as u8 | 0x80);
            length >>= 7;
        }
        self.out.push(length as u8);
    }
}

#[cold]
fn behind(mut trouble: Box<Trouble>, step: String) -> Box<Trouble> {
    trouble.path.push(step);
    trouble
}

#[cold]
fn shown(key: View<'_>) -> String {
    match key {
        View::String(bytes) => format!(".{}", String::from_utf8_lossy(bytes)),
        View::Number(number) => format!("[{number}]"),
        View::Boolean(value) => format!("[{value}]"),
        _ => String::new(),
    }
}
