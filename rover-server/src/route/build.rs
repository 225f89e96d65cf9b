//! Builds the router: checks what the app declared and fills the tables.
//!
//! In: declarations in the order of the source. Out: a router, or all mistakes at once.
//! Must not know: requests.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::method::{MethodTable, allow_value};
use super::rank::Rank;
use super::router::Path;
use super::{FastRouter, Origin, RouteDecl, RouteId, Segment, TrailingSlash, Verb};

/// Something in the app that has to be put right before it can start. Displays as `app.lua:12: message`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Where it is.
    pub origin: Origin,
    /// What is wrong and what cures it, in words for Lua authors.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

impl std::error::Error for Mistake {}

impl FastRouter {
    /// Builds the router; the [`RouteId`] of a handler is its index in `routes`.
    ///
    /// # Errors
    /// All mistakes, in the order of `routes`: two handlers for one method and path, whatever their parameters are called.
    pub fn build(routes: Vec<RouteDecl>, trailing: TrailingSlash) -> Result<FastRouter, Vec<Mistake>> {
        let mut tables = Tables::default();
        let mut mistakes = Vec::new();
        for (i, route) in routes.iter().enumerate() {
            let shape = route.pattern.shape();
            let found = match u32::try_from(i) {
                Ok(id) => tables.declare(RouteId(id), &shape, &routes),
                Err(_) => Some("there are more routes than the router can count; split the app".to_owned()),
            };
            mistakes.extend(found.map(|message| Mistake { origin: route.origin.clone(), message }));
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(tables.finish(routes, trailing))
    }
}

/// The tables of the router while they are filled.
#[derive(Default)]
struct Tables {
    paths: Vec<Path>,
    /// Paths that are another spelling of an earlier one.
    twins: Vec<(u32, u32)>,
    by_shape: HashMap<String, u32, foldhash::fast::RandomState>,
    exact: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
    segments: matchit::Router<u32>,
    rests: HashMap<usize, matchit::Router<u32>>,
}

impl Tables {
    /// Enters the handler; returns a mistake's message if its place is taken.
    fn declare(&mut self, id: RouteId, shape: &str, routes: &[RouteDecl]) -> Option<String> {
        let route = routes.get(id.index())?;
        let index = match self.by_shape.get(shape) {
            Some(index) => *index,
            None => match self.add_path(route, shape) {
                Ok(index) => index,
                Err(message) => return Some(message),
            },
        };
        let earlier = self.paths.get_mut(index as usize)?.methods.declare(route.verb, id).err()?;
        let earlier = routes.get(earlier.index())?;
        Some(format!(
            "{} {} already has a handler ({}); remove one of the two",
            route.verb, route.pattern, earlier.origin
        ))
    }

    fn add_path(&mut self, route: &RouteDecl, shape: &str) -> Result<u32, String> {
        // There are no more paths than four for each route, and those were counted.
        let index = self.paths.len() as u32;
        let is_static = route.pattern.is_static();
        // No other path has one of these spellings, for each stands for the same bytes as the pattern's own.
        let others = route.pattern.other_spellings();
        if is_static {
            self.exact.insert(shape.into(), index);
            self.exact.extend(others.iter().map(|other| (other.shape().into(), index)));
        } else {
            self.add_pattern(route, shape.to_owned(), index)?;
        }
        self.by_shape.insert(shape.to_owned(), index);
        self.paths.push(Path { methods: MethodTable::new(), rank: Rank::of(&route.pattern) });
        for other in others.iter().filter(|_| !is_static) {
            // A path of its own, for its literals have other lengths, and its parameters other places.
            let twin = self.paths.len() as u32;
            self.add_pattern(route, other.escaped_shape(), twin)?;
            self.paths.push(Path { methods: MethodTable::new(), rank: Rank::of(other) });
            self.twins.push((twin, index));
        }
        Ok(index)
    }

    /// Lets a pattern with parameters lead to a path.
    fn add_pattern(&mut self, route: &RouteDecl, shape: String, path: u32) -> Result<(), String> {
        let segments = route.pattern.segments();
        let router = match segments.last() {
            Some(Segment::Rest(_)) => self.rests.entry(segments.len()).or_default(),
            _ => &mut self.segments,
        };
        router
            .insert(shape, path)
            .map_err(|_| format!("{} cannot be told apart from another route; change one of the two", route.pattern))
    }

    fn finish(mut self, routes: Vec<RouteDecl>, trailing: TrailingSlash) -> FastRouter {
        for (twin, path) in self.twins {
            let methods = self.paths.get(path as usize).map(|path| path.methods.clone());
            if let (Some(twin), Some(methods)) = (self.paths.get_mut(twin as usize), methods) {
                twin.methods = methods;
            }
        }
        let mut verbs = HashSet::new();
        for path in &mut self.paths {
            path.methods.settle();
            verbs.extend(path.methods.verbs());
        }
        FastRouter {
            paths: self.paths,
            exact: self.exact,
            segments: self.segments,
            rests: self.rests.into_values().collect(),
            names: routes.iter().map(|route| route.pattern.param_names()).collect(),
            has_delimiters: routes.iter().any(|route| route.pattern.has_delimiters()),
            every_method: allow_value(&verbs.into_iter().collect::<Vec<Verb>>()),
            routes,
            trailing,
        }
    }
}
