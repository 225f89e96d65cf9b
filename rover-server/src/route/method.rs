//! Methods: the verbs that an app declares, and the table of one path.
//!
//! In: the verbs that one path declares. Out: the handler for a request method, or the value of `Allow`
//! (RFC 9110, section 10.2.1). Must not know: paths.

use std::fmt;

use http::{HeaderValue, Method};

use super::RouteId;

/// What a verb field of the app declares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verb {
    /// GET; also answers HEAD where the path declares no HEAD.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// HEAD.
    Head,
    /// OPTIONS, in place of the automatic answer.
    Options,
    /// Every method that the path does not declare itself, OPTIONS and extension methods included, CONNECT excluded.
    Any,
}

impl Verb {
    /// Every verb, in the order in which `Allow` lists the methods.
    pub const ALL: [Verb; 8] =
        [Verb::Get, Verb::Head, Verb::Post, Verb::Put, Verb::Patch, Verb::Delete, Verb::Options, Verb::Any];

    /// Finds the verb that a Lua field declares: `get`, `post`, `put`, `patch`, `delete`, `head`, `options` or `any`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.name() == name)
    }

    /// Returns the name of the Lua field.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Post => "post",
            Verb::Put => "put",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::Head => "head",
            Verb::Options => "options",
            Verb::Any => "any",
        }
    }

    /// Returns the name of the method; none for [`Verb::Any`].
    #[must_use]
    pub fn method_name(self) -> Option<&'static str> {
        match self {
            Verb::Get => Some("GET"),
            Verb::Post => Some("POST"),
            Verb::Put => Some("PUT"),
            Verb::Patch => Some("PATCH"),
            Verb::Delete => Some("DELETE"),
            Verb::Head => Some("HEAD"),
            Verb::Options => Some("OPTIONS"),
            Verb::Any => None,
        }
    }

    /// Returns the verb of a request method; none for CONNECT, which asks for a tunnel and not for a path.
    fn of(method: &Method) -> Option<Verb> {
        match *method {
            Method::GET => Some(Verb::Get),
            Method::POST => Some(Verb::Post),
            Method::PUT => Some(Verb::Put),
            Method::PATCH => Some(Verb::Patch),
            Method::DELETE => Some(Verb::Delete),
            Method::HEAD => Some(Verb::Head),
            Method::OPTIONS => Some(Verb::Options),
            Method::CONNECT => None,
            _ => Some(Verb::Any),
        }
    }
}

/// The method's name as HTTP spells it; `any` as Lua spells it.
impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.method_name().unwrap_or(self.name()))
    }
}

/// The handlers of one path, indexed by verb.
///
/// Built in two steps: [`MethodTable::declare`] for every handler, then [`MethodTable::settle`] once.
#[derive(Clone, Debug)]
pub(super) struct MethodTable {
    handlers: [Option<RouteId>; 8],
    allow: HeaderValue,
}

/// The answer of a path to a method.
#[derive(Debug, PartialEq)]
pub(super) enum MethodMatch<'r> {
    Handler(RouteId),
    Options(&'r HeaderValue),
    NotAllowed(&'r HeaderValue, RouteId),
}

impl MethodTable {
    pub(super) fn new() -> Self {
        Self { handlers: [None; 8], allow: allow_value(&[]) }
    }

    /// Adds a handler; returns the one that is there already, if any.
    pub(super) fn declare(&mut self, verb: Verb, id: RouteId) -> Result<(), RouteId> {
        match &mut self.handlers[verb as usize] {
            Some(earlier) => Err(*earlier),
            empty => {
                *empty = Some(id);
                Ok(())
            }
        }
    }

    /// Fills in GET for HEAD and `any` for the rest, so that a request costs one index, and writes `Allow`.
    pub(super) fn settle(&mut self) {
        let any = self.handlers[Verb::Any as usize];
        if self.handlers[Verb::Head as usize].is_none() {
            self.handlers[Verb::Head as usize] = self.handlers[Verb::Get as usize];
        }
        for handler in &mut self.handlers {
            *handler = handler.or(any);
        }
        self.allow = allow_value(&self.verbs());
    }

    /// The methods that the path answers itself.
    pub(super) fn verbs(&self) -> Vec<Verb> {
        Verb::ALL.into_iter().filter(|verb| self.handlers[*verb as usize].is_some()).collect()
    }

    #[inline]
    pub(super) fn answer(&self, method: &Method) -> MethodMatch<'_> {
        match Verb::of(method) {
            Some(verb) => match self.handlers[verb as usize] {
                Some(id) => MethodMatch::Handler(id),
                None if verb == Verb::Options => MethodMatch::Options(&self.allow),
                None => self.not_allowed(),
            },
            None => self.not_allowed(),
        }
    }

    #[cold]
    fn not_allowed(&self) -> MethodMatch<'_> {
        let declared = self.handlers.iter().find_map(|handler| *handler);
        MethodMatch::NotAllowed(&self.allow, declared.unwrap_or(RouteId(u32::MAX)))
    }
}

/// Writes the value of `Allow` in the order of [`Verb::ALL`]. OPTIONS is always in it, since it is always answered.
pub(super) fn allow_value(verbs: &[Verb]) -> HeaderValue {
    let names: Vec<&str> = Verb::ALL
        .into_iter()
        .filter(|verb| *verb == Verb::Options || verbs.contains(verb))
        .filter_map(Verb::method_name)
        .collect();
    // Method names and ", " are always a valid field value; the fallback keeps that out of the signature.
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(verbs: &[Verb]) -> MethodTable {
        let mut table = MethodTable::new();
        for (i, verb) in verbs.iter().enumerate() {
            table.declare(*verb, RouteId(u32::try_from(i).unwrap())).unwrap();
        }
        table.settle();
        table
    }

    #[test]
    fn names_lead_to_verbs_and_back() {
        for verb in Verb::ALL {
            assert_eq!(Verb::from_name(verb.name()), Some(verb));
        }
        assert_eq!(Verb::from_name("GET"), None);
        assert_eq!(Verb::from_name("connect"), None);
    }

    #[test]
    fn get_answers_head_unless_head_is_declared() {
        assert_eq!(table(&[Verb::Get]).answer(&Method::HEAD), MethodMatch::Handler(RouteId(0)));
        assert_eq!(table(&[Verb::Get, Verb::Head]).answer(&Method::HEAD), MethodMatch::Handler(RouteId(1)));
        assert_eq!(table(&[Verb::Any, Verb::Get]).answer(&Method::HEAD), MethodMatch::Handler(RouteId(1)));
    }

    #[test]
    fn options_is_automatic_unless_declared_or_any() {
        let allow = HeaderValue::from_static("GET, HEAD, DELETE, OPTIONS");
        let automatic = table(&[Verb::Delete, Verb::Get]);
        assert_eq!(automatic.answer(&Method::OPTIONS), MethodMatch::Options(&allow));
        assert_eq!(automatic.answer(&Method::POST), MethodMatch::NotAllowed(&allow, RouteId(1)));
        assert_eq!(table(&[Verb::Get, Verb::Options]).answer(&Method::OPTIONS), MethodMatch::Handler(RouteId(1)));
        assert_eq!(table(&[Verb::Get, Verb::Any]).answer(&Method::OPTIONS), MethodMatch::Handler(RouteId(1)));
    }

    #[test]
    fn any_takes_every_other_method_but_connect() {
        let table = table(&[Verb::Any, Verb::Put]);
        let propfind = Method::from_bytes(b"PROPFIND").unwrap();
        for method in [Method::GET, Method::HEAD, Method::POST, Method::TRACE, propfind.clone()] {
            assert_eq!(table.answer(&method), MethodMatch::Handler(RouteId(0)), "{method}");
        }
        assert_eq!(table.answer(&Method::PUT), MethodMatch::Handler(RouteId(1)));
        let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        assert_eq!(table.answer(&Method::CONNECT), MethodMatch::NotAllowed(&allow, RouteId(0)));
        let put = HeaderValue::from_static("PUT, OPTIONS");
        assert_eq!(super::tests::table(&[Verb::Put]).answer(&propfind), MethodMatch::NotAllowed(&put, RouteId(0)));
    }
}
