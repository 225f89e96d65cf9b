//! Turns what a handler returned into a response.
//!
//! Comes in: a value on the Lua stack. Goes out: a [`Response`]. A table is encoded as JSON straight from the stack; a
//! builder's response is read in one pass. This module must not know which handler returned the value, nor what happens
//! if it cannot be sent.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use rover_lua::json;
use rover_lua::{Kind, OwnedMeta, Stack, anchor};

use crate::exchange::context::{Close, Contexts, Peer, RequestKey};
use crate::log::{self, Level};
use crate::message::body::{self, Aborted, Body, Stream};
use crate::message::header_names::{self, HeaderNames};
use crate::transport::upgrade::Upgrade;

static JSON: HeaderValue = HeaderValue::from_static("application/json");
static TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
static HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Turns Lua values into responses; one for each VM.
pub(crate) struct Responder {
    /// The identity of the metatable of responses (`response.lua`).
    pub(crate) metatable: *const c_void,
    /// Registry reference of that metatable.
    pub(crate) anchor: c_int,
    /// Bodies and upgrades that pass through Lua as values. Each is used once.
    sequels: OwnedMeta<Rc<PendingTail>>,
    buffer: RefCell<BodyBuffer>,
    /// Whether a body too large for the shared chunk has been sent.
    sends_large: Cell<bool>,
    /// The identity of the metatable of `api.json` and its like, once it is known.
    builder: Cell<*const c_void>,
}

/// What follows the head of a response that has not been sent.
struct PendingTail(Cell<Option<ResponseTail>>);

impl Close for PendingTail {
    fn close(&self) {
        drop(self.0.take());
    }
}

/// What follows the head of a response, other than a plain body.
enum ResponseTail {
    /// A body that comes over time.
    Stream(Stream),
    /// A body that Rover has made.
    Own(Body),
    /// Another protocol, on the connection with this peer.
    Upgrade(Rc<Peer>, Upgrade),
}

/// The kind of a response that goes on with a [`ResponseTail`], as `response.lua` knows it.
const STREAM: f64 = 7.0;

/// The buffers into which bodies are written before they are sent.
///
/// Small ones are cut off a shared chunk, whose memory is used again once they have been sent; so a plain response
/// needs no allocation of its own.
#[derive(Default)]
struct BodyBuffer {
    scratch: Vec<u8>,
    chunk: BytesMut,
}

/// The size of a chunk, in bytes.
const CHUNK: usize = 16 * 1024;

/// Bodies up to this size share a chunk; a larger one gets memory of its own.
const SHARED_MOST: usize = CHUNK / 4;

impl BodyBuffer {
    fn share(&mut self, body: &[u8]) -> Body {
        match body.len() {
            0 => Body::Empty,
            1..=SHARED_MOST => {
                if self.chunk.capacity() - self.chunk.len() < body.len() {
                    self.chunk.reserve(CHUNK);
                }
                self.chunk.extend_from_slice(body);
                Body::Full(self.chunk.split().freeze())
            }
            _ => Body::Full(Bytes::copy_from_slice(body)),
        }
    }

    /// Sends what `write` put into the scratch buffer.
    fn written(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), String>) -> Result<Body, String> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        write(&mut scratch)?;
        if scratch.len() > SHARED_MOST {
            return Ok(Body::Full(Bytes::from(scratch)));
        }
        let body = self.share(&scratch);
        self.scratch = scratch;
        Ok(body)
    }
}

impl Responder {
    /// A responder that knows responses by their metatable.
    ///
    /// # Errors
    /// Memory errors of mlua.
    pub(crate) fn new(lua: &mlua::Lua, metatable: &mlua::Table) -> mlua::Result<Responder> {
        Ok(Responder {
            metatable: metatable.to_pointer(),
            anchor: anchor(lua, metatable)?,
            sequels: OwnedMeta::new(lua, &lua.create_table()?)?,
            buffer: RefCell::default(),
            sends_large: Cell::default(),
            builder: Cell::new(std::ptr::null()),
        })
    }

    /// Notes what `api.json` and its like are known by, so that one which is returned without a call is not sent as a table.
    pub(crate) fn knows_builders(&self, metatable: &mlua::Table) {
        self.builder.set(metatable.to_pointer());
    }

    /// Whether this app is known to send bodies that should not be copied once more on their way out.
    pub(crate) fn sends_large(&self) -> bool {
        self.sends_large.get()
    }

    /// Notes that large bodies will come that this responder does not make.
    pub(crate) fn expect_large(&self) {
        self.sends_large.set(true);
    }

    /// Pushes a value that stands for `stream`: what a response of the kind STREAM in `response.lua` holds.
    pub(crate) fn push_stream(&self, stack: &mut Stack<'_>, stream: Stream) {
        self.sequels.push(stack, Rc::new(PendingTail(Cell::new(Some(ResponseTail::Stream(stream))))));
    }

    /// As [`push_stream`](Responder::push_stream), for a stream that keeps a connection: where it is not sent, it ends with the
    /// request of `request_key`, for Lua's collector does not know what a connection costs.
    pub(crate) fn push_stream_of(
        &self,
        stack: &mut Stack<'_>,
        stream: Stream,
        contexts: &Contexts,
        request_key: RequestKey,
    ) {
        self.push_of(stack, ResponseTail::Stream(stream), contexts, request_key);
    }

    /// As [`push_upgrade`](Responder::push_upgrade), and as [`push_stream_of`](Responder::push_stream_of).
    pub(crate) fn push_upgrade_of(
        &self,
        stack: &mut Stack<'_>,
        (peer, upgrade): (Rc<Peer>, Upgrade),
        contexts: &Contexts,
        request_key: RequestKey,
    ) {
        self.push_of(stack, ResponseTail::Upgrade(peer, upgrade), contexts, request_key);
    }

    fn push_of(&self, stack: &mut Stack<'_>, sequel: ResponseTail, contexts: &Contexts, request_key: RequestKey) {
        let pending = Rc::new(PendingTail(Cell::new(Some(sequel))));
        match contexts.requests.get_mut(request_key) {
            Ok(mut request) => request.opens(pending.clone()),
            Err(_) => pending.close(),
        }
        self.sequels.push(stack, pending);
    }

    /// Pushes a response of Rover's own, as one that a builder made.
    pub(crate) fn push_response(&self, stack: &mut Stack<'_>, response: Response<Body>) {
        let (head, body) = response.into_parts();
        stack.push_table(4, 0);
        let table = stack.top();
        for (item, number) in [(1, STREAM), (2, f64::from(head.status.as_u16()))] {
            stack.push_number(number);
            stack.set_item(table, item);
        }
        self.sequels.push(stack, Rc::new(PendingTail(Cell::new(Some(ResponseTail::Own(body))))));
        stack.set_item(table, 3);
        stack.push_table(head.headers.len() * 2, 0);
        let fields = stack.top();
        for ((name, value), n) in head.headers.iter().zip((1..).step_by(2)) {
            stack.push_bytes(name.as_str().as_bytes());
            stack.set_item(fields, n);
            stack.push_bytes(value.as_bytes());
            stack.set_item(fields, n + 1);
        }
        stack.set_item(table, 4);
        stack.push_anchored(self.anchor);
        stack.set_metatable(table);
    }

    /// As [`push_stream`](Responder::push_stream), for a response of status 101 after which `upgrade` takes over the
    /// connection with `peer`.
    pub(crate) fn push_upgrade(&self, stack: &mut Stack<'_>, peer: Rc<Peer>, upgrade: Upgrade) {
        self.sequels.push(stack, Rc::new(PendingTail(Cell::new(Some(ResponseTail::Upgrade(peer, upgrade))))));
    }

    /// Puts the response for the value at `index` into `response`, where it need not be moved again.
    ///
    /// `recycled` are headers that nobody needs once the body stands: the request's own. Their memory becomes the
    /// response's, and through hyper the next request's.
    ///
    /// # Errors
    /// What makes the value impossible to send, in words for its author. `recycled` is untouched then.
    #[inline(always)]
    pub(crate) fn respond(
        &self,
        stack: &mut Stack<'_>,
        index: c_int,
        contexts: &Contexts,
        recycled: &mut HeaderMap,
        response: &mut Option<Response<Body>>,
    ) -> Result<(), String> {
        let (status, kind, body) = match stack.kind(index) {
            Kind::Table => {
                let metatable = stack.metatable_identity(index);
                if metatable == self.metatable {
                    return self.built(stack, index, contexts, recycled, response);
                }
                if !metatable.is_null() && metatable == self.builder.get() {
                    return Err("it is a path or a builder, which has to be called, as in api.json(value)".to_owned());
                }
                (StatusCode::OK, Some(&JSON), self.json(stack, index, contexts)?)
            }
            Kind::Nil => (StatusCode::NO_CONTENT, None, Body::Empty),
            _ => match self.text(stack, index, contexts)? {
                Some(body) => (StatusCode::OK, Some(&TEXT), body),
                None => (StatusCode::OK, Some(&JSON), self.json(stack, index, contexts)?),
            },
        };
        self.note(&body);
        assemble(response, status, recycled, kind, body);
        Ok(())
    }

    #[inline]
    fn note(&self, body: &Body) {
        if body.len() > SHARED_MOST as u64 {
            self.sends_large.set(true);
        }
    }

    /// A body of these bytes.
    fn share(&self, body: &[u8]) -> Body {
        match self.buffer.try_borrow_mut() {
            Ok(mut buffer) => buffer.share(body),
            Err(_) => Body::Full(Bytes::copy_from_slice(body)),
        }
    }

    #[inline]
    fn json(&self, stack: &mut Stack<'_>, index: c_int, contexts: &Contexts) -> Result<Body, String> {
        let mut encode = |out: &mut Vec<u8>| {
            json::encode(stack, index, &contexts.vocabulary, out).map_err(|error| error.to_string())
        };
        match self.buffer.try_borrow_mut() {
            Ok(mut buffer) => buffer.written(encode),
            Err(_) => {
                let mut out = Vec::new();
                encode(&mut out)?;
                Ok(Body::Full(out.into()))
            }
        }
    }

    /// The text of a string, number, boolean or Body; `None` for another value.
    #[inline]
    fn text(&self, stack: &mut Stack<'_>, index: c_int, contexts: &Contexts) -> Result<Option<Body>, String> {
        Ok(match stack.kind(index) {
            Kind::String => stack.bytes(index).map(|bytes| self.share(bytes)),
            Kind::Number => {
                let text = stack.number_text(index);
                Some(self.share(text.as_bytes()))
            }
            Kind::Boolean => Some(self.share(if stack.boolean(index) { b"true" } else { b"false" })),
            Kind::Userdata => match contexts.bodies.get(stack, index) {
                Some(Ok(bytes)) if bytes.is_empty() => Some(Body::Empty),
                Some(Ok(bytes)) => Some(Body::Full(bytes)),
                Some(Err(gone)) => return Err(format!("it is {gone}")),
                None => None,
            },
            _ => None,
        })
    }

    /// What a response of the kind STREAM goes on with. An upgrade is left with its connection.
    #[cold]
    fn sequel(&self, stack: &mut Stack<'_>, value: c_int, status: StatusCode) -> Result<Body, String> {
        match self.sequels.get(stack, value).and_then(|pending| pending.0.take()) {
            Some(ResponseTail::Stream(stream)) => Ok(Body::Stream(stream)),
            Some(ResponseTail::Own(body)) => Ok(body),
            Some(ResponseTail::Upgrade(peer, upgrade)) if status == StatusCode::SWITCHING_PROTOCOLS => {
                peer.upgrade.put(upgrade);
                Ok(Body::Empty)
            }
            Some(ResponseTail::Upgrade(..)) => Err("a response that switches protocols has the status 101".to_owned()),
            None => {
                Err("a response that streams can be sent only once, and that of an upstream only by its request"
                    .to_owned())
            }
        }
    }

    /// The response that a builder made: `{ kind, status, value, headers }`, as `response.lua` lays it out.
    fn built(
        &self,
        stack: &mut Stack<'_>,
        index: c_int,
        contexts: &Contexts,
        recycled: &mut HeaderMap,
        response: &mut Option<Response<Body>>,
    ) -> Result<(), String> {
        for item in 1..=4 {
            stack.push_item(index, item);
        }
        let top = stack.top();
        let (value, fields) = (top - 1, top);
        let status = StatusCode::from_u16(stack.number(top - 2) as u16)
            .map_err(|_| "the response has no valid status".to_owned())?;
        let (kind, body) = match stack.number(top - 3) as u8 {
            1 => (Some(&JSON), self.json(stack, value, contexts)?),
            6 => (None, self.json(stack, value, contexts)?),
            number @ 2..=4 => {
                let kind = match number {
                    2 => Some(&TEXT),
                    3 => Some(&HTML),
                    _ => None,
                };
                (kind, self.text(stack, value, contexts)?.unwrap_or_default())
            }
            7 => (None, self.sequel(stack, value, status)?),
            _ => (None, Body::Empty),
        };
        self.note(&body);
        let headers = assemble(response, status, recycled, kind, body);
        if stack.kind(fields) == Kind::Table {
            add_fields(stack, fields, &contexts.header_names, headers)?;
        }
        if status != StatusCode::OK
            && let Some(response) = response
        {
            name_status(response);
        }
        if let Some(response) = response
            && let Body::Stream(_) = response.body()
        {
            stack.push_item(index, 5);
            let place = stack.bytes(stack.top()).map(|place| String::from_utf8_lossy(place).into_owned());
            measure(response, place.unwrap_or_default());
        }
        stack.truncate(top - 4);
        Ok(())
    }
}

/// Sends a status without a standard reason phrase with an empty one (RFC 9112, section 4), where hyper would write
/// `<none>`.
#[inline]
pub(crate) fn name_status(response: &mut Response<Body>) {
    if response.status().canonical_reason().is_none() {
        response.extensions_mut().insert(ReasonPhrase::from_static(b""));
    }
}

/// Adds the names and values at `index`, which take turns. A second Content-Type replaces the first; other fields may
/// repeat.
fn add_fields(stack: &mut Stack<'_>, index: c_int, names: &HeaderNames, headers: &mut HeaderMap) -> Result<(), String> {
    let last = c_int::try_from(stack.raw_len(index)).unwrap_or(0);
    for n in (1..last).step_by(2) {
        stack.push_item(index, n);
        stack.push_item(index, n + 1);
        let top = stack.top();
        let name = stack.bytes(top - 1).and_then(|name| names.get(name));
        let value = stack.bytes(top).and_then(|value| HeaderValue::from_bytes(value).ok());
        stack.pop(2);
        let (Some(name), Some(value)) = (name, value) else {
            return Err("the response has a header that cannot be sent".to_owned());
        };
        let added = match name == CONTENT_TYPE {
            true => header_names::set(headers, name, value),
            false => header_names::append(headers, name, value),
        };
        added.map_err(|too_many| format!("the response has {too_many}"))?;
    }
    Ok(())
}

/// Holds a stream to the length that its response declares.
#[cold]
fn measure(response: &mut Response<Body>, place: String) {
    let declared = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if let (Some(length), Body::Stream(stream)) = (declared, response.body_mut()) {
        let own = std::mem::replace(stream, body::nothing());
        *stream = Box::pin(SizedStream { stream: own, length, left: length, place });
    }
}

/// A stream of so many bytes. One that brings another number breaks off.
struct SizedStream {
    stream: Stream,
    length: u64,
    left: u64,
    /// Where its producer is written.
    place: String,
}

impl SizedStream {
    #[cold]
    fn broken(&self, problem: &str) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let text =
            format!("{}: a stream broke off: its Content-Length is {}, and it {problem}", self.place, self.length);
        log::event(Level::Error, &text).emit();
        Poll::Ready(Some(Err(Aborted)))
    }
}

impl http_body::Body for SizedStream {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        let frame = ready!(this.stream.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match this.left.checked_sub(length) {
                    Some(left) => this.left = left,
                    None => return this.broken("is longer"),
                }
            }
            None if this.left > 0 => {
                let problem = format!("ended after {}", this.length - this.left);
                this.left = 0;
                return this.broken(&problem);
            }
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Joins the parts, and gives the headers to add to. A response whose status has no content goes without (RFC 9110,
/// sections 15.3.5, 15.3.6, 15.4.5).
#[inline(always)]
fn assemble<'r>(
    response: &'r mut Option<Response<Body>>,
    status: StatusCode,
    recycled: &mut HeaderMap,
    kind: Option<&'static HeaderValue>,
    body: Body,
) -> &'r mut HeaderMap {
    let bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    let response = response.insert(Response::new(if bare { Body::Empty } else { body }));
    *response.status_mut() = status;
    recycled.clear();
    std::mem::swap(response.headers_mut(), recycled);
    if let Some(kind) = kind.filter(|_| !bare) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    response.headers_mut()
}
