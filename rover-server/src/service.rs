//! One request through all its stages, in their order: edge, route, body, handler, response.
//!
//! Comes in: a request from hyper (or from a test, without a socket). Goes out: a future of its response, which is
//! ready at once when nothing has to be waited for.

mod current;

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
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};

pub(crate) use current::Current;

use crate::app::App;
use crate::assets::{Assets, Mounts};
use crate::body::Body;
use crate::collect::{Collect, Patient};
use crate::compression::{Compression, Negotiation};
use crate::config::{Config, TraceContext};
use crate::context::{self, Open, Peer};
use crate::guard::{Guard, Pass};
use crate::handler::{self, Running};
use crate::log::{self, Level};
use crate::metrics::{Archive, Arrival, Meter};
use crate::rate_limit::RateLimits;
use crate::record::Record;
use crate::route::{FastRouter, Found, Params, RouteId};
use crate::security_headers::{self, SecurityHeaders};
use crate::{decode, edge, failure, lifecycle};

/// Everything that the requests of one worker need.
pub(crate) struct Site {
    pub(crate) app: Rc<App>,
    pub(crate) router: Arc<FastRouter>,
    pub(crate) config: Arc<Config>,
    assets: Option<Assets>,
    compression: Option<Rc<Compression>>,
    /// Counts requests, where the management listener is on.
    pub(crate) meter: Option<Rc<Meter>>,
    guard: Option<Box<Guard>>,
    security_headers: SecurityHeaders,
}

impl Site {
    /// Tells `app` what was decided after it had loaded, and makes it ready for requests. `limits` are what all workers count
    /// together, `archive` keeps what this one counts.
    pub(crate) fn new(
        app: App,
        router: Arc<FastRouter>,
        config: Arc<Config>,
        limits: Option<Arc<RateLimits>>,
        mounts: Arc<Mounts>,
        archive: &Archive,
    ) -> Rc<Site> {
        app.settle(&router, &config);
        if let Some(limits) = &limits {
            app.limit(limits.clone());
        }
        let meter = config.management.is_on().then(|| {
            let routes = router.routes().iter();
            archive.meter(routes.map(|route| (route.verb.to_string(), route.pattern.to_string())))
        });
        let assets = Assets::new(mounts);
        if assets.is_some() {
            app.responder.expect_large();
        }
        let compression = Compression::new(&config.compression);
        let security_headers = SecurityHeaders::new(&config.security_headers);
        let guard = Guard::new(&config, limits);
        Rc::new(Site { app: Rc::new(app), router, config, assets, compression, meter, guard, security_headers })
    }

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
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let record =
            if Record::is_wanted(&self.config) { Some(Record::new(&self.config, &request, peer)) } else { None };
        let arrival = self.meter.as_ref().map(|_| Arrival::now(request.method()));
        let mut route = UNMATCHED;
        let negotiation = self.compression.as_ref().map(|rules| rules.negotiate(request.headers()));
        let mut answer = Answer { response: None, stage: Stage::Over, negotiation, record };
        let mut ending = Ending { pass: None, pinned: false };
        let (head, body) = request.into_parts();
        let request = context::Request {
            head,
            body: None,
            unread: None,
            route: None,
            peer: peer.clone(),
            id: None,
            client: None,
            told: None,
        };
        let request = self.app.contexts.requests.open(request);
        if self.config.trace_context == TraceContext::New {
            answer.begin_trace(&request);
        }
        let begun = request.look(|request| {
            let begun = self.begin(request, body, &mut ending.pass);
            ending.pinned = request.scheme() == "https" && is_pinned(request);
            if let (Some(_), Some(record)) = (&self.guard, &mut answer.record) {
                // A proxy may have told who the client is.
                record.came_from(request.client.clone());
            }
            begun
        });
        match begun {
            Some(ControlFlow::Continue((None, call))) => {
                route = call.route();
                if let Some(running) = self.start(request, call, &mut answer.response) {
                    answer.stage = Stage::Running(Box::new(Waiting { running, call, ending, site: self.clone() }));
                    answer.let_go();
                    return answer.followed(self.meter.as_ref(), arrival, route);
                }
            }
            Some(ControlFlow::Continue((Some(collect), call))) => {
                let collecting = Collecting { collect, request, call, ending, site: self.clone() };
                answer.stage = Stage::Collecting(Box::new(collecting));
                return answer.followed(self.meter.as_ref(), arrival, call.route());
            }
            Some(ControlFlow::Break(response)) => answer.response = Some(*response),
            None => {}
        }
        self.finish(&mut answer.response, ending);
        if let (Some(meter), Some(arrival)) = (&self.meter, arrival) {
            match &answer.response {
                Some(response) if !matches!(response.body(), Body::Stream(_)) => {
                    meter.note(arrival, route, response.status().as_u16());
                }
                _ => return answer.followed(Some(meter), Some(arrival), route),
            }
        }
        answer
    }

    /// Decides what answers the request, and whether its body is needed first.
    #[inline(always)]
    fn begin<B>(
        &self,
        request: &mut context::Request,
        body: B,
        pass: &mut Option<Box<Pass>>,
    ) -> ControlFlow<Box<Response<Body>>, Begun<B>>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
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
        let answered = |response| match close_unread {
            true => ControlFlow::Break(Box::new(edge::closing(response))),
            false => ControlFlow::Break(Box::new(response)),
        };
        if let Some(guard) = &self.guard
            && let Some(response) = guard.admit(request, &self.app, &self.router, pass)
        {
            return answered(response);
        }
        let (entry, route) = match self.route(&request.head) {
            ControlFlow::Continue(target) => target,
            ControlFlow::Break(response) => return answered(response),
        };
        if let (Some(guard), Some((id, _))) = (&self.guard, &route)
            && let Some(response) = guard.admit_to(*id, request, pass)
        {
            return answered(response);
        }
        let head = &request.head;
        let is_missing = route.is_none();
        if has_body && self.app.leaves_body(entry) {
            request.unread = Some(Box::pin(Patient::new(body, self.config.body_timeout)));
            request.route = route;
            return ControlFlow::Continue((None, Call { entry, is_missing, close: close_unread }));
        }
        if has_body && matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
            let Ok(coding) = decode::coding(&head.headers) else {
                return ControlFlow::Break(Box::new(edge::closing(unknown_coding())));
            };
            request.route = route;
            return match Collect::new(body, self.config.body_size_limit, self.config.body_timeout, coding) {
                Ok(collect) => ControlFlow::Continue((Some(collect), Call { entry, is_missing, close })),
                Err(status) => ControlFlow::Break(Box::new(edge::closing(failure::answer(status)))),
            };
        }
        request.route = route;
        ControlFlow::Continue((None, Call { entry, is_missing, close: close_unread }))
    }

    /// Runs the handler, up to its response or to its first wait. A panic fails this request alone.
    #[inline(always)]
    fn start(&self, request: Open, call: Call, response: &mut Option<Response<Body>>) -> Option<Box<Running>> {
        let ran = catch_unwind(AssertUnwindSafe(|| handler::start(&self.app, call.entry, request, response)));
        match ran {
            Ok(None) => {}
            Ok(running) => return running,
            Err(_) => *response = Some(panicked()),
        }
        call.finish(response);
        None
    }

    /// Adds to a response what every one carries.
    #[inline(always)]
    fn finish(&self, response: &mut Option<Response<Body>>, ending: Ending) {
        let response = response.get_or_insert_with(|| failure::answer(StatusCode::INTERNAL_SERVER_ERROR));
        if let (Some(guard), Some(pass)) = (&self.guard, ending.pass) {
            guard.finish(*pass, response);
        }
        self.security_headers.add(response.headers_mut(), ending.pinned);
    }

    /// Finds what answers the request, or answers it.
    #[inline]
    fn route(&self, head: &Parts) -> ControlFlow<Response<Body>, Target> {
        let path = head.uri.path();
        let response = match self.router.find(&head.method, path) {
            Found::Route { id, params } => return ControlFlow::Continue((App::entry_of(id), Some((id, params)))),
            Found::NotFound => match self.assets.as_ref().and_then(|assets| assets.answer(head)) {
                Some(file) => file,
                None => match self.app.hooks.not_found {
                    Some(entry) => return ControlFlow::Continue((entry, None)),
                    None => failure::answer(StatusCode::NOT_FOUND),
                },
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
            Found::Redirect(change) => failure::moved(&change.apply(path), head.uri.query()),
            Found::BadEncoding => {
                failure::with_message(StatusCode::BAD_REQUEST, "the path holds broken percent-encoding")
            }
        };
        ControlFlow::Break(response)
    }
}

#[cold]
fn unknown_coding() -> Response<Body> {
    let mut response = failure::answer(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(decode::ACCEPTED));
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
        if self.close && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            edge::close(response);
        }
    }
}

/// Where a request stands that has no response yet. What is rare is boxed, for the whole moves at every request.
enum Stage<B> {
    Collecting(Box<Collecting<B>>),
    Running(Box<Waiting>),
    Over,
}

/// A request whose body is on the way.
struct Collecting<B> {
    collect: Collect<B>,
    request: Open,
    call: Call,
    ending: Ending,
    site: Rc<Site>,
}

/// A request whose handler waits.
struct Waiting {
    running: Box<Running>,
    call: Call,
    ending: Ending,
    site: Rc<Site>,
}

/// What the end of a request needs to know of its beginning.
struct Ending {
    /// What the guard wants of the response.
    pass: Option<Box<Pass>>,
    /// The response goes over TLS, to a host that browsers may bind to it.
    pinned: bool,
}

/// A response to come. Dropping it ends the handler, if one waits.
pub(crate) struct Answer<B> {
    /// What most requests have at once.
    response: Option<Response<Body>>,
    stage: Stage<B>,
    negotiation: Option<Negotiation>,
    record: Option<Box<Record>>,
}

impl<B> Answer<B> {
    /// Holds nothing of the connection's read buffer while a handler waits.
    #[cold]
    fn let_go(&mut self) {
        if let (Stage::Running(waiting), Some(record)) = (&self.stage, &mut self.record) {
            record.let_go(waiting.running.uri());
        }
    }

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

    /// The same, which is counted when the request is over, where requests are counted.
    fn followed(mut self, meter: Option<&Rc<Meter>>, arrival: Option<Arrival>, route: usize) -> Answer<B> {
        if let (Some(meter), Some(arrival)) = (meter, arrival) {
            self.record.get_or_insert_with(Record::silent).follow(meter.follow(arrival, route));
        }
        self
    }
}

impl<B> Drop for Answer<B> {
    /// The client went away: where its handler waited is known as long as that is not cancelled.
    #[inline]
    fn drop(&mut self) {
        if let (Stage::Running(waiting), Some(record)) = (&mut self.stage, &mut self.record) {
            record.waited(waiting.running.longest_wait());
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
                    let Collecting { request, call, ending, site, collect } = *collecting;
                    match collected {
                        Ok(body) => {
                            request.look(|request| {
                                request.body = body;
                                if collect.is_coded() {
                                    // The handler gets plain bytes, and another number of them.
                                    request.head.headers.remove(CONTENT_ENCODING);
                                    request.head.headers.remove(CONTENT_LENGTH);
                                }
                            });
                            if let Some(running) = site.start(request, call, &mut self.response) {
                                self.stage = Stage::Running(Box::new(Waiting { running, call, ending, site }));
                                self.let_go();
                                continue;
                            }
                        }
                        Err(status) => self.response = Some(edge::closing(failure::answer(status))),
                    }
                    site.finish(&mut self.response, ending);
                    return Poll::Ready(());
                }
                Stage::Running(waiting) => {
                    let running = Pin::new(&mut *waiting.running);
                    let mut response = match catch_unwind(AssertUnwindSafe(|| running.poll(cx))) {
                        Ok(Poll::Pending) => return Poll::Pending,
                        Ok(Poll::Ready(response)) => response,
                        Err(_) => Some(panicked()),
                    };
                    let Stage::Running(mut waiting) = std::mem::replace(&mut self.stage, Stage::Over) else {
                        return Poll::Ready(());
                    };
                    waiting.call.finish(&mut response);
                    waiting.site.finish(&mut response, waiting.ending);
                    if let Some(record) = &mut self.record {
                        record.waited(waiting.running.longest_wait());
                    }
                    self.response = response;
                }
                Stage::Over => return Poll::Ready(()),
            }
        }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> Future for Answer<B> {
    type Output = Result<Response<Body>, Infallible>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.response.is_none() {
            ready!(self.poll_response(cx));
        }
        // In its place, for a response that is changed here would be moved once more.
        if let Some(negotiation) = self.negotiation.take() {
            self.response = self.response.take().map(|response| negotiation.apply(response));
        }
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

/// Whether the host of a request over TLS is one that browsers may bind to it.
#[cold]
fn is_pinned(request: &context::Request) -> bool {
    let head = &request.head;
    let own = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let told = request.client.as_ref().and_then(|client| client.host.as_ref()).map(|host| host.as_bytes());
    let sent = head.headers.get(HOST).map(HeaderValue::as_bytes);
    told.or(own).or(sent).is_some_and(security_headers::is_pinned)
}

#[cold]
fn panicked() -> Response<Body> {
    log::event(Level::Error, "Rover panicked while it served a request; this is a bug in Rover").emit();
    failure::answer(StatusCode::INTERNAL_SERVER_ERROR)
}
