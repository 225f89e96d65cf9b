//! The span of a request that this server makes.

use std::time::Instant;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri};

use super::parent::Parent;
use super::span::{self, SpanHead, SpanKind};
use super::{TraceParent, Tracer};

/// A request to another server. It is over when this is dropped.
pub(crate) struct ClientSpan {
    tracer: Tracer,
    own: Parent,
    parent: u64,
    state: Option<HeaderValue>,
    began: Instant,
    method: Method,
    url: Option<Uri>,
    path: Option<PathAndQuery>,
    /// The status, or why there is none.
    outcome: Option<Result<u16, String>>,
}

impl ClientSpan {
    /// Begins the span of a request below the one at `place`.
    pub(super) fn begin(tracer: &Tracer, place: &TraceParent, method: &Method) -> ClientSpan {
        ClientSpan {
            tracer: tracer.clone(),
            own: place.span.child(),
            parent: place.span.span,
            state: place.state.clone(),
            began: Instant::now(),
            method: method.clone(),
            url: None,
            path: None,
            outcome: None,
        }
    }

    /// The `traceparent` that names it.
    pub(super) fn header(&self) -> HeaderValue {
        self.own.header()
    }

    /// Notes where the request goes: to the origin of `url`, and its path or another one.
    pub(crate) fn to(&mut self, url: &Uri, path: Option<&PathAndQuery>) {
        self.url = Some(url.clone());
        self.path = path.cloned();
    }

    /// Notes the status of the answer.
    pub(crate) fn answered(&mut self, status: u16) {
        self.outcome = Some(Ok(status));
    }

    /// Notes why there is no answer.
    pub(crate) fn failed(&mut self, reason: &str) {
        self.outcome = Some(Err(reason.to_owned()));
    }

    fn write_url(&self, out: &mut Vec<u8>) {
        let Some(url) = &self.url else { return };
        let (scheme, authority) =
            (url.scheme_str().unwrap_or("http"), url.authority().map_or("", |host| host.as_str()));
        let place = self.path.as_ref().or(url.path_and_query());
        let mut full = format!("{scheme}://{authority}{}", place.map_or("/", PathAndQuery::path));
        if let Some(query) = place.and_then(PathAndQuery::query).filter(|_| self.tracer.0.query) {
            full.push('?');
            full.push_str(&span::redacted(query));
        }
        span::text(out, "url.full", &full);
        span::server(out, authority, scheme);
    }
}

impl Drop for ClientSpan {
    fn drop(&mut self) {
        let head = SpanHead {
            own: self.own,
            parent: Some(self.parent),
            state: self.state.as_ref(),
            kind: SpanKind::Client,
            took: self.began.elapsed(),
        };
        let method = self.method.as_str();
        self.tracer.0.queue.push(|out| {
            span::begin(out, &head, &[span::named(method)]);
            span::method(out, method);
            self.write_url(out);
            let outcome = self.outcome.as_ref().map(|outcome| outcome.as_ref().map_err(String::as_str));
            match outcome.unwrap_or(Err("cancelled")) {
                Ok(status) => {
                    span::number(out, "http.response.status_code", u64::from(*status));
                    if *status >= 400 {
                        span::text(out, "error.type", itoa::Buffer::new().format(*status));
                        span::failed(out, "");
                    }
                }
                Err(reason) => {
                    span::text(out, "error.type", reason);
                    span::failed(out, reason);
                }
            }
        });
    }
}
