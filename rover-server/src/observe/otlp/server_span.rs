//! The span of a request that this server answers.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::Tracer;
use super::parent::Parent;
use super::span::{self, SpanHead, SpanKind};
use crate::exchange::context::TRACEPARENT;

/// What systems of traces tell each other besides; belongs to a `traceparent`.
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A request that is being answered, where its trace is recorded.
pub(crate) struct ServerSpan {
    tracer: Tracer,
    own: Parent,
    parent: Option<u64>,
    state: Option<HeaderValue>,
    /// The id of the route that answers.
    route: Option<usize>,
    host: Option<HeaderValue>,
    agent: Option<HeaderValue>,
}

impl ServerSpan {
    /// Begins the span of a request, whose headers then name it: what the app sends on belongs under it. `None` where the
    /// trace is not recorded; then the headers are those of the client, or begin a trace that nobody records.
    pub(super) fn begin(tracer: &Tracer, head: &mut Parts) -> Option<ServerSpan> {
        let sent = head.headers.get(TRACEPARENT).and_then(Parent::read);
        let own = match sent {
            Some(sent) if !sent.is_sampled() => return None,
            Some(sent) => sent.child(),
            None => {
                head.headers.remove(TRACESTATE);
                Parent::new(|trace| tracer.samples(trace))
            }
        };
        head.headers.insert(TRACEPARENT, own.header());
        own.is_sampled().then(|| ServerSpan {
            tracer: tracer.clone(),
            own,
            parent: sent.map(|sent| sent.span),
            state: sent.and_then(|_| head.headers.get(TRACESTATE).cloned()),
            route: None,
            host: host(&head.uri, &head.headers),
            agent: head.headers.get(USER_AGENT).cloned(),
        })
    }

    /// Notes which route answers.
    pub(crate) fn routed(&mut self, route: u32) {
        self.route = Some(route as usize);
    }

    /// Holds nothing of the connection's read buffer any more.
    pub(crate) fn let_go(&mut self) {
        for value in [&mut self.state, &mut self.host, &mut self.agent] {
            span::let_go(value);
        }
    }

    /// The answer is with the client, or the client is gone: then there is no status. `client` is its address, and the
    /// scheme and host by which it knows this server, where trusted proxies tell the latter.
    pub(crate) fn end(
        self,
        (method, uri, version): (&Method, &Uri, &str),
        client: (Option<IpAddr>, &'static str, Option<&str>),
        status: Option<u16>,
        took: Duration,
    ) {
        let (ip, scheme, told) = client;
        let route = self.route.and_then(|route| self.tracer.0.patterns.get(route)).map(|pattern| &**pattern);
        let head =
            SpanHead { own: self.own, parent: self.parent, state: self.state.as_ref(), kind: SpanKind::Server, took };
        let method = method.as_str();
        self.tracer.0.queue.push(|out| {
            match route {
                Some(route) => span::begin(out, &head, &[span::named(method), " ", route]),
                None => span::begin(out, &head, &[span::named(method)]),
            }
            span::method(out, method);
            if let Some(route) = route {
                span::text(out, "http.route", route);
            }
            span::text(out, "url.path", uri.path());
            if let Some(query) = uri.query().filter(|_| self.tracer.0.query) {
                span::text(out, "url.query", &span::redacted(query));
            }
            span::text(out, "url.scheme", scheme);
            if let Some(host) = told.or_else(|| self.host.as_ref()?.to_str().ok()) {
                span::server(out, host, scheme);
            }
            if let Some(ip) = ip {
                span::ip(out, "client.address", ip);
            }
            span::text(out, "network.protocol.version", version);
            if let Some(agent) = &self.agent {
                span::text(out, "user_agent.original", &String::from_utf8_lossy(agent.as_bytes()));
            }
            match status {
                Some(status) => {
                    span::number(out, "http.response.status_code", status.into());
                    if status >= 500 {
                        span::text(out, "error.type", itoa::Buffer::new().format(status));
                        span::failed(out, "");
                    }
                }
                None => span::text(out, "error.type", "client went away"),
            }
        });
    }
}

impl Tracer {
    /// Records a request that did not become one: what of its first line was read, and what it was answered.
    #[cold]
    pub(crate) fn unparsed(
        &self,
        (method, target): (&str, &str),
        (ip, scheme): (Option<IpAddr>, &str),
        status: StatusCode,
    ) {
        let own = Parent::new(|trace| self.samples(trace));
        if !own.is_sampled() {
            return;
        }
        let head = SpanHead { own, parent: None, state: None, kind: SpanKind::Server, took: Duration::ZERO };
        self.0.queue.push(|out| {
            span::begin(out, &head, &[span::named(method)]);
            span::method(out, method);
            span::text(out, "url.path", target.split('?').next().unwrap_or_default());
            span::text(out, "url.scheme", scheme);
            if let Some(ip) = ip {
                span::ip(out, "client.address", ip);
            }
            span::number(out, "http.response.status_code", status.as_u16().into());
        });
    }
}

/// The host that the client asked for.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<HeaderValue> {
    match uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => headers.get(HOST).cloned(),
    }
}
