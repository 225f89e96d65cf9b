//! HTTP/1.0 and HTTP/1.1, by hyper.
//!
//! Comes in: a socket. Goes out: its requests to the [`ConnectedClient`], and answers to what hyper refuses by itself.

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http::{Extensions, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::upgrade::OnUpgrade;

use crate::exchange::failure;
use crate::message::body::Body;
use crate::service::Answer;
use crate::transport::socket::{Fault, Socket, SocketHandle};

use super::refusal;
use super::requests::ConnectedClient;

/// hyper's end of an HTTP/1 connection.
pub(super) type Http1 = http1::Connection<SocketHandle, Http1Service>;

/// How many header fields hyper takes without an allocation for each request.
const USUAL_HEADER_COUNT: usize = 100;

/// How large hyper's read buffer may become, in bytes, where heads may not be larger. hyper would let it grow to 400 KB, and
/// keeps it for as long as the connection lasts; nothing of that is counted in `buffer_limit`.
const READ_BUFFER: usize = 64 * 1024;

pub(super) struct Http1Service {
    client: Rc<ConnectedClient>,
    socket: Rc<Socket>,
}

impl Http1Service {
    /// Tells the socket what follows the head of a request, where that is not the next head.
    #[cold]
    fn expect(&self, extensions: &Extensions, body: &Incoming) {
        if !body.is_end_stream() {
            self.socket.begin_body(body.size_hint().exact());
            self.client.peer.body_fault.set(self.socket.body_fault().map(Fault::text));
        }
        if extensions.get::<OnUpgrade>().is_some() {
            let client = Rc::downgrade(&self.client);
            self.socket.begin_switch(move || client.upgrade().is_some_and(|client| client.may_switch()));
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Http1Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer<Incoming>;

    #[inline]
    fn call(&self, request: Request<Incoming>) -> Answer<Incoming> {
        self.socket.begin_request();
        self.client.answer(request, |head, body| {
            if !body.is_end_stream() || !head.extensions.is_empty() {
                self.expect(&head.extensions, body);
            }
        })
    }
}

/// Begins to serve what comes over `socket`.
pub(super) fn serve(socket: &Rc<Socket>, client: &Rc<ConnectedClient>) -> Http1 {
    let site = client.current.site();
    let settings = &site.config.connections;
    // hyper decides once for a connection whether it copies head and body together. For small bodies that saves 500
    // instructions a response; 100 KB take 25 % more CPU with it.
    let keeps_bodies_apart = site.app.responder.sends_large();
    let mut http = http1::Builder::new();
    http.writev(keeps_bodies_apart)
        .max_header_size(settings.header_size_limit)
        .max_buf_size(READ_BUFFER.max(settings.header_size_limit));
    if settings.header_count_limit != USUAL_HEADER_COUNT {
        http.max_headers(settings.header_count_limit);
    }
    http.serve_connection(SocketHandle(socket.clone()), Http1Service { client: client.clone(), socket: socket.clone() })
}

/// The beginning of a head that did not become a request.
fn unparsed(http: &mut Http1, socket: &Rc<Socket>, client: &Rc<ConnectedClient>) -> Bytes {
    // hyper returns its buffer only by being taken apart; the connection ends anyway.
    let spent = std::mem::replace(http, serve(socket, client));
    spent.into_parts().read_buf
}

/// The preface of HTTP/2, which hyper does not answer.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// hyper tells its reasons apart by their words alone.
const INVALID_TARGET: &str = "invalid URI";
const INVALID_VERSION: &str = "invalid HTTP version parsed";

/// Whether hyper has dropped the head that it refuses for this `reason`, and holds what came behind it: it does where it
/// could split the head into fields. `begin` is the beginning of the last head of a read.
fn is_dropped(reason: &str, held: &[u8], begin: &[u8]) -> bool {
    match reason {
        INVALID_TARGET if !refusal::is_no_target(held) => true,
        _ if reason.contains("content-length") || reason.contains("transfer-encoding") => true,
        _ => !begin.is_empty() && (held.is_empty() || !begin.starts_with(&held[..begin.len().min(held.len())])),
    }
}

/// hyper has refused a head that it cannot parse, in few words: the client gets more of them, and the log a line.
pub(super) fn explain(http: &mut Http1, socket: &Rc<Socket>, client: &Rc<ConnectedClient>, error: &hyper::Error) {
    let mut head = unparsed(http, socket, client);
    let fault = socket.take_fault(&mut head);
    let mut written = None;
    let site = client.current.site();
    let settings = &site.config.connections;
    let begin = socket.head();
    socket.edit(|waiting| {
        let refused = match head.starts_with(PREFACE) {
            true => Some(StatusCode::BAD_REQUEST),
            false => refusal::take_bare(waiting),
        };
        let Some(mut status) = refused else { return };
        let begin = begin.trim_ascii_start();
        let reason = error.to_string();
        if fault.is_none() && is_dropped(&reason, &head, begin) {
            // Where what is known belongs to a head that came behind it, nothing is known of this one.
            let is_known = memchr::memmem::find(&head, begin).is_none();
            head = if is_known { Bytes::copy_from_slice(begin) } else { Bytes::new() };
        }
        let line = head.iter().position(|&byte| byte == b'\n').unwrap_or(head.len());
        if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE {
            let fields = memchr::memchr_iter(b'\n', &head).count();
            if line > settings.uri_size_limit {
                status = StatusCode::URI_TOO_LONG;
            } else if head.len() < settings.header_size_limit && fields <= settings.header_count_limit {
                // What hyper finds too large in a head of fair size is its Content-Length.
                status = StatusCode::BAD_REQUEST;
            }
        }
        let fault = match fault {
            Some(fault) => Some(fault.text().to_owned()),
            None if reason == INVALID_TARGET || reason == INVALID_VERSION => refusal::target_fault(&head),
            None => None,
        };
        let body = match fault.filter(|_| status == StatusCode::BAD_REQUEST) {
            Some(fault) => failure::error_body(&fault),
            None => failure::body_of(status),
        };
        written = Some((status, refusal::write((status, &body), &site.config.security_headers, &head, waiting)));
    });
    if let Some((status, bytes)) = written {
        client.current.record_refusal(&client.peer, &head, status, bytes);
    }
}

/// The client has not sent its head in time: tells it so, and gives true. One that has sent nothing but ends of lines is
/// not told, and may go on: hyper begins anew, and is to be polled.
pub(super) fn time_out(http: &mut Http1, socket: &Rc<Socket>, client: &Rc<ConnectedClient>) -> bool {
    let head = unparsed(http, socket, client);
    if head.trim_ascii_start().is_empty() {
        return false;
    }
    let status = StatusCode::REQUEST_TIMEOUT;
    let site = client.current.site();
    let mut bytes = 0;
    let body = failure::body_of(status);
    socket.edit(|waiting| bytes = refusal::write((status, &body), &site.config.security_headers, &head, waiting));
    client.current.record_refusal(&client.peer, &head, status, bytes);
    true
}
