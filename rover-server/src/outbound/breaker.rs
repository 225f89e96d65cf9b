//! A circuit breaker: stops asking a server that keeps failing, and tries again after a while.
//!
//! Closed, it counts failures; so many within a window open it. Open, it refuses at once. After a time it is half-open:
//! a few requests pass as trials. As many successes close it, one failure opens it again.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::Problem;
use super::figures::{BreakerState, OriginFigures, add};
use crate::log::{self, Level};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BreakerOptions {
    /// The number of failures within the window that opens it; at least 1.
    pub(crate) failures: usize,
    pub(crate) window: Duration,
    /// How long it stays open before trials.
    pub(crate) open: Duration,
    /// How many requests may try at once when half-open, and how many must succeed; at least 1.
    pub(crate) trials: usize,
}

pub(super) struct Breaker {
    options: BreakerOptions,
    origin: Arc<str>,
    state: Cell<BreakerState>,
    /// When the latest failures happened, no more than it takes to open.
    failures: RefCell<VecDeque<Instant>>,
    opened_at: Cell<Option<Instant>>,
    trying: Cell<usize>,
    succeeded: Cell<usize>,
    /// Trials of an earlier half-open time say nothing about this one.
    term: Cell<u64>,
    figures: Arc<OriginFigures>,
}

impl Breaker {
    pub(super) fn new(options: BreakerOptions, origin: Arc<str>, figures: Arc<OriginFigures>) -> Rc<Breaker> {
        Rc::new(Breaker {
            options,
            origin,
            state: Cell::default(),
            failures: RefCell::default(),
            opened_at: Cell::default(),
            trying: Cell::default(),
            succeeded: Cell::default(),
            term: Cell::default(),
            figures,
        })
    }

    /// Lets a request pass, or refuses it. The result must be told how the request went; dropped, it counts for
    /// nothing.
    ///
    /// # Errors
    /// [`Problem::CircuitOpen`].
    pub(super) fn admit(self: &Rc<Self>) -> Result<BreakerPass, Problem> {
        if self.state.get() == BreakerState::Open {
            let over = self.opened_at.get().is_none_or(|at| at.elapsed() >= self.options.open);
            if !over {
                return Err(Problem::CircuitOpen);
            }
            self.become_(BreakerState::HalfOpen);
        }
        let is_trial = self.state.get() == BreakerState::HalfOpen;
        if is_trial {
            if self.trying.get() + self.succeeded.get() >= self.options.trials {
                return Err(Problem::CircuitOpen);
            }
            self.trying.set(self.trying.get() + 1);
        }
        Ok(BreakerPass { breaker: self.clone(), is_trial, term: self.term.get(), is_told: false })
    }

    /// Whether a request would be refused now.
    pub(super) fn refuses(&self) -> bool {
        self.state.get() == BreakerState::Open
            && self.opened_at.get().is_some_and(|at| at.elapsed() < self.options.open)
    }

    fn become_(&self, state: BreakerState) {
        self.state.set(state);
        self.term.set(self.term.get() + 1);
        self.trying.set(0);
        self.succeeded.set(0);
        self.failures.borrow_mut().clear();
        self.figures.breaker.store(state as u8, Relaxed);
        let (level, message) = match state {
            BreakerState::Open => {
                self.opened_at.set(Some(Instant::now()));
                add(&self.figures.breaker_opened);
                (Level::Warn, "circuit open: too many requests failed")
            }
            BreakerState::HalfOpen => (Level::Info, "circuit half-open: trying again"),
            BreakerState::Closed => (Level::Info, "circuit closed: requests succeed again"),
        };
        log::event(level, message).field("origin", &*self.origin).emit();
    }

    fn failed(&self) {
        match self.state.get() {
            BreakerState::Open => {}
            BreakerState::HalfOpen => self.become_(BreakerState::Open),
            BreakerState::Closed => {
                let now = Instant::now();
                let mut failures = self.failures.borrow_mut();
                failures.push_back(now);
                while failures.len() > self.options.failures
                    || failures.front().is_some_and(|at| now - *at > self.options.window)
                {
                    failures.pop_front();
                }
                let is_enough = failures.len() >= self.options.failures;
                drop(failures);
                if is_enough {
                    self.become_(BreakerState::Open);
                }
            }
        }
    }
}

/// A request that a breaker let pass.
pub(super) struct BreakerPass {
    breaker: Rc<Breaker>,
    is_trial: bool,
    term: u64,
    is_told: bool,
}

impl BreakerPass {
    /// Tells how the request went. Only the first telling of a trial counts; a failure after a success counts as one
    /// more failure.
    pub(super) fn tell(&mut self, is_success: bool) {
        let breaker = &self.breaker;
        let is_current = self.term == breaker.term.get();
        if self.is_trial && !self.is_told && is_current {
            breaker.trying.set(breaker.trying.get().saturating_sub(1));
            if is_success {
                breaker.succeeded.set(breaker.succeeded.get() + 1);
                if breaker.succeeded.get() >= breaker.options.trials {
                    breaker.become_(BreakerState::Closed);
                }
            }
        }
        self.is_told = true;
        // One that began before the circuit opened does not reopen it when it is tried again.
        let counts = is_current || breaker.state.get() == BreakerState::Closed;
        if !is_success && counts {
            breaker.failed();
        }
    }
}

impl Drop for BreakerPass {
    fn drop(&mut self) {
        if self.is_trial && !self.is_told && self.term == self.breaker.term.get() {
            self.breaker.trying.set(self.breaker.trying.get().saturating_sub(1));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn breaker(trials: usize) -> Rc<Breaker> {
        let second = Duration::from_secs(1);
        let options = BreakerOptions { failures: 3, window: 10 * second, open: 5 * second, trials };
        Breaker::new(options, "http://a.test".into(), Arc::default())
    }

    fn fail(breaker: &Rc<Breaker>) {
        breaker.admit().unwrap().tell(false);
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    fn state(breaker: &Breaker) -> &'static str {
        breaker.state.get().name()
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_within_the_window_only() {
        let breaker = breaker(1);
        fail(&breaker);
        fail(&breaker);
        pass(11).await;
        fail(&breaker);
        assert_eq!(state(&breaker), "closed");
        fail(&breaker);
        breaker.admit().unwrap().tell(true);
        fail(&breaker);
        assert_eq!(state(&breaker), "open");
        assert_eq!(breaker.admit().err(), Some(Problem::CircuitOpen));
        assert!(breaker.refuses());
    }

    #[tokio::test(start_paused = true)]
    async fn trials_decide_when_half_open() {
        let breaker = breaker(2);
        (0..3).for_each(|_| fail(&breaker));
        pass(5).await;
        let (mut first, second) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        assert_eq!(state(&breaker), "half-open");
        assert!(breaker.admit().is_err());
        // One that is cancelled makes room for another trial.
        drop(second);
        let mut third = breaker.admit().unwrap();
        first.tell(true);
        assert_eq!(state(&breaker), "half-open");
        third.tell(true);
        assert_eq!(state(&breaker), "closed");
        (0..3).for_each(|_| fail(&breaker));
        pass(5).await;
        let late = breaker.admit().unwrap();
        fail(&breaker);
        assert_eq!(state(&breaker), "open");
        assert_eq!(breaker.figures.breaker_opened.load(Relaxed), 3);
        drop(late);
        pass(5).await;
        breaker.admit().unwrap().tell(true);
        breaker.admit().unwrap().tell(true);
        assert_eq!(state(&breaker), "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn what_began_before_the_circuit_opened_does_not_reopen_it() {
        let breaker = breaker(1);
        let mut old = breaker.admit().unwrap();
        (0..3).for_each(|_| fail(&breaker));
        pass(5).await;
        let mut trial = breaker.admit().unwrap();
        old.tell(false);
        assert_eq!(state(&breaker), "half-open");
        trial.tell(true);
        assert_eq!(state(&breaker), "closed");
    }
}
