//! Redirects: what the next request looks like (RFC 9110, section 15.4).

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION, CONTENT_TYPE, COOKIE, HOST, LOCATION,
    PROXY_AUTHORIZATION,
};
use http::response::Parts;
use http::{Method, StatusCode};

use super::Problem;
use super::call::Call;
use super::outgoing::Outgoing;
use super::url::{resolve, same_origin};

/// Whether an answer leads on.
pub(super) enum Redirected {
    No,
    /// The call is now what to send next.
    Yes,
    /// The answer leads on, but the body has gone for good: the app has to decide.
    Cannot,
}

/// Turns `call` into the request that `head` asks for, unless it is an answer by itself.
///
/// A POST becomes a GET after 301 and 302, as it does everywhere on the web, and anything but HEAD after 303. What was
/// meant for one origin is not shown to another one.
///
/// # Errors
/// The place that it leads to cannot be requested.
pub(super) fn follow(head: &Parts, call: &mut Call) -> Result<Redirected, Problem> {
    let becomes_get = match head.status {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => call.method == Method::POST,
        StatusCode::SEE_OTHER => call.method != Method::HEAD,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
        _ => return Ok(Redirected::No),
    };
    let Some(location) = head.headers.get(LOCATION).filter(|_| call.redirects > 0) else { return Ok(Redirected::No) };
    if call.body.is_none() && !becomes_get {
        return Ok(Redirected::Cannot);
    }
    let next = resolve(&call.url, location.as_bytes())?;
    if becomes_get {
        call.method = Method::GET;
        call.body = Some(Outgoing::Empty);
        for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION] {
            call.headers.remove(name);
        }
    }
    if !same_origin(&call.url, &next) {
        for name in [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, HOST] {
            call.headers.remove(name);
        }
    }
    call.url = next;
    Ok(Redirected::Yes)
}
