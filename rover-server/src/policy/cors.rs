//! Cross-origin requests (the Fetch standard, section 3.2): decides which pages may read answers, and answers
//! preflights.
//!
//! Comes in: the head of a request. Goes out: the headers of its answer, or the answer to a preflight, which needs no
//! handler: the router knows the methods. This module must not know of Lua; whoever owns an app's function lends it.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::config::{self, Origins};
use crate::message::body::Body;
use crate::route::{FastRouter, RouteMatch};

/// The rules, in the form that requests need.
pub(crate) struct Cors {
    origins: Origins,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

/// What a request's answer says about the page that asked.
pub(crate) enum Grant {
    /// Every page may read it.
    Any,
    /// Pages of this origin may.
    Origin(HeaderValue),
    /// This page may not; another one might.
    Refused,
}

/// What a preflight asks besides its origin and method.
pub(crate) struct Question {
    headers: Option<HeaderValue>,
}

/// What the answer to a preflight depends on besides its origin.
const PREFLIGHT_VARIES: &str = "Access-Control-Request-Method, Access-Control-Request-Headers";

impl Cors {
    /// The rules of the config; `None` where CORS is off.
    pub(crate) fn new(config: &config::Cors) -> Option<Cors> {
        let list = |names: &[String]| HeaderValue::try_from(names.join(", ")).ok().filter(|_| !names.is_empty());
        (config.origins != Origins::None).then(|| Cors {
            origins: config.origins.clone(),
            methods: config.methods.as_deref().and_then(list),
            headers: config.headers.as_deref().and_then(list),
            expose: list(&config.expose),
            credentials: config.credentials,
            max_age: HeaderValue::from(config.max_age.as_secs()),
        })
    }

    /// Decides about the page that sent the request. `ask` is the app's function, where it has one.
    pub(crate) fn grant(&self, head: &Parts, ask: impl FnOnce(&str) -> bool) -> Grant {
        if self.origins == Origins::Any {
            return Grant::Any;
        }
        let Some(origin) = head.headers.get(ORIGIN) else { return Grant::Refused };
        let Ok(text) = origin.to_str() else { return Grant::Refused };
        let is_known = match &self.origins {
            Origins::List(patterns) => patterns.iter().any(|pattern| pattern.matches(text)),
            Origins::Function => text != "null" && ask(text),
            Origins::None | Origins::Any => false,
        };
        if is_known { Grant::Origin(origin.clone()) } else { Grant::Refused }
    }

    /// The answer to a preflight for a path that the app declares; `None` for every other request.
    pub(crate) fn preflight(&self, head: &Parts, router: &FastRouter, grant: &Grant) -> Option<Response<Body>> {
        if head.method != Method::OPTIONS || !head.headers.contains_key(ORIGIN) {
            return None;
        }
        let wanted = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        // No path declares CONNECT, so the router tells what it does declare.
        let (RouteMatch::MethodNotAllowed { allow, .. } | RouteMatch::Options { allow }) =
            router.find(&Method::CONNECT, head.uri.path())
        else {
            return None;
        };
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static(PREFLIGHT_VARIES));
        if matches!(grant, Grant::Refused) {
            return Some(response);
        }
        let methods = self.methods.as_ref().unwrap_or(allow);
        let methods = self.with_extension(methods, wanted, head, router);
        self.allow(headers, methods, head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS));
        Some(response)
    }

    /// What the page wants to know, where the request is a preflight that the routes do not answer: there may be a file.
    pub(crate) fn question(&self, head: &Parts) -> Option<Question> {
        let is_preflight = head.method == Method::OPTIONS
            && head.headers.contains_key(ORIGIN)
            && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        is_preflight.then(|| Question { headers: head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned() })
    }

    /// Adds the answer to a preflight, where there is a file. Called before [`Cors::add`].
    pub(crate) fn add_preflight(&self, question: Question, grant: &Grant, headers: &mut HeaderMap) {
        let Some(allow) = headers.get(ALLOW).cloned() else { return };
        headers.append(VARY, HeaderValue::from_static(PREFLIGHT_VARIES));
        if !matches!(grant, Grant::Refused) {
            self.allow(headers, self.methods.clone().unwrap_or(allow), question.headers.as_ref());
        }
    }

    /// What the page may do.
    fn allow(&self, headers: &mut HeaderMap, methods: HeaderValue, asked: Option<&HeaderValue>) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        if let Some(allowed) = self.headers.as_ref().or(asked) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }

    /// The methods, with one that only a handler of `any` answers.
    fn with_extension(
        &self,
        methods: &HeaderValue,
        wanted: &HeaderValue,
        head: &Parts,
        router: &FastRouter,
    ) -> HeaderValue {
        let listed = |list: &str, name: &str| list.split(", ").any(|own| own == name);
        let (Ok(list), Ok(name)) = (methods.to_str(), wanted.to_str()) else { return methods.clone() };
        let is_answered = || {
            let method = Method::from_bytes(name.as_bytes()).ok();
            method.is_some_and(|method| matches!(router.find(&method, head.uri.path()), RouteMatch::Route { .. }))
        };
        if self.methods.is_none() && !listed(list, name) && is_answered() {
            return HeaderValue::try_from(format!("{list}, {name}")).unwrap_or_else(|_| methods.clone());
        }
        methods.clone()
    }

    /// Adds the headers of CORS, unless the handler has set them itself.
    pub(crate) fn add(&self, grant: Grant, headers: &mut HeaderMap) {
        let origin = match grant {
            Grant::Any => HeaderValue::from_static("*"),
            other => {
                if !varies_by_origin(headers) {
                    headers.append(VARY, HeaderValue::from_static("Origin"));
                }
                let Grant::Origin(origin) = other else { return };
                origin
            }
        };
        if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        // The answer to a preflight has nothing to read.
        if let Some(expose) = &self.expose
            && !headers.contains_key(ACCESS_CONTROL_ALLOW_METHODS)
        {
            headers.entry(ACCESS_CONTROL_EXPOSE_HEADERS).or_insert_with(|| expose.clone());
        }
    }
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let names = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    names
        .flat_map(|value| value.split(','))
        .any(|name| matches!(name.trim(), "*") || name.trim().eq_ignore_ascii_case("origin"))
}
