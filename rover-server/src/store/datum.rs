//! A Lua value as plain data that may cross threads.

use std::sync::Arc;

/// A value that was copied out of a VM. Cloning it copies no bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Datum {
    /// `rover.null`.
    Null,
    Boolean(bool),
    Number(f64),
    String(Arc<[u8]>),
    /// A table and all below it as bytes, in the form of the `state` module.
    Table(Arc<[u8]>),
}

impl Datum {
    /// How many bytes it takes besides its own place.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Datum::Null | Datum::Boolean(_) | Datum::Number(_) => 0,
            Datum::String(bytes) | Datum::Table(bytes) => bytes.len(),
        }
    }
}
