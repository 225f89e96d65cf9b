//! Turns a file into its response.
//!
//! Comes in: a resource and the head of the request. Goes out: 200, 206, 304, 412 or 416, with a body from memory or one
//! that is read while it is sent.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, RANGE, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use rustix::io::Errno;

use super::Assets;
use super::conditions::{self, Validators, Verdict};
use super::file_body::{FileBody, Part};
use super::mount::Mount;
use super::open::{self, Identity, Opened};
use super::range::{self, Span, Wanted};
use super::resource::{Representation, Resource};
use crate::exchange::failure;
use crate::message::body::Body;
use crate::message::coding::{Accepted, Coding};
use crate::runtime::blocking;

static BYTES: HeaderValue = HeaderValue::from_static("bytes");

/// How many headers a response has, with room for a few of others.
const HEADERS: usize = 12;

impl Assets {
    /// Answers a request with a file.
    ///
    /// # Errors
    /// The file is gone or has been replaced (NOENT); or the system's error from opening it.
    pub(super) fn send(
        &self,
        n: usize,
        mount: &Mount,
        resource: &Resource,
        head: &Parts,
    ) -> Result<Response<Body>, Errno> {
        let coding = match resource.coded.is_empty() {
            true => None,
            false => Accepted::of(&head.headers).choose(resource.coded.iter().map(|(coding, _)| *coding)),
        };
        let chosen = resource.representation(coding).ok_or(Errno::NOENT)?;
        let validators = Validators { etag: &chosen.etag, modified: chosen.modified };
        match conditions::evaluate(&head.headers, &validators) {
            Verdict::Send => {}
            Verdict::NotModified => {
                let mut response = Response::new(Body::Empty);
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                *response.headers_mut() = common(mount, resource, chosen);
                return Ok(response);
            }
            Verdict::Failed => return Ok(failure::answer(StatusCode::PRECONDITION_FAILED)),
        }
        let length = chosen.identity.length;
        let wanted = match head.headers.get(RANGE).filter(|_| head.method == Method::GET) {
            Some(field) if conditions::allows_range(&head.headers, &validators, SystemTime::now()) => {
                range::wanted(field, length)
            }
            _ => Wanted::Whole,
        };
        let parts = match wanted {
            Wanted::Whole => None,
            Wanted::Parts(parts) => Some(parts),
            Wanted::Nothing => {
                let mut response = failure::answer(StatusCode::RANGE_NOT_SATISFIABLE);
                response.headers_mut().insert(CONTENT_RANGE, text(format!("bytes */{length}")));
                return Ok(response);
            }
        };

        let mut headers = common(mount, resource, chosen);
        headers.insert(ACCEPT_RANGES, BYTES.clone());
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, coding.value());
        }
        let mut kind = resource.kind.clone();
        let (status, parts) = match parts.as_deref() {
            None if length == 0 => (StatusCode::OK, VecDeque::new()),
            None => (StatusCode::OK, VecDeque::from([Part::File(Span { first: 0, last: length - 1 })])),
            Some([span]) => {
                headers.insert(CONTENT_RANGE, text(span.of(length)));
                (StatusCode::PARTIAL_CONTENT, VecDeque::from([Part::File(*span)]))
            }
            Some(spans) => {
                let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
                let parts = multipart(spans, length, &resource.kind, &boundary);
                kind = text(format!("multipart/byteranges; boundary={boundary}"));
                (StatusCode::PARTIAL_CONTENT, parts)
            }
        };
        headers.insert(CONTENT_TYPE, kind);
        let body = match &chosen.bytes {
            Some(bytes) => from_memory(bytes, &parts),
            None if blocking::is_starved() => return Ok(failure::answer(StatusCode::SERVICE_UNAVAILABLE)),
            None => self.read_while_sending(n, mount, resource, coding, parts)?,
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// A body that is read while it is sent. A file that the headers no longer describe is not sent.
    fn read_while_sending(
        &self,
        n: usize,
        mount: &Mount,
        resource: &Resource,
        coding: Option<Coding>,
        parts: VecDeque<Part>,
    ) -> Result<Body, Errno> {
        let name = resource.name_in(coding);
        let folder: Rc<_> = self.folder(n, mount, Instant::now())?;
        let Opened::File(file, stat) = open::below(&folder, &name, mount.dotfiles)? else { return Err(Errno::NOENT) };
        if resource.representation(coding).is_none_or(|known| known.identity != Identity::of(&stat)) {
            return Err(Errno::NOENT);
        }
        let shown = mount.folder.join(String::from_utf8_lossy(&name).into_owned()).display().to_string();
        Ok(Body::Stream(Box::pin(FileBody::new(Arc::new(file), shown, parts))))
    }
}

/// What 200, 206 and 304 have in common (RFC 9110, section 15.4.5).
fn common(mount: &Mount, resource: &Resource, chosen: &Representation) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CACHE_CONTROL, resource.cache_control.clone());
    headers.insert(ETAG, chosen.etag.clone());
    headers.insert(LAST_MODIFIED, chosen.last_modified.clone());
    if !resource.coded.is_empty() {
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    for (name, value) in &mount.headers {
        headers.insert(name.clone(), value.clone());
    }
    headers
}

/// The parts of a `multipart/byteranges` (RFC 9110, section 14.6).
fn multipart(spans: &[Span], length: u64, kind: &HeaderValue, boundary: &str) -> VecDeque<Part> {
    let mut parts = VecDeque::with_capacity(2 * spans.len() + 1);
    let kind = String::from_utf8_lossy(kind.as_bytes());
    for (n, span) in spans.iter().enumerate() {
        let before = if n == 0 { "" } else { "\r\n" };
        let range = span.of(length);
        let head = format!("{before}--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {range}\r\n\r\n");
        parts.push_back(Part::Text(head.into()));
        parts.push_back(Part::File(*span));
    }
    parts.push_back(Part::Text(format!("\r\n--{boundary}--\r\n").into()));
    parts
}

fn from_memory(bytes: &Bytes, parts: &VecDeque<Part>) -> Body {
    let cut = |span: &Span| bytes.slice(span.first as usize..=span.last as usize);
    match parts.front() {
        None => Body::Empty,
        Some(Part::File(span)) if parts.len() == 1 => Body::Full(cut(span)),
        Some(_) => {
            let mut all = BytesMut::with_capacity(parts.iter().map(|part| part.length() as usize).sum());
            for part in parts {
                match part {
                    Part::File(span) => all.extend_from_slice(&cut(span)),
                    Part::Text(text) => all.extend_from_slice(text),
                }
            }
            Body::Full(all.freeze())
        }
    }
}

fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
