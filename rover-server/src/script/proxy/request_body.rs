//! The body of a request for an upstream, kept so that it can be sent to another one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::message::body::{BrokenBody, IncomingBody};
use crate::outbound::{Outgoing, Problem};

/// A body that can be sent as long as nothing of it has been read.
pub(super) enum RequestBody {
    Known(Bytes),
    Unread(Arc<Passing>),
}

/// An unread body, and how much of it has been read.
pub(super) struct Passing {
    body: Mutex<IncomingBody>,
    /// Pieces read so far.
    pieces: AtomicU64,
    is_begun: AtomicBool,
    /// The next piece was asked for and has not come.
    is_awaited: AtomicBool,
}

impl RequestBody {
    pub(super) fn unread(body: IncomingBody) -> RequestBody {
        RequestBody::Unread(Arc::new(Passing {
            body: Mutex::new(body),
            pieces: AtomicU64::new(0),
            is_begun: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
        }))
    }

    /// Whether nothing of it has gone yet.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            RequestBody::Known(_) => true,
            RequestBody::Unread(passing) => !passing.is_begun.load(Relaxed),
        }
    }

    /// The body to send, as long as it [is whole](RequestBody::is_whole).
    pub(super) fn outgoing(&self) -> Outgoing {
        match self {
            RequestBody::Known(bytes) if bytes.is_empty() => Outgoing::Empty,
            RequestBody::Known(bytes) => Outgoing::Full(bytes.clone()),
            RequestBody::Unread(passing) => Outgoing::Passed(Box::pin(Share(passing.clone()))),
        }
    }

    /// Changes whenever a piece moves.
    pub(super) fn progress(&self) -> u64 {
        match self {
            RequestBody::Known(_) => 0,
            RequestBody::Unread(passing) => passing.pieces.load(Relaxed),
        }
    }

    /// Whether the upstream has taken what there was, and the client owes the next piece.
    pub(super) fn waits_for_client(&self) -> bool {
        match self {
            RequestBody::Known(_) => false,
            RequestBody::Unread(passing) => passing.is_awaited.load(Relaxed),
        }
    }
}

struct Share(Arc<Passing>);

impl Share {
    fn look<R>(&self, look: impl FnOnce(&mut IncomingBody) -> R) -> R {
        // Only one share is polled at a time, and on one thread.
        look(&mut self.0.body.lock())
    }
}

impl Body for Share {
    type Data = Bytes;
    type Error = Problem;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Problem>>> {
        self.0.is_begun.store(true, Relaxed);
        let polled = self.look(|body| body.as_mut().poll_frame(cx));
        self.0.is_awaited.store(polled.is_pending(), Relaxed);
        if polled.is_ready() {
            self.0.pieces.fetch_add(1, Relaxed);
        }
        polled.map(|frame| {
            frame.map(|frame| {
                frame.map_err(|broken| match broken {
                    BrokenBody::Cut => Problem::BodyCut,
                    BrokenBody::Late => Problem::BodyBrokeOff,
                    BrokenBody::Malformed => Problem::BodyMalformed,
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.look(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.look(|body| body.size_hint())
    }
}
