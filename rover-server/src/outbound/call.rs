//! A request, and the rules under which it is sent.

use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Uri};
use tokio::time::Instant;

use super::outgoing::Outgoing;
use super::retry::RetryOptions;

/// A request, and how long and how often it is tried.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// [Parsed](super::parse_url).
    pub(crate) url: Uri,
    pub(crate) headers: HeaderMap,
    /// `None` once it has been sent and cannot be sent again.
    pub(crate) body: Option<Outgoing>,
    /// When the head of the answer must be there.
    pub(crate) deadline: Option<Instant>,
    /// The longest that getting a connection may take.
    pub(crate) connect_timeout: Option<Duration>,
    /// How many redirects are followed; with 0 they are answers like others.
    pub(crate) redirects: u32,
    pub(crate) retry: Option<RetryOptions>,
    /// Whether sending it twice does no harm.
    pub(crate) is_repeatable: bool,
}

impl Call {
    /// The request as it stands. A body that cannot be sent again is gone afterwards.
    pub(super) fn request(&mut self) -> Request<Outgoing> {
        let body = match self.body.as_ref().and_then(Outgoing::again) {
            Some(copy) => copy,
            None => self.body.take().unwrap_or_default(),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        let target = self.url.path_and_query().cloned();
        *request.uri_mut() = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
        *request.headers_mut() = self.headers.clone();
        request
    }
}
