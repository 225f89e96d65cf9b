//! Searches the handler of a method and a path.
//!
//! In: a request's method and its path, in the normal spelling. Out: [`RouteMatch`]. The path is chosen first, then the method within the
//! chosen path. Must not know: how the tables are checked and filled (`build`).

use std::collections::HashMap;

use foldhash::fast::RandomState;
use http::{HeaderValue, Method};

use super::method::{MethodMatch, MethodTable};
use super::normal::{place_in, with_plain_delimiters};
use super::rank::Rank;
use super::{Params, RouteDecl, RouteId};
use crate::config::TrailingSlash;

/// The known spelling of a path with a wrong trailing slash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlashChange {
    /// The path with a `/` at its end.
    Add,
    /// The path without its last `/`.
    Remove,
}

impl SlashChange {
    /// Returns the known spelling of the path that was searched for; the caller adds the query.
    #[must_use]
    pub fn apply(self, path: &str) -> String {
        match self {
            SlashChange::Add => format!("{path}/"),
            SlashChange::Remove => path.strip_suffix('/').unwrap_or(path).to_owned(),
        }
    }
}

/// What the router knows about a method and a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteMatch<'r> {
    /// A handler answers.
    Route {
        /// The handler.
        id: RouteId,
        /// Where the parameters lie in the path, in the order of [`FastRouter::param_names`].
        params: Params,
    },
    /// 405: the path is known and does not declare the method.
    MethodNotAllowed {
        /// The value of `Allow`.
        allow: &'r HeaderValue,
        /// One of the handlers that the path has.
        other: RouteId,
    },
    /// 405: CONNECT to a host, which does not ask for a path.
    Tunnel {
        /// The value of `Allow`.
        allow: &'r HeaderValue,
    },
    /// 204: OPTIONS, answered from the declared methods; `OPTIONS *` from those of the whole app.
    Options {
        /// The value of `Allow`.
        allow: &'r HeaderValue,
    },
    /// 308: only the other spelling of the path is known.
    Redirect(SlashChange),
    /// 404: the path is unknown.
    NotFound,
    /// 400: the value of a path parameter holds a `%` without two hexadecimal digits.
    BadEncoding,
}

/// Maps a method and a path to a handler. Immutable, `Send + Sync`, shared by all workers.
#[derive(Debug)]
pub struct FastRouter {
    pub(super) paths: Vec<Path>,
    /// Paths without parameters. The look-up compares the whole path, never only its hash.
    pub(super) exact: HashMap<Box<str>, u32, RandomState>,
    /// Patterns whose parameters are single segments.
    pub(super) segments: matchit::Router<u32>,
    /// Patterns that end in the rest of the path, one router for each number of segments: matchit does not take
    /// `/a/{id}` and `/a/{*rest}` into one.
    pub(super) rests: Vec<matchit::Router<u32>>,
    /// Parameter names by route.
    pub(super) names: Vec<Box<[Box<str>]>>,
    pub(super) routes: Vec<RouteDecl>,
    pub(super) every_method: HeaderValue,
    pub(super) trailing: TrailingSlash,
    /// Some literal holds what clients may send encoded as well, such as the `@` of `/@me`.
    pub(super) has_delimiters: bool,
}

/// One known path or pattern.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) methods: MethodTable,
    pub(super) rank: Rank,
}

impl FastRouter {
    /// Finds what answers `method` on `path`, which has the normal spelling (`normal`) and no query.
    ///
    /// Literal segments win over parameters and parameters over the rest of the path, decided segment by segment from
    /// the left; a dead end goes back. Costs no allocation for up to three parameters.
    #[must_use]
    #[inline]
    pub fn find<'r>(&'r self, method: &Method, path: &str) -> RouteMatch<'r> {
        if self.has_delimiters && path.contains('%') {
            return self.find_encoded(method, path);
        }
        self.search(method, path)
    }

    /// Finds what answers a path that may hold what literals have in another form. The parameters lie in `path`.
    #[cold]
    fn find_encoded<'r>(&'r self, method: &Method, path: &str) -> RouteMatch<'r> {
        let Some(plain) = with_plain_delimiters(path) else { return self.search_on(method, path) };
        match self.search_on(method, &plain) {
            RouteMatch::Route { id, params } => {
                RouteMatch::Route { id, params: params.moved(|place| place_in(path, place)) }
            }
            other => other,
        }
    }

    /// Like [`FastRouter::search`], kept apart from the usual search.
    #[inline(never)]
    fn search_on<'r>(&'r self, method: &Method, path: &str) -> RouteMatch<'r> {
        self.search(method, path)
    }

    #[inline(always)]
    fn search<'r>(&'r self, method: &Method, path: &str) -> RouteMatch<'r> {
        // A path of literals only is the most specific match that there can be.
        if let Some(known) = self.exact.get(path).and_then(|index| self.paths.get(*index as usize)) {
            return match known.methods.answer(method) {
                MethodMatch::Handler(id) => RouteMatch::Route { id, params: Params::default() },
                MethodMatch::Options(allow) => RouteMatch::Options { allow },
                MethodMatch::NotAllowed(allow, other) => RouteMatch::MethodNotAllowed { allow, other },
            };
        }
        match self.find_pattern(path) {
            Some((index, params)) => self.answer_pattern(index, params, method, path),
            None => self.unknown(method, path),
        }
    }

    /// Returns the declarations that the router was built from, indexed by [`RouteId`].
    #[must_use]
    pub fn routes(&self) -> &[RouteDecl] {
        &self.routes
    }

    /// Returns the names of a route's parameters, in the order of [`Params`].
    #[must_use]
    pub fn param_names(&self, id: RouteId) -> &[Box<str>] {
        self.names.get(id.index()).map_or(&[], |names| names)
    }

    /// Finds the best of the patterns with parameters.
    pub(super) fn find_pattern(&self, path: &str) -> Option<(u32, Params)> {
        let mut best = self.segments.at(path).ok().and_then(|found| self.ranked(*found.value));
        for router in &self.rests {
            let other = router.at(path).ok().and_then(|found| self.ranked(*found.value));
            best = match (best, other) {
                (Some(best), Some(other)) if best.1 < other.1 => Some(best),
                (best, other) => other.or(best),
            };
        }
        best.map(|(index, rank)| (index, rank.place(path)))
    }

    /// Chooses the method within a pattern, and refuses values that cannot be decoded.
    pub(super) fn answer_pattern(&self, index: u32, params: Params, method: &Method, path: &str) -> RouteMatch<'_> {
        match self.paths.get(index as usize).map(|known| known.methods.answer(method)) {
            Some(MethodMatch::Handler(id)) if params.well_encoded(path) => RouteMatch::Route { id, params },
            Some(MethodMatch::Handler(_)) => RouteMatch::BadEncoding,
            Some(MethodMatch::Options(allow)) => RouteMatch::Options { allow },
            Some(MethodMatch::NotAllowed(allow, other)) => RouteMatch::MethodNotAllowed { allow, other },
            None => RouteMatch::NotFound,
        }
    }

    #[inline]
    fn ranked(&self, index: u32) -> Option<(u32, &Rank)> {
        Some((index, &self.paths.get(index as usize)?.rank))
    }

    #[cold]
    fn unknown(&self, method: &Method, path: &str) -> RouteMatch<'_> {
        if path == "*" && *method == Method::OPTIONS {
            return RouteMatch::Options { allow: &self.every_method };
        }
        if path.is_empty() && *method == Method::CONNECT {
            // It names a host, and asks for no path of this server.
            return RouteMatch::Tunnel { allow: &self.every_method };
        }
        if self.trailing == TrailingSlash::Strict {
            return RouteMatch::NotFound;
        }
        let change = if path.ends_with('/') { SlashChange::Remove } else { SlashChange::Add };
        let other = change.apply(path);
        // A `Location` that begins with "//" would name another host (RFC 3986, section 4.2), and to browsers one with "/\" too.
        let names_host = ["//", "/\\", "/%5C"].iter().any(|start| other.starts_with(start));
        let known = path.starts_with('/') && !names_host && self.knows(&other);
        if known { RouteMatch::Redirect(change) } else { RouteMatch::NotFound }
    }

    fn knows(&self, path: &str) -> bool {
        self.exact.contains_key(path) || self.find_pattern(path).is_some()
    }
}
