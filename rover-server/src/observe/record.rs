//! Collects what is recorded of a request, and writes it when its last byte has been given to hyper.
//!
//! Comes in: a request, then its response. Goes out: a line of the access log, a warning if it was slow, and its
//! metrics. This module must not know how requests are served.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Uri, Version};
use http_body::{Frame, SizeHint};

use crate::config::{AccessLog, Config};
use crate::exchange::context::{self, ForwardedClient, Peer};
use crate::log::{self, Level};
use crate::message::body::{Aborted, Body, Stream};
use crate::observe::access_log::{self, Access};
use crate::observe::metrics::OpenRequest;
use crate::observe::otlp::{ServerSpan, Tracer};
use crate::route::RouteId;
use crate::runtime::turn;

/// The status in the log if the client went away before the answer. No response ever has it.
const CLIENT_WENT_AWAY: u16 = 499;

/// The record of a request, written when it is dropped.
pub(crate) struct Record {
    status: u16,
    /// Of the body, as far as it was sent.
    bytes: u64,
    /// For the log, and for the traces.
    line: Option<Line>,
    /// For the metrics, if they are not complete at once.
    measured: Option<OpenRequest>,
    /// For the traces.
    span: Option<ServerSpan>,
}

/// What the log and the traces contain of a request.
struct Line {
    form: AccessLog,
    slow: Option<Duration>,
    began: Instant,
    method: Method,
    uri: Uri,
    version: Version,
    peer: Rc<Peer>,
    /// The client behind trusted proxies.
    client: Option<Rc<ForwardedClient>>,
    request_id: Option<HeaderValue>,
    trace: Option<HeaderValue>,
    /// The longest wait of its handler, and where that was.
    wait: Option<(Duration, String)>,
}

impl Record {
    /// Holds nothing of the connection's read buffer any more; `uri` is a copy of the target.
    #[cold]
    pub(crate) fn let_go(&mut self, uri: Option<Uri>) {
        let Some(line) = &mut self.line else { return };
        if let Some(uri) = uri {
            line.uri = uri;
        }
        if let Some(span) = &mut self.span {
            span.let_go();
        }
        for value in [&mut line.request_id, &mut line.trace].into_iter().flatten() {
            if let Ok(own) = HeaderValue::from_bytes(value.as_bytes()) {
                *value = own;
            }
        }
    }

    /// Whether requests are logged.
    #[inline]
    pub(crate) fn is_wanted(config: &Config) -> bool {
        (config.access_log != AccessLog::Off && log::enabled(Level::Info)) || config.slow_request.is_some()
    }

    /// Writes the line of a request that could not be read; `head` is what arrived of it.
    pub(crate) fn unparsed(
        config: &Config,
        tracer: Option<&Tracer>,
        peer: &Peer,
        head: &[u8],
        (status, bytes): (StatusCode, u64),
    ) {
        if let Some(tracer) = tracer {
            let (method, target) = access_log::words_of(head);
            tracer.unparsed((method.unwrap_or("-"), &target), (peer.ip, peer.scheme), status);
        }
        if config.access_log != AccessLog::Off && log::enabled(Level::Info) {
            access_log::record_unparsed(config.access_log, head, status.as_u16(), bytes, peer.ip);
        }
    }

    /// A record for the log and the traces.
    pub(crate) fn new(config: &Config, head: &Parts, peer: &Rc<Peer>, span: Option<ServerSpan>) -> Box<Record> {
        let form = if log::enabled(Level::Info) { config.access_log } else { AccessLog::Off };
        // What only the log needs is left out if nothing is logged.
        let is_logged = form != AccessLog::Off || config.slow_request.is_some();
        let headers = Some(&head.headers).filter(|_| is_logged);
        let line = Line {
            form,
            slow: config.slow_request,
            began: Instant::now(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            peer: peer.clone(),
            client: None,
            request_id: headers.and_then(context::sent_id).cloned(),
            trace: headers.and_then(|headers| headers.get(context::TRACEPARENT)).cloned(),
            wait: None,
        };
        Record::with(Some(line), span)
    }

    fn with(line: Option<Line>, span: Option<ServerSpan>) -> Box<Record> {
        Box::new(Record { status: CLIENT_WENT_AWAY, bytes: 0, line, measured: None, span })
    }

    /// A record that leaves no line.
    pub(crate) fn silent() -> Box<Record> {
        Record::with(None, None)
    }

    /// Counts the request when it is over.
    pub(crate) fn follow(&mut self, measured: OpenRequest) {
        self.measured = Some(measured);
    }

    /// Notes which route answers.
    pub(crate) fn routed(&mut self, route: RouteId) {
        if let Some(span) = &mut self.span {
            span.routed(route.0);
        }
    }

    /// Notes the client behind trusted proxies.
    pub(crate) fn came_from(&mut self, client: Option<Rc<ForwardedClient>>) {
        if let Some(line) = &mut self.line {
            line.client = client;
        }
    }

    /// Notes where the handler waited longest.
    pub(crate) fn waited(&mut self, wait: Option<(Duration, String)>) {
        if let Some(line) = &mut self.line {
            line.wait = wait;
        }
    }

    /// Writes the record when all bytes of the response are known, or have been given to hyper.
    pub(crate) fn at_end(mut self: Box<Self>, response: Response<Body>) -> Response<Body> {
        if turn::is_lost() {
            // Its connections have been cut.
            return response;
        }
        self.status = response.status().as_u16();
        self.bytes = response.body().len();
        if let Some(line) = self.line.as_mut().filter(|line| line.is_logged())
            && let Some(id) = response.headers().get("x-request-id")
        {
            line.request_id = Some(id.clone());
        }
        if let Some(measured) = &mut self.measured {
            measured.answered(self.status);
        }
        if !matches!(response.body(), Body::Stream(_)) {
            return response;
        }
        response.map(|body| match body {
            Body::Stream(stream) => Body::Stream(Box::pin(Recorded { stream, record: self })),
            other => other,
        })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            if let Some(span) = self.span.take() {
                line.end(span, self.status);
            }
            line.write(self.status, self.bytes);
        }
    }
}

impl Line {
    /// Whether anything but the traces may tell it.
    fn is_logged(&self) -> bool {
        self.form != AccessLog::Off || self.slow.is_some()
    }

    /// Ends the span of the request.
    fn end(&self, span: ServerSpan, status: u16) {
        let client = match &self.client {
            Some(client) => (client.ip, client.scheme, client.host.as_deref()),
            None => (self.peer.ip, self.peer.scheme, None),
        };
        let status = Some(status).filter(|status| *status != CLIENT_WENT_AWAY);
        let about = (&self.method, &self.uri, context::version_name(self.version));
        span.end(about, client, status, self.began.elapsed());
    }

    fn write(mut self, status: u16, bytes: u64) {
        let duration = self.began.elapsed();
        let is_slow = self.slow.is_some_and(|limit| duration >= limit);
        if !is_slow && self.form == AccessLog::Off {
            return;
        }
        let ip = self.client.as_ref().map_or(self.peer.ip, |client| client.ip);
        let ip = ip.map(|ip| ip.to_string()).unwrap_or_default();
        let request_id = self.request_id.take().unwrap_or_else(context::new_id);
        let request_id = request_id.to_str().unwrap_or_default();
        let trace_id = self.trace.as_ref().and_then(context::trace_id).unwrap_or_default();
        if self.form != AccessLog::Off {
            let access = Access {
                method: self.method.as_str(),
                path: self.uri.path(),
                query: self.uri.query(),
                status,
                bytes,
                duration,
                ip: &ip,
                request_id,
                trace_id,
                version: context::version_name(self.version),
            };
            access_log::record(self.form, &access);
        }
        if is_slow {
            let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let (waited, trace) = self.wait.take().unwrap_or_default();
            let mut event = log::event(Level::Warn, "slow request")
                .field("method", self.method.as_str())
                .field("path", self.uri.path())
                .field("status", u64::from(status))
                .field("duration_ms", millis(duration))
                .field("request_id", request_id);
            if !trace_id.is_empty() {
                event = event.field("trace_id", trace_id);
            }
            if !trace.is_empty() {
                event = event.field("longest_wait_ms", millis(waited)).field("traceback", trace.as_str());
            }
            event.emit();
        }
    }
}

/// Wraps a stream; writes the record when it ends or is dropped.
struct Recorded {
    stream: Stream,
    record: Box<Record>,
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        let frame = ready!(this.stream.as_mut().poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            this.record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
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
