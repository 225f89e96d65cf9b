//! Reads SQL text with placeholders, and puts it together for an engine.
//!
//! Comes in: text with `?` in order, `:name`, or `$1`, and what stands for each. Goes out: text with the engine's own
//! placeholders, and the values in their order; a value never becomes text. A text is read once: what is known of it is
//! shared by everybody who sends it.

mod lexer;
mod statement;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use self::lexer::{Lexer, Token};
pub use self::statement::Statement;
use crate::error::Error;
use crate::rows::Columns;
use crate::value::{Argument, Value};

/// Whose language a text is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite's.
    Sqlite,
    /// PostgreSQL's.
    Postgres,
}

/// The longest text, in bytes: a limit of SQLite's.
const LONGEST: usize = 1_000_000_000;

/// The most values that a statement may have: a limit of SQLite's.
const MOST_VALUES: usize = 32_766;

/// What a statement begins with, as far as it matters to who runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    /// `select`, `values`, `explain`, `pragma`: it reads, as a rule.
    Reads,
    /// `with`: it may do either.
    With,
    /// `insert`, `replace`
    Insert,
    /// `update`, `delete`
    Changes,
    /// `vacuum`: it cannot be in a transaction.
    Vacuum,
    /// `create`: a trigger's body has semicolons.
    Create,
    Other,
}

impl Keyword {
    fn of(word: &str) -> Keyword {
        let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
        match () {
            () if is(&["select", "values", "explain", "pragma", "show", "table"]) => Keyword::Reads,
            () if is(&["with"]) => Keyword::With,
            () if is(&["insert", "replace"]) => Keyword::Insert,
            () if is(&["update", "delete", "merge"]) => Keyword::Changes,
            () if is(&["vacuum"]) => Keyword::Vacuum,
            () if is(&["create"]) => Keyword::Create,
            () => Keyword::Other,
        }
    }
}

/// A part of the text.
#[derive(Clone, Debug)]
enum Segment {
    /// As it was written.
    Text(Range<usize>),
    /// A question mark that is no placeholder.
    Question,
    /// A placeholder: which, and whether a list may stand there.
    Place { index: usize, takes_list: bool, at: Range<usize> },
}

/// How placeholders are written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Style {
    None,
    Questions,
    Numbers,
    Names,
}

/// SQL text that has been read.
#[derive(Debug)]
pub struct Sql {
    source: Arc<str>,
    segments: Box<[Segment]>,
    style: Style,
    /// How many values it needs.
    count: usize,
    /// The names in order, where placeholders have some.
    names: Box<[Box<str>]>,
    /// The text for the engine, where no list is among the values.
    plain: Arc<str>,
    dialect: Dialect,
    keyword: Keyword,
    /// Whether it only reads: 0 not known, 1 it does, 2 it does not. A guess that engines make of what they found.
    reads: AtomicU8,
    /// The columns of the last answer.
    columns: Mutex<Arc<Columns>>,
}

impl Sql {
    /// Reads a text.
    ///
    /// # Errors
    /// It has placeholders of two kinds, or of a kind that is not understood, or is more than one statement.
    pub fn read(text: &str, dialect: Dialect) -> Result<Arc<Sql>, Error> {
        let source: Arc<str> = text.into();
        let mistake = |message: String, at: usize| Err(Error::mistake(message).in_sql(&source, Some(at)));
        if let Some(at) = memchr::memchr(0, text.as_bytes()) {
            return mistake("SQL text cannot have a NUL byte in it".to_owned(), at);
        }
        if text.len() > LONGEST {
            return Err(Error::mistake("SQL text is larger than 1 GB"));
        }
        let mut reader = Reader { text, ..Reader::default() };
        for (token, start, end) in Lexer::new(text, dialect) {
            if let Err(message) = reader.take(token, start, end, dialect) {
                return mistake(message, start);
            }
        }
        reader.text_until(text.len());
        let Some(keyword) = reader.keyword else { return Err(Error::mistake("the SQL text is empty")) };
        let mut sql = Sql {
            source,
            segments: reader.segments.into(),
            style: reader.style,
            count: reader.count,
            names: reader.names.into(),
            plain: "".into(),
            dialect,
            keyword,
            reads: AtomicU8::new(0),
            columns: Mutex::default(),
        };
        let plain = match sql.is_as_written() {
            true => sql.source.clone(),
            false => sql.render(None).into(),
        };
        sql.plain = plain;
        Ok(Arc::new(sql))
    }

    /// The text as it was written.
    #[must_use]
    pub fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// The names of its placeholders, each once, in order; empty where they have none.
    #[must_use]
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// How many values it needs.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn keyword(&self) -> Keyword {
        self.keyword
    }

    /// Whether it is thought to only read.
    pub(crate) fn reads(&self) -> bool {
        match self.reads.load(Ordering::Relaxed) {
            0 => matches!(self.keyword, Keyword::Reads | Keyword::With),
            known => known == 1,
        }
    }

    /// Notes what the database says of it.
    pub(crate) fn note_reads(&self, reads: bool) {
        self.reads.store(if reads { 1 } else { 2 }, Ordering::Relaxed);
    }

    /// `columns`, or those of an answer before that are the same.
    pub(crate) fn share_columns(
        &self,
        is_same: impl FnOnce(&Columns) -> bool,
        make: impl FnOnce() -> Columns,
    ) -> Arc<Columns> {
        let mut known = self.columns.lock();
        if !is_same(&known) {
            *known = Arc::new(make());
        }
        known.clone()
    }

    /// Gives each placeholder its value, in order.
    ///
    /// # Errors
    /// There are more or fewer values than placeholders, or a list stands where none may.
    pub fn with(self: &Arc<Self>, arguments: Vec<Argument>) -> Result<Statement, Error> {
        if self.style == Style::Names {
            let first = self.names.first().map_or("", |name| name);
            return Err(self.mistake(format!("the placeholders have names: give one table, such as {{ {first} = … }}")));
        }
        if arguments.len() != self.count {
            return Err(self.wrong_count(arguments.len()));
        }
        self.fill(arguments)
    }

    /// Gives each name its value.
    ///
    /// # Errors
    /// A name has none, or a list stands where none may, or the placeholders have no names.
    pub fn with_names(
        self: &Arc<Self>,
        mut value_of: impl FnMut(&str) -> Result<Option<Argument>, Error>,
    ) -> Result<Statement, Error> {
        if !matches!(self.style, Style::Names | Style::None) {
            return Err(self.mistake("the placeholders have no names: give values in order".to_owned()));
        }
        let mut arguments = Vec::with_capacity(self.count);
        for name in &self.names {
            match value_of(name)? {
                Some(argument) => arguments.push(argument),
                None => return Err(self.mistake(format!("there is no value for :{name}"))),
            }
        }
        self.fill(arguments)
    }

    fn mistake(&self, message: String) -> Error {
        Error::mistake(message).in_sql(&self.source, None)
    }

    #[cold]
    fn wrong_count(&self, given: usize) -> Error {
        let values = |n: usize| if n == 1 { "1 value".to_owned() } else { format!("{n} values") };
        self.mistake(format!("the statement needs {}, not {given}", values(self.count)))
    }

    fn fill(self: &Arc<Self>, arguments: Vec<Argument>) -> Result<Statement, Error> {
        if arguments.iter().any(|argument| matches!(argument, Argument::List(_))) {
            return self.fill_with_lists(arguments);
        }
        let values = arguments.into_iter().filter_map(|argument| match argument {
            Argument::One(value) => Some(value),
            Argument::List(_) => None,
        });
        let (text, values) = (self.plain.clone(), values.collect());
        Ok(Statement { sql: self.clone(), text, values, widths: None, place: None })
    }

    /// Each list becomes as many placeholders, rounded up to a power of two by its last value, so that few texts are to be
    /// prepared.
    #[cold]
    fn fill_with_lists(self: &Arc<Self>, arguments: Vec<Argument>) -> Result<Statement, Error> {
        for segment in &self.segments {
            if let Segment::Place { index, takes_list: false, at } = segment
                && matches!(arguments.get(*index), Some(Argument::List(_)))
            {
                let error = Error::mistake("a list can only stand for the one placeholder of `in (?)`");
                return Err(error.in_sql(&self.source, Some(at.start)));
            }
        }
        let exact: usize = arguments
            .iter()
            .map(|argument| match argument {
                Argument::One(_) => 1,
                Argument::List(list) => list.len(),
            })
            .sum();
        if exact > MOST_VALUES {
            return Err(self.mistake(format!("the statement has {exact} values, more than {MOST_VALUES}")));
        }
        let has_room = exact * 2 <= MOST_VALUES;
        let (mut values, mut widths) = (Vec::with_capacity(exact), Vec::with_capacity(arguments.len()));
        for argument in arguments {
            let before = values.len();
            match argument {
                Argument::One(value) => values.push(value),
                Argument::List(list) => {
                    let width = if list.is_empty() || !has_room { list.len() } else { list.len().next_power_of_two() };
                    values.extend(list);
                    if let Some(last) = values.last().cloned() {
                        values.resize(before + width, last);
                    }
                }
            }
            widths.push(values.len() - before);
        }
        let text = self.render(Some(&widths)).into();
        Ok(Statement { sql: self.clone(), text, values, widths: Some(widths.into()), place: None })
    }

    /// Whether the engine takes the text as it is.
    fn is_as_written(&self) -> bool {
        match self.dialect {
            Dialect::Sqlite => matches!(self.style, Style::None | Style::Questions),
            Dialect::Postgres => {
                let has_literal = self.segments.iter().any(|segment| matches!(segment, Segment::Question));
                matches!(self.style, Style::None | Style::Numbers) && !has_literal
            }
        }
    }

    /// The text for the engine; `widths` says how many values each placeholder stands for.
    fn render(&self, widths: Option<&[usize]>) -> String {
        let mut text = String::with_capacity(self.source.len() + self.count * 2);
        self.walk(widths, |_, part| text.push_str(part));
        text
    }

    /// Where `offset` in the rendered text is in the source.
    pub(crate) fn original_offset(&self, offset: usize, widths: Option<&[usize]>) -> usize {
        if widths.is_none() && self.is_as_written() {
            return offset.min(self.source.len());
        }
        let (mut rendered, mut found) = (0, None);
        self.walk(widths, |segment, part| {
            if found.is_none() && offset < rendered + part.len() {
                found = Some(match segment {
                    Segment::Text(range) => range.start + (offset - rendered),
                    Segment::Place { at, .. } => at.start,
                    Segment::Question => 0,
                });
            }
            rendered += part.len();
        });
        found.unwrap_or(self.source.len())
    }

    /// Calls `take` with each part of the rendered text.
    fn walk(&self, widths: Option<&[usize]>, mut take: impl FnMut(&Segment, &str)) {
        let sigil = match self.dialect {
            Dialect::Sqlite => '?',
            Dialect::Postgres => '$',
        };
        let starts: Option<Vec<usize>> = widths.map(|widths| {
            widths
                .iter()
                .scan(0, |next, width| {
                    *next += width;
                    Some(*next - width)
                })
                .collect()
        });
        for segment in &self.segments {
            match segment {
                Segment::Text(range) => take(segment, &self.source[range.clone()]),
                Segment::Question => take(segment, "?"),
                Segment::Place { index, .. } => {
                    let width = widths.and_then(|widths| widths.get(*index)).copied().unwrap_or(1);
                    let start = starts.as_ref().and_then(|starts| starts.get(*index)).copied().unwrap_or(*index);
                    let numbers: Vec<String> = (start..start + width).map(|n| format!("{sigil}{}", n + 1)).collect();
                    take(segment, &numbers.join(","));
                }
            }
        }
    }
}

/// What has been read so far.
struct Reader<'a> {
    text: &'a str,
    segments: Vec<Segment>,
    /// Where text begins that is in no segment yet.
    from: usize,
    style: Style,
    count: usize,
    names: Vec<Box<str>>,
    keyword: Option<Keyword>,
    /// How far into `in (?)` the last tokens are: after the word, the parenthesis, the placeholder.
    within: u8,
    has_ended: bool,
}

impl Default for Reader<'_> {
    fn default() -> Self {
        Reader {
            text: "",
            segments: Vec::new(),
            from: 0,
            style: Style::None,
            count: 0,
            names: Vec::new(),
            keyword: None,
            within: 0,
            has_ended: false,
        }
    }
}

impl Reader<'_> {
    fn text_until(&mut self, end: usize) {
        if end > self.from {
            self.segments.push(Segment::Text(self.from..end));
        }
    }

    fn take(&mut self, token: Token, start: usize, end: usize, dialect: Dialect) -> Result<(), String> {
        let text = &self.text[start..end];
        if token == Token::Blank {
            return Ok(());
        }
        if token == Token::Semicolon {
            self.has_ended |= self.keyword.is_some();
            return Ok(());
        }
        if self.has_ended && self.keyword != Some(Keyword::Create) {
            return Err("there is a second statement: run one at a time, several with batch".to_owned());
        }
        if self.keyword.is_none() {
            self.keyword = Some(if token == Token::Word { Keyword::of(text) } else { Keyword::Other });
        }
        let before = std::mem::take(&mut self.within);
        match token {
            Token::Word if text.eq_ignore_ascii_case("in") => self.within = 1,
            Token::Open if before == 1 => self.within = 2,
            Token::Close if before == 3 => {
                if let Some(Segment::Place { takes_list, .. }) = self.segments.last_mut() {
                    *takes_list = true;
                }
            }
            Token::Question => {
                let index = self.count;
                self.count += 1;
                self.place(Style::Questions, index, start, end, before)?;
            }
            Token::Numbered => {
                let number = text[1..].parse().ok().filter(|number| (1..=65_535).contains(number));
                let Some(number): Option<usize> = number else { return Err(format!("{text} is not a placeholder")) };
                self.count = self.count.max(number);
                self.place(Style::Numbers, number - 1, start, end, before)?;
            }
            Token::Named => {
                let name = &text[1..];
                let known = self.names.iter().position(|known| &**known == name);
                let index = known.unwrap_or(self.names.len());
                if known.is_none() {
                    self.names.push(name.into());
                    self.count = self.names.len();
                }
                self.place(Style::Names, index, start, end, before)?;
            }
            Token::Literal if dialect == Dialect::Sqlite => {
                return Err("SQLite has no operator with a question mark".to_owned());
            }
            Token::Literal => {
                self.text_until(start);
                self.segments.push(Segment::Question);
                self.from = end;
            }
            Token::Foreign => return Err(format!("{text} is not understood as a placeholder: write ? or :name")),
            _ => {}
        }
        Ok(())
    }

    fn place(&mut self, style: Style, index: usize, start: usize, end: usize, before: u8) -> Result<(), String> {
        if self.style != Style::None && self.style != style {
            return Err("placeholders of two kinds in one statement: write ? everywhere, or :name".to_owned());
        }
        self.style = style;
        self.text_until(start);
        self.segments.push(Segment::Place { index, takes_list: false, at: start..end });
        self.from = end;
        self.within = if before == 2 { 3 } else { 0 };
        Ok(())
    }
}

impl From<Vec<Value>> for Argument {
    fn from(values: Vec<Value>) -> Argument {
        Argument::List(values)
    }
}
