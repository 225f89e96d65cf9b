//! The FastRouter: finds the handler of a method and a path.
//!
//! In: the routes that the app declared, once at start-up; then (method, normal path) for every request.
//! Out: a [`RouteId`] with the places of the parameters in the path, or the reason why there is none.
//! Must not know: Lua, sockets, headers other than the value of `Allow`. It is immutable after
//! [`FastRouter::build`], so that all workers share one behind an `Arc` without a lock.

mod build;
mod guards;
mod literal;
mod method;
mod normal;
mod params;
mod pattern;
mod rank;
mod router;

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;

pub use crate::config::TrailingSlash;
pub use build::Mistake;
pub use guards::{Guards, NamedValue, Reach};
pub use literal::below;
pub use method::Verb;
pub use normal::{SentPath, is_normal, normalise};
pub use params::{Params, decode_param};
pub use pattern::{Pattern, PatternMistake, Segment};
pub use router::{FastRouter, RouteMatch, SlashChange};

use std::{fmt, sync::Arc};

/// Index of a declared handler. Each worker keeps its handlers in a `Vec` indexed by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RouteId(pub u32);

impl RouteId {
    /// Returns the place of the handler in the list that [`FastRouter::build`] was given.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where something was declared, for messages. Displays as `app.lua:12`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The file as the Lua author knows it, such as `app.lua`.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One declared handler: what it answers, and where it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteDecl {
    /// The method that it answers.
    pub verb: Verb,
    /// The paths that it answers.
    pub pattern: Pattern,
    /// Where the app declares it.
    pub origin: Origin,
}
