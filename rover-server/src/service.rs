//! One request through all its stages, in their order: edge, route, body, handler, response.
//!
//! Comes in: a request from hyper (or from a test, without a socket). Goes out: a future of its response, which is
//! ready at once when nothing has to be waited for.

use std::convert::Infallible;
use std::ffi::c_int;
use std::future::Future;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::header::{ALLOW, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};

use crate::access_log::{self, Access};
use crate::app::App;
use crate::body::{Aborted, Body, Stream};
use crate::collect::Collect;
use crate::config::Config;
use crate::context::{self, Open, Peer};
use crate::handler::{self, Running};
use crate::log::{self, Level};
use crate::route::{FastRouter, Found, Params, RouteId};
use crate::{edge, failure};

/// Everything that the requests of one worker need.
pub(crate) struct Site {
    pub(crate) app: Rc<App>,
    pub(crate) router: Arc<FastRouter>,
    pub(crate) config: Arc<Config>,
}

impl Site {
    /// Begins to answer `request`.
    ///
    /// The request moves into its slot here and stays there. A handler that needs no body runs right away: what the
    /// request holds of hyper's buffer is given back before hyper reads on, and the buffer is used again (two allocations
    /// and 400 instructions less than when the answer is polled first).
    ///
    /// To be called at one place for each kind of body, so that all of it becomes one function (250 instructions).
    #[inline(always)]
    pub(crate) fn call<B>(self: &Rc<Self>, request: Request<B>, peer: &Rc<Peer>) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let record = match self.is_recording() {
            true => Some(Record::new(&request, peer)),
            false => None,
        };
        let mut answer = Answer { response: None, stage: Stage::Over, record };
        let (head, body) = request.into_parts();
        let request = context::Request { head, body: None, route: None, peer: peer.clone(), id: None };
        let request = self.app.contexts.requests.open(request);
        match request.look(|request| self.begin(request, body)) {
            Some(ControlFlow::Continue((None, call))) => {
                answer.stage = self.start(request, call, &mut answer.response);
            }
            Some(ControlFlow::Continue((Some(collect), call))) => {
                answer.stage = Stage::Collecting(Box::new(Collecting { collect, request, call, site: self.clone() }));
            }
            Some(ControlFlow::Break(response)) => answer.response = Some(*response),
            None => {}
        }
        answer
    }

    /// Writes the line of a request that did not become one: `head` is what came of it.
    #[cold]
    pub(crate) fn record_refusal(&self, peer: &Peer, head: &[u8], status: StatusCode, bytes: u64) {
        if self.is_recording() {
            access_log::record_unparsed(head, status.as_u16(), bytes, peer.ip);
        }
    }

    #[inline]
    fn is_recording(&self) -> bool {
        self.config.access_log && log::enabled(Level::Info)
    }

    /// Decides what answers the request, and whether its body is needed first.
    #[inline(always)]
    fn begin<B>(&self, request: &mut context::Request, body: B) -> ControlFlow<Box<Response<Body>>, Begun<B>>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let head = &request.head;
        if let Some(refusal) = edge::refusal(head, self.config.connections.uri_size_limit) {
            return ControlFlow::Break(Box::new(refusal));
        }
        if let Some(port) = request.peer.https_port {
            return ControlFlow::Break(Box::new(edge::to_https(head, port)));
        }
        let has_body = !body.is_end_stream();
        if has_body && let Some(refusal) = edge::body_refusal(head) {
            return ControlFlow::Break(Box::new(refusal));
        }
        let close = has_body && edge::must_close(head) || request.peer.is_last.get();
        let close_unread = close || has_body && edge::holds_body_back(head);
        let (entry, route) = match self.route(head) {
            ControlFlow::Continue(target) => target,
            ControlFlow::Break(response) if close_unread => {
                return ControlFlow::Break(Box::new(edge::closing(response)));
            }
            ControlFlow::Break(response) => return ControlFlow::Break(Box::new(response)),
        };
        let is_missing = route.is_none();
        if has_body && matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
            request.route = route;
            return match Collect::new(body, self.config.body_size_limit, self.config.body_timeout) {
                Ok(collect) => ControlFlow::Continue((Some(collect), Call { entry, is_missing, close })),
                Err(status) => ControlFlow::Break(Box::new(edge::closing(failure::answer(status)))),
            };
        }
        request.route = route;
        ControlFlow::Continue((None, Call { entry, is_missing, close: close_unread }))
    }

    /// Runs the handler. A panic fails this request alone.
    #[inline(always)]
    fn start<B>(&self, request: Open, call: Call, response: &mut Option<Response<Body>>) -> Stage<B> {
        let ran = catch_unwind(AssertUnwindSafe(|| handler::start(&self.app, call.entry, request, response)));
        match ran {
            Ok(None) => {
                call.finish(response);
                Stage::Over
            }
            Ok(Some(running)) => Stage::Running(running, call),
            Err(_) => {
                *response = Some(panicked());
                call.finish(response);
                Stage::Over
            }
        }
    }

    /// Finds what answers the request, or answers it.
    #[inline]
    fn route(&self, head: &Parts) -> ControlFlow<Response<Body>, Target> {
        let path = head.uri.path();
        let response = match self.router.find(&head.method, path) {
            Found::Route { id, params } => return ControlFlow::Continue((App::entry_of(id), Some((id, params)))),
            Found::NotFound => match self.app.hooks.not_found {
                Some(entry) => return ControlFlow::Continue((entry, None)),
                None => failure::answer(StatusCode::NOT_FOUND),
            },
            Found::MethodNotAllowed { allow } => {
                let mut response = failure::answer(StatusCode::METHOD_NOT_ALLOWED);
                response.headers_mut().insert(ALLOW, allow.clone());
                response
            }
            Found::Options { allow } => {
                let mut response = Response::new(Body::Empty);
                *response.status_mut() = StatusCode::NO_CONTENT;
                response.headers_mut().insert(ALLOW, allow.clone());
                response
            }
            Found::Redirect(change) => redirect(&change.apply(path), head.uri.query()),
            Found::BadEncoding => {
                failure::with_message(StatusCode::BAD_REQUEST, "the path holds broken percent-encoding")
            }
        };
        ControlFlow::Break(response)
    }
}

fn redirect(path: &str, query: Option<&str>) -> Response<Body> {
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let Ok(location) = HeaderValue::try_from(target) else {
        return failure::answer(StatusCode::NOT_FOUND);
    };
    let mut response = failure::answer(StatusCode::PERMANENT_REDIRECT);
    response.headers_mut().insert(LOCATION, location);
    response
}

/// The entry that answers, and its route unless it is the app's own `not_found`.
type Target = (c_int, Option<(RouteId, Params)>);

/// The body to collect first, where there is one, and the handler to call then.
type Begun<B> = (Option<Collect<B>>, Call);

/// The handler that answers a request.
#[derive(Clone, Copy)]
struct Call {
    entry: c_int,
    /// It is the app's own `not_found`.
    is_missing: bool,
    /// The connection ends with the response.
    close: bool,
}

impl Call {
    /// The last touch to what a handler answered: `not_found` that names no status answers 404.
    #[inline(always)]
    fn finish(self, response: &mut Option<Response<Body>>) {
        if !self.is_missing && !self.close {
            return;
        }
        let Some(response) = response else { return };
        if self.is_missing && response.status().is_success() {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        if self.close && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            edge::close(response);
        }
    }
}

/// Where a request stands that has no response yet. What is rare is boxed, for the whole moves at every request.
enum Stage<B> {
    Collecting(Box<Collecting<B>>),
    Running(Box<Running>, Call),
    Over,
}

/// A request whose body is on the way.
struct Collecting<B> {
    collect: Collect<B>,
    request: Open,
    call: Call,
    site: Rc<Site>,
}

/// A response to come. Dropping it ends the handler, if one waits.
pub(crate) struct Answer<B> {
    /// What most requests have at once.
    response: Option<Response<Body>>,
    stage: Stage<B>,
    record: Option<Box<Record>>,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> Answer<B> {
    /// Goes on where there is no response yet.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                Stage::Collecting(collecting) => {
                    let collected = ready!(collecting.collect.poll(cx));
                    let Stage::Collecting(collecting) = std::mem::replace(&mut self.stage, Stage::Over) else {
                        return Poll::Ready(());
                    };
                    let Collecting { request, call, site, .. } = *collecting;
                    match collected {
                        Ok(body) => {
                            request.look(|request| request.body = body);
                            self.stage = site.start(request, call, &mut self.response);
                        }
                        Err(status) => self.response = Some(edge::closing(failure::answer(status))),
                    }
                }
                Stage::Running(running, call) => {
                    let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *running).poll(cx)));
                    self.response = match polled {
                        Ok(Poll::Pending) => return Poll::Pending,
                        Ok(Poll::Ready(response)) => response,
                        Err(_) => Some(panicked()),
                    };
                    call.finish(&mut self.response);
                    self.stage = Stage::Over;
                }
                Stage::Over => return Poll::Ready(()),
            }
        }
    }
}

impl<B> Future for Answer<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.response.is_none() {
            ready!(self.poll_response(cx));
        }
        let response = self.response.take().unwrap_or_else(|| failure::answer(StatusCode::INTERNAL_SERVER_ERROR));
        match self.record.take() {
            Some(record) => Poll::Ready(Ok(record.at_end(response))),
            None => Poll::Ready(Ok(response)),
        }
    }
}

#[cold]
fn panicked() -> Response<Body> {
    log::event(Level::Error, "Rover panicked while it served a request; this is a bug in Rover").emit();
    failure::answer(StatusCode::INTERNAL_SERVER_ERROR)
}

/// What the access log tells of a request once its answer is known.
struct Record {
    began: Instant,
    method: Method,
    uri: http::Uri,
    version: http::Version,
    peer: Rc<Peer>,
}

impl Record {
    fn new<B>(request: &Request<B>, peer: &Rc<Peer>) -> Box<Record> {
        Box::new(Record {
            began: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            peer: peer.clone(),
        })
    }

    /// Writes the line when all bytes of the response are known, or are with hyper.
    fn at_end(self: Box<Self>, response: Response<Body>) -> Response<Body> {
        if let Body::Stream(_) = response.body() {
            let (head, body) = response.into_parts();
            let Body::Stream(stream) = body else { return Response::from_parts(head, body) };
            let request_id = head.headers.get("x-request-id").cloned();
            let recorded = Recorded { stream, record: self, status: head.status, request_id, bytes: 0 };
            return Response::from_parts(head, Body::Stream(Box::pin(recorded)));
        }
        self.write(response.status(), response.body().len(), response.headers().get("x-request-id"));
        response
    }

    fn write(&self, status: StatusCode, bytes: u64, request_id: Option<&HeaderValue>) {
        let ip = self.peer.ip.map(|ip| ip.to_string()).unwrap_or_default();
        access_log::record(&Access {
            method: self.method.as_str(),
            path: self.uri.path(),
            query: self.uri.query(),
            status: status.as_u16(),
            bytes,
            duration: self.began.elapsed(),
            ip: &ip,
            request_id: request_id.and_then(|id| id.to_str().ok()),
            version: context::version_name(self.version),
        });
    }
}

/// A stream whose line is written when it ends, however it does.
struct Recorded {
    stream: Stream,
    record: Box<Record>,
    status: StatusCode,
    request_id: Option<HeaderValue>,
    /// Sent so far.
    bytes: u64,
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        let frame = ready!(this.stream.as_mut().poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.record.write(self.status, self.bytes, self.request_id.as_ref());
    }
}
