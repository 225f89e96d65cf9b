//! Random routes and paths: the router must agree with a matcher too simple to be wrong.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use http::Method;
use proptest::prelude::*;

use super::*;

/// A segment of a random pattern; parameters are named after their place, so that names never clash.
#[derive(Clone, Debug)]
enum Piece {
    Literal(&'static str),
    Param,
    Rest,
}

/// Literals share prefixes, so that the search tree splits within segments.
const LITERALS: [&str; 9] = ["a", "b", "ab", "abc", "a b", "%41", "é", "a.b", "[{"];
const SENT: [&str; 18] = [
    "a", "b", "ab", "abc", "a%20b", "%41", "%C3%A9", "%c3%a9", "é", "a.b", "%5B%7B", "%5b%7b", "[%7B", "[{", "x",
    "%zz", "{p}", "",
];

/// How clients spell literals: by the RFC, with lower-case digits, as browsers do, as they are. A client has one way.
const SPELLINGS: [[&str; 4]; 2] = [["%C3%A9", "%c3%a9", "%C3%A9", "é"], ["%5B%7B", "%5b%7b", "[%7B", "[{"]];

fn spelled(literal: &str, way: usize) -> &str {
    SPELLINGS.iter().find(|ways| ways[0] == literal).map_or(literal, |ways| ways[way])
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![3 => prop::sample::select(&LITERALS[..]).prop_map(Piece::Literal), 2 => Just(Piece::Param)];
    let end = prop_oneof![5 => Just(None), 2 => Just(Some(Piece::Rest)), 1 => Just(Some(Piece::Literal("")))];
    (prop::collection::vec(piece, 0..5), end).prop_map(|(mut pieces, end)| {
        // An empty segment on its own is no pattern.
        pieces.extend(end.filter(|end| matches!(end, Piece::Rest) || !pieces.is_empty()));
        pieces
    })
}

fn fields(pieces: &[Piece]) -> Vec<String> {
    let name = |(i, piece): (usize, &Piece)| match piece {
        Piece::Literal(text) => (*text).to_owned(),
        Piece::Param => format!("p_x{i}"),
        Piece::Rest => format!("{{*r{i}}}"),
    };
    pieces.iter().enumerate().map(name).collect()
}

fn routes() -> impl Strategy<Value = Vec<RouteDecl>> {
    let verb = prop::sample::select(&[Verb::Get, Verb::Post, Verb::Any][..]);
    prop::collection::vec((verb, pieces()), 0..24).prop_map(|routes| {
        let mut seen = HashSet::new();
        let mut decls = Vec::new();
        for (verb, pieces) in routes {
            let pattern = Pattern::parse(&fields(&pieces)).unwrap();
            if seen.insert((verb, pattern.clone())) {
                decls.push(RouteDecl { verb, pattern, origin: Origin { file: "app.lua".into(), line: 1 } });
            }
        }
        decls
    })
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&SENT[..]), 0..6)
        .prop_map(|segments| segments.iter().map(|segment| format!("/{segment}")).collect())
}

/// How well the pattern matches and what its parameters hold: 0 for a literal, 1 for a parameter, 2 for the rest.
fn matches<'p>(pattern: &Pattern, path: &'p str) -> Option<(Vec<u8>, Vec<&'p str>)> {
    (0..4).find_map(|way| matches_spelled(pattern, path, way))
}

fn matches_spelled<'p>(pattern: &Pattern, path: &'p str, way: usize) -> Option<(Vec<u8>, Vec<&'p str>)> {
    if pattern.segments().is_empty() {
        return (path == "/").then(Default::default);
    }
    let (mut ranks, mut values, mut left) = (Vec::new(), Vec::new(), Some(path));
    for segment in pattern.segments() {
        let tail = left?.strip_prefix('/')?;
        let (head, next) = match tail.find('/') {
            Some(at) => (&tail[..at], Some(&tail[at..])),
            None => (tail, None),
        };
        left = next;
        match segment {
            Segment::Literal(text) if spelled(text, way) == head => ranks.push(0),
            Segment::Param(_) if !head.is_empty() => {
                ranks.push(1);
                values.push(head);
            }
            Segment::Rest(_) if !tail.is_empty() => {
                ranks.push(2);
                values.push(tail);
                left = None;
            }
            _ => return None,
        }
    }
    left.is_none().then_some((ranks, values))
}

/// Status, route and parameter values, as the contract says it.
type Outcome<'p> = (u16, Option<u32>, Vec<&'p str>);

fn expected<'p>(routes: &[RouteDecl], method: Verb, path: &'p str) -> Outcome<'p> {
    let matching = (0..).zip(routes).filter_map(|(i, route)| Some((matches(&route.pattern, path)?, i, route)));
    let Some(((best, values), ..)) = matching.clone().min_by_key(|((ranks, _), ..)| ranks.clone()) else {
        return (404, None, vec![]);
    };
    let with = |verb| matching.clone().find(|((ranks, _), _, route)| *ranks == best && route.verb == verb);
    match with(method).or_else(|| with(Verb::Any)) {
        Some(_) if values.iter().any(|value| value.contains("%zz")) => (400, None, vec![]),
        Some((_, i, _)) => (200, Some(i), values),
        None => (405, None, vec![]),
    }
}

fn actual<'p>(router: &FastRouter, method: &Method, path: &'p str) -> Outcome<'p> {
    match router.find(method, path) {
        RouteMatch::Route { id, params } => {
            (200, Some(id.0), (0..params.len()).map(|i| params.raw(i, path).unwrap()).collect())
        }
        RouteMatch::MethodNotAllowed { .. } => (405, None, vec![]),
        RouteMatch::NotFound => (404, None, vec![]),
        RouteMatch::BadEncoding => (400, None, vec![]),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_matcher(routes in routes(), paths in prop::collection::vec(path(), 1..40)) {
        let router = FastRouter::build(routes.clone(), TrailingSlash::Strict).unwrap();
        for path in &paths {
            for (verb, method) in [(Verb::Get, Method::GET), (Verb::Post, Method::POST), (Verb::Put, Method::PUT)] {
                prop_assert_eq!(actual(&router, &method, path), expected(&routes, verb, path), "{} {}", verb, path);
            }
        }
    }

    #[test]
    fn redirects_exactly_when_the_other_spelling_is_known(routes in routes(), path in path()) {
        let strict = FastRouter::build(routes.clone(), TrailingSlash::Strict).unwrap();
        let redirecting = FastRouter::build(routes, TrailingSlash::Redirect).unwrap();
        let known = |path: &str| strict.find(&Method::GET, path) != RouteMatch::NotFound;
        let other = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
        let here = redirecting.find(&Method::GET, &path);
        let elsewhere = !known(&path) && path.starts_with('/') && !other.starts_with("//") && known(&other);
        prop_assert_eq!(matches!(here, RouteMatch::Redirect(_)), elsewhere);
        prop_assert!(!elsewhere || redirecting.find(&Method::GET, &other) != RouteMatch::NotFound);
    }

    #[test]
    fn any_text_is_a_pattern_or_a_mistake_and_never_a_panic(fields in prop::collection::vec(".{0,6}", 0..4), path in ".{0,12}") {
        if let Ok(pattern) = Pattern::parse(&fields) {
            let origin = Origin { file: "app.lua".into(), line: 1 };
            let decl = RouteDecl { verb: Verb::Get, pattern: pattern.clone(), origin };
            let router = FastRouter::build(vec![decl], TrailingSlash::Redirect).unwrap();
            let _ = router.find(&Method::GET, &path);
            if pattern.is_static() {
                let found = router.find(&Method::GET, pattern.as_str());
                prop_assert_eq!(found, RouteMatch::Route { id: RouteId(0), params: Params::default() });
            }
        }
    }
}
