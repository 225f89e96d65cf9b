//! The body of a response, from any source.
//!
//! Comes in: nothing, bytes, or something that brings bytes over time. Goes out: frames, as hyper asks for them; it asks
//! for the next one only when there is room for it, and drops the body when the client is gone. This module must not
//! know who makes bodies.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// A body that comes over time.
pub(crate) type Stream = Pin<Box<dyn http_body::Body<Data = Bytes, Error = Aborted>>>;

/// The body of a request on its way in. It may be sent on from another task.
pub(crate) type IncomingBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BrokenBody> + Send>>;

/// Why the body of a request is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokenBody {
    /// The client went away.
    Cut,
    /// Nothing came for too long.
    Late,
    /// It is framed wrongly.
    Malformed,
}

/// The body of a response.
#[derive(Default)]
pub(crate) enum Body {
    /// No bytes at all.
    #[default]
    Empty,
    /// All bytes at once.
    Full(Bytes),
    /// Bytes over time. A size hint that is exact becomes Content-Length.
    Stream(Stream),
}

/// How much of a body is given away at once, in bytes. hyper may copy what it gets, and asks for more only when that is on
/// its way: so a client that reads slowly makes the server hold little beside the body itself.
const PIECE: usize = 256 * 1024;

/// A body broke off: the response must not look complete.
///
/// Whoever makes the body logs the reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body broke off")
    }
}

impl std::error::Error for Aborted {}

/// A stream that ends at once: what HEAD gets in place of one, with the head that GET would have.
pub(crate) fn nothing() -> Stream {
    struct Nothing;

    impl http_body::Body for Nothing {
        type Data = Bytes;
        type Error = Aborted;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
            Poll::Ready(None)
        }
    }

    Box::pin(Nothing)
}

/// The same stream, which keeps something until it is dropped.
pub(crate) fn keeping<K: Unpin + 'static>(stream: Stream, kept: K) -> Stream {
    Box::pin(Keeping { stream, kept, on_pending: |_| {} })
}

struct Keeping<K> {
    stream: Stream,
    kept: K,
    /// Called each time the stream has nothing yet.
    on_pending: fn(&K),
}

impl<K: Unpin> http_body::Body for Keeping<K> {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        let polled = this.stream.as_mut().poll_frame(cx);
        if polled.is_pending() {
            (this.on_pending)(&this.kept);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
    }
}

impl Body {
    /// A stream keeps `kept` until it is dropped, and calls `on_pending` each time it has nothing yet.
    pub(crate) fn keep<K: Unpin + 'static>(&mut self, kept: K, on_pending: fn(&K)) {
        if let Body::Stream(stream) = self {
            let own = std::mem::replace(stream, nothing());
            *stream = Box::pin(Keeping { stream: own, kept, on_pending });
        }
    }

    /// The length in bytes, as far as it is known: 0 for a stream.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Body::Empty | Body::Stream(_) => 0,
            Body::Full(bytes) => bytes.len() as u64,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Empty => f.write_str("Empty"),
            Body::Full(bytes) => f.debug_tuple("Full").field(bytes).finish(),
            Body::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Aborted;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        if let Body::Stream(stream) = this {
            return stream.as_mut().poll_frame(cx);
        }
        if let Body::Full(bytes) = this
            && bytes.len() > PIECE
        {
            return Poll::Ready(Some(Ok(Frame::data(bytes.split_to(PIECE)))));
        }
        match std::mem::take(this) {
            Body::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Body::Empty | Body::Stream(_) => Poll::Ready(None),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(_) => false,
            Body::Stream(stream) => stream.is_end_stream(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Stream(stream) => stream.size_hint(),
            _ => SizeHint::with_exact(self.len()),
        }
    }
}
