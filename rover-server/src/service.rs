//! One request through all its stages, in their order: edge, route, body, handler, response.
//!
//! Comes in: a request from hyper (or from a test, without a socket). Goes out: a future of its response, which is
//! ready at once when nothing has to be waited for.

use std::convert::Infallible;
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

use crate::access_log::{self, Access};
use crate::app::App;
use crate::collect::Collect;
use crate::config::Config;
use crate::context::{self, Peer};
use crate::handler::{self, Running, Started};
use crate::log::{self, Level};
use crate::response::Body;
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
    #[inline]
    pub(crate) fn call<B>(self: &Rc<Self>, request: Request<B>, peer: &Rc<Peer>) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let record = match self.config.access_log && log::enabled(Level::Info) {
            true => Some(Record::new(&request, peer)),
            false => None,
        };
        Answer { stage: self.begin(request, peer), record }
    }

    #[inline(always)]
    fn begin<B>(self: &Rc<Self>, request: Request<B>, peer: &Rc<Peer>) -> Stage<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let (head, body) = request.into_parts();
        if let Some(refusal) = edge::refusal(&head) {
            return Stage::done(refusal);
        }
        let has_body = !body.is_end_stream();
        if has_body && let Some(refusal) = edge::body_refusal(&head) {
            return Stage::done(refusal);
        }
        let close = has_body && edge::must_close(&head);
        let close_unread = |head: &Parts| close || has_body && edge::holds_body_back(head);
        let target = match self.route(&head) {
            ControlFlow::Continue(target) => target,
            ControlFlow::Break(response) if close_unread(&head) => return Stage::done(edge::closing(response)),
            ControlFlow::Break(response) => return Stage::done(response),
        };
        if has_body && matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
            return match Collect::new(body, self.config.body_size_limit, self.config.body_timeout) {
                Ok(collect) => {
                    let pending = Some((head, target));
                    Stage::Collecting(Box::new(Collecting {
                        collect,
                        pending,
                        site: self.clone(),
                        peer: peer.clone(),
                        close,
                    }))
                }
                Err(status) => Stage::done(edge::closing(failure::answer(status))),
            };
        }
        let close = close_unread(&head);
        self.start(head, target, None, peer, close)
    }

    /// Runs the handler. A panic fails this request alone.
    #[inline(always)]
    fn start<B>(&self, head: Parts, target: Target, body: Option<Bytes>, peer: &Rc<Peer>, close: bool) -> Stage<B> {
        let (entry, route) = match target {
            Target::Route(id, params) => (App::entry_of(id), Some((id, params))),
            Target::NotFound(entry) => (entry, None),
        };
        let is_missing = route.is_none();
        let mut request = Some(context::Request { head, body, route, peer: peer.clone(), id: None });
        let started =
            catch_unwind(AssertUnwindSafe(|| request.take().map(|request| handler::start(&self.app, entry, request))));
        match started {
            Ok(Some(Started::Done(response))) => Stage::done(finished(response, is_missing, close)),
            Ok(Some(Started::Waiting(running))) => Stage::Running { running, is_missing, close },
            Ok(None) | Err(_) => Stage::done(finished(panicked(), false, close)),
        }
    }

    /// Finds what answers the request, or answers it.
    #[inline]
    fn route(&self, head: &Parts) -> ControlFlow<Response<Body>, Target> {
        let path = head.uri.path();
        let response = match self.router.find(&head.method, path) {
            Found::Route { id, params } => return ControlFlow::Continue(Target::Route(id, params)),
            Found::NotFound => match self.app.hooks.not_found {
                Some(entry) => return ControlFlow::Continue(Target::NotFound(entry)),
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

/// What answers a request.
enum Target {
    Route(RouteId, Params),
    /// The app's own `not_found`.
    NotFound(std::ffi::c_int),
}

/// A request that knows its target and waits for its body.
struct Collecting<B> {
    collect: Collect<B>,
    /// Taken when the body is there.
    pending: Option<(Parts, Target)>,
    site: Rc<Site>,
    peer: Rc<Peer>,
    /// The connection ends with the response.
    close: bool,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> Collecting<B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stage<B>> {
        let stage = match ready!(self.collect.poll(cx)) {
            Ok(body) => match self.pending.take() {
                Some((head, target)) => self.site.start(head, target, body, &self.peer, self.close),
                None => Stage::done(failure::answer(StatusCode::INTERNAL_SERVER_ERROR)),
            },
            Err(status) => Stage::done(edge::closing(failure::answer(status))),
        };
        Poll::Ready(stage)
    }
}

/// The last touch to what a handler answered: `not_found` that names no status answers 404.
#[inline(always)]
fn finished(mut response: Response<Body>, is_missing: bool, close: bool) -> Response<Body> {
    if is_missing && response.status().is_success() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    if close { edge::closing(response) } else { response }
}

/// Where a request stands. What is rare is boxed, for the whole is moved into place at every request.
enum Stage<B> {
    Done(Option<Response<Body>>),
    Collecting(Box<Collecting<B>>),
    Running { running: Box<Running>, is_missing: bool, close: bool },
}

impl<B> Stage<B> {
    #[inline]
    fn done(response: Response<Body>) -> Stage<B> {
        Stage::Done(Some(response))
    }
}

/// A response to come. Dropping it ends the handler, if one waits.
pub(crate) struct Answer<B> {
    stage: Stage<B>,
    record: Option<Box<Record>>,
}

impl<B> Future for Answer<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                Stage::Done(response) => {
                    let response =
                        response.take().unwrap_or_else(|| failure::answer(StatusCode::INTERNAL_SERVER_ERROR));
                    if let Some(record) = this.record.take() {
                        record.write(&response);
                    }
                    return Poll::Ready(Ok(response));
                }
                Stage::Collecting(collecting) => this.stage = ready!(collecting.poll(cx)),
                Stage::Running { running, is_missing, close } => {
                    let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *running).poll(cx)));
                    let response = match polled {
                        Ok(Poll::Pending) => return Poll::Pending,
                        Ok(Poll::Ready(response)) => finished(response, *is_missing, *close),
                        Err(_) => finished(panicked(), false, *close),
                    };
                    this.stage = Stage::done(response);
                }
            }
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

    fn write(&self, response: &Response<Body>) {
        let ip = self.peer.ip.map(|ip| ip.to_string()).unwrap_or_default();
        access_log::record(&Access {
            method: self.method.as_str(),
            path: self.uri.path(),
            query: self.uri.query(),
            status: response.status().as_u16(),
            bytes: response.body().len(),
            duration: self.began.elapsed(),
            ip: &ip,
            request_id: response.headers().get("x-request-id").and_then(|id| id.to_str().ok()),
            version: context::version_name(self.version),
        });
    }
}
