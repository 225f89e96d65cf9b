//! Collects a request body, up to its limit, before the handler runs.
//!
//! Comes in: the body as the connection delivers it. Goes out: its bytes, or why there are none. Only POST, PUT and
//! PATCH come here; other methods never read a body.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::body::Aborted;

/// The memory that a body gets on the strength of its Content-Length alone, in bytes.
const TRUST_MOST: u64 = 64 * 1024;

/// A body on its way in.
pub(crate) struct Collect<B> {
    body: B,
    first: Option<Bytes>,
    rest: BytesMut,
    limit: u64,
    patience: Duration,
    /// Runs while nothing arrives.
    clock: Option<Pin<Box<Sleep>>>,
}

impl<B: Body<Data = Bytes> + Unpin> Collect<B> {
    /// Begins to collect at most `limit` bytes, waiting at most `patience` for each piece.
    ///
    /// # Errors
    /// 413 when the length is known and above the limit; nothing has been read then.
    pub(crate) fn new(body: B, limit: u64, patience: Duration) -> Result<Collect<B>, StatusCode> {
        if body.size_hint().lower() > limit {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        Ok(Collect { body, first: None, rest: BytesMut::new(), limit, patience, clock: None })
    }

    /// The whole body; `None` when it is empty.
    ///
    /// # Errors
    /// 413 above the limit, 408 when the client stops sending, 400 when the body is framed wrongly or breaks off.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StatusCode>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are not part of the body.
                    let Ok(data) = frame.into_data() else { continue };
                    if let Err(status) = self.add(data) {
                        return Poll::Ready(Err(status));
                    }
                    if let Some(clock) = &mut self.clock {
                        clock.as_mut().reset(Instant::now() + self.patience);
                    }
                    if self.body.is_end_stream() {
                        return Poll::Ready(Ok(self.take()));
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(StatusCode::BAD_REQUEST)),
                Poll::Ready(None) => return Poll::Ready(Ok(self.take())),
                Poll::Pending => {
                    let patience = self.patience;
                    let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(patience)));
                    return clock.as_mut().poll(cx).map(|()| Err(StatusCode::REQUEST_TIMEOUT));
                }
            }
        }
    }

    fn add(&mut self, data: Bytes) -> Result<(), StatusCode> {
        let so_far = self.first.as_ref().map_or(self.rest.len(), Bytes::len) as u64;
        if so_far + data.len() as u64 > self.limit {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        if so_far == 0 {
            // Most bodies come in one piece, which needs no copy.
            self.first = Some(data);
            return Ok(());
        }
        if let Some(first) = self.first.take() {
            let expected = self.body.size_hint().lower().min(TRUST_MOST) as usize;
            self.rest.reserve(first.len() + data.len() + expected);
            self.rest.extend_from_slice(&first);
        }
        self.rest.extend_from_slice(&data);
        Ok(())
    }

    fn take(&mut self) -> Option<Bytes> {
        let body = self.first.take().unwrap_or_else(|| std::mem::take(&mut self.rest).freeze());
        (!body.is_empty()).then_some(body)
    }
}

/// A body that whoever reads it waits for no longer than a client may stop sending.
pub(crate) struct Patient<B> {
    body: B,
    patience: Duration,
    /// Runs while nothing arrives.
    clock: Option<Pin<Box<Sleep>>>,
}

impl<B> Patient<B> {
    pub(crate) fn new(body: B, patience: Duration) -> Patient<B> {
        Patient { body, patience, clock: None }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Patient<B> {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.clock = None;
                Poll::Ready(frame.map(|frame| frame.map_err(|_| Aborted)))
            }
            Poll::Pending => {
                let patience = this.patience;
                let clock = this.clock.get_or_insert_with(|| Box::pin(sleep(patience)));
                clock.as_mut().poll(cx).map(|()| Some(Err(Aborted)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
