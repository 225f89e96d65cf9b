//! Collects a request body, up to its limit.
//!
//! Comes in: the body as the connection delivers it. Goes out: its bytes, decoded if they came in a content coding, or
//! why there are none. This module must not know of routes, nor who waits for the body.

use std::any::Any;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::message::body::{BrokenBody, IncomingBody};
use crate::message::decode::{BodyCoding, Decode, DecodeStep};
use crate::runtime::budget::{self, Share};

/// The memory that a body gets on the strength of its Content-Length alone, in bytes.
const TRUST_MOST: usize = 64 * 1024;

/// A body on its way in.
pub(crate) struct Collect<B> {
    body: B,
    first: Option<Bytes>,
    /// All that is here, once it has come in more than one piece.
    rest: Vec<u8>,
    limit: u64,
    pace: BodyPace,
    /// Runs once the body has been waited for.
    clock: Option<Box<Clock>>,
    coding: Option<BodyCoding>,
    /// The whole body is here, in its coding.
    decode: Option<Box<Decode>>,
    /// Counts the bytes that are here, where they may be many.
    share: Option<Share>,
}

/// The least speed of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyPace {
    /// Nothing arrives for so long at most.
    pub(crate) patience: Duration,
    /// Bytes a second that arrive at least, on average, once the patience is over; 0 is no limit.
    pub(crate) least: u64,
}

/// Tells when a body comes too slowly.
struct Clock {
    /// The body was waited for first.
    began: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Clock {
    fn start(pace: BodyPace, received: usize) -> Box<Clock> {
        let began = Instant::now();
        Box::new(Clock { began, sleep: Box::pin(sleep_until(pace.ends(began, began, received))) })
    }

    /// Something has arrived: so much in all.
    fn arrived(&mut self, pace: BodyPace, received: usize) {
        self.sleep.as_mut().reset(pace.ends(self.began, Instant::now(), received));
    }
}

impl BodyPace {
    /// When more must have arrived, of a body that began once and has come so far `now`.
    fn ends(self, began: Instant, now: Instant, received: usize) -> Instant {
        let silent = now + self.patience;
        if self.least == 0 {
            return silent;
        }
        let earned = Duration::from_secs_f64(received as f64 / self.least as f64);
        began.checked_add(self.patience.saturating_add(earned)).map_or(silent, |slow| slow.min(silent))
    }
}

/// How many steps are decoded before other requests get their turn.
const STEPS_EACH_TURN: usize = 4;

impl<B: Body<Data = Bytes> + Unpin> Collect<B> {
    /// Begins to collect at most `limit` bytes, no slower than `pace`. The limit holds for the decoded body too.
    ///
    /// # Errors
    /// 413 when the length is known and above the limit; nothing has been read then.
    #[inline(always)]
    pub(crate) fn new(
        body: B,
        limit: u64,
        pace: BodyPace,
        coding: Option<BodyCoding>,
    ) -> Result<Collect<B>, StatusCode> {
        match body.size_hint().lower() > limit {
            true => Err(StatusCode::PAYLOAD_TOO_LARGE),
            false => Ok(Collect::of_any_length(body, limit, pace, coding)),
        }
    }

    /// As [`Collect::new`], without a look at the length: one above the limit shows once so much has come.
    #[inline(always)]
    pub(crate) fn of_any_length(body: B, limit: u64, pace: BodyPace, coding: Option<BodyCoding>) -> Collect<B> {
        Collect { body, first: None, rest: Vec::new(), limit, pace, clock: None, coding, decode: None, share: None }
    }

    /// Whether more is announced than the limit allows.
    pub(crate) fn is_too_long(&self) -> bool {
        (self.received() as u64).saturating_add(self.body.size_hint().lower()) > self.limit
    }

    /// How many bytes there may be.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// How fast the body must come.
    pub(crate) fn pace(&self) -> BodyPace {
        self.pace
    }

    /// The same, with its body in a box. Its clock begins anew: nobody has asked for the rest yet.
    pub(crate) fn boxed(self) -> Collect<IncomingBody>
    where
        B: Send + 'static,
    {
        let Collect { body, first, rest, limit, pace, coding, decode, share, .. } = self;
        Collect { body: Box::pin(PlainErrors(body)), first, rest, limit, pace, clock: None, coding, decode, share }
    }

    /// The same, which counts what it holds by the share that is given, where that may be much.
    #[inline(always)]
    pub(crate) fn counted(mut self, share: impl FnOnce() -> Option<Share>) -> Collect<B> {
        if self.coding.is_some() || self.body.size_hint().upper().is_none_or(|most| most > budget::SMALL as u64) {
            self.share = share();
        }
        self
    }

    /// The whole body; `None` when it is empty.
    ///
    /// # Errors
    /// 413 above the limit, 408 when the client stops sending or sends too slowly, 400 when the body is framed or coded
    /// wrongly or breaks off, 503 where there is no room for it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StatusCode>> {
        if self.decode.is_some() {
            return self.poll_decode(cx);
        }
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are not part of the body.
                    let Ok(data) = frame.into_data() else { continue };
                    if let Err(status) = self.add(data) {
                        return Poll::Ready(Err(status));
                    }
                    let received = self.received();
                    if let Some(clock) = &mut self.clock {
                        clock.arrived(self.pace, received);
                    }
                    if self.body.is_end_stream() {
                        return self.poll_take(cx);
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(StatusCode::BAD_REQUEST)),
                Poll::Ready(None) => return self.poll_take(cx),
                Poll::Pending => {
                    let (pace, received) = (self.pace, self.received());
                    let clock = self.clock.get_or_insert_with(|| Clock::start(pace, received));
                    return clock.sleep.as_mut().poll(cx).map(|()| Err(StatusCode::REQUEST_TIMEOUT));
                }
            }
        }
    }

    /// Whether the body came in a coding.
    pub(crate) fn is_coded(&self) -> bool {
        self.coding.is_some()
    }

    /// The bytes that are here, in their coding.
    fn received(&self) -> usize {
        self.first.as_ref().map_or(self.rest.len(), Bytes::len)
    }

    fn add(&mut self, data: Bytes) -> Result<(), StatusCode> {
        let so_far = self.received();
        let needed = so_far.saturating_add(data.len());
        if needed as u64 > self.limit {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        if so_far == 0 {
            // Most bodies come in one piece, which needs no copy.
            self.first = Some(data);
            return self.keep_room(needed);
        }
        if needed > self.rest.capacity() {
            let more = usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX);
            let room = self.room_for(needed, more);
            self.keep_room(room)?;
            // No more than that, for it is what is counted.
            self.rest.reserve_exact(room - self.rest.len());
        }
        if let Some(first) = self.first.take() {
            self.rest.extend_from_slice(&first);
        }
        self.rest.extend_from_slice(&data);
        Ok(())
    }

    /// How much memory to take for a body of which `needed` bytes are here, and `more` are announced. It grows by half at
    /// least, so that few bytes are copied, and never beyond what may come.
    fn room_for(&self, needed: usize, more: usize) -> usize {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let most = match self.body.size_hint().exact() {
            Some(_) => needed.saturating_add(more).min(limit),
            None => limit,
        };
        let grown = self.rest.capacity().saturating_add(self.rest.capacity() / 2);
        needed.saturating_add(more.min(TRUST_MOST)).max(grown).min(most).max(needed)
    }

    fn keep_room(&mut self, bytes: usize) -> Result<(), StatusCode> {
        if self.has_room(bytes) { Ok(()) } else { Err(StatusCode::SERVICE_UNAVAILABLE) }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StatusCode>> {
        let body = self.first.take().unwrap_or_else(|| std::mem::take(&mut self.rest).into());
        match self.coding.filter(|_| !body.is_empty()) {
            None => Poll::Ready(Ok(self.ended(body))),
            Some(coding) => {
                self.decode = Some(Box::new(Decode::new(coding, body, self.limit)?));
                self.poll_decode(cx)
            }
        }
    }

    /// Whether so many bytes may be held.
    #[inline]
    fn has_room(&mut self, bytes: usize) -> bool {
        self.share.as_mut().is_none_or(|share| share.become_of(bytes))
    }

    /// The body as it is handed over, counted until nobody has any of it.
    #[inline]
    fn ended(&mut self, body: Bytes) -> Option<Bytes> {
        if body.is_empty() {
            return None;
        }
        Some(match self.share.take() {
            Some(share) if body.len() > budget::SMALL => share.around(body),
            _ => body,
        })
    }

    #[cold]
    fn poll_decode(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StatusCode>> {
        let Some(decode) = &mut self.decode else { return Poll::Ready(Ok(None)) };
        for _ in 0..STEPS_EACH_TURN {
            if let DecodeStep::Done(body) = decode.step()? {
                return Poll::Ready(match self.has_room(body.len()) {
                    true => Ok(self.ended(body)),
                    false => Err(StatusCode::SERVICE_UNAVAILABLE),
                });
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Collect<IncomingBody> {
    /// The body as if nothing of it had been read, in its coding.
    pub(crate) fn into_body(self) -> IncomingBody {
        let read = match self.first {
            Some(first) => first,
            None => self.rest.into(),
        };
        match read.is_empty() {
            true => self.body,
            false => Box::pin(PartlyRead { read: Some(read), rest: self.body }),
        }
    }
}

/// A body whose errors say no more than why it has no end.
struct PlainErrors<B>(B);

impl<B: Body<Data = Bytes> + Unpin + 'static> Body for PlainErrors<B> {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        Pin::new(&mut self.0).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(|error| broken(&error))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A body of which the beginning has been read.
struct PartlyRead {
    read: Option<Bytes>,
    rest: IncomingBody,
}

impl Body for PartlyRead {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        match self.read.take() {
            Some(read) => Poll::Ready(Some(Ok(Frame::data(read)))),
            None => self.rest.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (read, rest) = (self.read.as_ref().map_or(0, Bytes::len) as u64, self.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }
}

/// A body that whoever reads it waits for no longer than a client may stop sending.
pub(crate) struct TimedBody {
    body: IncomingBody,
    patience: Duration,
    /// Runs while nothing arrives.
    clock: Option<Pin<Box<Sleep>>>,
    /// Tells the connection that the body is still on its way.
    _passing: Arc<()>,
}

impl TimedBody {
    pub(crate) fn new(body: IncomingBody, patience: Duration, passing: Arc<()>) -> TimedBody {
        TimedBody { body, patience, clock: None, _passing: passing }
    }
}

/// What an error of the connection's says of the body.
fn broken(error: &dyn Any) -> BrokenBody {
    let mut at = error.downcast_ref::<hyper::Error>().and_then(Error::source);
    while let Some(error) = at {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput)
        {
            return BrokenBody::Malformed;
        }
        at = error.source();
    }
    BrokenBody::Cut
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        let this = self.get_mut();
        match this.body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => {
                this.clock = None;
                Poll::Ready(frame)
            }
            Poll::Pending => {
                let patience = this.patience;
                let clock = this.clock.get_or_insert_with(|| Box::pin(sleep(patience)));
                clock.as_mut().poll(cx).map(|()| Some(Err(BrokenBody::Late)))
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
