//! The access log's line of one request.
//!
//! Comes in: a request that begins, later its response. Goes out: the line, once all bytes of the response are known.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};

use crate::access_log::{self, Access};
use crate::body::{Aborted, Body, Stream};
use crate::context::{self, Client, Peer};

/// What the access log tells of a request once its answer is known.
pub(super) struct Record {
    began: Instant,
    method: Method,
    uri: http::Uri,
    version: http::Version,
    peer: Rc<Peer>,
    /// Whom trusted proxies told of.
    pub(super) client: Option<Rc<Client>>,
}

impl Record {
    pub(super) fn new<B>(request: &Request<B>, peer: &Rc<Peer>) -> Box<Record> {
        Box::new(Record {
            began: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            peer: peer.clone(),
            client: None,
        })
    }

    /// Writes the line when all bytes of the response are known, or are with hyper.
    pub(super) fn at_end(self: Box<Self>, response: Response<Body>) -> Response<Body> {
        if let Body::Stream(_) = response.body() {
            let (head, body) = response.into_parts();
            let Body::Stream(stream) = body else { return Response::from_parts(head, body) };
            let request_id = head.headers.get("x-request-id").cloned();
            let recorded = Recorded { stream, record: self, status: head.status, request_id, bytes: 0 };
            return Response::from_parts(head, Body::Stream(Box::pin(recorded)));
        }
        self.write(response.status(), response.body().len(), response.headers().get("x-request-id"));
        response
    }

    fn write(&self, status: StatusCode, bytes: u64, request_id: Option<&HeaderValue>) {
        let ip = self.client.as_ref().map_or(self.peer.ip, |client| client.ip);
        let ip = ip.map(|ip| ip.to_string()).unwrap_or_default();
        access_log::record(&Access {
            method: self.method.as_str(),
            path: self.uri.path(),
            query: self.uri.query(),
            status: status.as_u16(),
            bytes,
            duration: self.began.elapsed(),
            ip: &ip,
            request_id: request_id.and_then(|id| id.to_str().ok()),
            version: context::version_name(self.version),
        });
    }
}

/// A stream whose line is written when it ends, however it does.
struct Recorded {
    stream: Stream,
    record: Box<Record>,
    status: StatusCode,
    request_id: Option<HeaderValue>,
    /// Sent so far.
    bytes: u64,
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        let frame = ready!(this.stream.as_mut().poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
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

impl Drop for Recorded {
    fn drop(&mut self) {
        self.record.write(self.status, self.bytes, self.request_id.as_ref());
    }
}
