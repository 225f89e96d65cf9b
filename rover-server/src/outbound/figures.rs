//! The counters of one worker's clients, readable from any thread.
//!
//! Comes in: events of clients and their connections. Goes out: a [`Row`] for each client and origin. Only the worker
//! that owns the clients writes, so the counters are never contended; a page of metrics may read them at any time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use lru::LruCache;
use parking_lot::Mutex;

/// How many pairs of client and origin are kept; the one that was unused for longest goes first.
const MOST: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// The names of a client and an origin.
type OriginKey = (Arc<str>, Arc<str>);

/// The counters of all clients of one worker.
#[derive(Debug)]
pub(crate) struct Figures {
    rows: Mutex<LruCache<OriginKey, Arc<OriginFigures>>>,
}

impl Default for Figures {
    fn default() -> Figures {
        Figures { rows: Mutex::new(LruCache::new(MOST)) }
    }
}

/// The counters of one client for one origin.
#[derive(Debug, Default)]
pub(crate) struct OriginFigures {
    /// Connections that are open, in use or idle.
    pub(super) open: AtomicU64,
    /// Connections ever opened.
    pub(super) opened: AtomicU64,
    /// Requests from their start to the end of their response's body.
    pub(super) active: AtomicU64,
    /// Requests that wait for others to end (`limit`).
    pub(super) queued: AtomicU64,
    /// Requests sent, each attempt counted.
    pub(super) requests: AtomicU64,
    /// Those that failed: no answer, or a status from 500 on.
    pub(super) failures: AtomicU64,
    /// Attempts that repeated another.
    pub(super) retries: AtomicU64,
    /// Requests that were refused without being sent: circuit open, or queue full.
    pub(super) rejected: AtomicU64,
    /// A [`BreakerState`] as its number.
    pub(super) breaker: AtomicU8,
    /// How often the breaker has opened.
    pub(super) breaker_opened: AtomicU64,
}

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// Requests pass.
    #[default]
    Closed,
    /// Requests fail at once.
    Open,
    /// A few requests pass as trials.
    HalfOpen,
}

impl BreakerState {
    /// As Lua and metrics name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }

    fn of(number: u8) -> BreakerState {
        match number {
            1 => BreakerState::Open,
            2 => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        }
    }
}

/// A snapshot of one client's counters for one origin.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The client's name: `http` for `rover.http` itself, `proxy` for `ctx:proxy`.
    pub(crate) client: Arc<str>,
    /// Such as `https://example.com`.
    pub(crate) origin: Arc<str>,
    /// Where the circuit breaker stands; closed where the client has none.
    pub(crate) breaker: BreakerState,
    /// Connections that are open.
    pub(crate) open: u64,
    /// Those of them that wait in the pool.
    pub(crate) idle: u64,
    /// Connections ever opened.
    pub(crate) opened: u64,
    /// Requests in progress.
    pub(crate) active: u64,
    /// Requests that wait in the queue.
    pub(crate) queued: u64,
    /// Requests sent, each attempt counted.
    pub(crate) requests: u64,
    /// Those that failed: no answer, or a status from 500 on.
    pub(crate) failures: u64,
    /// Attempts that repeated another.
    pub(crate) retries: u64,
    /// Requests refused without being sent.
    pub(crate) rejected: u64,
    /// How often the breaker has opened.
    pub(crate) breaker_opened: u64,
}

impl Row {
    /// The numbers with their names, in the order in which they are shown.
    pub(crate) fn numbers(&self) -> [(&'static str, u64); 10] {
        [
            ("open", self.open),
            ("idle", self.idle),
            ("opened", self.opened),
            ("active", self.active),
            ("queued", self.queued),
            ("requests", self.requests),
            ("failures", self.failures),
            ("retries", self.retries),
            ("rejected", self.rejected),
            ("breaker_opened", self.breaker_opened),
        ]
    }
}

impl Figures {
    /// The counters of `client` and `origin`, made where they are missing.
    pub(super) fn of(&self, client: &Arc<str>, origin: &str) -> Arc<OriginFigures> {
        let mut rows = self.rows.lock();
        let key = (client.clone(), Arc::from(origin));
        rows.get_or_insert(key, Arc::default).clone()
    }

    /// A snapshot of everything that is kept, in the order of names.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let rows = self.rows.lock();
        let mut rows: Vec<Row> = rows.iter().map(|((client, origin), of)| of.row(client, origin)).collect();
        rows.sort_by(|a, b| (&a.client, &a.origin).cmp(&(&b.client, &b.origin)));
        rows
    }
}

impl OriginFigures {
    fn row(&self, client: &Arc<str>, origin: &Arc<str>) -> Row {
        let (open, active) = (self.open.load(Relaxed), self.active.load(Relaxed));
        Row {
            client: client.clone(),
            origin: origin.clone(),
            breaker: BreakerState::of(self.breaker.load(Relaxed)),
            open,
            idle: open.saturating_sub(active),
            opened: self.opened.load(Relaxed),
            active,
            queued: self.queued.load(Relaxed),
            requests: self.requests.load(Relaxed),
            failures: self.failures.load(Relaxed),
            retries: self.retries.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            breaker_opened: self.breaker_opened.load(Relaxed),
        }
    }
}

/// Adds one to a counter.
pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Takes one from a counter.
pub(super) fn subtract(counter: &AtomicU64) {
    counter.fetch_sub(1, Relaxed);
}
