//! Rows on their way out: cells side by side, with one buffer for all text and bytes, and one list of columns.

use std::sync::Arc;

use crate::error::Error;

/// How a column's values are to be read, as it was declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// As they are.
    Plain,
    /// 0 and 1 are booleans.
    Boolean,
    /// Text is JSON.
    Json,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// As the statement names it.
    pub name: Box<str>,
    /// How its values are to be read.
    pub kind: ColumnType,
}

/// The columns of an answer, in order. Answers to the same statement share them as long as they do not change, so that a
/// reader may keep what it has learnt of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Columns(Box<[Column]>);

impl Columns {
    pub(crate) fn new(columns: Vec<Column>) -> Columns {
        Columns(columns.into())
    }
}

impl std::ops::Deref for Columns {
    type Target = [Column];

    fn deref(&self) -> &[Column] {
        &self.0
    }
}

#[derive(Clone, Copy, Debug)]
enum Cell {
    Null,
    Bool(bool),
    Integer(i64),
    Real(f64),
    Text(Span),
    Blob(Span),
    Json(Span),
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    len: u32,
}

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Datum<'a> {
    /// NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// A number.
    Real(f64),
    /// Text; a database may hold text that is not UTF-8.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
    /// JSON as text.
    Json(&'a [u8]),
}

/// Rows of one statement.
#[derive(Clone, Debug)]
pub struct Rows {
    columns: Arc<Columns>,
    cells: Vec<Cell>,
    bytes: Vec<u8>,
    len: usize,
}

impl Rows {
    pub(crate) fn new() -> Rows {
        Rows { columns: Arc::default(), cells: Vec::new(), bytes: Vec::new(), len: 0 }
    }

    pub(crate) fn set_columns(&mut self, columns: Arc<Columns>) {
        self.columns = columns;
    }

    /// Adds a cell of the next row.
    ///
    /// # Errors
    /// There are more than 4 GB in these rows.
    pub(crate) fn push(&mut self, value: Datum<'_>) -> Result<(), Error> {
        let cell = match value {
            Datum::Null => Cell::Null,
            Datum::Bool(value) => Cell::Bool(value),
            Datum::Integer(value) => Cell::Integer(value),
            Datum::Real(value) => Cell::Real(value),
            Datum::Text(bytes) => Cell::Text(self.keep(bytes)?),
            Datum::Blob(bytes) => Cell::Blob(self.keep(bytes)?),
            Datum::Json(bytes) => Cell::Json(self.keep(bytes)?),
        };
        self.cells.push(cell);
        Ok(())
    }

    /// The cells that were pushed since the last call are a row.
    pub(crate) fn end_row(&mut self) {
        self.len += 1;
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Span, Error> {
        let span = u32::try_from(self.bytes.len()).ok().zip(u32::try_from(bytes.len()).ok());
        let Some((start, len)) = span else { return Err(Error::mistake("the rows are larger than 4 GB")) };
        self.bytes.extend_from_slice(bytes);
        Ok(Span { start, len })
    }

    /// Roughly the memory that they take, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len() + self.cells.len() * size_of::<Cell>()
    }

    /// The columns.
    #[must_use]
    pub fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A value by row and column, from 0; NULL outside.
    #[must_use]
    pub fn get(&self, row: usize, column: usize) -> Datum<'_> {
        if column >= self.columns.len() {
            return Datum::Null;
        }
        let Some(cell) = self.cells.get(row * self.columns.len() + column) else { return Datum::Null };
        let bytes = |span: Span| &self.bytes[span.start as usize..][..span.len as usize];
        match *cell {
            Cell::Null => Datum::Null,
            Cell::Bool(value) => Datum::Bool(value),
            Cell::Integer(value) => Datum::Integer(value),
            Cell::Real(value) => Datum::Real(value),
            Cell::Text(span) => Datum::Text(bytes(span)),
            Cell::Blob(span) => Datum::Blob(bytes(span)),
            Cell::Json(span) => Datum::Json(bytes(span)),
        }
    }

    /// The values of a row in the order of the columns.
    pub fn row(&self, row: usize) -> impl Iterator<Item = Datum<'_>> {
        (0..self.columns.len()).map(move |column| self.get(row, column))
    }
}

/// What a statement brought.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The rows, of a statement that has some.
    pub rows: Rows,
    /// How many rows were inserted, updated or deleted.
    pub affected: u64,
    /// The id of the row that was inserted last, where the database knows it by a number.
    pub id: Option<i64>,
    /// How long the statement ran, without its wait for a connection.
    pub took: std::time::Duration,
}
