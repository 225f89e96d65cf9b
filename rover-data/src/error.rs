//! Why a database did not do what it was asked.
//!
//! Goes out: one type, sorted by what its reader should do. An outage is answered by the server itself (503); a mistake is
//! the programmer's; a violation is for whoever wrote the values to decide.

use std::fmt;
use std::sync::Arc;

/// The database cannot answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The connection, or what is behind it, is gone.
    Lost,
    /// No connection became free within `queue_timeout`.
    Exhausted,
    /// The statement took longer than `statement_timeout`.
    TimedOut,
    /// Another process holds the lock.
    Busy,
    /// The disk is full.
    Full,
    /// The file, or its folder, cannot be written to.
    ReadOnly,
    /// The file is damaged, or is no database.
    Corrupt,
    /// The database cannot be opened.
    CannotOpen,
    /// There is no memory for it.
    OutOfMemory,
    /// Whoever asked has gone.
    Cancelled,
    /// The database has been closed.
    Closed,
}

/// A rule of the database that values break, or that other transactions make impossible to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A key that is there already.
    Unique,
    /// A row that others refer to, or a reference to a row that is not there.
    ForeignKey,
    /// NULL where none may be.
    NotNull,
    /// A `check` that says no.
    Check,
    /// A value that its column's type cannot hold.
    InvalidValue,
    /// A trigger that raised.
    Trigger,
    /// Another transaction has changed what this one has read.
    Serialization,
    /// Two transactions wait for each other.
    Deadlock,
    /// Another rule.
    Other,
}

impl Violation {
    /// The text by which an app knows it. These do not change.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Violation::Unique => "unique violation",
            Violation::ForeignKey => "foreign key violation",
            Violation::NotNull => "not null violation",
            Violation::Check => "check violation",
            Violation::InvalidValue => "invalid value",
            Violation::Trigger => "trigger violation",
            Violation::Serialization => "serialization failure",
            Violation::Deadlock => "deadlock",
            Violation::Other => "constraint violation",
        }
    }
}

/// What is to be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing: the database cannot answer.
    Unavailable(Outage),
    /// The program is to be mended.
    Mistake,
    /// It is for the caller to decide.
    Violation(Violation),
}

/// Why a database did not do what it was asked.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    class: Class,
    message: String,
    code: Option<String>,
    sql: Option<Arc<str>>,
    offset: Option<usize>,
    constraint: Option<String>,
    table: Option<String>,
    columns: Vec<String>,
}

impl Error {
    fn new(class: Class, message: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            class,
            message: message.into(),
            code: None,
            sql: None,
            offset: None,
            constraint: None,
            table: None,
            columns: Vec::new(),
        }))
    }

    pub(crate) fn outage(outage: Outage, message: impl Into<String>) -> Error {
        Error::new(Class::Unavailable(outage), message)
    }

    pub(crate) fn mistake(message: impl Into<String>) -> Error {
        Error::new(Class::Mistake, message)
    }

    /// A mistake in the use of a database that whoever hands out its parts finds.
    pub fn misuse(message: impl Into<String>) -> Error {
        Error::mistake(message)
    }

    pub(crate) fn violation(violation: Violation, message: impl Into<String>) -> Error {
        Error::new(Class::Violation(violation), message)
    }

    pub(crate) fn with_code(mut self, code: impl Into<String>) -> Error {
        self.0.code = Some(code.into());
        self
    }

    /// The statement that failed, and where in it.
    pub(crate) fn in_sql(mut self, sql: &Arc<str>, offset: Option<usize>) -> Error {
        if self.0.sql.is_none() {
            self.0.sql = Some(sql.clone());
            self.0.offset = offset;
        }
        self
    }

    pub(crate) fn of_constraint(mut self, constraint: &str) -> Error {
        self.0.constraint = Some(constraint.to_owned());
        self
    }

    pub(crate) fn of_columns(mut self, table: &str, columns: Vec<String>) -> Error {
        self.0.table = Some(table.to_owned());
        self.0.columns = columns;
        self
    }

    /// What is to be done about it.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// Whether the database cannot answer now.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self.0.class, Class::Unavailable(_))
    }

    /// What the database says, in one line.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The database's own code: `SQLITE_CONSTRAINT_UNIQUE`, or an SQLSTATE.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The statement as the app wrote it.
    #[must_use]
    pub fn sql(&self) -> Option<&str> {
        self.0.sql.as_deref()
    }

    /// Where the mistake is in [`sql`](Error::sql), in bytes.
    #[must_use]
    pub fn offset(&self) -> Option<usize> {
        self.0.offset
    }

    /// The constraint's name, where the database tells it.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        self.0.constraint.as_deref()
    }

    /// The table, where the database tells it.
    #[must_use]
    pub fn table(&self) -> Option<&str> {
        self.0.table.as_deref()
    }

    /// The columns, where the database tells them.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.0.columns
    }

    /// The statement's line with the mistake and a caret under it, where the database says where it is.
    #[must_use]
    pub fn picture(&self) -> Option<String> {
        let sql = self.sql()?;
        Some(match self.offset() {
            Some(offset) => picture(sql, offset),
            None => excerpt(sql.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim()).to_owned(),
        })
    }
}

/// How much of a line is shown.
const LONGEST_LINE: usize = 120;

fn excerpt(line: &str) -> &str {
    let end = line.char_indices().map(|(at, _)| at).chain([line.len()]).take(LONGEST_LINE + 1).last().unwrap_or(0);
    &line[..end]
}

fn picture(sql: &str, offset: usize) -> String {
    let mut offset = offset.min(sql.len());
    while !sql.is_char_boundary(offset) {
        offset -= 1;
    }
    let start = sql[..offset].rfind('\n').map_or(0, |at| at + 1);
    let end = sql[offset..].find('\n').map_or(sql.len(), |at| offset + at);
    // What is long is shown around the mistake.
    let mut from = start;
    let before = sql[start..offset].chars().count();
    if before > LONGEST_LINE / 2 {
        let skipped = before - LONGEST_LINE / 2;
        from = sql[start..offset].char_indices().nth(skipped).map_or(start, |(at, _)| start + at);
    }
    let line = excerpt(&sql[from..end]).trim_end();
    // Tabs stay, so that the caret stands where the mistake is.
    let gap: String = sql[from..offset].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    format!("{line}\n{gap}^")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Class::Violation(violation) = self.0.class {
            return write!(f, "{}: {}", violation.as_str(), self.0.message);
        }
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_mistake() {
        let at = |sql: &str, offset| Error::mistake("m").in_sql(&sql.into(), Some(offset)).picture().unwrap();
        assert_eq!(at("select frm", 7), "select frm\n       ^");
        assert_eq!(at("select 1\n\tfrom x\nwhere", 15), "\tfrom x\n\t     ^");
        assert_eq!(at("select é from", 9), "select é from\n         ^".replacen("         ^", "        ^", 1));
        assert_eq!(at("x", 99), "x\n ^");
        let long = format!("select {} frm", "x, ".repeat(100));
        let picture = at(&long, long.len() - 3);
        assert!(picture.lines().all(|line| line.chars().count() <= LONGEST_LINE), "{picture}");
        assert!(picture.ends_with(&format!("frm\n{}^", " ".repeat(60))), "{picture}");
    }
}
