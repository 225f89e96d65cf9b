//! Traces: spans of incoming and outgoing requests, sent to a collector by OTLP over HTTP. Only in builds with the
//! feature `otlp`; `absent.rs` replaces it in others.
//!
//! Comes in: a request, which a [`Tracer`] begins a [`ServerSpan`] for, and requests to other servers, whose [`ClientSpan`]s
//! come from [`Tracing`]. Goes out: the bytes of spans that have ended, in batches, by the worker's own client. All of it
//! belongs to one worker. This module must not know how requests are answered or sent.

mod client_span;
mod export;
mod figures;
mod message;
mod parent;
mod queue;
mod server_span;
mod span;
mod wire;

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

pub(crate) use client_span::ClientSpan;
pub(crate) use server_span::ServerSpan;

use self::export::Exporter;
use self::parent::Parent;
use self::queue::SpanQueue;
use self::server_span::TRACESTATE;
use crate::config::OtlpSettings;
use crate::exchange::context::{Requests, TRACEPARENT};
use crate::log::{self, Level};
use crate::observe::metrics::Samples;

/// Records the spans of one version of the app in a worker.
#[derive(Clone)]
pub(crate) struct Tracer(Rc<TracerState>);

struct TracerState {
    queue: Rc<SpanQueue>,
    /// The share of the traces begun here that are recorded.
    sample: f64,
    query: bool,
    /// By the routes' ids.
    patterns: Box<[Box<str>]>,
    stop: watch::Sender<bool>,
    /// Sends what waits.
    exporter: RefCell<Option<JoinHandle<()>>>,
}

impl Tracer {
    /// Begins to export if the settings have an endpoint. `patterns` are those of the routes, by their ids. Call it
    /// within the worker's runtime.
    pub(crate) fn start(settings: &OtlpSettings, patterns: impl Iterator<Item = String>) -> Option<Tracer> {
        let endpoint = settings.endpoint.as_deref()?;
        let (stop, stopped) = watch::channel(false);
        let queue = Rc::new(SpanQueue::new(settings.queue));
        let exporter = match Exporter::new(settings, endpoint, &queue, stopped) {
            Ok(exporter) => exporter,
            Err(reason) => {
                log::event(Level::Error, "traces cannot be exported").field("error", reason.as_str()).emit();
                return None;
            }
        };
        Some(Tracer(Rc::new(TracerState {
            queue,
            sample: settings.sample,
            query: settings.query,
            patterns: patterns.map(String::into_boxed_str).collect(),
            stop,
            exporter: RefCell::new(Some(tokio::task::spawn_local(exporter.run()))),
        })))
    }

    /// Begins the span of a request, whose headers then name its place in a trace. `None` where that is not recorded.
    pub(crate) fn begin(&self, head: &mut Parts) -> Option<ServerSpan> {
        ServerSpan::begin(self, head)
    }

    /// Whether a trace that begins here is recorded: decided by its id, as others decide it.
    fn samples(&self, trace: u128) -> bool {
        const RANDOM_BITS: u32 = 56;
        let random = (trace & ((1 << RANDOM_BITS) - 1)) as f64;
        random < self.0.sample * (1_u64 << RANDOM_BITS) as f64
    }

    /// Sends what waits, until the deadline; what is left then is lost.
    pub(crate) async fn finish(&self, deadline: Instant) {
        let Some(mut exporter) = self.0.exporter.take() else { return };
        let _ = self.0.stop.send(true);
        if timeout_at(deadline, &mut exporter).await.is_err() {
            exporter.abort();
            log::event(Level::Warn, "the last traces were not exported: there was no time left").emit();
        }
    }

    /// Notes what became of the worker's spans.
    pub(crate) fn write(&self, samples: &mut Samples) {
        figures::write(samples);
    }
}

impl Drop for TracerState {
    fn drop(&mut self) {
        if let Some(exporter) = self.exporter.take() {
            exporter.abort();
        }
    }
}

/// What the functions of a VM know of traces.
#[derive(Clone)]
pub(crate) struct Tracing(Rc<TracingState>);

struct TracingState {
    requests: Rc<Requests>,
    /// Known once the app has loaded, where there is one.
    tracer: OnceCell<Tracer>,
    /// What the task that runs belongs under.
    task: RefCell<TaskTrace>,
}

/// The span that a task belongs under, given by whoever started it.
#[derive(Clone, Default)]
pub(crate) struct TaskTrace(Option<TraceParent>);

#[derive(Clone)]
struct TraceParent {
    span: Parent,
    /// What goes with it.
    state: Option<HeaderValue>,
}

impl TraceParent {
    /// As a request's headers tell it.
    fn of(headers: &HeaderMap) -> Option<TraceParent> {
        let span = headers.get(TRACEPARENT).and_then(Parent::read)?;
        let mut state = headers.get(TRACESTATE).cloned();
        span::let_go(&mut state);
        Some(TraceParent { span, state })
    }
}

impl Tracing {
    pub(crate) fn new(requests: &Rc<Requests>) -> Tracing {
        Tracing(Rc::new(TracingState { requests: requests.clone(), tracer: OnceCell::new(), task: RefCell::default() }))
    }

    /// Records requests to other servers from now on.
    pub(crate) fn settle(&self, tracer: Option<&Tracer>) {
        if let Some(tracer) = tracer {
            let _ = self.0.tracer.set(tracer.clone());
        }
    }

    /// The span that the running Lua function belongs under: to be handed to a task that it starts.
    pub(crate) fn inherit(&self) -> TaskTrace {
        if self.0.tracer.get().is_none() {
            return TaskTrace(None);
        }
        match self.0.requests.running(|request| TraceParent::of(&request.head.headers)) {
            Some(place) => TaskTrace(place),
            None => self.0.task.borrow().clone(),
        }
    }

    /// Sets the span that the running task belongs under; returns the one before.
    pub(crate) fn enter(&self, task: TaskTrace) -> TaskTrace {
        self.0.task.replace(task)
    }

    /// Begins the span of a request of the app's own. Its headers then name it, unless the app has set them.
    pub(crate) fn ask(&self, headers: &mut HeaderMap, method: &Method) -> Option<ClientSpan> {
        let tracer = self.0.tracer.get()?;
        let place = self.inherit().0?;
        let span = place.span.is_sampled().then(|| ClientSpan::begin(tracer, &place, method));
        if !headers.contains_key(TRACEPARENT) {
            headers.insert(TRACEPARENT, span.as_ref().map_or_else(|| place.span.header(), ClientSpan::header));
            if let Some(state) = place.state {
                headers.insert(TRACESTATE, state);
            }
        }
        span
    }

    /// Begins the span of a request that is passed on: `headers` are those that came in, and name it from now on.
    pub(crate) fn pass_on(&self, headers: &mut HeaderMap, method: &Method) -> Option<ClientSpan> {
        let tracer = self.0.tracer.get()?;
        let place = TraceParent::of(headers).filter(|place| place.span.is_sampled())?;
        let span = ClientSpan::begin(tracer, &place, method);
        headers.insert(TRACEPARENT, span.header());
        Some(span)
    }
}
