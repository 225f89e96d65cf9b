//! Answers that need neither a route nor Lua: requests that HTTP itself refuses.
//!
//! Comes in: the head of a request. Goes out: the refusal, or nothing.

use std::cell::RefCell;
use std::net::Ipv6Addr;

use http::header::{CONNECTION, EXPECT, HOST, LOCATION, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};

use crate::config::ConnectionSettings;
use crate::exchange::failure;
use crate::message::body::Body;

/// Refuses a request whose Host field breaks RFC 9112, section 3.2: an HTTP/1.1 request has exactly one, and its value
/// is a host with an optional port. A target in absolute form must name such a host too, which takes the place of the
/// field's value (section 3.2.2). Refuses a target that is longer than the `settings` have it, too, and in HTTP/2
/// what is malformed, or has more fields than they have it: of HTTP/1, hyper counts them.
#[inline(always)]
pub(crate) fn refusal(head: &mut Parts, settings: &ConnectionSettings, usual: &UsualHost) -> Option<Response<Body>> {
    let longest_target = settings.uri_size_limit;
    let is_http2 = head.version == Version::HTTP_2;
    if is_http2 && let Some(refusal) = malformed(head, settings.header_count_limit) {
        return Some(refusal);
    }
    if !is_http2 && head.uri.authority().is_some() {
        let other_form = if settings.is_lenient { None } else { other_form(head) };
        return other_form.or_else(|| unusual(head, longest_target)).or_else(|| take_host(head));
    }
    let headers = &head.headers;
    // No field has a second line, as is usual.
    if headers.len() == headers.keys_len()
        && headers.get(HOST).is_some_and(|host| usual.is(host.as_bytes()))
        && head.uri.path_and_query().is_none_or(|target| target.as_str().len() <= longest_target)
    {
        return None;
    }
    unusual(head, longest_target)
}

/// The host that the last request named. Mostly the next one names it too, and need not be looked at byte by byte: 100
/// instructions less for each request.
#[derive(Default)]
pub(crate) struct UsualHost(RefCell<Vec<u8>>);

impl UsualHost {
    /// As [`is_host`].
    #[inline]
    fn is(&self, host: &[u8]) -> bool {
        *self.0.borrow() == host || self.becomes(host)
    }

    #[cold]
    fn becomes(&self, host: &[u8]) -> bool {
        let is_host = is_host(host);
        if is_host && host.len() <= LONGEST_HOST {
            let mut usual = self.0.borrow_mut();
            usual.clear();
            usual.extend_from_slice(host);
        }
        is_host
    }
}

/// The longest name that there is in DNS, with a port, in bytes.
const LONGEST_HOST: usize = 253 + 6;

/// As [`refusal`], for a head that is not the usual one.
#[cold]
fn unusual(head: &Parts, longest_target: usize) -> Option<Response<Body>> {
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > longest_target) {
        return Some(closing(failure::answer(StatusCode::URI_TOO_LONG)));
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let problem = match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => return None,
        (None, None) if head.version < Version::HTTP_11 => return None,
        (None, None) => "the request has no Host header",
        (Some(_), None) => "the Host header is not a host name with an optional port",
        (_, Some(_)) if head.version == Version::HTTP_2 => ":authority and Host do not say the same",
        (_, Some(_)) => "the request has more than one Host header",
    };
    Some(closing(failure::with_message(StatusCode::BAD_REQUEST, problem)))
}

/// Refuses a target of another form than the method may have (RFC 9112, section 3.2): a URL of http or https is for every
/// method, a host alone for CONNECT.
#[cold]
fn other_form(head: &Parts) -> Option<Response<Body>> {
    let problem = match head.uri.scheme_str() {
        Some("http" | "https") => return None,
        Some(_) => "the request target is a URL of another scheme than http and https",
        None if head.method == Method::CONNECT => return None,
        None => "the request target is neither a path nor a URL",
    };
    Some(closing(failure::with_message(StatusCode::BAD_REQUEST, problem)))
}

/// The host that a target in absolute form names is the one that counts. HTTP/2 names its host before.
#[cold]
fn take_host(head: &mut Parts) -> Option<Response<Body>> {
    let named = head.uri.authority()?.as_str();
    match HeaderValue::from_str(named) {
        Ok(host) if is_host(named.as_bytes()) => {
            head.headers.insert(HOST, host);
            None
        }
        _ => Some(closing(failure::with_message(
            StatusCode::BAD_REQUEST,
            "the request target does not name a host with an optional port",
        ))),
    }
}

/// Refuses what the h2 crate lets in and RFC 9113, sections 8.2.1 and 8.3.1, call malformed. HTTP/1.1 has no such requests:
/// white space around a value is no part of it there, and hyper refuses the others.
#[inline(never)]
fn malformed(head: &Parts, most_fields: usize) -> Option<Response<Body>> {
    if head.headers.len() > most_fields {
        return Some(failure::answer(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_padded = |value: &[u8]| is_blank(value.first()) || is_blank(value.last());
    let problem = if head.headers.values().any(|value| is_padded(value.as_bytes())) {
        "a header value begins or ends with white space"
    } else if head.uri.scheme_str() == Some("") {
        ":scheme is empty"
    } else if head.uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?')) {
        ":path does not begin with a slash"
    } else {
        return None;
    };
    Some(closing(failure::with_message(StatusCode::BAD_REQUEST, problem)))
}

/// Sends the client to the same address under https, at `port`.
#[cold]
pub(crate) fn to_https(head: &Parts, port: u16) -> Response<Body> {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).map(without_port);
    // `OPTIONS *` asks about no path.
    let path = head.uri.path_and_query().map_or("/", |target| target.as_str()).trim_start_matches('*');
    let location = host.filter(|host| !host.is_empty()).map(|host| match port {
        443 => format!("https://{host}{path}"),
        port => format!("https://{host}:{port}{path}"),
    });
    let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) else {
        return closing(failure::with_message(StatusCode::BAD_REQUEST, "the request names no host"));
    };
    let mut response = closing(failure::answer(StatusCode::PERMANENT_REDIRECT));
    response.headers_mut().insert(LOCATION, location);
    response
}

/// A host without the port behind it.
fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

/// A name of letters, digits and `-._~%!$&'()*+,;=` or a literal in brackets, and a port where there is one: RFC 3986,
/// sections 3.2.2 and 3.2.3. An empty name is allowed.
pub(crate) fn is_host(host: &[u8]) -> bool {
    const ALLOWED: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let others = b"-._~%!$&'()*+,;=";
        let mut n = 0;
        while n < others.len() {
            table[others[n] as usize] = true;
            n += 1;
        }
        table
    };
    let name = host.iter().position(|&byte| !ALLOWED[byte as usize]).unwrap_or(host.len());
    match &host[name..] {
        [] => true,
        [b':', port @ ..] => is_port(port),
        [b'[', literal @ ..] if name == 0 => is_bracketed(literal),
        _ => false,
    }
}

fn is_port(port: &[u8]) -> bool {
    port.iter().all(u8::is_ascii_digit)
}

/// What follows the opening bracket of an IPv6 literal.
fn is_bracketed(literal: &[u8]) -> bool {
    let Some(end) = literal.iter().position(|&byte| byte == b']') else { return false };
    let address = std::str::from_utf8(&literal[..end]).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    let port = match &literal[end + 1..] {
        [] => true,
        [b':', port @ ..] => is_port(port),
        _ => false,
    };
    address && port
}

/// The longest body that a client may announce, in bytes: what a signed number of 64 bits holds. Servers behind this one
/// would read another number, or none.
const LONGEST_BODY: u64 = i64::MAX as u64;

/// Refuses a body that cannot be read: one whose length no server could hold or whose first bytes have a `fault` (400), in
/// a transfer coding other than chunked (501; RFC 9112, section 6.1), or under an expectation that is not known (417; RFC
/// 9110, section 10.1.1).
pub(crate) fn body_refusal(head: &Parts, length: Option<u64>, fault: Option<&'static str>) -> Option<Response<Body>> {
    let too_long =
        length.filter(|&length| length > LONGEST_BODY).map(|_| "Content-Length is larger than any body can be");
    if let Some(message) = fault.or(too_long) {
        return Some(broken_body(message));
    }
    let differs = |name, known: &str| {
        head.headers.get_all(name).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
    };
    // A body whose length is known came in no transfer coding: hyper and h2 see to that. Several lines are one list (RFC
    // 9110, section 5.3), which is another coding than chunked alone.
    let is_coded = length.is_none()
        && (differs(TRANSFER_ENCODING, "chunked") || head.headers.get_all(TRANSFER_ENCODING).iter().nth(1).is_some());
    // To look at a few names costs less than to look one up.
    let status = if is_coded {
        StatusCode::NOT_IMPLEMENTED
    } else if head.headers.keys().any(|name| *name == EXPECT) && differs(EXPECT, "100-continue") {
        StatusCode::EXPECTATION_FAILED
    } else {
        return None;
    };
    Some(closing(failure::answer(status)))
}

/// Refuses a request whose body has a `fault`: nobody knows where the next request begins.
#[cold]
pub(crate) fn broken_body(fault: &str) -> Response<Body> {
    closing(failure::with_message(StatusCode::BAD_REQUEST, fault))
}

/// Whether the connection has to end with a response that is sent without asking for the body.
///
/// A client that waits for `100 Continue` may go on with its next request instead of the body; which of the two the
/// bytes to come are, nobody can tell (RFC 9110, section 10.1.1).
pub(crate) fn holds_body_back(head: &Parts) -> bool {
    head.headers.contains_key(EXPECT)
}

/// The same response, after which the connection ends.
pub(crate) fn closing(mut response: Response<Body>) -> Response<Body> {
    close(&mut response);
    response
}

/// Lets the connection end after this response.
pub(crate) fn close(response: &mut Response<Body>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}
