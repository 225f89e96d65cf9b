//! The body of a request that has not been read yet.
//!
//! Comes in: a body of which at most the beginning has been read, and what it is there for. Goes out: all of its bytes, or
//! one piece after the other, or the body itself, to be passed on. What is left once the request has been answered is
//! drained, as far as it has arrived. This module must not know of Lua, nor who asks.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use tokio::time::{Sleep, sleep};

use crate::message::body::IncomingBody;
use crate::message::collect::{BodyPace, Collect, TimedBody};

/// What a body that nobody has read is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be collected when somebody asks for it.
    Collect,
    /// To be read in pieces: its route has `stream_body`.
    Read,
    /// To be passed on: its route is a proxy's.
    Pass,
    /// Nothing is known: its method has mostly none. It may be passed on.
    #[default]
    Nothing,
}

/// See the module.
pub(crate) struct Unread {
    purpose: Purpose,
    state: RefCell<UnreadState>,
    /// The client sends it only when it is asked to.
    is_held_back: bool,
    /// Its connection carries other requests beside this one.
    is_multiplexed: bool,
    /// Somebody has asked for some of it.
    is_begun: Cell<bool>,
    /// Tells what is wrong with what has come of it.
    faults: Faults,
    /// Those who wait for it, beside the one whom the connection wakes.
    waiting: RefCell<Vec<Waker>>,
    waiters: Cell<u32>,
}

enum UnreadState {
    Arriving(Collect<IncomingBody>),
    Reading(Pieces),
    /// It cannot be had.
    Failed(StatusCode),
    /// All of it has been read.
    Over,
    /// Somebody else has it.
    Passed,
}

/// Tells what is wrong with a body, as far as it has come.
pub(crate) type Faults = Option<Rc<dyn Fn() -> Option<&'static str>>>;

/// What has become of a body when it is asked for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    Passed,
    /// Some of it has been read.
    Begun,
    Over,
}

impl Unread {
    /// A body that is collected as `collect` says, if it is.
    pub(crate) fn new(purpose: Purpose, collect: Collect<IncomingBody>) -> Unread {
        Unread {
            purpose,
            state: RefCell::new(UnreadState::Arriving(collect)),
            is_held_back: false,
            is_multiplexed: false,
            is_begun: Cell::new(false),
            faults: Faults::default(),
            waiting: RefCell::default(),
            waiters: Cell::new(0),
        }
    }

    /// The same, whose client waits for `100 Continue`, or whose connection is one of HTTP/2.
    pub(crate) fn sent(mut self, is_held_back: bool, is_multiplexed: bool) -> Unread {
        self.is_held_back = is_held_back;
        self.is_multiplexed = is_multiplexed;
        self
    }

    /// The same, of which `faults` tell what is wrong with it.
    pub(crate) fn judged(mut self, faults: impl Fn() -> Option<&'static str> + 'static) -> Unread {
        self.faults = Some(Rc::new(faults));
        self
    }

    /// The same, which cannot be collected: whoever asks is told so.
    pub(crate) fn failed(self, status: StatusCode) -> Unread {
        self.state.replace(UnreadState::Failed(status));
        self
    }

    /// What it is there for.
    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether there is something to wait for before the body is known.
    pub(crate) fn is_to_collect(&self) -> bool {
        self.purpose == Purpose::Collect
            && matches!(*self.state.borrow(), UnreadState::Arriving(_) | UnreadState::Failed(_))
    }

    /// Whether somebody waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiters.get() > 0
    }

    /// Whether nobody reads it at the moment, so that nothing is read from its connection.
    pub(crate) fn lies(&self) -> bool {
        !self.is_awaited() && matches!(*self.state.borrow(), UnreadState::Arriving(_) | UnreadState::Reading(_))
    }

    /// What cannot be had any more of it.
    pub(crate) fn gone(&self) -> Option<Unavailable> {
        match *self.state.borrow() {
            UnreadState::Passed => Some(Unavailable::Passed),
            UnreadState::Reading(_) => Some(Unavailable::Begun),
            UnreadState::Over => Some(Unavailable::Over),
            UnreadState::Arriving(_) | UnreadState::Failed(_) => None,
        }
    }

    /// The whole body, and whether it came in a coding; to the first who asks, `None` to the others.
    ///
    /// # Errors
    /// As [`Collect::poll`] has them; 413 when more is announced than is allowed, before anything is asked for.
    pub(crate) fn poll_collect(&self, cx: &mut Context<'_>) -> Poll<Result<Option<(Bytes, bool)>, StatusCode>> {
        let mut state = self.state.borrow_mut();
        let collect = match &mut *state {
            UnreadState::Arriving(collect) => collect,
            UnreadState::Failed(status) => return Poll::Ready(Err(*status)),
            UnreadState::Reading(_) | UnreadState::Over | UnreadState::Passed => return Poll::Ready(Ok(None)),
        };
        let collected = match !self.is_begun.replace(true) && collect.is_too_long() {
            true => Err(StatusCode::PAYLOAD_TOO_LARGE),
            false => match collect.poll(cx) {
                Poll::Ready(collected) => collected,
                Poll::Pending => {
                    self.join(cx.waker());
                    return Poll::Pending;
                }
            },
        };
        let is_coded = collect.is_coded();
        *state = match &collected {
            Ok(_) => UnreadState::Over,
            Err(status) => UnreadState::Failed(*status),
        };
        self.wake_others();
        Poll::Ready(collected.map(|body| Some((body.unwrap_or_default(), is_coded))))
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// 413 above the limit, 408 when the client stops sending, 400 when the body is framed wrongly or breaks off.
    pub(crate) fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StatusCode>> {
        let mut state = self.state.borrow_mut();
        if let UnreadState::Arriving(collect) = &*state {
            self.is_begun.set(true);
            let is_too_long = collect.is_too_long();
            let UnreadState::Arriving(collect) = std::mem::replace(&mut *state, UnreadState::Over) else {
                return Poll::Ready(Ok(None));
            };
            *state = match is_too_long {
                true => UnreadState::Failed(StatusCode::PAYLOAD_TOO_LARGE),
                false => UnreadState::Reading(Pieces::new(collect)),
            };
        }
        let piece = match &mut *state {
            UnreadState::Reading(pieces) => ready!(pieces.poll(cx)),
            UnreadState::Failed(status) => return Poll::Ready(Err(*status)),
            UnreadState::Arriving(_) | UnreadState::Over | UnreadState::Passed => return Poll::Ready(Ok(None)),
        };
        match &piece {
            Ok(Some(_)) => {}
            Ok(None) => *state = UnreadState::Over,
            Err(status) => *state = UnreadState::Failed(*status),
        }
        Poll::Ready(piece)
    }

    /// The body, for whoever passes it on; `passing` tells its connection for how long.
    ///
    /// # Errors
    /// Some of it has been read, or somebody has it.
    pub(crate) fn pass(&self, passing: Arc<()>) -> Result<IncomingBody, Unavailable> {
        let state = &mut *self.state.borrow_mut();
        match std::mem::replace(state, UnreadState::Passed) {
            UnreadState::Arriving(collect) => {
                let patience = collect.pace().patience;
                Ok(Box::pin(TimedBody::new(collect.into_body(), patience, passing)))
            }
            UnreadState::Passed => Err(Unavailable::Passed),
            UnreadState::Over => Err(Unavailable::Over),
            other @ (UnreadState::Reading(_) | UnreadState::Failed(_)) => {
                *state = other;
                Err(Unavailable::Begun)
            }
        }
    }

    /// What remains of it; nobody can ask for it any more.
    fn left(&self) -> Remainder {
        // A client that waits to be asked may go on with its next request instead of the body; which of the two the bytes
        // to come are, nobody can tell (RFC 9110, section 10.1.1).
        let is_doubtful = self.is_held_back && !self.is_begun.get();
        let left = match std::mem::replace(&mut *self.state.borrow_mut(), UnreadState::Over) {
            UnreadState::Over => return Remainder::Nothing,
            UnreadState::Passed if self.is_held_back => return Remainder::Unknown,
            UnreadState::Passed => return Remainder::Nothing,
            UnreadState::Failed(_) => return Remainder::Unknown,
            UnreadState::Arriving(collect) => collect.into_body(),
            UnreadState::Reading(pieces) => pieces.body,
        };
        match (self.is_multiplexed, is_doubtful) {
            // The stream is reset.
            (true, _) => Remainder::Nothing,
            (false, true) => Remainder::Unknown,
            (false, false) => {
                Remainder::Some(Drain { body: left, faults: self.faults.clone(), drained: 0, is_asked: false })
            }
        }
    }

    /// Waits for it from now on.
    pub(crate) fn awaited(self: Rc<Self>) -> UnreadWaiter {
        self.waiters.set(self.waiters.get() + 1);
        UnreadWaiter(self)
    }

    fn join(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    fn wake_others(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

/// Somebody waits for a body. When that one gives up, the others ask for it again, for only one of them is woken by the
/// connection.
pub(crate) struct UnreadWaiter(Rc<Unread>);

impl Deref for UnreadWaiter {
    type Target = Unread;

    fn deref(&self) -> &Unread {
        &self.0
    }
}

impl Drop for UnreadWaiter {
    fn drop(&mut self) {
        self.0.waiters.set(self.0.waiters.get().saturating_sub(1));
        self.0.wake_others();
    }
}

/// A body as its request holds it: it goes with the request, whoever else knows of it.
pub(crate) struct UnreadGuard(pub(crate) Rc<Unread>);

impl UnreadGuard {
    /// What remains of it when the request has been answered.
    pub(crate) fn left(&self) -> Remainder {
        self.0.left()
    }

    /// What is wrong with what has come of it.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        self.0.faults.as_ref().and_then(|faults| faults())
    }
}

impl Drop for UnreadGuard {
    fn drop(&mut self) {
        drop(self.0.left());
        self.0.wake_others();
    }
}

/// A body that is read in pieces.
struct Pieces {
    body: IncomingBody,
    pace: BodyPace,
    /// Bytes that may still come.
    room: u64,
    /// Runs while nothing arrives.
    clock: Option<Pin<Box<Sleep>>>,
}

impl Pieces {
    fn new(collect: Collect<IncomingBody>) -> Pieces {
        let (pace, room) = (collect.pace(), collect.limit());
        Pieces { body: collect.into_body(), pace, room, clock: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StatusCode>> {
        loop {
            let frame = match self.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(StatusCode::BAD_REQUEST)),
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending => {
                    let patience = self.pace.patience;
                    let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(patience)));
                    return clock.as_mut().poll(cx).map(|()| Err(StatusCode::REQUEST_TIMEOUT));
                }
            };
            self.clock = None;
            // Trailers are not part of the body.
            let Ok(data) = frame.into_data() else { continue };
            let Some(room) = self.room.checked_sub(data.len() as u64) else {
                return Poll::Ready(Err(StatusCode::PAYLOAD_TOO_LARGE));
            };
            self.room = room;
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(data)));
            }
        }
    }
}

/// What is left of a body.
pub(crate) enum Remainder {
    /// The connection may go on.
    Nothing,
    /// Where the next request begins is not known: the connection ends.
    Unknown,
    Some(Drain),
}

/// The most that is read of a body for which nobody has a use, so that its connection can go on, in bytes.
const DRAINED_MOST: usize = 64 * 1024;

/// Reads what has arrived of a body that nobody wants. Nothing is waited for.
pub(crate) struct Drain {
    body: IncomingBody,
    faults: Faults,
    drained: usize,
    /// The connection has been asked for more.
    is_asked: bool,
}

impl Drain {
    /// What is wrong with what has come of it.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        self.faults.as_ref().and_then(|faults| faults())
    }

    /// Whether all of it had arrived. Pending once after each piece: the connection reads only when it has been asked.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            match self.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.drained += frame.data_ref().map_or(0, Bytes::len);
                    if self.body.is_end_stream() {
                        return Poll::Ready(true);
                    }
                    if self.drained > DRAINED_MOST {
                        return Poll::Ready(false);
                    }
                    self.is_asked = false;
                }
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                Poll::Pending if self.is_asked => return Poll::Ready(false),
                Poll::Pending => {
                    self.is_asked = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }
}
