//! What SQLite says, sorted by what is to be done about it.

use rusqlite::ffi;

use super::watch::{self, Stop};
use crate::error::{Class, Error, Outage, Violation};
use crate::sql::Statement;

/// Makes an error of SQLite's, which `statement` met.
pub(super) fn of(error: &rusqlite::Error, statement: &Statement) -> Error {
    let found = sort(error);
    let offset = match error {
        rusqlite::Error::SqlInputError { offset, .. } => usize::try_from(*offset).ok(),
        _ => None,
    };
    let offset = offset.map(|offset| statement.original_offset(offset));
    found.in_sql(statement.sql().source(), offset)
}

/// Makes an error of SQLite's, which no statement of the app's met.
pub(super) fn sort(error: &rusqlite::Error) -> Error {
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            let message = message.clone().unwrap_or_else(|| failure.to_string());
            of_code(failure.extended_code, message)
        }
        rusqlite::Error::SqlInputError { error, msg, .. } => of_code(error.extended_code, msg.clone()),
        rusqlite::Error::MultipleStatement => {
            Error::mistake("there is a second statement: run one at a time, several with batch")
        }
        rusqlite::Error::Empty => Error::mistake("the SQL text is empty"),
        other => Error::mistake(other.to_string()),
    }
}

fn of_code(code: i32, message: String) -> Error {
    let primary = code & 0xff;
    let outage = |outage, what: &str| Error::outage(outage, format!("{what}: {message}"));
    let found = match primary {
        ffi::SQLITE_CONSTRAINT => violation(code, &message),
        ffi::SQLITE_MISMATCH => Error::violation(Violation::InvalidValue, message),
        ffi::SQLITE_BUSY if code == ffi::SQLITE_BUSY_SNAPSHOT => Error::violation(Violation::Serialization, message),
        ffi::SQLITE_INTERRUPT | ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => match watch::stopped() {
            Some(Stop::TimedOut) => Error::outage(Outage::TimedOut, "the statement took longer than statement_timeout"),
            Some(Stop::Cancelled) => Error::outage(Outage::Cancelled, "the statement was cancelled"),
            None if primary == ffi::SQLITE_INTERRUPT => outage(Outage::Lost, "interrupted"),
            None => outage(Outage::Busy, "another process or a reader holds the lock"),
        },
        ffi::SQLITE_FULL => outage(Outage::Full, "no room to write"),
        ffi::SQLITE_READONLY | ffi::SQLITE_PERM => outage(Outage::ReadOnly, "the database cannot be written to"),
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => outage(Outage::Corrupt, "the database file is damaged"),
        ffi::SQLITE_CANTOPEN => outage(Outage::CannotOpen, "the database cannot be opened"),
        ffi::SQLITE_IOERR | ffi::SQLITE_PROTOCOL => outage(Outage::Lost, "the database file cannot be used"),
        ffi::SQLITE_NOMEM => outage(Outage::OutOfMemory, "no memory"),
        ffi::SQLITE_AUTH => Error::mistake(watch::denied().map_or(message, str::to_owned)),
        _ => Error::mistake(message),
    };
    found.with_code(name_of(code))
}

/// Whether the connection is of no more use after such an error.
pub(super) fn breaks(error: &Error) -> bool {
    matches!(
        error.class(),
        Class::Unavailable(
            Outage::Lost | Outage::Corrupt | Outage::CannotOpen | Outage::OutOfMemory | Outage::ReadOnly | Outage::Full
        )
    )
}

fn violation(code: i32, message: &str) -> Error {
    let kind = match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            Violation::Unique
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Violation::ForeignKey,
        ffi::SQLITE_CONSTRAINT_NOTNULL => Violation::NotNull,
        ffi::SQLITE_CONSTRAINT_CHECK => Violation::Check,
        ffi::SQLITE_CONSTRAINT_DATATYPE => Violation::InvalidValue,
        ffi::SQLITE_CONSTRAINT_TRIGGER => Violation::Trigger,
        _ => Violation::Other,
    };
    let error = Error::violation(kind, message);
    // `UNIQUE constraint failed: users.name, users.email`, or `… failed: index 'by_lower_name'`
    let Some((_, named)) = message.split_once("constraint failed: ") else { return error };
    match kind {
        Violation::Check => error.of_constraint(named),
        Violation::Unique if named.starts_with("index '") => {
            error.of_constraint(named.trim_start_matches("index '").trim_end_matches('\''))
        }
        Violation::Unique | Violation::NotNull => {
            let mut table = "";
            let mut columns = Vec::new();
            for part in named.split(", ") {
                let Some((of, column)) = part.split_once('.') else { return error };
                table = of;
                columns.push(column.to_owned());
            }
            error.of_columns(table, columns)
        }
        _ => error,
    }
}

/// The name of a code, as SQLite's documents have it.
fn name_of(code: i32) -> String {
    let name = match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE => "SQLITE_CONSTRAINT_UNIQUE",
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY => "SQLITE_CONSTRAINT_PRIMARYKEY",
        ffi::SQLITE_CONSTRAINT_ROWID => "SQLITE_CONSTRAINT_ROWID",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "SQLITE_CONSTRAINT_FOREIGNKEY",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "SQLITE_CONSTRAINT_NOTNULL",
        ffi::SQLITE_CONSTRAINT_CHECK => "SQLITE_CONSTRAINT_CHECK",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "SQLITE_CONSTRAINT_DATATYPE",
        ffi::SQLITE_CONSTRAINT_TRIGGER => "SQLITE_CONSTRAINT_TRIGGER",
        ffi::SQLITE_BUSY_SNAPSHOT => "SQLITE_BUSY_SNAPSHOT",
        _ => match code & 0xff {
            ffi::SQLITE_ERROR => "SQLITE_ERROR",
            ffi::SQLITE_BUSY => "SQLITE_BUSY",
            ffi::SQLITE_LOCKED => "SQLITE_LOCKED",
            ffi::SQLITE_NOMEM => "SQLITE_NOMEM",
            ffi::SQLITE_READONLY => "SQLITE_READONLY",
            ffi::SQLITE_INTERRUPT => "SQLITE_INTERRUPT",
            ffi::SQLITE_IOERR => "SQLITE_IOERR",
            ffi::SQLITE_CORRUPT => "SQLITE_CORRUPT",
            ffi::SQLITE_FULL => "SQLITE_FULL",
            ffi::SQLITE_CANTOPEN => "SQLITE_CANTOPEN",
            ffi::SQLITE_PROTOCOL => "SQLITE_PROTOCOL",
            ffi::SQLITE_SCHEMA => "SQLITE_SCHEMA",
            ffi::SQLITE_TOOBIG => "SQLITE_TOOBIG",
            ffi::SQLITE_CONSTRAINT => "SQLITE_CONSTRAINT",
            ffi::SQLITE_MISMATCH => "SQLITE_MISMATCH",
            ffi::SQLITE_MISUSE => "SQLITE_MISUSE",
            ffi::SQLITE_AUTH => "SQLITE_AUTH",
            ffi::SQLITE_RANGE => "SQLITE_RANGE",
            ffi::SQLITE_NOTADB => "SQLITE_NOTADB",
            _ => return format!("SQLITE_{code}"),
        },
    };
    name.to_owned()
}
