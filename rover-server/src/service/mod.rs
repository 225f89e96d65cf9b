//! Runs one request through all its stages, in order: checks, route, body, handler, response.
//!
//! Comes in: a request from hyper (or from a test, without a socket). Goes out: a future of its response, which is
//! ready at once when nothing has to be waited for.

pub(crate) mod request_policy; // refusals and answers by configuration
pub(crate) mod forwarded; // the client behind trusted proxies
pub(crate) mod handler; // the handler's coroutine
mod answer;
mod current;
mod late;

use std::ffi::c_int;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};

pub(crate) use answer::Answer;
use answer::{AnswerState, CollectingBody, Ending, HandlerCall, WaitingHandler};
pub(crate) use current::CurrentSite;

use crate::config::{Config, TraceContext};
use crate::exchange::context::{self, Guarded, Peer, RequestGuard};
use crate::exchange::failure;
use crate::log::{self, Level};
use crate::message::body::Body;
use crate::message::collect::{BodyPace, Collect};
use crate::message::decode;
use crate::message::unread::Purpose;
use crate::observe::metrics::{Archive, Arrival, RequestMeter};
use crate::observe::otlp::Tracer;
use crate::observe::record::Record;
use crate::policy::assets::{Assets, Mounts};
use crate::policy::compression::Compression;
use crate::policy::http_checks;
use crate::policy::http_checks::UsualHost;
use crate::policy::rate_limit::RateLimits;
use crate::policy::security_headers::{self, SecurityHeaders};
use crate::route::{self, FastRouter, Params, RouteId, RouteMatch, SentPath, is_normal};
use crate::script::app::{App, Endpoint};
use crate::service::handler::Running;
use crate::service::request_policy::RequestPolicy;

/// Everything that the requests of one version need in one worker.
pub(crate) struct Site {
    pub(crate) app: Rc<App>,
    pub(crate) router: Arc<FastRouter>,
    pub(crate) config: Arc<Config>,
    assets: Option<Assets>,
    compression: Option<Rc<Compression>>,
    /// Counts requests, where the management listener is on.
    pub(crate) meter: Option<Rc<RequestMeter>>,
    /// Records traces, where they are exported.
    pub(crate) tracer: Option<Tracer>,
    policy: Option<Box<RequestPolicy>>,
    security_headers: SecurityHeaders,
    usual_host: UsualHost,
}

impl Site {
    /// Gives `app` what was settled after it had loaded, and makes it ready for requests. All workers share `limits`;
    /// `archive` keeps this worker's counts, `tracer` records its traces.
    pub(crate) fn new(
        app: App,
        router: Arc<FastRouter>,
        config: Arc<Config>,
        limits: Option<Arc<RateLimits>>,
        mounts: Arc<Mounts>,
        archive: &Archive,
        tracer: Option<Tracer>,
    ) -> Rc<Site> {
        app.settle(&router, &config, tracer.as_ref());
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
        let policy = RequestPolicy::new(&config, limits);
        let (app, usual_host) = (Rc::new(app), UsualHost::default());
        Rc::new(Site { app, router, config, assets, compression, meter, tracer, policy, security_headers, usual_host })
    }

    /// Begins to answer `request`, of which `look` sees the head and the body first.
    ///
    /// First of all it moves into its slot, where it stays: each move of it costs, and whoever borrows it before makes it
    /// move once more.
    #[inline(always)]
    pub(crate) fn answer<B>(
        self: &Rc<Self>,
        request: Request<B>,
        peer: &Rc<Peer>,
        look: impl FnOnce(&Parts, &B),
    ) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let (head, body) = request.into_parts();
        let request = self.app.contexts.requests.open(head, peer, |head| {
            look(head, &body);
            if !is_normal(head.uri.path()) && self.config.path_normalisation {
                respell(head, self.config.connections.uri_size_limit);
            }
        });
        self.begin_answer(request, body)
    }

    /// A handler that needs no body runs right away: what the request holds of hyper's buffer is given back before hyper
    /// reads on, and the buffer is used again (two allocations and 400 instructions less than when the answer is polled
    /// first).
    ///
    /// To be called at one place for each kind of body, so that all of it becomes one function (250 instructions).
    #[inline(always)]
    fn begin_answer<B>(self: &Rc<Self>, request: RequestGuard, body: B) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let mut answer = Answer::begin();
        if self.is_noted() {
            request.look(|request| self.note(&mut answer, request));
        }
        let arrival = self.meter.as_ref().and_then(|_| request.look(|request| Arrival::now(&request.head.method)));
        let mut route = UNMATCHED;
        let mut collect = None;
        let mut ending = Ending { pass: None, pinned: false, is_head: false, unread: None };
        let begun = request.look(|request| {
            let begun = self.begin(request, body, &mut collect, &mut ending);
            ending.pinned = request.scheme() == "https" && is_pinned(request);
            ending.is_head = request.head.method == Method::HEAD;
            if self.tracer.is_some() {
                answer.routed(request.route.as_ref().map(|(id, _)| *id));
            }
            if self.policy.is_some() {
                // A proxy may have told who the client is.
                answer.came_from(&request.client);
            }
            begun
        });
        match begun {
            Some(ControlFlow::Continue(call)) => {
                route = call.route();
                if let Some(collect) = collect {
                    let site = self.clone();
                    let collecting = CollectingBody { collect, request, call, ending, site, is_asked: false };
                    answer.stage = AnswerState::Collecting(Box::new(collecting));
                    answer.follow(self.meter.as_ref(), arrival, route);
                    return answer;
                }
                if let Some(running) = self.start(request, call, &mut answer.response) {
                    answer.wait(WaitingHandler { running, call, ending, site: self.clone() });
                    answer.follow(self.meter.as_ref(), arrival, route);
                    return answer;
                }
            }
            Some(ControlFlow::Break(mut response)) => {
                if let Body::Stream(_) = response.body() {
                    request.look(|request| answer.unaided(&mut response, &request.peer));
                }
                answer.response = Some(*response);
            }
            None => {}
        }
        let (unread, pinned) = (ending.unread.take(), ending.pinned);
        self.finish(&mut answer.response, ending);
        if let Some(unread) = unread {
            answer.part(&unread, self, pinned);
        }
        if let (Some(meter), Some(arrival)) = (&self.meter, arrival) {
            match &answer.response {
                Some(response) if !matches!(response.body(), Body::Stream(_)) => {
                    meter.note(arrival, route, response.status().as_u16());
                }
                _ => answer.follow(Some(meter), Some(arrival), route),
            }
        }
        answer
    }

    /// Whether anything is noted of requests before they are answered.
    #[inline]
    fn is_noted(&self) -> bool {
        self.compression.is_some()
            || self.tracer.is_some()
            || self.config.trace_context == TraceContext::New
            || Record::is_wanted(&self.config)
    }

    #[cold]
    fn note<B>(&self, answer: &mut Answer<B>, request: &mut context::Request) {
        let span = match &self.tracer {
            Some(tracer) => tracer.begin(&mut request.head),
            None => None,
        };
        if self.config.trace_context == TraceContext::New {
            context::ensure_trace(&mut request.head.headers);
        }
        let notes = answer.notes();
        if span.is_some() || Record::is_wanted(&self.config) {
            notes.record = Some(Record::new(&self.config, &request.head, &request.peer, span));
        }
        notes.peer = self.compression.is_some().then(|| request.peer.clone());
        notes.negotiation = self.compression.as_ref().map(|rules| rules.negotiate(&request.head.headers));
    }

    /// Decides what answers the request, and sets `collect` if its body is needed first.
    #[inline(always)]
    fn begin<B>(
        &self,
        request: &mut context::Request,
        body: B,
        collect: &mut Option<Collect<B>>,
        ending: &mut Ending,
    ) -> ControlFlow<Box<Response<Body>>, HandlerCall>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        if let Some(refusal) = http_checks::refusal(&mut request.head, &self.config.connections, &self.usual_host) {
            return ControlFlow::Break(Box::new(refusal));
        }
        let head = &request.head;
        if let Some(port) = request.peer.https_port {
            return ControlFlow::Break(Box::new(http_checks::to_https(head, port)));
        }
        let has_body = !body.is_end_stream();
        if has_body
            && let Some(refusal) =
                http_checks::body_refusal(head, body.size_hint().exact(), request.peer.body_fault.take())
        {
            return ControlFlow::Break(Box::new(refusal));
        }
        let close = request.peer.is_last.get();
        if let Some(policy) = &self.policy
            && let Some(response) = policy.admit(request, &self.app, &self.router, &mut ending.pass)
        {
            return self.early(response, request, body, close, ending);
        }
        let (entry, route) = match self.route(request) {
            ControlFlow::Continue(target) => target,
            ControlFlow::Break(response) => return self.early(response, request, body, close, ending),
        };
        if let (Some(policy), Some((id, _))) = (&self.policy, &route)
            && let Some(response) = policy.admit_to(*id, request, &mut ending.pass)
        {
            return self.early(response, request, body, close, ending);
        }
        let head = &request.head;
        let is_missing = route.is_none();
        if has_body {
            let endpoint = self.app.endpoint(entry);
            let purpose = endpoint.purpose(&head.method);
            if purpose != Purpose::Collect || endpoint.later != 0 {
                request.route = route;
                let call = HandlerCall { entry, function: entry, is_missing, close };
                return ControlFlow::Continue(self.leave(request, body, call, collect, ending));
            }
            let Ok(coding) = decode::coding(&head.headers) else {
                return ControlFlow::Break(Box::new(http_checks::closing(unknown_coding())));
            };
            request.route = route;
            let limit = self.longest_body(&endpoint);
            return match Collect::new(body, limit, self.pace(), coding) {
                Ok(begun) => {
                    *collect = Some(begun.counted(|| self.app.share(&request.peer)));
                    ControlFlow::Continue(HandlerCall { entry, function: entry, is_missing, close })
                }
                Err(status) => ControlFlow::Break(Box::new(http_checks::closing(failure::answer(status)))),
            };
        }
        request.route = route;
        ControlFlow::Continue(HandlerCall { entry, function: entry, is_missing, close })
    }

    /// The longest body that is collected for an endpoint.
    #[inline]
    fn longest_body(&self, endpoint: &Endpoint) -> u64 {
        endpoint.body_size_limit.unwrap_or(self.config.body_size_limit).min(self.app.longest_body())
    }

    /// How fast the body of a request must come.
    #[inline]
    fn pace(&self) -> BodyPace {
        BodyPace { patience: self.config.body_timeout, least: self.config.body_min_rate }
    }

    /// Runs the handler, up to its response or to its first wait. A panic fails this request alone.
    #[inline(always)]
    fn start(
        &self,
        request: RequestGuard,
        call: HandlerCall,
        response: &mut Option<Response<Body>>,
    ) -> Option<Box<Running>> {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            handler::start(&self.app, (call.entry, call.function), request, response)
        }));
        match ran {
            Ok(None) => {}
            Ok(running) => return running,
            Err(_) => *response = Some(panicked()),
        }
        call.finish(response);
        None
    }

    /// Adds to a response what every response carries.
    #[inline(always)]
    fn finish(&self, response: &mut Option<Response<Body>>, ending: Ending) {
        let response = response.get_or_insert_with(|| failure::answer(StatusCode::INTERNAL_SERVER_ERROR));
        if let (Some(policy), Some(pass)) = (&self.policy, ending.pass) {
            policy.finish(*pass, response);
        }
        self.security_headers.add(response.headers_mut(), ending.pinned);
        if ending.is_head && matches!(response.body(), Body::Empty) {
            name_no_length(response);
        }
    }

    /// Finds what answers the request, or answers it.
    #[inline(always)]
    fn route(&self, request: &mut context::Request) -> ControlFlow<Response<Body>, MatchedEntry> {
        let head = &request.head;
        match self.router.find(&head.method, head.uri.path()) {
            RouteMatch::Route { id, params } => ControlFlow::Continue((App::entry_of(id), Some((id, params)))),
            other => self.without_route(other, request),
        }
    }

    /// Answers what no route answers: with a file, by `not_found`, or with a refusal; after the hooks that guard the
    /// path.
    #[inline(never)]
    fn without_route(
        &self,
        found: RouteMatch<'_>,
        request: &mut context::Request,
    ) -> ControlFlow<Response<Body>, MatchedEntry> {
        let head = &request.head;
        let path = head.uri.path();
        let mut known = None;
        let response = match found {
            RouteMatch::Route { .. } | RouteMatch::NotFound => {
                self.assets.as_ref().and_then(|assets| assets.answer(head))
            }
            RouteMatch::MethodNotAllowed { allow, other } => {
                known = self.router.routes().get(other.index()).map(|route| &route.pattern);
                Some(not_allowed(allow))
            }
            RouteMatch::Tunnel { allow } => Some(not_allowed(allow)),
            RouteMatch::Options { allow } => {
                let mut response = Response::new(Body::Empty);
                *response.status_mut() = StatusCode::NO_CONTENT;
                response.headers_mut().insert(ALLOW, allow.clone());
                Some(response)
            }
            RouteMatch::Redirect(change) => Some(failure::moved(&change.apply(path), head.uri.query())),
            RouteMatch::BadEncoding => {
                let message = "the path holds broken percent-encoding";
                return ControlFlow::Break(failure::with_message(StatusCode::BAD_REQUEST, message));
            }
        };
        let is_options = head.method == Method::OPTIONS
            && response.as_ref().is_some_and(|response| response.status() == StatusCode::NO_CONTENT);
        if let Some(entry) = self.app.hooks.rest.filter(|_| !is_options && self.config.path_guards)
            && let Some(mut guarded) = self.app.guarded(path, known)
        {
            guarded.response = match (response, self.app.hooks.not_found) {
                (None, None) => Some(failure::answer(StatusCode::NOT_FOUND)),
                (response, _) => response,
            };
            if let Some(response) = &mut guarded.response {
                request.peer.send_whole(response.body_mut());
            }
            request.guarded = Some(Box::new(guarded));
            return ControlFlow::Continue((entry, None));
        }
        match (response, self.app.hooks.not_found) {
            (Some(response), _) => ControlFlow::Break(response),
            (None, Some(entry)) => {
                request.guarded = Some(Box::new(Guarded { is_missing: true, ..Guarded::default() }));
                ControlFlow::Continue((entry, None))
            }
            (None, None) => ControlFlow::Break(failure::answer(StatusCode::NOT_FOUND)),
        }
    }
}

/// Puts the normal spelling of the path into the place of the sent one, which it keeps among the extensions. A target that
/// is longer than `longest` stays, for it is refused.
#[cold]
fn respell(head: &mut Parts, longest: usize) {
    let uri = &mut head.uri;
    let Some(target) = uri.path_and_query().filter(|target| target.as_str().len() <= longest) else { return };
    let query = target.query().map_or(0, |query| query.len() + 1);
    let mut spelled = route::normalise(target.path(), longest.min(usize::from(u16::MAX) - 1) - query);
    if let Some(query) = target.query() {
        spelled.push('?');
        spelled.push_str(query);
    }
    let Ok(target) = PathAndQuery::try_from(spelled) else { return };
    head.extensions.insert(SentPath(uri.path().into()));
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(target);
    // The other parts were a URI's before, with a path.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Adds the length of an empty body, as for GET (RFC 9110, section 9.3.2), if the status allows a body.
#[cold]
fn name_no_length(response: &mut Response<Body>) {
    let status = response.status();
    if !status.is_informational() && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
    }
}

#[cold]
fn not_allowed(allow: &HeaderValue) -> Response<Body> {
    let mut response = failure::answer(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, allow.clone());
    response
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
type MatchedEntry = (c_int, Option<(RouteId, Params)>);

/// Whether the host of a request over TLS is one that browsers may bind to it.
#[cold]
fn is_pinned(request: &context::Request) -> bool {
    let head = &request.head;
    let told = request.client.as_ref().and_then(|client| client.host.as_ref()).map(|host| host.as_bytes());
    let sent = head.headers.get(HOST).map(HeaderValue::as_bytes);
    told.or(sent).is_some_and(security_headers::is_pinned)
}

#[cold]
fn panicked() -> Response<Body> {
    log::event(Level::Error, "Rover panicked while it served a request; this is a bug in Rover").emit();
    failure::answer(StatusCode::INTERNAL_SERVER_ERROR)
}
