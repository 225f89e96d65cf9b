//! Tracks the connections of one worker: counts them, tells them to end, and keeps a coarse clock for their timeouts.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

thread_local! {
    /// Whether the worker of this thread is ending. Every response asks it, without a reference to the lifecycle.
    static ENDING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the connections of this thread's worker are to end with their next response.
#[inline]
pub(crate) fn is_ending() -> bool {
    ENDING.get()
}

/// Counts a worker's connections, wakes those whose time is over, and ends them all.
///
/// Timers of tokio would cost each request several hundred instructions. Instead a connection compares one number in
/// each of its turns, and one task wakes connections that have had no turn for long.
#[derive(Default)]
pub(crate) struct Lifecycle {
    draining: Cell<bool>,
    /// Ticks of the clock since the worker began.
    now: Cell<u64>,
    /// How long a tick is.
    tick: Cell<Duration>,
    /// When the clock last began to run, and the ticks by then.
    origin: Cell<Option<(Instant, u64)>>,
    /// Nobody needs the next tick: the clock stops until a connection has a turn, or wants one.
    stands: Cell<bool>,
    wake_clock: Notify,
    /// Changes with every tick, and when the drain begins: each connection then looks around once.
    signal: Cell<u64>,
    connections: RefCell<Slab<WatchedConnection>>,
    left: Notify,
}

/// What the lifecycle knows of a connection.
#[derive(Default)]
struct WatchedConnection {
    /// Its task, once it has been polled.
    waker: Option<Waker>,
    /// The tick at which it wants to be woken.
    due: u64,
}

impl Lifecycle {
    /// Counts a connection in, until its slot is dropped.
    pub(crate) fn add(lifecycle: &Rc<Lifecycle>) -> ConnectionSlot {
        let number = lifecycle.connections.borrow_mut().insert(WatchedConnection { waker: None, due: u64::MAX });
        ConnectionSlot { lifecycle: lifecycle.clone(), number, seen: u64::MAX }
    }

    /// How long a tick of the clock is.
    pub(crate) fn tick(&self) -> Duration {
        self.tick.get()
    }

    /// Lets the clock run on from where it is, for as long as this is polled.
    pub(crate) async fn run_clock(&self, tick: Duration) {
        self.catch_up();
        self.tick.set(tick);
        self.origin.set(Some((Instant::now(), self.now.get())));
        self.stands.set(false);
        // The connections that a look was due for have had it, and said when they want the next one.
        let mut has_looked = false;
        loop {
            if has_looked {
                yield_now().await;
            } else {
                sleep_until(self.time_of(self.now.get().saturating_add(1))).await;
                self.advance();
            }
            has_looked = false;
            let next = self.next_due();
            if next <= self.now.get().saturating_add(1) {
                continue;
            }
            // Whoever has a turn finds another signal, and sets the clock going again.
            self.stands.set(true);
            let due = async {
                match next {
                    u64::MAX => pending().await,
                    next => sleep_until(self.time_of(next)).await,
                }
            };
            tokio::select! {
                biased;
                () = self.wake_clock.notified() => {}
                () = due => {
                    self.stands.set(false);
                    self.advance();
                    has_looked = true;
                }
            }
        }
    }

    /// Sets the clock to what it is by now.
    fn catch_up(&self) {
        let Some((began, first)) = self.origin.get() else { return };
        let passed = began.elapsed().as_nanos() / self.tick.get().as_nanos().max(1);
        self.now.set(first.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)));
    }

    /// When a tick comes.
    fn time_of(&self, tick: u64) -> Instant {
        let Some((began, first)) = self.origin.get() else { return Instant::now() };
        let ticks = u32::try_from(tick.saturating_sub(first)).unwrap_or(u32::MAX);
        began + self.tick.get().saturating_mul(ticks)
    }

    /// The tick at which somebody wants to be woken.
    fn next_due(&self) -> u64 {
        self.connections.borrow().iter().map(|(_, connection)| connection.due).min().unwrap_or(u64::MAX)
    }

    fn advance(&self) {
        self.catch_up();
        let now = self.now.get();
        self.signal.set(self.signal.get() + 1);
        for (_, connection) in self.connections.borrow().iter().filter(|(_, connection)| connection.due <= now) {
            if let Some(waker) = &connection.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// How many connections there are.
    pub(crate) fn count(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Tells every connection to end with the response that it is about to send, and waits until all have.
    pub(crate) async fn drain(&self) {
        self.draining.set(true);
        ENDING.set(true);
        self.signal.set(self.signal.get() + 1);
        for waker in self.connections.borrow().iter().filter_map(|(_, connection)| connection.waker.as_ref()) {
            waker.wake_by_ref();
        }
        while !self.connections.borrow().is_empty() {
            self.left.notified().await;
        }
    }
}

/// One connection's place in its worker's [`Lifecycle`].
pub(crate) struct ConnectionSlot {
    lifecycle: Rc<Lifecycle>,
    number: usize,
    /// The last signal that the connection has looked around for.
    seen: u64,
}

impl ConnectionSlot {
    /// Whether the connection should look around: at its first turn, and at the first after a tick or the drain's begin.
    #[inline]
    pub(crate) fn is_signalled(&mut self, cx: &Context<'_>) -> bool {
        if self.seen == self.lifecycle.signal.get() {
            return false;
        }
        self.look_around(cx);
        true
    }

    #[cold]
    fn look_around(&mut self, cx: &Context<'_>) {
        if self.lifecycle.stands.replace(false) {
            self.lifecycle.catch_up();
            self.lifecycle.wake_clock.notify_one();
        }
        self.seen = self.lifecycle.signal.get();
        if let Some(connection) = self.lifecycle.connections.borrow_mut().get_mut(self.number)
            && connection.waker.is_none()
        {
            connection.waker = Some(cx.waker().clone());
        }
    }

    /// Whether the connection has to end.
    pub(crate) fn must_end(&self) -> bool {
        self.lifecycle.draining.get()
    }

    /// The clock, in ticks.
    pub(crate) fn now(&self) -> u64 {
        self.lifecycle.now.get()
    }

    /// A time in whole ticks, rounded up, and one more for the part of a tick that had passed.
    pub(crate) fn ticks(&self, time: Duration) -> u64 {
        let ticks = time.as_nanos().div_ceil(self.lifecycle.tick.get().as_nanos().max(1)) + 1;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Asks to be woken at this tick at the latest.
    pub(crate) fn wake_at(&self, tick: u64) {
        if let Some(connection) = self.lifecycle.connections.borrow_mut().get_mut(self.number) {
            connection.due = tick;
        }
    }
}

/// How long what comes before HTTP may still take once the worker drains.
const PATIENCE: Duration = Duration::from_secs(2);

impl ConnectionSlot {
    /// Waits for `work`, which may take `PATIENCE` longer when the worker drains, so that a client in its handshake
    /// still gets an answer. `None` if it took too long.
    pub(crate) async fn finish<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut clock = pin!(None);
        poll_fn(|cx| {
            self.is_signalled(cx);
            if self.must_end() {
                if clock.is_none() {
                    clock.set(Some(sleep(PATIENCE)));
                }
                if let Some(clock) = clock.as_mut().as_pin_mut()
                    && clock.poll(cx).is_ready()
                {
                    return Poll::Ready(None);
                }
            }
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.lifecycle.connections.borrow_mut().try_remove(self.number);
        self.lifecycle.left.notify_waiters();
    }
}
