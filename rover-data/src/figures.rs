//! What is counted of a database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A statement that took long.
#[derive(Debug)]
pub struct Slow<'a> {
    /// As the app wrote it.
    pub sql: &'a str,
    /// Where the app asked for it.
    pub place: Option<&'a str>,
    /// How long it ran.
    pub took: Duration,
    /// What the database says of how it ran, one step a line.
    pub plan: Option<String>,
}

/// What a database has done, and what it does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections that are open.
    pub connections: usize,
    /// Connections in use.
    pub busy: usize,
    /// Statements, transactions and streams that wait for their turn.
    pub waiting: usize,
    /// Transactions that are open.
    pub transactions: usize,
    /// Streams that are open.
    pub streams: usize,
    /// Statements that were run.
    pub statements: u64,
    /// Those that failed.
    pub errors: u64,
    /// How long they all took.
    pub time: Duration,
    /// Commits of writes that came together, and of transactions.
    pub commits: u64,
}

/// Tells of slow statements, on the thread of the database.
pub(crate) type Tell = Arc<dyn Fn(&Slow<'_>) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) connections: AtomicUsize,
    pub(crate) busy: AtomicUsize,
    pub(crate) transactions: AtomicUsize,
    pub(crate) streams: AtomicUsize,
    pub(crate) statements: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) nanoseconds: AtomicU64,
    pub(crate) commits: AtomicU64,
}

/// Counts one more of something, until it is dropped.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(crate) fn new(count: &'a AtomicUsize) -> Counted<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Figures {
    pub(crate) fn ran(&self, took: Duration, has_failed: bool) {
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(has_failed), Ordering::Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn stats(&self, waiting: usize) -> Stats {
        Stats {
            connections: self.connections.load(Ordering::Relaxed),
            busy: self.busy.load(Ordering::Relaxed),
            waiting,
            transactions: self.transactions.load(Ordering::Relaxed),
            streams: self.streams.load(Ordering::Relaxed),
            statements: self.statements.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
            commits: self.commits.load(Ordering::Relaxed),
        }
    }
}
