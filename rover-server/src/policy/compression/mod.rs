//! Compresses responses for clients that accept it.
//!
//! Comes in: a response, and what the client accepts. Goes out: the same response, or one with a content coding (RFC 9110,
//! section 8.4). A small body is compressed at once, a large one in slices while it is sent, a stream as it comes. Must
//! not know: which handler or file the response is of.

mod body;
mod encoder;

use std::cell::RefCell;
use std::rc::Rc;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::config::CompressionConfig;
use crate::message::body::Body;
use crate::message::coding::{Accepted, Coding};
use crate::message::wildcard;
use body::Compressed;
use encoder::Whole;

/// The rules, and what a worker keeps to follow them.
pub(crate) struct Compression {
    min_size: u64,
    types: Vec<String>,
    codings: Vec<Coding>,
    whole: RefCell<Whole>,
    /// The last `Accept-Encoding`: most clients send one of few.
    last: RefCell<(HeaderValue, Accepted)>,
}

/// What one request asks of its response.
pub(crate) struct Negotiation {
    rules: Rc<Compression>,
    accepted: Accepted,
}

/// Bodies up to this length are compressed at once, longer ones in slices of it. A slice takes a fraction of a
/// millisecond.
const SLICE: usize = 32 * 1024;

impl Compression {
    /// The rules of a config; `None` where nothing is compressed.
    pub(crate) fn new(config: &CompressionConfig) -> Option<Rc<Compression>> {
        config.enabled.then(|| {
            Rc::new(Compression {
                min_size: config.min_size.max(1),
                types: config.types.clone(),
                codings: config.codings.iter().filter_map(|name| Coding::from_name(name)).collect(),
                whole: RefCell::default(),
                last: RefCell::new((HeaderValue::from_static(""), Accepted::of(&HeaderMap::new()))),
            })
        })
    }

    /// Notes what a request accepts, for its response.
    pub(crate) fn negotiate(self: &Rc<Self>, headers: &HeaderMap) -> Negotiation {
        let mut values = headers.get_all(ACCEPT_ENCODING).iter();
        let accepted = match (values.next(), values.next()) {
            (Some(value), None) => {
                let mut last = self.last.borrow_mut();
                if last.0 != value {
                    // Kept apart from the buffer that the request came in.
                    let own =
                        HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| HeaderValue::from_static(""));
                    *last = (own, Accepted::of(headers));
                }
                last.1
            }
            _ => Accepted::of(headers),
        };
        Negotiation { rules: self.clone(), accepted }
    }

    /// Whether responses of this kind are compressed.
    fn takes(&self, headers: &HeaderMap) -> bool {
        let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
        let kind = kind.split(';').next().unwrap_or(kind).trim().to_ascii_lowercase();
        self.types.iter().any(|pattern| wildcard::matches(pattern.as_bytes(), kind.as_bytes()))
    }
}

impl Negotiation {
    /// Compresses the response if the rules and the client allow it.
    #[inline]
    pub(crate) fn apply(self, response: Response<Body>) -> Response<Body> {
        match response.body() {
            _ if matches!(response.status(), StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT) => {
                self.like_the_whole(response)
            }
            Body::Full(bytes) if (bytes.len() as u64) < self.rules.min_size && !self.accepted.refuses_identity() => {
                response
            }
            Body::Empty => response,
            _ => self.consider(response),
        }
    }

    /// 206 and 304 stay as they are, and have the `Vary` of the 200 in whose place they are (RFC 9110, sections 15.3.7 and
    /// 15.4.5). So has 304 its tag: a weak one, where the 200 may be compressed for this client.
    #[cold]
    fn like_the_whole(self, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers();
        let is_never_coded = match headers.get(CONTENT_RANGE) {
            Some(range) => {
                length_of_whole(range).is_some_and(|length| length < self.rules.min_size)
                    || headers.contains_key(CONTENT_ENCODING)
                    || forbids_transforming(headers)
                    || !self.rules.takes(headers)
            }
            // What it would be of is not known: 304, or several parts.
            None => false,
        };
        if !is_never_coded {
            vary(response.headers_mut());
            let headers = response.headers();
            let is_coded = !headers.contains_key(CONTENT_ENCODING)
                && !forbids_transforming(headers)
                && self.accepted.choose(self.rules.codings.iter().copied()).is_some();
            if response.status() == StatusCode::NOT_MODIFIED && is_coded {
                weaken(response.headers_mut());
            }
        }
        response
    }

    #[cold]
    fn consider(self, mut response: Response<Body>) -> Response<Body> {
        let status = response.status();
        let headers = response.headers();
        let is_whole = !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT)
            && !headers.contains_key(CONTENT_ENCODING)
            && !headers.contains_key(CONTENT_RANGE);
        let length = length(&response);
        let is_short = length.is_some_and(|length| length < self.rules.min_size) && !self.accepted.refuses_identity();
        if !is_whole || is_short || length == Some(0) || forbids_transforming(headers) || !self.rules.takes(headers) {
            return response;
        }
        vary(response.headers_mut());
        let Some(coding) = self.accepted.choose(self.rules.codings.iter().copied()) else { return response };
        let (mut head, body) = response.into_parts();
        let body = match body {
            Body::Full(bytes) if bytes.len() <= SLICE => {
                match self.rules.whole.borrow_mut().compress(coding, &bytes, self.accepted.refuses_identity()) {
                    Some(compressed) => Body::Full(compressed),
                    // It would not become shorter.
                    None => return Response::from_parts(head, Body::Full(bytes)),
                }
            }
            source => match Compressed::new(source, coding) {
                Ok(compressed) => Body::Stream(Box::pin(compressed)),
                Err(source) => return Response::from_parts(head, source),
            },
        };
        head.headers.insert(CONTENT_ENCODING, coding.value());
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(ACCEPT_RANGES);
        weaken(&mut head.headers);
        Response::from_parts(head, body)
    }
}

/// The length of a body, where it is known: that of GET for HEAD.
fn length(response: &Response<Body>) -> Option<u64> {
    match response.headers().get(CONTENT_LENGTH) {
        Some(length) => length.to_str().ok()?.parse().ok(),
        None => http_body::Body::size_hint(response.body()).exact(),
    }
}

/// The length behind the slash of a Content-Range, where it is known.
fn length_of_whole(range: &HeaderValue) -> Option<u64> {
    range.to_str().ok()?.rsplit_once('/')?.1.parse().ok()
}

/// `Cache-Control: no-transform` (RFC 9111, section 5.2.2.6).
fn forbids_transforming(headers: &HeaderMap) -> bool {
    let mut directives =
        headers.get_all(CACHE_CONTROL).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Tells caches that the response depends on `Accept-Encoding`.
fn vary(headers: &mut HeaderMap) {
    let mut names = headers.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_said = names.any(|name| {
        let name = name.trim_ascii();
        name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding")
    });
    if !is_said {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// A strong tag names these very bytes, which are others now (RFC 9110, section 8.8.3.3).
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG).map(HeaderValue::as_bytes).filter(|tag| !tag.starts_with(b"W/")) else { return };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag].concat()) {
        headers.insert(ETAG, weak);
    }
}
