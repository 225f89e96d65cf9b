//! Answers that need neither a route nor Lua: requests that HTTP itself refuses.
//!
//! Comes in: the head of a request. Goes out: the refusal, or nothing.

use http::header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, Version};

use crate::failure;
use crate::response::Body;

/// Refuses a request whose Host field breaks RFC 9112, section 3.2: an HTTP/1.1 request has exactly one, and its value
/// is a host with an optional port.
#[inline]
pub(crate) fn refusal(head: &Parts) -> Option<Response<Body>> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let problem = match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => return None,
        (None, None) if head.version != Version::HTTP_11 => return None,
        (None, None) => "the request has no Host header",
        (Some(_), None) => "the Host header is not a host name with an optional port",
        (_, Some(_)) => "the request has more than one Host header",
    };
    Some(closing(failure::with_message(StatusCode::BAD_REQUEST, problem)))
}

/// Letters, digits, `-._~%!$&'()*+,;=` and, for ports and IPv6 literals, `:[]`: RFC 3986, section 3.2.2.
fn is_host(host: &HeaderValue) -> bool {
    const ALLOWED: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let others = b"-._~%!$&'()*+,;=:[]";
        let mut n = 0;
        while n < others.len() {
            table[others[n] as usize] = true;
            n += 1;
        }
        table
    };
    host.as_bytes().iter().all(|&byte| ALLOWED[byte as usize])
}

/// Refuses a body that cannot be read: one in a transfer coding other than chunked (501; RFC 9112, section 6.1), or
/// under an expectation that is not known (417; RFC 9110, section 10.1.1).
pub(crate) fn body_refusal(head: &Parts) -> Option<Response<Body>> {
    let differs = |name, known: &str| {
        head.headers.get_all(name).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(known.as_bytes()))
    };
    let status = if differs(TRANSFER_ENCODING, "chunked") {
        StatusCode::NOT_IMPLEMENTED
    } else if differs(EXPECT, "100-continue") {
        StatusCode::EXPECTATION_FAILED
    } else {
        return None;
    };
    Some(closing(failure::answer(status)))
}

/// Whether the connection has to end with this request's response.
///
/// hyper hides a Content-Length that came along with Transfer-Encoding, so the two cannot be told apart from a lone
/// Transfer-Encoding; RFC 9112, section 6.3 wants the connection closed after a request that had both.
pub(crate) fn must_close(head: &Parts) -> bool {
    head.version <= Version::HTTP_11 && head.headers.contains_key(TRANSFER_ENCODING)
}

/// The same response, after which the connection ends.
pub(crate) fn closing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
