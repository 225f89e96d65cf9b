//! Work that waits for a thread, and the thread that comes for it.
//!
//! Whoever waits may go at any time: what has not begun then never does. Long work (a stream, a transaction that reads)
//! leaves the last thread to short work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::error::{Error, Outage};

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const CANCELLED: u8 = 2;

/// What whoever waits and whoever works know of each other.
#[derive(Debug, Default)]
pub(crate) struct Ticket(AtomicU8);

impl Ticket {
    /// Whether the work is still wanted; it runs from here on.
    pub(crate) fn start(&self) -> bool {
        self.0.compare_exchange(WAITING, RUNNING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The work waits again, on another queue. Tells whether it is still wanted.
    pub(crate) fn wait_again(&self) -> bool {
        self.0.compare_exchange(RUNNING, WAITING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Nobody wants the work any more.
    pub(crate) fn cancel(&self) {
        self.0.store(CANCELLED, Ordering::Release);
    }

    /// Gives up work that has not begun, and tells whether that was so.
    fn withdraw(&self) -> bool {
        self.0.compare_exchange(WAITING, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == CANCELLED
    }
}

/// Cancels a ticket when it is dropped.
pub(crate) struct Wanted(Option<Arc<Ticket>>);

impl Wanted {
    pub(crate) fn new(ticket: Arc<Ticket>) -> Wanted {
        Wanted(Some(ticket))
    }

    /// Somebody else says from here on whether the work is wanted.
    pub(crate) fn pass_on(mut self) {
        self.0 = None;
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        if let Some(ticket) = &self.0 {
            ticket.cancel();
        }
    }
}

pub(crate) struct Queue<T> {
    state: Mutex<QueueState<T>>,
    ready: Condvar,
}

struct QueueState<T> {
    /// In the order in which it came.
    short: BTreeMap<u64, T>,
    long: BTreeMap<u64, T>,
    next: u64,
    threads: usize,
    /// How many of them have nothing to do, or are on their way.
    idle: usize,
    long_running: usize,
    is_closed: bool,
}

/// Work that a thread has taken.
pub(crate) struct Taken<T> {
    pub(crate) work: T,
    pub(crate) is_long: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Queue<T> {
        let state = QueueState {
            short: BTreeMap::new(),
            long: BTreeMap::new(),
            next: 0,
            threads: 0,
            idle: 0,
            long_running: 0,
            is_closed: false,
        };
        Queue { state: Mutex::new(state), ready: Condvar::new() }
    }

    /// Puts work at the end. Tells its number, and whether a further thread should come; `None` where it is closed.
    pub(crate) fn push(&self, work: T, is_long: bool, most_threads: usize) -> Option<(u64, bool)> {
        let mut state = self.state.lock();
        if state.is_closed {
            return None;
        }
        let number = state.next;
        state.next += 1;
        if is_long { &mut state.long } else { &mut state.short }.insert(number, work);
        let waiting = state.short.len() + state.long.len();
        let needs_thread = waiting > state.idle && state.threads < most_threads;
        if needs_thread {
            state.threads += 1;
            state.idle += 1;
        }
        drop(state);
        self.ready.notify_one();
        Some((number, needs_thread))
    }

    /// A thread that was to come does not. Tells whether any other does.
    pub(crate) fn no_thread(&self) -> bool {
        let mut state = self.state.lock();
        state.threads -= 1;
        state.idle -= 1;
        state.threads > 0
    }

    /// A thread begins.
    pub(crate) fn enter(&self) {
        self.state.lock().idle -= 1;
    }

    /// Waits for work. `None` ends the thread: the queue is closed, or there was nothing to do for `idle` and
    /// another thread stays.
    pub(crate) fn take(&self, most_long: usize, idle: Duration) -> Option<Taken<T>> {
        let mut state = self.state.lock();
        loop {
            if let Some((_, work)) = state.short.pop_first() {
                return Some(Taken { work, is_long: false });
            }
            if state.long_running < most_long
                && let Some((_, work)) = state.long.pop_first()
            {
                state.long_running += 1;
                return Some(Taken { work, is_long: true });
            }
            if state.is_closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            let has_waited = self.ready.wait_for(&mut state, idle).timed_out();
            state.idle -= 1;
            // One thread stays, so that a system without threads is no reason to fail.
            if has_waited && state.short.is_empty() && state.long.is_empty() && state.threads > 1 {
                state.threads -= 1;
                return None;
            }
        }
    }

    /// Takes the next short work that is accepted, if there is some now.
    pub(crate) fn take_now(&self, accept: impl Fn(&T) -> bool) -> Option<T> {
        let mut state = self.state.lock();
        let entry = state.short.first_entry()?;
        if accept(entry.get()) { Some(entry.remove()) } else { None }
    }

    /// Long work has ended.
    pub(crate) fn end_long(&self) {
        self.state.lock().long_running -= 1;
        self.ready.notify_one();
    }

    fn remove(&self, number: u64) {
        let mut state = self.state.lock();
        let work = state.short.remove(&number).or_else(|| state.long.remove(&number));
        drop(state);
        drop(work);
    }

    pub(crate) fn len(&self) -> usize {
        let state = self.state.lock();
        state.short.len() + state.long.len()
    }

    /// Takes no more work; threads end when they have done what is there.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.ready.notify_all();
    }

    /// Whether no thread is left.
    pub(crate) fn is_deserted(&self) -> bool {
        self.state.lock().threads == 0
    }
}

/// Work's place in a queue, of whoever waits for it. Dropping it takes the work back, or interrupts it.
pub(crate) struct QueuePlace<'a, T> {
    pub(crate) queue: &'a Queue<T>,
    pub(crate) number: u64,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) is_done: bool,
}

impl<T> QueuePlace<'_, T> {
    /// Waits until the work is done, or has not begun within `patience`.
    ///
    /// # Errors
    /// It has not begun, or what the work says.
    pub(crate) async fn wait<R>(
        mut self,
        mut told: oneshot::Receiver<Result<R, Error>>,
        patience: Duration,
    ) -> Result<R, Error> {
        let answer = tokio::select! {
            biased;
            answer = &mut told => answer,
            () = tokio::time::sleep(patience) => {
                if self.ticket.withdraw() {
                    let seconds = patience.as_secs_f64();
                    let message = format!("pool exhausted: no connection became free within {seconds} s");
                    return Err(Error::outage(Outage::Exhausted, message));
                }
                told.await
            }
        };
        self.is_done = true;
        answer.unwrap_or_else(|_| Err(Error::outage(Outage::Lost, "the database's thread has ended")))
    }
}

impl<T> Drop for QueuePlace<'_, T> {
    fn drop(&mut self) {
        if !self.is_done {
            self.ticket.cancel();
            self.queue.remove(self.number);
        }
    }
}
