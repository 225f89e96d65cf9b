//! Runs one WebSocket from its first message to its last.
//!
//! Three things go on side by side, in one task: messages come in and are handled in their order, one at a time; what
//! waits for the client goes out; pings see whether the client is still there. While a message is handled, a few more are
//! read, so that a client that goes away is noticed; not many, so that it cannot fill memory.

use std::collections::VecDeque;
use std::future::Future;
use std::mem::take;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rover_lua::Stack;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tungstenite::Utf8Bytes;

use crate::config::WebSocketConfig;
use crate::exchange::context::{self, RequestGuard};
use crate::log::{self, Level};
use crate::runtime::turn;
use crate::script::tasks::{Held, Run, Scope, Tasks};
use crate::transport::upgrade::Upgraded;

use super::Handlers;
use super::client::{Client, Outgoing};
use super::crowd::{Crowd, Seat, count};
use super::wire::{End, Event, Wire};

/// How long a client has to answer a close, and how long its earlier messages may take to be handled.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What a session begins with.
pub(super) struct Beginning {
    pub(super) crowd: Rc<Crowd>,
    pub(super) tasks: Rc<Tasks>,
    pub(super) handlers: Handlers,
    pub(super) client: Rc<Client>,
    /// The request for as long as the connection lasts, and its context.
    pub(super) request: RequestGuard,
    pub(super) context: Held,
    pub(super) settings: Rc<WebSocketConfig>,
    /// Where the endpoint was declared.
    pub(super) place: Rc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Our close is queued or sent.
    Closing,
    /// The client broke the protocol: nothing more is read, and it is told when its earlier messages have been handled
    /// or have taken too long.
    Refusing(u16, &'static str),
    /// It is being told, and the connection ends.
    Refused,
    /// Nothing comes or goes any more; what has come is still handled, for some time.
    Over,
    Leaving,
    Done,
}

/// Messages that wait for their handlers.
#[derive(Default)]
struct Inbox {
    events: VecDeque<Event>,
    bytes: usize,
}

impl Inbox {
    /// How many messages are read ahead, and how many bytes.
    const MOST: usize = 8;
    const MOST_BYTES: usize = 64 * 1024;

    fn has_room(&self) -> bool {
        self.events.len() < Self::MOST && self.bytes < Self::MOST_BYTES
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn push(&mut self, event: Event) {
        self.bytes += event.len();
        self.events.push_back(event);
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.bytes -= event.len();
        if self.events.is_empty() {
            // An idle client holds no memory for messages.
            self.events = VecDeque::new();
        }
        Some(event)
    }

    fn clear(&mut self) {
        *self = Inbox::default();
    }
}

/// The future that an upgraded connection runs.
pub(super) struct Session {
    begun: Beginning,
    wire: Wire,
    /// Dropped before `leave` runs.
    seat: Option<Seat>,
    ending: Option<Pin<Box<dyn Future<Output = ()>>>>,
    phase: Phase,
    /// When the phase has taken too long.
    deadline: Option<Pin<Box<Sleep>>>,
    /// The client has sent a close, so all its messages have arrived.
    has_parted: bool,
    run: Option<Run>,
    /// The messages that are next.
    inbox: Inbox,
    pulse: KeepAlive,
    _guest: Rc<()>,
}

impl Session {
    pub(super) fn new(mut begun: Beginning, upgraded: Upgraded) -> Session {
        let (stopped, retired) = (upgraded.ending(), begun.tasks.ending().clone());
        let guest = begun.tasks.guest();
        let wire = Wire::new(upgraded, begun.settings.max_message);
        let seat = Some(Crowd::enter(&begun.crowd, begun.client.clone()));
        let pulse = KeepAlive::new(&begun.settings);
        if let Some(mut stack) = begun.context.stack() {
            context::transfer(&mut stack, 1, begun.request.request_key());
        }
        let mut session = Session {
            begun,
            wire,
            seat,
            ending: Some(Box::pin(async move {
                tokio::select! {
                    () = stopped.told() => {}
                    () = retired.told() => {}
                }
            })),
            phase: Phase::Open,
            deadline: None,
            has_parted: false,
            run: None,
            inbox: Inbox::default(),
            pulse,
            _guest: guest,
        };
        session.run = session.call(session.begun.handlers.join, |this, stack| {
            stack.push_number(f64::from(this.client.endpoint));
            if let Some(mut own) = this.context.stack() {
                own.copy_to(1, 1, stack);
            }
            2
        });
        session
    }

    /// Calls one of the functions of `websocket.lua` with the client's number and what `push` pushes.
    fn call(&mut self, function: i32, push: impl FnOnce(&mut Beginning, &mut Stack<'_>) -> i32) -> Option<Run> {
        let begun = &mut self.begun;
        let (tasks, place, scope) = (begun.tasks.clone(), begun.place.clone(), begun.client.clone());
        let run = Run::prepare(&tasks, &place, |stack| {
            stack.push_anchored(function);
            stack.push_number(begun.client.id as f64);
            1 + push(begun, stack)
        });
        match run {
            Some(run) => Some(run.logged().within(Scope::within(scope, None))),
            None => {
                log::event(Level::Error, "too many tasks run in this worker: a client is dropped").emit();
                self.close(1013, "too many tasks");
                None
            }
        }
    }

    /// Begins to end the connection, behind what waits for the client.
    fn close(&mut self, code: u16, reason: &'static str) {
        if self.phase == Phase::Open {
            let _ = self.begun.client.push(Outgoing::Close(code, Utf8Bytes::from_static(reason)));
            self.hurry(Phase::Closing);
        }
    }

    /// Goes on to a phase that lasts for some time at most.
    fn hurry(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.deadline = Some(Box::pin(sleep(CLOSE_PATIENCE)));
        }
    }

    /// Cancels the handler at its wait, and forgets what else has come.
    fn abandon(&mut self) {
        self.run = None;
        self.inbox.clear();
    }

    fn end(&mut self, end: End) {
        match end {
            End::Wrong(code, reason) if matches!(self.phase, Phase::Open | Phase::Closing) => {
                return self.hurry(Phase::Refusing(code, reason));
            }
            // Nobody knows what else it had to say.
            End::Cut if !self.has_parted => self.abandon(),
            _ => {}
        }
        self.hurry(Phase::Over);
        self.begun.client.shut();
    }

    fn is_connected(&self) -> bool {
        !matches!(self.phase, Phase::Over | Phase::Leaving | Phase::Done)
    }

    /// Whether what the client sends is read as it comes.
    fn is_reading(&self) -> bool {
        self.inbox.has_room() && !self.wire.is_full()
    }

    /// Watches for events other than messages: the server's stop, a slow client, a timeout.
    fn watch(&mut self, cx: &mut Context<'_>) {
        if self.ending.as_mut().is_some_and(|ending| ending.as_mut().poll(cx).is_ready()) {
            self.ending = None;
            self.close(1001, "the server restarts or stops");
        }
        if self.begun.client.take_late() && self.phase == Phase::Open {
            count(&self.begun.crowd.totals.late);
            self.abandon();
            // The queue is gone. What is half written goes out first, if the client takes it.
            self.hurry(Phase::Closing);
            self.begun.client.close_late();
        }
        if self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            self.deadline = None;
            self.abandon();
            // A client that broke the protocol is told now.
            if self.is_connected() && !matches!(self.phase, Phase::Refusing(..)) {
                self.end(End::Cut);
            }
        }
        while self.phase == Phase::Open {
            let is_reading = self.is_reading();
            match self.pulse.poll(cx, is_reading, &mut self.wire) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => self.end(end),
            }
        }
    }

    /// Runs what is to be run. Pending where messages are left for the worker's next round.
    fn handle(&mut self, cx: &mut Context<'_>, is_first: &mut bool) -> Poll<()> {
        loop {
            if let Some(run) = &mut self.run {
                let Poll::Ready(result) = Pin::new(run).poll(cx) else { return Poll::Ready(()) };
                self.run = None;
                if result.is_err() && self.phase != Phase::Leaving {
                    self.inbox.clear();
                    self.close(1011, "a handler failed");
                }
            }
            if self.phase == Phase::Leaving {
                self.phase = Phase::Done;
                return Poll::Ready(());
            }
            if !self.inbox.is_empty() && !take(is_first) {
                // A client that sends without end must not keep the worker for itself.
                ready!(turn::poll_more(cx));
            }
            let Some(message) = self.inbox.pop() else {
                if let Phase::Refusing(code, reason) = self.phase {
                    let _ = self.begun.client.push(Outgoing::Close(code, Utf8Bytes::from_static(reason)));
                    self.hurry(Phase::Refused);
                }
                return Poll::Ready(());
            };
            self.run = self.call(self.begun.handlers.message, |_, stack| {
                let (bytes, is_text) = match &message {
                    Event::Text(text) => (text.as_bytes(), true),
                    Event::Binary(bytes) => (&bytes[..], false),
                    Event::Sign | Event::Close => return 0,
                };
                stack.push_bytes(bytes);
                stack.push_boolean(is_text);
                2
            });
        }
    }

    fn receive(&mut self) -> bool {
        let mut has_read = false;
        while self.is_reading() && matches!(self.phase, Phase::Open | Phase::Closing) {
            match self.wire.poll_read() {
                Poll::Pending => break,
                Poll::Ready(Ok(event)) => {
                    has_read = true;
                    match event {
                        Event::Text(_) | Event::Binary(_) if self.phase == Phase::Open => {
                            count(&self.begun.crowd.totals.received);
                            self.inbox.push(event);
                        }
                        // What comes behind our good-bye is read for the client's alone.
                        Event::Text(_) | Event::Binary(_) | Event::Sign => {}
                        Event::Close => {
                            self.has_parted = true;
                            self.hurry(Phase::Closing);
                        }
                    }
                }
                Poll::Ready(Err(end)) => {
                    has_read = true;
                    self.end(end);
                }
            }
        }
        self.pulse.listen(&self.wire);
        has_read
    }

    fn transmit(&mut self) {
        while self.is_connected() {
            if !self.wire.is_blocked()
                && let Some(message) = self.begun.client.pop()
            {
                match message {
                    Outgoing::Text(_) | Outgoing::Binary(_) => count(&self.begun.crowd.totals.sent),
                    Outgoing::Close(..) if self.phase == Phase::Open => self.hurry(Phase::Closing),
                    Outgoing::Close(..) => {}
                }
                if let Err(end) = self.wire.write(message) {
                    self.end(end);
                }
                continue;
            }
            let was_blocked = self.wire.is_blocked();
            match self.wire.poll_flush() {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if self.phase == Phase::Refused => self.end(End::Closed),
                Poll::Ready(Ok(())) if was_blocked => {}
                Poll::Ready(Ok(())) => return,
                Poll::Ready(Err(end)) => self.end(end),
            }
        }
    }

    fn leave(&mut self) {
        self.seat = None;
        self.phase = Phase::Leaving;
        self.deadline = None;
        let begun = &self.begun;
        // Also where no more tasks fit: nothing else takes the client out of `websocket.lua`.
        let run = Run::prepare_anyway(&begun.tasks, &begun.place, |stack| {
            stack.push_anchored(begun.handlers.leave);
            stack.push_number(begun.client.id as f64);
            1
        });
        self.run = Some(run.logged().within(Scope::within(begun.client.clone(), None)));
    }
}

impl Future for Session {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.begun.client.set_waker(cx.waker());
        this.wire.set_waker(cx.waker());
        let mut is_first = true;
        loop {
            this.watch(cx);
            let is_refused = this.handle(cx, &mut is_first).is_pending();
            let has_read = this.receive();
            let was_full = this.wire.is_full();
            this.transmit();
            let is_pending = !has_read && was_full == this.wire.is_full();
            if matches!(this.phase, Phase::Over | Phase::Leaving) {
                // RFC 6455, section 7.1.1: the server is the first to close, and does not wait for its own handlers.
                this.wire.shut(cx);
            }
            if this.phase == Phase::Over && this.run.is_none() && this.inbox.is_empty() {
                this.leave();
            } else if this.phase == Phase::Done {
                return Poll::Ready(());
            } else if is_refused || is_pending && (this.run.is_some() || this.inbox.is_empty()) {
                return Poll::Pending;
            }
        }
    }
}

/// Checks whether the client is still there.
struct KeepAlive {
    timer: Pin<Box<Sleep>>,
    interval: Duration,
    timeout: Duration,
    /// When something came last: any byte, for a large message may take long.
    heard: Instant,
    /// How much had come by then.
    received: u64,
    /// When a ping was sent that is not answered.
    asked: Option<Instant>,
    /// How much had been sent at the last look.
    written: u64,
}

impl KeepAlive {
    fn new(settings: &WebSocketConfig) -> KeepAlive {
        let now = Instant::now();
        KeepAlive {
            timer: Box::pin(sleep_until(now + settings.ping_interval)),
            interval: settings.ping_interval,
            timeout: settings.ping_timeout,
            heard: now,
            received: 0,
            asked: None,
            written: 0,
        }
    }

    /// Notes whether something has come.
    fn listen(&mut self, wire: &Wire) {
        if wire.received() != self.received {
            self.received = wire.received();
            self.heard = Instant::now();
        }
    }

    /// Ready when it was time to look.
    fn poll(&mut self, cx: &mut Context<'_>, is_reading: bool, wire: &mut Wire) -> Poll<Result<(), End>> {
        if self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        let is_stuck = wire.is_blocked() && wire.written() == self.written;
        self.written = wire.written();
        let mut result = Ok(());
        let next = match self.asked {
            Some(asked) if self.heard >= asked => {
                self.asked = None;
                self.heard + self.interval
            }
            // Its answer may lie behind a message that waits for its handler. Another ping fails where it is gone.
            Some(_) if !is_reading && !is_stuck => {
                if !wire.is_blocked() {
                    result = wire.ping();
                }
                now + self.timeout
            }
            Some(_) => {
                result = Err(End::Cut);
                now + self.timeout
            }
            None if is_stuck => {
                result = Err(End::Cut);
                now + self.timeout
            }
            None if now < self.heard + self.interval => self.heard + self.interval,
            None if wire.is_blocked() => now + self.timeout,
            None => {
                result = wire.ping();
                self.asked = Some(now);
                now + self.timeout
            }
        };
        self.timer.as_mut().reset(next.max(now + Duration::from_millis(1)));
        Poll::Ready(result)
    }
}
