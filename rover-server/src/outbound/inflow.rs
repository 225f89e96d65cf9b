//! The body of a response on its way in.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

use super::Problem;
use super::active::Active;
use super::decode::Decoder;

/// The body of a response on its way in. Dropping it before its end closes the connection, as far as the connection is
/// not shared with other requests.
pub(crate) struct Inflow {
    source: InflowSource,
    /// Read before somebody asked for it.
    held: Bytes,
    active: Active,
    patience: Option<Duration>,
    clock: Option<Pin<Box<Sleep>>>,
}

enum InflowSource {
    Plain(Incoming),
    // Boxed, for most bodies are plain.
    Coded(Box<Decoder>),
    Over,
}

impl Inflow {
    /// The body as it comes.
    pub(crate) fn plain(body: Incoming, active: Active) -> Inflow {
        Inflow::new(InflowSource::Plain(body), active)
    }

    /// A body in a content coding that is known is decoded, and `headers` say so no more.
    pub(super) fn decoded(body: Incoming, headers: &mut HeaderMap, active: Active) -> Inflow {
        let source = match Decoder::new(body, headers) {
            Ok(decoder) => InflowSource::Coded(Box::new(decoder)),
            Err(body) => InflowSource::Plain(body),
        };
        Inflow::new(source, active)
    }

    fn new(source: InflowSource, active: Active) -> Inflow {
        Inflow { source, held: Bytes::new(), active, patience: None, clock: None }
    }

    /// Reads what came along with the head, to be handed out as the next piece. It waits for nothing: a head whose body is
    /// late goes on without it.
    ///
    /// # Errors
    /// The body breaks off before its first byte.
    pub(crate) async fn peek(&mut self) -> Result<(), Problem> {
        for is_last in [false, true] {
            let first = poll_fn(|cx| match self.poll_chunk(cx) {
                Poll::Ready(first) => Poll::Ready(Some(first)),
                Poll::Pending => Poll::Ready(None),
            });
            match first.await {
                Some(Some(Ok(first))) => {
                    self.held = first;
                    return Ok(());
                }
                Some(Some(Err(problem))) => return Err(problem),
                Some(None) => return Ok(()),
                // The connection reads on once it is asked, in a turn of its own.
                None if !is_last => tokio::task::yield_now().await,
                None => {}
            }
        }
        Ok(())
    }

    /// What the request holds, for who does without the body.
    pub(crate) fn into_active(self) -> Active {
        self.active
    }

    /// Lets the body break off where nothing comes for so long.
    pub(crate) fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    /// What is known of the length.
    pub(crate) fn size_hint(&self) -> SizeHint {
        let rest = match &self.source {
            InflowSource::Plain(body) => body.size_hint(),
            InflowSource::Coded(_) => SizeHint::default(),
            InflowSource::Over => SizeHint::with_exact(0),
        };
        let held = self.held.len() as u64;
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(held + rest),
            None => rest,
        }
    }

    /// Whether nothing more comes.
    pub(crate) fn is_over(&self) -> bool {
        let is_read = match &self.source {
            InflowSource::Plain(body) => body.is_end_stream(),
            InflowSource::Coded(_) => false,
            InflowSource::Over => true,
        };
        is_read && self.held.is_empty()
    }

    /// The next piece, never empty; `None` at the end. After an error there is nothing more.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Problem>>> {
        if !self.held.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.held))));
        }
        let polled = loop {
            match &mut self.source {
                InflowSource::Over => return Poll::Ready(None),
                InflowSource::Coded(decoder) => break decoder.poll_chunk(cx),
                InflowSource::Plain(body) => match Pin::new(body).poll_frame(cx) {
                    Poll::Pending => break Poll::Pending,
                    Poll::Ready(None) => break Poll::Ready(None),
                    Poll::Ready(Some(Err(error))) => break Poll::Ready(Some(Err(Problem::of(&error)))),
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) if !data.is_empty() => break Poll::Ready(Some(Ok(data))),
                        // Trailers are not part of the body.
                        _ => continue,
                    },
                },
            }
        };
        match polled {
            Poll::Ready(Some(Ok(data))) => {
                if let (Some(clock), Some(patience)) = (&mut self.clock, self.patience) {
                    clock.as_mut().reset(Instant::now() + patience);
                }
                // Who knows the length asks for nothing behind the last piece.
                if matches!(&self.source, InflowSource::Plain(body) if body.is_end_stream()) {
                    self.active.end(true);
                }
                Poll::Ready(Some(Ok(data)))
            }
            Poll::Ready(end) => {
                self.source = InflowSource::Over;
                self.active.end(end.is_none());
                Poll::Ready(end)
            }
            Poll::Pending => {
                let Some(patience) = self.patience else { return Poll::Pending };
                let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(patience)));
                ready!(clock.as_mut().poll(cx));
                self.source = InflowSource::Over;
                self.active.end(false);
                Poll::Ready(Some(Err(Problem::Timeout)))
            }
        }
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Option<Result<Bytes, Problem>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Everything up to `limit` bytes.
    ///
    /// # Errors
    /// There is more, it breaks off, or it is not complete at the deadline.
    pub(crate) async fn collect(&mut self, limit: u64, deadline: Option<Instant>) -> Result<Bytes, Problem> {
        let Some(deadline) = deadline else { return self.collect_all(limit).await };
        match timeout_at(deadline, self.collect_all(limit)).await {
            Ok(collected) => collected,
            Err(_) => {
                self.source = InflowSource::Over;
                self.active.end(false);
                Err(Problem::Timeout)
            }
        }
    }

    async fn collect_all(&mut self, limit: u64) -> Result<Bytes, Problem> {
        if self.size_hint().lower() > limit {
            return Err(Problem::BodyTooLarge);
        }
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await.transpose()? {
            if (first.len().max(whole.len()) + chunk.len()) as u64 > limit {
                return Err(Problem::BodyTooLarge);
            }
            if first.is_empty() && whole.is_empty() {
                // Most bodies come in one piece, which needs no copy.
                first = chunk;
                continue;
            }
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&chunk);
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    }
}
