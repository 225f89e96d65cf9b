//! Finds the hooks that guard a path: those of all places at and above it, whatever answers.
//!
//! In: the places that have hooks, as patterns; then routes, once, and paths. Out: the places whose hooks run, from the
//! outermost inward, and the values that their parameters have. Must not know: what a hook is.

use smallvec::SmallVec;

use super::literal::names;
use super::{Pattern, Segment};

/// Whether a place lies at or above the paths of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Above none of them.
    Never,
    /// Above some of them: the route matches more than what is below the place.
    Sometimes,
    /// Above all of them.
    Always,
}

/// The places that have hooks.
#[derive(Debug, Default)]
pub struct Guards {
    places: Vec<Pattern>,
    /// Places by their numbers, from the outermost inward.
    inward: Vec<u16>,
}

/// The value of a parameter in the path of a place: its name, and where it begins and ends.
pub type NamedValue = (Box<str>, (u32, u32));

impl Guards {
    /// Takes the places that have hooks; their numbers count from 0.
    #[must_use]
    pub fn new(places: Vec<Pattern>) -> Guards {
        let mut inward: Vec<u16> = (0..u16::try_from(places.len()).unwrap_or(u16::MAX)).collect();
        // Of two places of the same depth neither contains the other; the alphabetical order is at least a fixed one.
        inward.sort_by_key(|number| {
            let place = places.get(usize::from(*number));
            place.map(|place| (place.segments().len(), place.as_str().to_owned()))
        });
        Guards { places, inward }
    }

    /// Returns the places that may guard a route and how, from the outermost inward.
    pub fn of_route<'g>(&'g self, route: &'g Pattern) -> impl Iterator<Item = (u16, Reach)> + 'g {
        let all = self.inward.iter().map(|number| (*number, self.reach(*number, route)));
        all.filter(|(_, reach)| *reach != Reach::Never)
    }

    /// Finds the places whose hooks run for all paths of a route, from the outermost inward. The values of parameters go into
    /// `values`, as they are in `path`.
    pub fn always_of(&self, route: &Pattern, path: &str, values: &mut Vec<NamedValue>) -> SmallVec<[u16; 8]> {
        let always = |number: &&u16| {
            let place = self.places.get(usize::from(**number));
            let holds = self.reach(**number, route) == Reach::Always;
            if holds && let Some(place) = place {
                lies_above(place, path, values);
            }
            holds
        };
        self.inward.iter().filter(always).copied().collect()
    }

    /// Finds the places at and above a path, from the outermost inward. `known` is the pattern that matches the path, where
    /// there is one. The values of parameters go into `values`.
    pub fn at(&self, path: &str, known: Option<&Pattern>, values: &mut Vec<NamedValue>) -> SmallVec<[u16; 8]> {
        let holds = |number: &&u16| {
            let reach = known.map_or(Reach::Sometimes, |known| self.reach(**number, known));
            let place = self.places.get(usize::from(**number)).filter(|_| reach != Reach::Never);
            place.is_some_and(|place| lies_above(place, path, values) || reach == Reach::Always)
        };
        self.inward.iter().filter(holds).copied().collect()
    }

    /// The names that places above all paths of a route have for its parameters, where the route has others: each with the
    /// number of the parameter.
    #[must_use]
    pub fn further_names(&self, route: &Pattern) -> Vec<(Box<str>, usize)> {
        let mut further: Vec<(Box<str>, usize)> = Vec::new();
        let own = route.param_names();
        let always = self.of_route(route).filter(|(_, reach)| *reach == Reach::Always);
        for place in always.filter_map(|(number, _)| self.places.get(usize::from(number))) {
            // What stands above all paths has its parameters where the route has them.
            for (n, name) in place.param_names().iter().enumerate() {
                if !own.contains(name) && !further.iter().any(|(known, _)| known == name) {
                    further.push((name.clone(), n));
                }
            }
        }
        further
    }

    fn reach(&self, number: u16, route: &Pattern) -> Reach {
        let Some(place) = self.places.get(usize::from(number)) else { return Reach::Never };
        let mut reach = Reach::Always;
        let mut segments = route.segments().iter();
        for own in place.segments() {
            reach = match (own, segments.next()) {
                (Segment::Rest(_), Some(Segment::Rest(_))) => return reach,
                (_, Some(Segment::Rest(_))) => return Reach::Sometimes,
                (Segment::Literal(own), Some(Segment::Literal(other))) if own == other => reach,
                (Segment::Literal(own), Some(Segment::Param(_))) if !own.is_empty() => Reach::Sometimes,
                (Segment::Param(_), Some(Segment::Param(_))) => reach,
                // A literal that is declared beside a parameter is a place of its own.
                _ => return Reach::Never,
            };
        }
        reach
    }
}

/// Says whether a path lies at or below a place. Empty segments do not count, for what answers may not count them either.
fn lies_above(place: &Pattern, path: &str, values: &mut Vec<NamedValue>) -> bool {
    let before = values.len();
    let mut at = 0;
    let all = place.segments().iter().all(|own| {
        while path.as_bytes().get(at) == Some(&b'/') {
            at += 1;
        }
        let rest = path.get(at..).unwrap_or_default();
        let segment = match own {
            Segment::Rest(_) => rest,
            _ => rest.split('/').next().unwrap_or_default(),
        };
        let is_named = match own {
            Segment::Literal(text) if text.is_empty() => rest.is_empty() && path.ends_with('/'),
            Segment::Literal(text) => names(segment, text),
            _ => !segment.is_empty(),
        };
        if let (true, Some(name)) = (is_named, own.param_name()) {
            values.push((name.into(), (at as u32, (at + segment.len()) as u32)));
        }
        at += segment.len();
        is_named
    });
    if !all {
        values.truncate(before);
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        let fields: Vec<&str> = text.split('/').skip(1).collect();
        Pattern::parse(if text == "/" { &[] } else { &fields[..] }).unwrap()
    }

    fn guards(places: &[&str]) -> Guards {
        Guards::new(places.iter().map(|place| pattern(place)).collect())
    }

    #[test]
    fn what_a_place_guards() {
        use Reach::{Always, Never, Sometimes};
        for (place, route, reach) in [
            ("/", "/", Always),
            ("/", "/a/{*rest}", Always),
            ("/admin", "/admin", Always),
            ("/admin", "/admin/", Always),
            ("/admin", "/admin/{x}/y", Always),
            ("/admin", "/administrator", Never),
            ("/admin", "/", Never),
            ("/admin", "/{page}", Sometimes),
            ("/admin", "/{page}/x", Sometimes),
            ("/admin", "/{*rest}", Sometimes),
            ("/admin/x", "/{page}", Never),
            ("/admin/x", "/admin/{*rest}", Sometimes),
            ("/admin/x", "/{page}/{*rest}", Sometimes),
            ("/users/{id}", "/users/{uid}/posts", Always),
            ("/users/{id}", "/users/me", Never),
            ("/users/{id}", "/users/{*rest}", Sometimes),
            ("/users/{id}/x", "/users/{a}/{b}", Sometimes),
            ("/users/{id}", "/users", Never),
            ("/users/{id}", "/users/", Never),
            ("/files/{*path}", "/files/{*rest}", Always),
            ("/files/{*path}", "/{a}/{*rest}", Sometimes),
            ("/files/{*path}", "/files/x", Never),
            ("/admin/", "/admin/{x}", Never),
            ("/admin/", "/admin/", Always),
            ("/admin/", "/{*rest}", Sometimes),
        ] {
            let (guards, route) = (guards(&[place]), pattern(route));
            assert_eq!(guards.reach(0, &route), reach, "{place} {route}");
        }
    }

    #[test]
    fn which_places_lie_above_a_path() {
        let guards = guards(&["/users/{id}/x", "/@me", "/", "/users/{uid}", "/files/{*path}", "/a/", "/users"]);
        let at = |path: &str| {
            let mut values = Vec::new();
            let numbers = guards.at(path, None, &mut values);
            let values: Vec<String> = values
                .iter()
                .map(|(name, (start, end))| format!("{name}={}", &path[*start as usize..*end as usize]))
                .collect();
            format!("{numbers:?} {}", values.join(" "))
        };
        for (path, places) in [
            ("/", "[2] "),
            ("*", "[2] "),
            ("/users", "[2, 6] "),
            ("/users/", "[2, 6] "),
            ("//users//7", "[2, 6, 3] uid=7"),
            ("/users/7/x/y", "[2, 6, 3, 0] uid=7 id=7"),
            ("/u%73ers", "[2, 6] "),
            ("/%40me/x", "[2, 1] "),
            ("/files", "[2] "),
            ("/files/a//b", "[2, 4] path=a//b"),
            ("/a", "[2] "),
            ("/a/", "[2, 5] "),
            ("/a//", "[2, 5] "),
            ("/a/b/", "[2] "),
        ] {
            assert_eq!(at(path), places, "{path}");
        }
        let known = pattern("/users/{uid}/x");
        assert_eq!(&guards.always_of(&known, "/users/7/x", &mut Vec::new())[..], [2, 6, 3, 0]);
        assert_eq!(&guards.always_of(&pattern("/{*rest}"), "/users/7/x", &mut Vec::new())[..], [2]);
        let known = pattern("/users/me");
        assert_eq!(&guards.at("/users/me", Some(&known), &mut Vec::new())[..], [2, 6]);
    }

    #[test]
    fn names_of_places_go_with_those_of_routes() {
        let guards = guards(&["/users/{id}", "/users/{user}/posts/{post}", "/{lang}"]);
        let further = |route: &str| guards.further_names(&pattern(route));
        assert_eq!(further("/users/{id}"), []);
        assert_eq!(further("/users/{uid}/posts/{pid}"), [("id".into(), 0), ("user".into(), 0), ("post".into(), 1)]);
        assert_eq!(further("/{lang}/{id}"), []);
    }
}
