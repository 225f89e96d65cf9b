//! Writes the fields that both kinds of spans share, as the bytes of a `Span`.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

use super::parent::Parent;
use super::wire;

/// Fields of a `Span`.
mod field {
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const TRACE_STATE: u32 = 3;
    pub(super) const PARENT_SPAN_ID: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START: u32 = 7;
    pub(super) const END: u32 = 8;
    pub(super) const ATTRIBUTE: u32 = 9;
    pub(super) const STATUS: u32 = 15;
    pub(super) const FLAGS: u32 = 16;
    /// Of the `Status`.
    pub(super) const STATUS_MESSAGE: u32 = 2;
    pub(super) const STATUS_CODE: u32 = 3;
}

/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;

// The flags of a span besides those of its trace: whether it is known where the parent is, and that it is elsewhere.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// `SpanKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpanKind {
    Server = 2,
    Client = 3,
}

/// A span's place, and when it was.
pub(super) struct SpanHead<'a> {
    pub(super) own: Parent,
    pub(super) parent: Option<u64>,
    pub(super) state: Option<&'a HeaderValue>,
    pub(super) kind: SpanKind,
    /// It ends now.
    pub(super) took: Duration,
}

/// Begins a span with its head and a name of pieces.
pub(super) fn begin(out: &mut Vec<u8>, head: &SpanHead<'_>, name: &[&str]) {
    wire::bytes(out, field::TRACE_ID, &head.own.trace.to_be_bytes());
    wire::bytes(out, field::SPAN_ID, &head.own.span.to_be_bytes());
    if let Some(state) = head.state.and_then(|state| state.to_str().ok()) {
        wire::text(out, field::TRACE_STATE, state);
    }
    if let Some(parent) = head.parent {
        wire::bytes(out, field::PARENT_SPAN_ID, &parent.to_be_bytes());
    }
    wire::pieces(out, field::NAME, name);
    wire::number(out, field::KIND, head.kind as u64);
    // The end by the clock and the length by the clock that never jumps.
    let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    wire::fixed64(out, field::START, nanos(end.saturating_sub(head.took)));
    wire::fixed64(out, field::END, nanos(end));
    let is_remote = if head.kind == SpanKind::Server && head.parent.is_some() { IS_REMOTE } else { 0 };
    wire::fixed32(out, field::FLAGS, u32::from(head.own.flags) | HAS_IS_REMOTE | is_remote);
}

/// Adds an attribute of text.
#[inline(always)]
pub(super) fn text(out: &mut Vec<u8>, key: &str, value: &str) {
    wire::attribute(out, field::ATTRIBUTE, key, value);
}

/// Adds an attribute that is a number.
#[inline(always)]
pub(super) fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    wire::attribute_number(out, field::ATTRIBUTE, key, value);
}

/// Adds `http.request.method`, and what was sent where that is no method that everybody knows.
pub(super) fn method(out: &mut Vec<u8>, method: &str) {
    let known = known_method(method);
    text(out, "http.request.method", known.unwrap_or("_OTHER"));
    if known.is_none() {
        text(out, "http.request.method_original", method);
    }
}

/// How a span's name begins.
pub(super) fn named(method: &str) -> &str {
    known_method(method).unwrap_or("HTTP")
}

/// The methods of RFC 9110 and RFC 5789.
fn known_method(method: &str) -> Option<&str> {
    matches!(method, "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS" | "CONNECT" | "TRACE")
        .then_some(method)
}

/// Adds `server.address` and `server.port`; `scheme` tells the port where there is none.
pub(super) fn server(out: &mut Vec<u8>, host: &str, scheme: &str) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
        _ => (host, None),
    };
    text(out, "server.address", name.trim_start_matches('[').trim_end_matches(']'));
    number(out, "server.port", port.unwrap_or(if scheme == "https" { 443_u16 } else { 80 }).into());
}

/// Adds an attribute that is an address.
pub(super) fn ip(out: &mut Vec<u8>, key: &str, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            // `fmt` takes ten times as long.
            let (mut digits, mut written, mut end) = (itoa::Buffer::new(), [b'.'; 15], 0);
            for octet in ip.octets() {
                let octet = digits.format(octet);
                written[end..end + octet.len()].copy_from_slice(octet.as_bytes());
                end += octet.len() + 1;
            }
            text(out, key, std::str::from_utf8(&written[..end - 1]).unwrap_or_default());
        }
        IpAddr::V6(ip) => text(out, key, &ip.to_string()),
    }
}

/// Names of parameters whose values are not told, as the conventions for `url.query` have them.
const SECRETS: [&str; 4] = ["AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"];

/// The query with the values of [`SECRETS`] taken out.
pub(super) fn redacted(query: &str) -> String {
    let parts = query.split('&').map(|part| match part.split_once('=') {
        Some((name, _)) if SECRETS.contains(&name) => format!("{name}=REDACTED"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("&")
}

/// Says that it went wrong, and why.
pub(super) fn failed(out: &mut Vec<u8>, message: &str) {
    let mut status = Vec::new();
    if !message.is_empty() {
        wire::text(&mut status, field::STATUS_MESSAGE, message);
    }
    wire::number(&mut status, field::STATUS_CODE, ERROR);
    wire::bytes(out, field::STATUS, &status);
}

/// Copies a value, so that it holds nothing of the buffer that it was read into.
pub(super) fn let_go(value: &mut Option<HeaderValue>) {
    if let Some(known) = value
        && let Ok(own) = HeaderValue::from_bytes(known.as_bytes())
    {
        *known = own;
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    use super::*;

    /// The attributes that `write` writes, as text.
    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<(String, String)> {
        let mut out = Vec::new();
        write(&mut out);
        let attributes = Span::decode(&out[..]).unwrap().attributes.into_iter();
        attributes
            .map(|attribute| match attribute.value.unwrap().value.unwrap() {
                Value::StringValue(text) => (attribute.key, text),
                Value::IntValue(number) => (attribute.key, number.to_string()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn hosts() {
        for (host, scheme, address, port) in [
            ("example.test", "http", "example.test", "80"),
            ("example.test", "https", "example.test", "443"),
            ("example.test:8080", "http", "example.test", "8080"),
            ("[::1]:8080", "http", "::1", "8080"),
            ("[::1]", "http", "::1", "80"),
        ] {
            let expected = [("server.address", address), ("server.port", port)];
            let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(written(|out| server(out, host, scheme)), expected, "{host}");
        }
    }

    #[test]
    fn addresses() {
        for (address, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("255.255.255.255", "255.255.255.255"),
            ("1.20.0.3", "1.20.0.3"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(written(|out| ip(out, "a", address.parse().unwrap()))[0].1, expected);
        }
    }

    #[test]
    fn signatures_are_taken_out_of_queries() {
        assert_eq!(redacted("a=1&sig=secret&Signature=&b"), "a=1&sig=REDACTED&Signature=REDACTED&b");
        assert_eq!(redacted("design=1"), "design=1");
    }

    #[test]
    fn methods() {
        let brewed = written(|out| method(out, "BREW"));
        assert_eq!(brewed[0].1, "_OTHER");
        assert_eq!(brewed[1], ("http.request.method_original".to_owned(), "BREW".to_owned()));
        assert_eq!((named("BREW"), named("PATCH")), ("HTTP", "PATCH"));
    }
}
