//! One request through all its stages, in their order: edge, route, body, handler, response.
//!
//! Comes in: a request from hyper (or from a test, without a socket). Goes out: a future of its response, which is
//! ready at once when nothing has to be waited for.

use std::cell::RefCell;
use std::convert::Infallible;
use std::ffi::c_int;
use std::future::Future;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{ALLOW, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use crate::app::App;
use crate::body::Body;
use crate::collect::Collect;
use crate::config::{Config, TraceContext};
use crate::context::{self, Open, Peer};
use crate::handler::{self, Running};
use crate::log::{self, Level};
use crate::metrics::{Archive, Arrival, Meter};
use crate::record::Record;
use crate::route::{FastRouter, Found, Params, RouteId};
use crate::{edge, failure, lifecycle};

/// Everything that the requests of one worker need.
pub(crate) struct Site {
    pub(crate) app: Rc<App>,
    pub(crate) router: Arc<FastRouter>,
    pub(crate) config: Arc<Config>,
    /// Counts requests, where the management listener is on.
    pub(crate) meter: Option<Rc<Meter>>,
}

/// The version of the app that requests go to from now on. A connection asks for it at each request, so that it serves
/// the next version with its next request; what has begun ends in the version where it began.
pub(crate) struct Current(RefCell<Rc<Site>>);

impl Current {
    /// Begins with `site`.
    pub(crate) fn new(site: Rc<Site>) -> Rc<Current> {
        Rc::new(Current(RefCell::new(site)))
    }

    /// The site of the next request.
    pub(crate) fn site(&self) -> Rc<Site> {
        self.0.borrow().clone()
    }

    /// Lets the next request go to `site`.
    pub(crate) fn switch(&self, site: Rc<Site>) {
        self.0.replace(site);
    }

    /// Begins to answer `request`. Nothing switches meanwhile, for that takes a task of its own.
    #[inline(always)]
    pub(crate) fn call<B>(&self, request: Request<B>, peer: &Rc<Peer>) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        self.0.borrow().call(request, peer)
    }
}

impl Site {
    /// Tells `app` what was decided after it had loaded, and makes it ready for requests. `archive` keeps what they count.
    pub(crate) fn new(app: App, router: Arc<FastRouter>, config: Arc<Config>, archive: &Archive) -> Rc<Site> {
        app.settle(&router, &config);
        let meter = config.management.is_on().then(|| {
            let routes = router.routes().iter();
            archive.meter(routes.map(|route| (route.verb.to_string(), route.pattern.to_string())))
        });
        Rc::new(Site { app: Rc::new(app), router, config, meter })
    }

    /// Begins to answer `request`.
    ///
    /// The request moves into its slot here and stays there. A handler that needs no body runs right away: what the
    /// request holds of hyper's buffer is given back before hyper reads on, and the buffer is used again (two allocations
    /// and 400 instructions less than when the answer is polled first).
    #[inline]
    pub(crate) fn call<B>(self: &Rc<Self>, request: Request<B>, peer: &Rc<Peer>) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let record =
            if Record::is_wanted(&self.config) { Some(Record::new(&self.config, &request, peer)) } else { None };
        let arrival = self.meter.as_ref().map(|_| Arrival::now(request.method()));
        let mut route = UNMATCHED;
        let mut answer = Answer { response: None, stage: Stage::Over, record };
        let (head, body) = request.into_parts();
        let request = context::Request { head, body: None, route: None, peer: peer.clone(), id: None };
        let request = self.app.contexts.requests.open(request);
        if self.config.trace_context == TraceContext::New {
            answer.begin_trace(&request);
        }
        match request.look(|request| self.begin(request, body)) {
            Some(ControlFlow::Continue((None, call))) => {
                route = call.route();
                answer.stage = self.start(request, call, &mut answer.response);
            }
            Some(ControlFlow::Continue((Some(collect), call))) => {
                route = call.route();
                answer.stage = Stage::Collecting(Box::new(Collecting { collect, request, call, site: self.clone() }));
            }
            Some(ControlFlow::Break(response)) => answer.response = Some(*response),
            None => {}
        }
        if let (Some(meter), Some(arrival)) = (&self.meter, arrival) {
            match &answer.response {
                Some(response) if !matches!(response.body(), Body::Stream(_)) => {
                    meter.note(arrival, route, response.status().as_u16());
                }
                _ => answer.follow(meter, arrival, route),
            }
        }
        answer
    }

    /// Decides what answers the request, and whether its body is needed first.
    #[inline(always)]
    fn begin<B>(&self, request: &mut context::Request, body: B) -> ControlFlow<Box<Response<Body>>, Begun<B>>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let head = &request.head;
        if let Some(refusal) = edge::refusal(head) {
            return ControlFlow::Break(Box::new(refusal));
        }
        let has_body = !body.is_end_stream();
        if has_body && let Some(refusal) = edge::body_refusal(head) {
            return ControlFlow::Break(Box::new(refusal));
        }
        let close = has_body && edge::must_close(head);
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

/// What a meter counts as no route.
const UNMATCHED: usize = usize::MAX;

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
    /// The id of the route that answers, as a meter counts it.
    #[inline]
    fn route(self) -> usize {
        if self.is_missing { UNMATCHED } else { self.entry as usize - 1 }
    }

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
        if self.close {
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

impl<B> Answer<B> {
    /// Lets a request that belongs to no trace begin one.
    #[cold]
    fn begin_trace(&mut self, request: &Open) {
        request.look(|request| {
            context::ensure_trace(&mut request.head.headers);
            if let Some(record) = &mut self.record {
                record.within(&request.head.headers);
            }
        });
    }

    /// Counts a request that is not over yet.
    #[cold]
    fn follow(&mut self, meter: &Rc<Meter>, arrival: Arrival, route: usize) {
        self.record.get_or_insert_with(Record::silent).follow(meter.follow(arrival, route));
    }
}

impl<B> Drop for Answer<B> {
    /// The client went away: where its handler waited is known as long as that is not cancelled.
    #[inline]
    fn drop(&mut self) {
        if let (Stage::Running(running, _), Some(record)) = (&mut self.stage, &mut self.record) {
            record.waited(running.longest_wait());
        }
    }
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
                    if let Some(record) = &mut self.record {
                        record.waited(running.longest_wait());
                    }
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

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.response.is_none() {
            ready!(self.poll_response(cx));
        }
        // In its place, for a response that is changed here would be moved once more.
        if lifecycle::is_ending()
            && let Some(response) = &mut self.response
        {
            edge::close(response);
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
