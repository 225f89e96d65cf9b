//! Runs blocking work on its own threads.
//!
//! Comes in: a closure, from any thread. Goes out: a future of its result, or why it was not begun. Work that was
//! refused, or that nobody waits for before it begins, never runs; a panic of one piece of work costs the thread
//! nothing. This module must not know what the work is.
//!
//! tokio's own pool panics where the system has no thread for it, and keeps the work. Here a few threads are there from the
//! start and stay, so that a system without threads makes work slower rather than impossible.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// How many threads are kept once they have been started.
const KEPT: usize = 2;

/// How many there are at most.
const MOST: usize = 1024;

/// How long a further thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// How long work waits for a thread where no further one can be had.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a further thread is tried for meanwhile.
const RETRY: Duration = Duration::from_millis(50);

/// Threads that have taken no work for so long are stuck, as far as one can tell.
const STANDSTILL: Duration = Duration::from_millis(500);

static POOL: Pool = Pool::new(start_thread);

/// Why work has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It has not begun, and does not run any more: the system has no thread for it.
    NoThread,
    /// It has panicked.
    Panicked,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::NoThread => "the system has no thread for it",
            Refused::Panicked => "it has panicked; this is a bug in Rover",
        })
    }
}

/// Starts the threads that are kept.
///
/// # Errors
/// The system refuses them.
pub(crate) fn start() -> io::Result<()> {
    POOL.start_kept()
}

/// Does `work` on another thread. Dropped before the work has begun, the future withdraws it; after that, the work goes on
/// to its end.
///
/// # Errors
/// There is no thread, or the work has panicked.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
    POOL.run(work).await
}

/// Whether work would wait in vain now: no thread has become free for a while, and the system refuses further ones.
pub(crate) fn is_starved() -> bool {
    POOL.is_starved()
}

/// Waits until the work that the calling thread has asked for has ended, not for longer than `limit`.
pub(crate) fn wait_for_own(limit: Duration) {
    OWN.with(|own| {
        let mut running = own.count.lock();
        let _ = own.none.wait_while_for(&mut running, |running| *running > 0, limit);
    });
}

thread_local! {
    static OWN: Arc<Own> = Arc::default();
}

/// The work that a thread has asked for and that has not ended.
#[derive(Default)]
struct Own {
    count: Mutex<usize>,
    none: Condvar,
}

/// Counts one piece of work, until it is dropped.
struct Counted(Arc<Own>);

impl Counted {
    fn new() -> Counted {
        let own = OWN.with(Arc::clone);
        *own.count.lock() += 1;
        Counted(own)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut count = self.0.count.lock();
        *count -= 1;
        if *count == 0 {
            self.0.none.notify_all();
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Starts a thread that works for the pool.
type Start = fn(&'static Pool) -> io::Result<()>;

struct Pool {
    state: Mutex<State>,
    /// There is work.
    work: Condvar,
    start: Start,
}

struct State {
    /// In the order in which it came.
    queue: BTreeMap<u64, Job>,
    next: u64,
    threads: usize,
    /// How many of them have nothing to do, or have just been started.
    idle: usize,
    /// The last attempt to start a thread has failed.
    is_refused: bool,
    /// When a thread last took work.
    taken: Option<Instant>,
}

impl State {
    /// Whether each piece of work in the queue has a thread that comes for it.
    fn is_covered(&self) -> bool {
        self.queue.len() <= self.idle
    }
}

fn start_thread(pool: &'static Pool) -> io::Result<()> {
    thread::Builder::new().name("rover-blocking".to_owned()).spawn(|| pool.work()).map(|_| ())
}

impl Pool {
    const fn new(start: Start) -> Pool {
        let state = State { queue: BTreeMap::new(), next: 0, threads: 0, idle: 0, is_refused: false, taken: None };
        Pool { state: Mutex::new(state), work: Condvar::new(), start }
    }

    fn start_kept(&'static self) -> io::Result<()> {
        while self.state.lock().threads < KEPT {
            self.add_thread()?;
        }
        Ok(())
    }

    fn is_starved(&'static self) -> bool {
        let state = self.state.lock();
        let moves = state.idle > 0 || state.taken.is_some_and(|taken| taken.elapsed() < STANDSTILL);
        let is_starved = state.is_refused && !moves;
        drop(state);
        is_starved && self.add_thread().is_err()
    }

    async fn run<T: Send + 'static>(&'static self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
        let (tell, told) = oneshot::channel();
        let counted = Counted::new();
        let job = move || {
            let _counted = counted;
            let _ = tell.send(catch_unwind(AssertUnwindSafe(work)).map_err(|_| Refused::Panicked));
        };
        let place = self.put(Box::new(job));
        if self.cover().is_err() {
            // It may have been taken by a thread that has become free.
            tokio::select! {
                biased;
                () = self.wait_for_thread(&place) => return Err(Refused::NoThread),
                done = told => return done.unwrap_or(Err(Refused::NoThread)),
            }
        }
        let done = told.await.unwrap_or(Err(Refused::NoThread));
        drop(place);
        done
    }

    fn put(&'static self, job: Job) -> Queued {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.queue.insert(number, job);
        drop(state);
        self.work.notify_one();
        Queued { pool: self, number }
    }

    /// Starts another thread where there is more work than threads come for. As many as there may be are enough.
    fn cover(&'static self) -> io::Result<()> {
        let state = self.state.lock();
        if state.is_covered() || state.threads >= MOST {
            return Ok(());
        }
        drop(state);
        self.add_thread()
    }

    fn add_thread(&'static self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.threads += 1;
        // It is on its way.
        state.idle += 1;
        drop(state);
        let started = (self.start)(self);
        let mut state = self.state.lock();
        state.is_refused = started.is_err();
        if started.is_err() {
            state.threads -= 1;
            state.idle -= 1;
        }
        started
    }

    /// Ends where no thread has come for the work, which is withdrawn then. Goes on for ever once one has.
    async fn wait_for_thread(&'static self, place: &Queued) {
        let latest = tokio::time::Instant::now() + PATIENCE;
        while self.state.lock().threads > 0 && tokio::time::Instant::now() < latest {
            tokio::time::sleep(RETRY).await;
            if !place.is_waiting() || self.cover().is_ok() {
                return std::future::pending().await;
            }
        }
        if !place.withdraw() {
            std::future::pending().await
        }
    }

    /// The life of a thread.
    fn work(&'static self) {
        let mut state = self.state.lock();
        state.idle -= 1;
        loop {
            if let Some((_, job)) = state.queue.pop_first() {
                state.taken = Some(Instant::now());
                drop(state);
                // What the work brings is dropped here where nobody waits for it.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let waited = match state.threads > KEPT {
                true => self.work.wait_for(&mut state, IDLE).timed_out(),
                false => {
                    self.work.wait(&mut state);
                    false
                }
            };
            state.idle -= 1;
            if waited && state.queue.is_empty() && state.threads > KEPT {
                state.threads -= 1;
                return;
            }
        }
    }
}

/// Work's place in the queue. Dropping it withdraws the work, unless a thread has come for it.
struct Queued {
    pool: &'static Pool,
    number: u64,
}

impl Queued {
    fn is_waiting(&self) -> bool {
        self.pool.state.lock().queue.contains_key(&self.number)
    }

    /// Whether the work was still there. It is dropped.
    fn withdraw(&self) -> bool {
        let job = self.pool.state.lock().queue.remove(&self.number);
        job.is_some()
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.withdraw();
    }
}

#[cfg(test)]
#[path = "blocking_tests.rs"]
mod tests;
