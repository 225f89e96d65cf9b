//! The body of a request on its way out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::Problem;

/// The body of a request. hyper sends it on a task of its own, so it crosses no VM.
#[derive(Default)]
pub(crate) enum Outgoing {
    #[default]
    Empty,
    Full(Bytes),
    /// Chunks as they are made; the length is not known.
    Chunks(mpsc::Receiver<Bytes>),
    /// What another connection brings.
    Passed(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Problem> + Send>>),
}

impl Outgoing {
    /// The same body once more, where that is possible.
    pub(super) fn again(&self) -> Option<Outgoing> {
        match self {
            Outgoing::Empty => Some(Outgoing::Empty),
            Outgoing::Full(bytes) => Some(Outgoing::Full(bytes.clone())),
            Outgoing::Chunks(_) | Outgoing::Passed(_) => None,
        }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Problem;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Problem>>> {
        let this = self.get_mut();
        match this {
            Outgoing::Empty => Poll::Ready(None),
            Outgoing::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Outgoing::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            // An empty chunk is how a producer says that it has come to the end; one that is cut off just goes.
            Outgoing::Chunks(chunks) => match ready!(chunks.poll_recv(cx)) {
                Some(chunk) if chunk.is_empty() => Poll::Ready(None),
                Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
                None => Poll::Ready(Some(Err(Problem::BodyBrokeOff))),
            },
            Outgoing::Passed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Empty => true,
            Outgoing::Full(_) | Outgoing::Chunks(_) => false,
            Outgoing::Passed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Empty => SizeHint::with_exact(0),
            Outgoing::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Outgoing::Chunks(_) => SizeHint::default(),
            Outgoing::Passed(body) => body.size_hint(),
        }
    }
}
