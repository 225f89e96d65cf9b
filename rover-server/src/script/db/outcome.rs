//! What a statement has brought, on its way to Lua.

use std::time::Duration;

use rover_data::{Class, Error, Violation};

use super::Databases;
use crate::log::{self, Level};
use rover_lua::{Raise, Returns, Stack, caller};

/// A mistake in SQL, with a picture of where it is.
pub(super) fn mistake(error: &Error) -> Raise {
    match error.picture() {
        Some(picture) => Raise::Mistake(format!("{}\n{}", error.message(), indented(&picture))),
        None => Raise::mistake(error.message()),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

impl Databases {
    /// Says what is wrong: raises what the app cannot answer, returns `nil, err, info` of what it decides.
    pub(super) fn failed(&self, stack: &mut Stack<'_>, error: &Error) -> Returns {
        match error.class() {
            Class::Mistake => Err(mistake(error)),
            Class::Unavailable(_) => Err(self.outage(stack, error)),
            Class::Violation(violation) => Ok(push_violation(stack, error, violation)),
        }
    }

    /// Makes the error that is answered 503.
    fn outage(&self, stack: &mut Stack<'_>, error: &Error) -> Raise {
        stack.push_table(0, 3);
        let table = stack.top();
        let message = format!("the database cannot answer: {}", error.message());
        for (name, text) in [("error", "Service Unavailable"), ("message", &message)] {
            stack.push_bytes(name.as_bytes());
            stack.push_bytes(text.as_bytes());
            stack.set_field(table);
        }
        stack.push_bytes(b"status");
        stack.push_number(503.0);
        stack.set_field(table);
        stack.push_anchored(self.outage_meta);
        stack.set_metatable(table);
        Raise::Value
    }

    /// Tells of a statement that took long, with its place in the app.
    pub(super) fn told_if_slow(&self, stack: &Stack<'_>, sql: &str, took: Duration, slow: Option<Duration>) {
        if slow.is_some_and(|slow| took >= slow) {
            tell(stack, sql, took);
        }
    }
}

#[cold]
fn tell(stack: &Stack<'_>, sql: &str, took: Duration) {
    /// How much of a statement is told.
    const SHOWN: usize = 2000;
    let end = (0..=SHOWN.min(sql.len())).rev().find(|&end| sql.is_char_boundary(end)).unwrap_or(0);
    let place = caller(stack).map(|frame| format!("{}:{}", frame.file, frame.line)).unwrap_or_default();
    log::event(Level::Warn, "slow query")
        .field("place", &*place)
        .field("ms", &*format!("{:.0}", took.as_secs_f64() * 1000.0))
        .field("sql", &sql[..end])
        .emit();
}

fn push_violation(stack: &mut Stack<'_>, error: &Error, violation: Violation) -> i32 {
    stack.push_nil();
    stack.push_bytes(violation.as_str().as_bytes());
    stack.push_table(0, 5);
    let info = stack.top();
    let texts = [
        ("code", error.code()),
        ("constraint", error.constraint()),
        ("table", error.table()),
        ("detail", Some(error.message())),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            stack.push_bytes(name.as_bytes());
            stack.push_bytes(text.as_bytes());
            stack.set_field(info);
        }
    }
    if !error.columns().is_empty() {
        stack.push_bytes(b"columns");
        stack.push_table(error.columns().len(), 0);
        let columns = stack.top();
        for (n, column) in (1..).zip(error.columns()) {
            stack.push_bytes(column.as_bytes());
            stack.set_item(columns, n);
        }
        stack.set_field(info);
    }
    3
}
