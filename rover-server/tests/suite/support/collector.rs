//! A collector of traces for tests: it reads what comes with the messages of OpenTelemetry itself, and misbehaves as told.

use std::io::Read;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rover_server::Server;

use crate::support::upstream::{Asked, Then, Upstream, answer};
use crate::support::wait_until;

/// What a collector has taken.
pub struct Collector {
    pub upstream: Upstream,
    spans: Arc<Mutex<Vec<Span>>>,
    resource: Arc<Mutex<Vec<KeyValue>>>,
}

impl Collector {
    /// Takes everything.
    pub fn start() -> Collector {
        Collector::that(|_, _| None)
    }

    /// `refuse` may answer a request, whose spans then do not count as taken.
    pub fn that(refuse: impl Fn(&Asked, &mut TcpStream) -> Option<Then> + Send + Sync + 'static) -> Collector {
        let spans = Arc::new(Mutex::new(Vec::<Span>::new()));
        let resource = Arc::new(Mutex::new(Vec::<KeyValue>::new()));
        let (taken, known) = (spans.clone(), resource.clone());
        let upstream = Upstream::start(move |asked, stream| {
            if let Some(then) = refuse(asked, stream) {
                return then;
            }
            let request = decode(asked);
            let mut taken = taken.lock().expect("no panic");
            for spans in request.resource_spans {
                *known.lock().expect("no panic") = spans.resource.expect("a resource").attributes;
                for scope in spans.scope_spans {
                    assert_eq!(scope.scope.expect("a scope").name, "rover");
                    taken.extend(scope.spans);
                }
            }
            drop(taken);
            answer(stream, "200 OK", "Content-Type: application/x-protobuf\r\n", b"")
        });
        Collector { upstream, spans, resource }
    }

    /// The server, which sends here what it has after so long.
    pub fn of(&self, server: Server, interval: &str) -> Server {
        server.set("otlp.endpoint", self.upstream.url()).set("otlp.interval", interval)
    }

    /// What has come so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("no panic").clone()
    }

    /// What has come, once it is so much.
    pub fn wait_for(&self, count: usize) -> Vec<Span> {
        wait_until(|| self.spans.lock().expect("no panic").len() >= count);
        self.spans()
    }

    /// An attribute of the resource.
    pub fn resource(&self, name: &str) -> Option<String> {
        text(&self.resource.lock().expect("no panic"), name)
    }
}

fn decode(asked: &Asked) -> ExportTraceServiceRequest {
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/v1/traces"));
    assert_eq!(asked.header("content-type"), Some("application/x-protobuf"));
    let mut body = Vec::new();
    match asked.header("content-encoding") {
        Some("gzip") => drop(flate2::read::GzDecoder::new(&asked.body[..]).read_to_end(&mut body).expect("gzip")),
        None => body.extend_from_slice(&asked.body),
        other => panic!("{other:?}"),
    }
    ExportTraceServiceRequest::decode(&body[..]).expect("a request of OTLP")
}

/// An attribute as text.
pub fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let mut found = attributes.iter().filter(|attribute| attribute.key == name);
    let first = found.next()?;
    assert!(found.next().is_none(), "{name} stands there twice");
    match first.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

/// All attributes as `name=value`, without those that vary.
pub fn told(span: &Span) -> Vec<String> {
    let attributes = span.attributes.iter();
    attributes.map(|own| format!("{}={}", own.key, text(&span.attributes, &own.key).unwrap_or_default())).collect()
}

/// An id in hexadecimal digits.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
