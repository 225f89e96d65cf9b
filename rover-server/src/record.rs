//! What is noted of a request while it is answered, and written down when its last byte is with hyper.
//!
//! Comes in: a request, then its response. Goes out: a line of the access log, a warning where it was slow, and its
//! figures. This module must not know how requests are served.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use http_body::{Frame, SizeHint};

use crate::access_log::{self, Access};
use crate::body::{Aborted, Body, Stream};
use crate::config::{AccessLog, Config};
use crate::context::{self, Peer};
use crate::log::{self, Level};
use crate::metrics::Measured;

/// The status in the log of a request whose client went away before its answer. No response ever has it.
const CLIENT_WENT_AWAY: u16 = 499;

/// What the log tells of a request. Dropping it writes that down.
pub(crate) struct Record {
    form: AccessLog,
    slow: Option<Duration>,
    began: Instant,
    method: Method,
    uri: Uri,
    version: Version,
    peer: Rc<Peer>,
    request_id: Option<HeaderValue>,
    trace: Option<HeaderValue>,
    status: u16,
    /// Of the body, as far as it was sent.
    bytes: u64,
    /// The longest wait of its handler, and where that was.
    wait: Option<(Duration, String)>,
}

impl Record {
    /// Whether there is anything to write down of requests.
    #[inline]
    pub(crate) fn is_wanted(config: &Config) -> bool {
        (config.access_log != AccessLog::Off && log::enabled(Level::Info)) || config.slow_request.is_some()
    }

    /// Notes what is known at the begin.
    pub(crate) fn new<B>(config: &Config, request: &Request<B>, peer: &Rc<Peer>) -> Box<Record> {
        Box::new(Record {
            form: config.access_log,
            slow: config.slow_request,
            began: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            peer: peer.clone(),
            request_id: context::sent_id(request.headers()).cloned(),
            trace: request.headers().get(context::TRACEPARENT).cloned(),
            status: CLIENT_WENT_AWAY,
            bytes: 0,
            wait: None,
        })
    }

    /// Notes where the handler waited longest.
    pub(crate) fn waited(&mut self, wait: Option<(Duration, String)>) {
        self.wait = wait;
    }

    fn answered(&mut self, response: &Response<Body>) {
        self.status = response.status().as_u16();
        self.bytes = response.body().len();
        if let Some(id) = response.headers().get("x-request-id") {
            self.request_id = Some(id.clone());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.began.elapsed();
        let is_slow = self.slow.is_some_and(|limit| duration >= limit);
        if !is_slow && self.form == AccessLog::Off {
            return;
        }
        let ip = self.peer.ip.map(|ip| ip.to_string()).unwrap_or_default();
        let request_id = self.request_id.take().unwrap_or_else(context::new_id);
        let request_id = request_id.to_str().unwrap_or_default();
        let trace_id = self.trace.as_ref().and_then(context::trace_id).unwrap_or_default();
        if self.form != AccessLog::Off {
            access_log::record(
                self.form,
                &Access {
                    method: self.method.as_str(),
                    path: self.uri.path(),
                    query: self.uri.query(),
                    status: self.status,
                    bytes: self.bytes,
                    duration,
                    ip: &ip,
                    request_id,
                    trace_id,
                    version: context::version_name(self.version),
                },
            );
        }
        if is_slow {
            let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let (waited, trace) = self.wait.take().unwrap_or_default();
            let mut event = log::event(Level::Warn, "slow request")
                .field("method", self.method.as_str())
                .field("path", self.uri.path())
                .field("status", u64::from(self.status))
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

/// Writes down what there is when all bytes of the response are known, or are with hyper.
#[inline]
pub(crate) fn at_end(
    mut record: Option<Box<Record>>,
    mut measured: Option<Measured>,
    response: Response<Body>,
) -> Response<Body> {
    if let Some(record) = &mut record {
        record.answered(&response);
    }
    if let Some(measured) = &mut measured {
        measured.answered(response.status());
    }
    if let Body::Stream(_) = response.body() {
        return with_stream(record, measured, response);
    }
    response
}

#[cold]
fn with_stream(record: Option<Box<Record>>, measured: Option<Measured>, response: Response<Body>) -> Response<Body> {
    response.map(|body| match body {
        Body::Stream(stream) => Body::Stream(Box::pin(Recorded { stream, record, _measured: measured })),
        other => other,
    })
}

/// A stream of which is written down when it ends, however it does.
struct Recorded {
    stream: Stream,
    record: Option<Box<Record>>,
    _measured: Option<Measured>,
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        let frame = ready!(this.stream.as_mut().poll_frame(cx));
        if let (Some(Ok(frame)), Some(record)) = (&frame, &mut this.record) {
            record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
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
