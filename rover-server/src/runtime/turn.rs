//! Turns: limits how long functions whose waits are ready at once may run before the worker serves others.
//!
//! Comes in: functions that would go on without having given way. Goes out: whether they may at once, or in the next round of
//! the worker's runtime, and when one of them has had all the CPU time that it may take without a wait. A round ends when the
//! runtime has asked the system for what has come meanwhile. This module must not know what the functions are.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rover_lua::{Resume, Stack, Wait};
use tokio::task::{coop, yield_now};

/// How long all such functions of a worker together may run in one round. Others are delayed by that much.
const ROUND: Duration = Duration::from_millis(1);

/// How much CPU time code of one thread may take without a wait, and how often it took more.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    /// Nanoseconds; 0 for no limit.
    limit: AtomicU64,
    excesses: AtomicU64,
    /// The thread was given up, and its clients with it.
    is_lost: AtomicBool,
}

impl Allowance {
    /// Changes the limit; zero is none.
    pub(crate) fn set(&self, limit: Duration) {
        self.limit.store(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How often code took more since this was last asked.
    pub(crate) fn take_excesses(&self) -> u64 {
        self.excesses.swap(0, Ordering::Relaxed)
    }

    /// Notes that the thread has been given up.
    pub(crate) fn lose(&self) {
        self.is_lost.store(true, Ordering::Release);
    }

    /// The limit, if `taken` is beyond it.
    fn exceeded_by(&self, taken: Duration) -> Option<Duration> {
        let limit = Duration::from_nanos(self.limit.load(Ordering::Relaxed));
        (!limit.is_zero() && taken >= limit).then_some(limit)
    }
}

/// What the functions of one thread have in common.
#[derive(Default)]
struct Rounds {
    /// When a function first went on without a wait in this round.
    began: Cell<Option<Instant>>,
    is_over: Cell<bool>,
    /// How often a function was told to wait for the next round.
    refusals: Cell<u64>,
    waiting: RefCell<Waiting>,
    /// Calls for the next round.
    next: OnceCell<Waker>,
    allowance: RefCell<Option<Arc<Allowance>>>,
}

/// Who goes on in the next round.
#[derive(Default)]
struct Waiting {
    /// They had nothing of this one, and come first.
    first: Vec<Waker>,
    last: Vec<Waker>,
}

thread_local! {
    static ROUNDS: Rounds = Rounds::default();
}

/// Woken by the runtime once it has looked around.
struct NextRound;

impl Wake for NextRound {
    fn wake(self: Arc<Self>) {
        // Its thread may be about to end.
        let _ = ROUNDS.try_with(Rounds::begin);
    }
}

impl Rounds {
    fn begin(&self) {
        rover_lua::beat();
        self.began.set(None);
        self.is_over.set(false);
        let Waiting { first, last } = self.waiting.take();
        first.into_iter().chain(last).for_each(Waker::wake);
    }

    /// Whether a function may go on in this round.
    fn grants(&self) -> bool {
        if self.is_over.get() {
            return false;
        }
        match self.began.get() {
            Some(began) => began.elapsed() < ROUND,
            None => {
                self.began.set(Some(Instant::now()));
                let waker = self.next.get_or_init(|| Waker::from(Arc::new(NextRound)));
                // Polled once, it leaves the waker to the runtime, which calls it when it has looked around.
                let _ = pin!(yield_now()).poll(&mut Context::from_waker(waker));
                true
            }
        }
    }

    #[cold]
    fn refuse(&self, waker: &Waker) {
        self.refusals.set(self.refusals.get() + 1);
        let mut waiting = self.waiting.borrow_mut();
        let queue = if self.is_over.replace(true) { &mut waiting.first } else { &mut waiting.last };
        queue.push(waker.clone());
    }
}

/// Code on this thread may take as much CPU time as `allowance` says, until the next one is given.
pub(crate) fn allow(allowance: Option<Arc<Allowance>>) {
    ROUNDS.with(|rounds| rounds.allowance.replace(allowance));
}

/// The runtime has called one of its tasks: this thread comes round.
#[inline]
pub(crate) fn begin() {
    rover_lua::beat();
}

/// Whether this thread was given up: nothing that it sends reaches its clients any more.
pub(crate) fn is_lost() -> bool {
    ROUNDS.with(|rounds| {
        let allowance = rounds.allowance.borrow();
        allowance.as_ref().is_some_and(|allowance| allowance.is_lost.load(Ordering::Acquire))
    })
}

/// Ready for whoever may do more in this round though it had no need to wait; woken when the next one begins.
pub(crate) fn poll_more(cx: &Context<'_>) -> Poll<()> {
    ROUNDS.with(|rounds| {
        if rounds.grants() {
            return Poll::Ready(());
        }
        rounds.refuse(cx.waker());
        Poll::Pending
    })
}

/// What code waits for that has been cut into slices: the next round, which counts as no wait.
pub(crate) fn next_round() -> Wait {
    let mut has_asked = false;
    let next = poll_fn(move |cx| {
        if std::mem::replace(&mut has_asked, true) {
            return Poll::Ready(());
        }
        ROUNDS.with(|rounds| {
            rounds.grants();
            rounds.refuse(cx.waker());
        });
        Poll::Pending
    });
    Box::pin(async move {
        next.await;
        Box::new(|_: &mut Stack<'_>| Ok(0)) as Resume
    })
}

fn refusals() -> u64 {
    ROUNDS.with(|rounds| rounds.refusals.get())
}

/// What one function has taken since it last had to wait.
#[derive(Debug, Default)]
pub(crate) struct Stint {
    /// As far as it is known: what is taken before the first refusal does not count.
    cpu: Duration,
    /// The thread's CPU time when the part began that is not in `cpu` yet.
    since: Option<Duration>,
    /// What it waited for last was ready at once.
    went_on: bool,
    /// It waits for the next round, and for nothing else.
    is_refused: bool,
    /// It has been refused, or what it waits for was, and has not had to wait otherwise.
    goes_on: bool,
    excess: Option<Duration>,
}

impl Stint {
    /// Polls what the function waits for, which is its turn if what it waited for before was ready at once.
    pub(crate) fn poll<T>(&mut self, cx: &mut Context<'_>, wait: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if self.went_on || self.is_refused {
            self.is_refused = poll_more(cx).is_pending();
            if self.is_refused {
                self.pause();
                return Poll::Pending;
            }
        }
        if self.goes_on && self.since.is_none() {
            self.since = Some(rover_lua::cpu_time());
        }
        let before = refusals();
        let polled = wait(cx);
        self.went_on = polled.is_ready();
        if polled.is_pending() {
            // What has used up the turn of its task would be ready.
            if refusals() == before && coop::has_budget_remaining() { self.rest() } else { self.pause() }
        }
        polled
    }

    /// Waits for `future` in this way.
    pub(crate) async fn wait<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| self.poll(cx, |cx| future.as_mut().poll(cx))).await
    }

    /// The function has waited, or has done what it is for: it begins anew.
    pub(crate) fn rest(&mut self) {
        *self = Stint { went_on: self.went_on, ..Stint::default() };
    }

    /// The function goes on in the next round. Adds what it has taken in this one.
    #[cold]
    fn pause(&mut self) {
        self.goes_on = true;
        let Some(since) = self.since.take() else { return };
        self.cpu += rover_lua::cpu_time().saturating_sub(since);
        if self.excess.is_none() {
            self.excess = exceeded_by(self.cpu);
        }
    }

    /// The limit that the function has passed, if it has: it is to be stopped.
    pub(crate) fn excess(&self) -> Option<Duration> {
        self.excess
    }
}

/// The limit that code has passed which has taken so much, if it has.
fn exceeded_by(taken: Duration) -> Option<Duration> {
    ROUNDS.with(|rounds| {
        let allowance = rounds.allowance.borrow();
        let allowance = allowance.as_ref()?;
        let limit = allowance.exceeded_by(taken)?;
        allowance.excesses.fetch_add(1, Ordering::Relaxed);
        Some(limit)
    })
}
