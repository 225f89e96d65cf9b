//! Replaces traces in builds without the feature `otlp`: the same names, as types without values. They take no memory,
//! and the compiler drops every branch on them.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Uri};
use tokio::time::Instant;

use crate::config::OtlpSettings;
use crate::exchange::context::Requests;
use crate::observe::metrics::Samples;

/// There is none.
#[derive(Clone)]
pub(crate) enum Tracer {}

impl Tracer {
    pub(crate) fn start(_: &OtlpSettings, _: impl Iterator<Item = String>) -> Option<Tracer> {
        None
    }

    pub(crate) fn begin(&self, _: &mut Parts) -> Option<ServerSpan> {
        match *self {}
    }

    pub(crate) fn unparsed(&self, _: (&str, &str), _: (Option<IpAddr>, &str), _: StatusCode) {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "as in builds with traces")]
    pub(crate) async fn finish(&self, _: Instant) {
        match *self {}
    }

    pub(crate) fn write(&self, _: &mut Samples) {
        match *self {}
    }
}

/// There is none.
pub(crate) enum ServerSpan {}

impl ServerSpan {
    pub(crate) fn routed(&mut self, _: u32) {
        match *self {}
    }

    pub(crate) fn let_go(&mut self) {
        match *self {}
    }

    pub(crate) fn end(
        self,
        _: (&Method, &Uri, &str),
        _: (Option<IpAddr>, &'static str, Option<&str>),
        _: Option<u16>,
        _: Duration,
    ) {
        match self {}
    }
}

/// There is none.
pub(crate) enum ClientSpan {}

impl ClientSpan {
    pub(crate) fn to(&mut self, _: &Uri, _: Option<&PathAndQuery>) {
        match *self {}
    }

    pub(crate) fn answered(&mut self, _: u16) {
        match *self {}
    }

    pub(crate) fn failed(&mut self, _: &str) {
        match *self {}
    }
}

/// Nothing is known.
#[derive(Clone)]
pub(crate) struct Tracing(());

/// Nothing is inherited.
#[derive(Clone, Default)]
pub(crate) struct TaskTrace(());

impl Tracing {
    pub(crate) fn new(_: &Rc<Requests>) -> Tracing {
        Tracing(())
    }

    pub(crate) fn settle(&self, _: Option<&Tracer>) {}

    pub(crate) fn inherit(&self) -> TaskTrace {
        TaskTrace(())
    }

    pub(crate) fn enter(&self, _: TaskTrace) -> TaskTrace {
        TaskTrace(())
    }

    pub(crate) fn ask(&self, _: &mut HeaderMap, _: &Method) -> Option<ClientSpan> {
        None
    }

    pub(crate) fn pass_on(&self, _: &mut HeaderMap, _: &Method) -> Option<ClientSpan> {
        None
    }
}
