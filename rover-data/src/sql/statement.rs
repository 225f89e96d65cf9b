//! A statement that is ready to be sent: normalised text, and a value for each of its placeholders.

use std::sync::Arc;

use super::Sql;
use crate::value::Value;

/// A statement with its values.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What it was made of.
    pub(crate) sql: Arc<Sql>,
    /// For the engine, with the placeholders that it knows.
    pub(crate) text: Arc<str>,
    /// In the order of the placeholders.
    pub(crate) values: Vec<Value>,
    /// How many values each placeholder of `sql` stands for, where one is a list.
    pub(crate) widths: Option<Box<[usize]>>,
    /// Where the app asked for it: `app.lua:12`.
    pub(crate) place: Option<Arc<str>>,
}

impl Statement {
    /// Notes where the app asked for it, for the log of slow statements.
    #[must_use]
    pub fn at(mut self, place: impl Into<Arc<str>>) -> Statement {
        self.place = Some(place.into());
        self
    }

    /// What it was made of.
    #[must_use]
    pub fn sql(&self) -> &Arc<Sql> {
        &self.sql
    }

    /// The text that the engine gets.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The values that the engine gets.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Where `offset` in the engine's text is in the app's.
    pub(crate) fn original_offset(&self, offset: usize) -> usize {
        self.sql.original_offset(offset, self.widths.as_deref())
    }
}
