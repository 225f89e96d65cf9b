//! The operations of a dictionary of `rover.shared`, for any store.
//!
//! Each call is one atomic step on one key, takes and gives plain data, and may be refused: so a store outside of the
//! process could stand behind the same calls.

use std::time::Duration;

use super::Datum;

/// Why a call has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The dictionary is full.
    NoMemory,
    Exists,
    NotFound,
    NotANumber,
}

impl Refusal {
    /// As Lua sees it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Refusal::NoMemory => "no memory",
            Refusal::Exists => "exists",
            Refusal::NotFound => "not found",
            Refusal::NotANumber => "not a number",
        }
    }
}

/// Entries that all workers see. An entry with a time to live is gone once that is over.
pub(crate) trait Dictionary: Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Option<Datum>;

    /// Stores a value, in place of another one.
    ///
    /// # Errors
    /// [`Refusal::NoMemory`].
    fn set(&self, key: &[u8], value: Datum, ttl: Option<Duration>) -> Result<(), Refusal>;

    /// Stores a value where there is none.
    ///
    /// # Errors
    /// [`Refusal::Exists`], [`Refusal::NoMemory`].
    fn add(&self, key: &[u8], value: Datum, ttl: Option<Duration>) -> Result<(), Refusal>;

    /// Stores a value in place of another one.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::NoMemory`].
    fn replace(&self, key: &[u8], value: Datum, ttl: Option<Duration>) -> Result<(), Refusal>;

    /// Gives an entry another time to live from now on.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    fn expire(&self, key: &[u8], ttl: Option<Duration>) -> Result<(), Refusal>;

    /// How long an entry has to live; `None` if it does not expire.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    fn ttl(&self, key: &[u8]) -> Result<Option<Duration>, Refusal>;

    /// Adds `by` to the number of `key`, which keeps its time to live. Where there is none, `init` is there first, with
    /// `ttl`.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] without `init`, [`Refusal::NotANumber`], [`Refusal::NoMemory`].
    fn incr(&self, key: &[u8], by: f64, init: Option<f64>, ttl: Option<Duration>) -> Result<f64, Refusal>;

    /// Removes an entry, and says whether there was one.
    fn delete(&self, key: &[u8]) -> bool;

    /// At most so many keys, in no order.
    fn keys(&self, most: usize) -> Vec<Box<[u8]>>;

    /// How many entries there are.
    fn len(&self) -> usize;
}
