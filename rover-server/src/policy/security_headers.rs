//! Adds headers that make browsers more careful to every answer.
//!
//! Comes in: the headers of an answer that is complete otherwise. Goes out: the same with what was missing. What is
//! always the same is parsed once for each worker. This module must not know who made the answer.

use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue};

use crate::config;

/// What is added to answers.
pub(crate) struct SecurityHeaders {
    type_options: Option<TypeOptions>,
    resource_policy: Option<HeaderValue>,
    /// For HTML pages alone: to a program that reads JSON they mean nothing.
    pages: Vec<(HeaderName, HeaderValue)>,
    over_tls: Option<HeaderValue>,
}

/// X-Content-Type-Options, the one header that all answers have by default.
enum TypeOptions {
    /// `nosniff`, which need not be cloned.
    Nosniff,
    Other(HeaderValue),
}

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

impl SecurityHeaders {
    /// Parses what the config says.
    pub(crate) fn new(config: &config::SecurityHeaders) -> SecurityHeaders {
        let parse = |value: &Option<String>| value.as_deref().and_then(|value| HeaderValue::from_str(value).ok());
        let list = |all: [(HeaderName, &Option<String>); 2]| -> Vec<(HeaderName, HeaderValue)> {
            all.into_iter().filter_map(|(name, value)| Some((name, parse(value)?))).collect()
        };
        let opener_policy = HeaderName::from_static("cross-origin-opener-policy");
        let permissions = HeaderName::from_static("permissions-policy");
        let mut pages = list([(X_FRAME_OPTIONS, &config.frame_options), (REFERRER_POLICY, &config.referrer_policy)]);
        pages.extend(list([
            (CONTENT_SECURITY_POLICY, &config.content_security_policy),
            (permissions, &config.permissions_policy),
        ]));
        pages.extend(parse(&config.cross_origin_opener_policy).map(|value| (opener_policy, value)));
        SecurityHeaders {
            type_options: parse(&config.content_type_options).map(|value| match value.as_bytes() {
                b"nosniff" => TypeOptions::Nosniff,
                _ => TypeOptions::Other(value),
            }),
            resource_policy: parse(&config.cross_origin_resource_policy),
            pages,
            over_tls: parse(&config.strict_transport_security),
        }
    }

    /// Adds what the answer has not by itself: a handler's own header wins. `pinned`: the answer goes over TLS to a
    /// host that may be [pinned](is_pinned).
    #[inline]
    pub(crate) fn add(&self, headers: &mut HeaderMap, pinned: bool) {
        // Looking at the few headers that an answer has costs less than looking one up.
        let (mut is_page, mut has_own) = (false, false);
        for (name, value) in &*headers {
            has_own |= *name == X_CONTENT_TYPE_OPTIONS;
            is_page |= value.as_bytes().starts_with(b"text/html") && *name == CONTENT_TYPE;
        }
        match &self.type_options {
            Some(TypeOptions::Nosniff) if !has_own => {
                headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            }
            Some(TypeOptions::Other(value)) if !has_own => {
                headers.insert(X_CONTENT_TYPE_OPTIONS, value.clone());
            }
            _ => {}
        }
        if is_page || pinned || self.resource_policy.is_some() {
            self.add_rare(headers, is_page, pinned);
        }
    }

    #[cold]
    fn add_rare(&self, headers: &mut HeaderMap, is_page: bool, pinned: bool) {
        let mut add = |name: &HeaderName, value: &HeaderValue| {
            headers.entry(name).or_insert_with(|| value.clone());
        };
        if let Some(value) = &self.resource_policy {
            add(&RESOURCE_POLICY, value);
        }
        if is_page {
            self.pages.iter().for_each(|(name, value)| add(name, value));
        }
        if pinned && let Some(value) = &self.over_tls {
            add(&STRICT_TRANSPORT_SECURITY, value);
        }
    }
}

/// The lines for an answer that is written as text, for no request came to be: those that every answer carries. To
/// which host it goes nobody knows, so it pins none.
#[cold]
pub(crate) fn lines(config: &config::SecurityHeaders) -> String {
    let all = [
        (X_CONTENT_TYPE_OPTIONS, &config.content_type_options),
        (RESOURCE_POLICY, &config.cross_origin_resource_policy),
    ];
    all.into_iter().filter_map(|(name, value)| Some(format!("{name}: {}\r\n", value.as_deref()?))).collect()
}

/// Whether a browser may learn from an answer that this host is reached over TLS only. `localhost` is everybody's: all
/// servers of the machine would be bound by it.
pub(crate) fn is_pinned(host: &[u8]) -> bool {
    let name = host.split(|&byte| byte == b':').next().unwrap_or(host).to_ascii_lowercase();
    name != b"localhost" && !name.ends_with(b".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(kind: &'static str, own: &[(&'static str, &'static str)], pinned: bool) -> Vec<String> {
        let headers = SecurityHeaders::new(&config::SecurityHeaders::default());
        let mut map = HeaderMap::new();
        map.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        for (name, value) in own {
            map.append(*name, HeaderValue::from_static(value));
        }
        headers.add(&mut map, pinned);
        let mut lines: Vec<_> =
            map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.retain(|line| !line.starts_with("content-type:"));
        lines.sort();
        lines
    }

    #[test]
    fn data_gets_one_header_and_pages_three() {
        assert_eq!(added("application/json", &[], false), ["x-content-type-options: nosniff"]);
        assert_eq!(
            added("text/html; charset=utf-8", &[], false),
            [
                "referrer-policy: strict-origin-when-cross-origin",
                "x-content-type-options: nosniff",
                "x-frame-options: SAMEORIGIN",
            ]
        );
    }

    #[test]
    fn a_handler_s_own_header_wins() {
        let own = [("x-frame-options", "DENY"), ("x-content-type-options", "mine")];
        assert_eq!(
            added("text/html", &own, false),
            [
                "referrer-policy: strict-origin-when-cross-origin",
                "x-content-type-options: mine",
                "x-frame-options: DENY",
            ]
        );
    }

    #[test]
    fn hosts_are_pinned_over_tls_but_not_localhost() {
        assert_eq!(added("text/plain", &[], true)[0], "strict-transport-security: max-age=31536000");
        for (host, expected) in [("example.com", true), ("LocalHost:4242", false), ("a.localhost", false), ("", true)] {
            assert_eq!(is_pinned(host.as_bytes()), expected, "{host}");
        }
    }
}
