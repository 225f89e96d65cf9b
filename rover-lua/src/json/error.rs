//! Why a value cannot be JSON, or a text is none, in the words of a Lua author.

use std::fmt;

use crate::Kind;

/// A value that JSON cannot hold, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodeError {
    /// From the encoded value down, as Lua would write it: `data.items[3].fn`. Empty for the value itself.
    pub(super) path: String,
    pub(super) problem: Problem,
}

impl EncodeError {
    /// The value makes more bytes than this.
    pub(super) fn size(limit: usize) -> EncodeError {
        EncodeError { path: String::new(), problem: Problem::Size(limit) }
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Problem {
    /// A value of this kind.
    Kind(Kind),
    /// NaN or an infinity.
    NotFinite(f64),
    /// A table has a key of this kind.
    Key(Kind),
    /// A table has an infinity as a key.
    KeyNotFinite(f64),
    /// More levels than allowed. Becomes [`Problem::Cycle`] when that turns out to be the reason.
    Depth,
    /// A table that contains itself: the path of its first appearance.
    Cycle(String),
    /// A tagged array with `items` items, the last one at `last`.
    Holes { items: u32, last: u32 },
    /// More bytes of JSON than this.
    Size(usize),
    /// Lua's stack has no room.
    Room,
    /// A request's context.
    Context,
    /// A response.
    Response,
    /// The body of a request that is over.
    Gone,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self.path.as_str() {
            "" => "the value",
            path => path,
        };
        match &self.problem {
            Problem::Kind(kind) => {
                write!(f, "{path} is a {}, which JSON cannot hold", kind.name())
            }
            Problem::NotFinite(number) => {
                write!(f, "{path} is {}, which JSON cannot hold", name(*number))
            }
            Problem::Key(kind) => {
                write!(f, "{path} has a {} as a key, which JSON cannot hold", kind.name())
            }
            Problem::KeyNotFinite(number) => {
                write!(f, "{path} has {} as a key, which JSON cannot hold", name(*number))
            }
            Problem::Depth => write!(f, "{path} is nested more than {} levels", super::MOST_LEVELS),
            Problem::Cycle(first) => {
                let first = match first.as_str() {
                    "" => "the value itself",
                    path => path,
                };
                write!(f, "{path} is a cycle: the same table as {first}")
            }
            Problem::Holes { items, last } => {
                write!(f, "{path} is an array with too many holes: {items} items up to index {last}")
            }
            Problem::Size(limit) => {
                write!(
                    f,
                    "{path} is more than {limit} bytes of JSON (json_size_limit); does a table stand in it many times?"
                )
            }
            Problem::Room => write!(f, "{path} is nested too deeply for the Lua stack"),
            Problem::Context => write!(f, "{path} is a context, which JSON cannot hold"),
            Problem::Gone => write!(f, "{path} is {}", super::Gone),
            Problem::Response => write!(f, "{path} is a response, which JSON cannot hold"),
        }
    }
}

impl std::error::Error for EncodeError {}

fn name(number: f64) -> &'static str {
    if number.is_nan() {
        "nan"
    } else if number > 0.0 {
        "inf"
    } else {
        "-inf"
    }
}

/// A text that is not JSON: what is wrong, with line and column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    pub(super) message: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}
