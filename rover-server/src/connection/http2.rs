//! HTTP/2 (RFC 9113), by hyper: its limits, and the difference between its requests and those of HTTP/1.1.
//!
//! Comes in: a socket whose client speaks HTTP/2. Goes out: its requests to the [`ConnectedClient`]. Each stream is a task of the
//! worker's runtime; one whose client takes nothing of its answer is reset.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, Sleep, sleep};

use crate::exchange::context::Peer;
use crate::exchange::failure::{self, NoRoom};
use crate::message::body::{Aborted, Body};
use crate::runtime::turn;
use crate::service::Answer;
use crate::transport::socket::{Socket, SocketHandle};

use super::requests::ConnectedClient;

/// An HTTP/2 connection.
pub(super) struct Http2 {
    hyper: Pin<Box<http2::Connection<SocketHandle, Http2Service, LocalExecutor>>>,
    /// The client has been told that no more requests are answered.
    is_spent: bool,
}

impl Http2 {
    /// Lets hyper go on, and tells the client when it has had all its requests.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, client: &ConnectedClient) -> Poll<hyper::Result<()>> {
        let polled = self.hyper.as_mut().poll(cx);
        if polled.is_pending() && client.is_spent() && !self.is_spent {
            self.is_spent = true;
            self.graceful_shutdown();
            return self.hyper.as_mut().poll(cx);
        }
        polled
    }

    /// Ends with the responses in progress.
    #[cold]
    pub(super) fn graceful_shutdown(&mut self) {
        self.hyper.as_mut().graceful_shutdown();
    }
}

/// How much of a body is given to a stream at once, in bytes: a frame of the usual size. A stalled client can make the
/// server hold about this much for each stream.
const CHUNK: usize = 16 * 1024;

/// How much hyper may buffer for a stream beyond what the client takes, in bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// How many streams may fail by the client's mistakes before the connection ends. Each costs a frame to answer.
const ERROR_RESETS: usize = 128;

/// How many times as many bodies in a row as there may be streams find no room before the connection ends. Those of the first
/// time are answered, for their client could not know; the others are reset.
const REFUSED_MOST: usize = 8;

/// Begins to serve what comes over `socket`.
pub(super) fn serve(socket: &Rc<Socket>, client: &Rc<ConnectedClient>) -> Http2 {
    let site = client.current.site();
    let config = &site.config;
    let settings = &config.http2;
    let current = Rc::new(CurrentStream::default());
    let executor = LocalExecutor { current: current.clone(), patience: config.connections.send_timeout };
    let header_list = u32::try_from(config.connections.header_size_limit).unwrap_or(u32::MAX);
    let mut http = http2::Builder::new(executor);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .max_pending_accept_reset_streams(settings.max_pending_resets)
        .max_local_error_reset_streams(ERROR_RESETS)
        .max_header_list_size(header_list)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval((!settings.ping_interval.is_zero()).then_some(settings.ping_interval))
        .keep_alive_timeout(settings.ping_timeout);
    let streams = Http2Service { client: client.clone(), current, answered_most: settings.max_streams as usize };
    let hyper = Box::pin(http.serve_connection(SocketHandle(socket.clone()), streams));
    Http2 { hyper, is_spent: false }
}

/// Answers a client that sent no preface: empty settings, and GOAWAY with PROTOCOL_ERROR (RFC 9113, section 3.4).
pub(super) fn refuse_preface(waiting: &mut Vec<u8>) {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    waiting.extend_from_slice(&SETTINGS);
    waiting.extend_from_slice(&goaway(0, Reason::PROTOCOL_ERROR));
}

/// A GOAWAY frame (RFC 9113, section 6.8), where requests on streams up to `last` may have been seen to.
fn goaway(last: u32, reason: Reason) -> [u8; 17] {
    let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[9..13].copy_from_slice(&last.to_be_bytes());
    frame[13..].copy_from_slice(&u32::from(reason).to_be_bytes());
    frame
}

/// Whether the client goes on with bodies for which there is no room, however often it is told so.
#[inline]
pub(super) fn is_flooding(client: &ConnectedClient) -> bool {
    let refused = client.peer.refused_in_a_row();
    refused > 0 && refused > client.current.site().config.http2.max_streams as usize * REFUSED_MOST
}

/// Tells such a client that the connection ends, where hyper's last frame is whole.
#[cold]
pub(super) fn refuse_flood(socket: &Socket) {
    /// The greatest there is: which streams came last, hyper does not tell.
    const ANY: u32 = 0x7fff_ffff;
    if !socket.is_blocked() {
        socket.edit(|waiting| waiting.extend_from_slice(&goaway(ANY, Reason::ENHANCE_YOUR_CALM)));
    }
}

/// The streams of one connection, as hyper hands them over.
pub(super) struct Http2Service {
    client: Rc<ConnectedClient>,
    current: Rc<CurrentStream>,
    /// So many bodies in a row for which there is no room are answered.
    answered_most: usize,
}

impl hyper::service::Service<Request<Incoming>> for Http2Service {
    type Response = Response<StreamBody>;
    type Error = h2::Error;
    type Future = StreamAnswer;

    fn call(&self, mut request: Request<Incoming>) -> StreamAnswer {
        name_host(&mut request);
        encode_target(&mut request);
        StreamAnswer {
            is_head: request.method() == Method::HEAD,
            answer: self.client.answer(request.map(StreamRequestBody), |_, _| {}),
            peer: self.client.peer.clone(),
            current: self.current.clone(),
            answered_most: self.answered_most,
        }
    }
}

/// Gives the request a Host from `:authority`, as RFC 9113, section 8.3.1 has it for whoever translates to HTTP/1.1.
/// Where it came with one that says something else, it has two then, which is refused like any other pair.
fn name_host<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority() else { return };
    let authority = authority.as_str();
    let is_named =
        request.headers().get(HOST).is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
    if !is_named && let Ok(host) = HeaderValue::from_str(authority) {
        request.headers_mut().append(HOST, host);
    }
}

/// Percent-encodes what the h2 crate lets into a `:path` and clients should have encoded, as it is done with targets of
/// HTTP/1: `"` in the path, a backtick in the query. It refuses the others.
fn encode_target<B>(request: &mut Request<B>) {
    let is_plain = |target: &PathAndQuery| memchr::memchr2(b'"', b'`', target.as_str().as_bytes()).is_none();
    let Some(target) = request.uri().path_and_query().filter(|target| !is_plain(target)) else { return };
    let encoded = target.as_str().replace('"', "%22").replace('`', "%60");
    let Ok(target) = PathAndQuery::try_from(encoded) else { return };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = Some(target);
    // The other parts were a URI's before, with a path.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// The body of a request on a stream. A type of its own keeps the code of both kinds of HTTP apart: the compiler then
/// makes one function of all that a request of HTTP/1 goes through.
pub(super) struct StreamRequestBody(Incoming);

impl http_body::Body for StreamRequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.get_mut().0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A response to come, on a stream.
pub(super) struct StreamAnswer {
    answer: Answer<StreamRequestBody>,
    is_head: bool,
    peer: Rc<Peer>,
    current: Rc<CurrentStream>,
    answered_most: usize,
}

impl Future for StreamAnswer {
    /// The error is the reason for which the stream is reset.
    type Output = Result<Response<StreamBody>, h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(Pin::new(&mut self.answer).poll(cx));
        if self.peer.refused_in_a_row() > self.answered_most && response.extensions().get::<NoRoom>().is_some() {
            return Poll::Ready(Err(Reason::ENHANCE_YOUR_CALM.into()));
        }
        if self.is_head {
            // hyper leaves the body of an answer to HEAD out only in HTTP/1.
            let body = std::mem::take(response.body_mut());
            if let Some(length) = body.size_hint().exact().filter(|&length| length > 0) {
                response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
            }
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // HTTP/2 cannot be upgraded (RFC 9113, section 8.6).
            drop(self.peer.upgrade.take());
            response = failure::answer(StatusCode::NOT_IMPLEMENTED);
        }
        let (peer, stall) = (self.peer.clone(), self.current.stall());
        Poll::Ready(Ok(response.map(|body| StreamBody { body, stall, _peer: peer })))
    }
}

/// Whether a stream waits for its client.
#[derive(Default)]
pub(super) struct Stall {
    waits: Cell<bool>,
    /// The client has taken something since somebody last looked.
    has_moved: Cell<bool>,
}

/// The stream whose task runs at the moment: what is made there belongs to it.
#[derive(Default)]
pub(super) struct CurrentStream(RefCell<Rc<Stall>>);

impl CurrentStream {
    fn stall(&self) -> Rc<Stall> {
        self.0.borrow().clone()
    }
}

/// The body of a response on a stream, in pieces that its client takes one after the other.
pub(super) struct StreamBody {
    body: Body,
    stall: Rc<Stall>,
    /// The connection is busy as long as this is here.
    _peer: Rc<Peer>,
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        // hyper asks for more only when the client has taken what it had.
        this.stall.has_moved.set(true);
        let frame = match &mut this.body {
            Body::Full(bytes) if bytes.len() > CHUNK => Poll::Ready(Some(Ok(Frame::data(bytes.split_to(CHUNK))))),
            body => Pin::new(body).poll_frame(cx),
        };
        this.stall.waits.set(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs each stream as a task of this thread, and gives up streams whose client takes nothing.
#[derive(Clone)]
pub(super) struct LocalExecutor {
    current: Rc<CurrentStream>,
    patience: Duration,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, stream: F) {
        let (current, patience) = (self.current.clone(), self.patience);
        tokio::task::spawn_local(async move {
            let mut stream = pin!(stream);
            let stall = Rc::new(Stall::default());
            let mut clock: Option<Pin<Box<Sleep>>> = None;
            poll_fn(|cx| {
                turn::begin();
                current.0.replace(stall.clone());
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if !stall.waits.get() {
                    clock = None;
                    return Poll::Pending;
                }
                let has_moved = stall.has_moved.take();
                let clock = clock.get_or_insert_with(|| Box::pin(sleep(patience)));
                if has_moved {
                    clock.as_mut().reset(Instant::now() + patience);
                }
                // Dropping the stream resets it.
                clock.as_mut().poll(cx)
            })
            .await;
        });
    }
}
