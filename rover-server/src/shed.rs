//! Load shedding: some requests are refused at once so that the others are answered in time.
//!
//! Comes in: the moment when a request begins. Goes out: a permit that it holds until it is answered, or a refusal. Two
//! things are bounded for each worker: how many requests have begun and are not answered, and how long requests wait for
//! their turn. The wait is measured by a probe, a task that goes through the same queue as the connections: one at a
//! time, and only while requests come. As CoDel does (RFC 8289), a wait is forgiven that was short at some moment of the
//! last 100 ms: a burst ends by itself, a standing queue does not.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::RETRY_AFTER;
use http::{Response, StatusCode};
use tokio::runtime::Handle;

use crate::body::Body;
use crate::config::LoadShedding;
use crate::failure;

/// How long a queue may stand before it counts as one.
const INTERVAL: u64 = Duration::from_millis(100).as_nanos() as u64;

/// How long a worker stays strict after it has refused a request.
const HOLD: u64 = Duration::from_secs(1).as_nanos() as u64;

/// What one worker may take on.
pub(crate) struct Shed {
    begun: Rc<Cell<u32>>,
    /// 0 for no limit.
    most: u32,
    queue: Option<Queue>,
    retry_after: HeaderValue,
}

/// A request's place among those that are not answered. Dropping it makes room.
pub(crate) struct Permit(Rc<Cell<u32>>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Shed {
    /// The limits of the config; `None` where there are none.
    pub(crate) fn new(config: &LoadShedding) -> Option<Shed> {
        let target = u64::try_from(config.target_delay.as_nanos()).unwrap_or(u64::MAX);
        (config.max_in_flight > 0 || target > 0).then(|| Shed {
            begun: Rc::default(),
            most: config.max_in_flight,
            queue: (target > 0).then(|| Queue::new(target)),
            retry_after: HeaderValue::from(config.retry_after.as_secs_f64().ceil() as u64),
        })
    }

    /// Lets a request begin, or refuses it with 503.
    pub(crate) fn admit(&self) -> Result<Permit, Response<Body>> {
        let is_full = self.most > 0 && self.begun.get() >= self.most;
        if is_full || self.queue.as_ref().is_some_and(Queue::is_too_long) {
            let mut response = failure::answer(StatusCode::SERVICE_UNAVAILABLE);
            response.headers_mut().insert(RETRY_AFTER, self.retry_after.clone());
            return Err(response);
        }
        self.begun.set(self.begun.get() + 1);
        Ok(Permit(self.begun.clone()))
    }
}

/// The queue of tasks that are ready to run.
struct Queue {
    target: u64,
    probe: Arc<Probe>,
    /// When it was last known to be short enough.
    good: Cell<u64>,
    /// When a request was last refused; 0 for never.
    refused: Cell<u64>,
}

/// What the probe has seen, in nanoseconds since `zero`.
struct Probe {
    zero: Instant,
    /// When the one that is under way was sent; 0 where none is.
    sent: AtomicU64,
    /// When the last one came through.
    done: AtomicU64,
    /// How long that took.
    wait: AtomicU64,
}

impl Probe {
    fn now(&self) -> u64 {
        // 1 and not 0, which means never.
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// The probe has come through the queue.
    fn arrive(&self) {
        let now = self.now();
        self.wait.store(now.saturating_sub(self.sent.swap(0, Ordering::Relaxed)), Ordering::Relaxed);
        self.done.store(now, Ordering::Relaxed);
    }
}

impl Queue {
    fn new(target: u64) -> Queue {
        let probe =
            Probe { zero: Instant::now(), sent: AtomicU64::new(0), done: AtomicU64::new(0), wait: AtomicU64::new(0) };
        Queue { target, probe: Arc::new(probe), good: Cell::new(0), refused: Cell::new(0) }
    }

    /// Whether the request whose turn it is has waited too long.
    fn is_too_long(&self) -> bool {
        let now = self.probe.now();
        if self.probe.sent.load(Ordering::Relaxed) == 0
            && let Ok(runtime) = Handle::try_current()
        {
            self.probe.sent.store(now, Ordering::Relaxed);
            let probe = self.probe.clone();
            runtime.spawn(async move { probe.arrive() });
        }
        self.judge(now)
    }

    fn judge(&self, now: u64) -> bool {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let (sent, done, wait) = (load(&self.probe.sent), load(&self.probe.done), load(&self.probe.wait));
        if wait <= self.target {
            self.good.set(self.good.get().max(done));
        }
        // What was measured holds for as long as it took; after that the queue may be another one.
        let measured = if now.saturating_sub(done) <= wait { wait } else { 0 };
        let under_way = if sent == 0 { 0 } else { now.saturating_sub(sent) };
        let wait = measured.max(under_way);
        if wait <= self.target {
            self.good.set(now);
            return false;
        }
        let is_standing = now.saturating_sub(self.good.get()) > INTERVAL;
        let is_strict = self.refused.get() > 0 && now.saturating_sub(self.refused.get()) < HOLD;
        let is_refused = is_standing || is_strict || wait > self.target.saturating_add(INTERVAL);
        if is_refused {
            self.refused.set(now);
        }
        is_refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// At so many milliseconds the probe is under way since `sent`, and the last one took `wait` until `done`.
    fn judge(queue: &Queue, now: u64, sent: u64, (done, wait): (u64, u64)) -> bool {
        queue.probe.sent.store(sent * MS, Ordering::Relaxed);
        queue.probe.done.store(done * MS, Ordering::Relaxed);
        queue.probe.wait.store(wait * MS, Ordering::Relaxed);
        queue.judge(now * MS)
    }

    #[test]
    fn a_burst_is_forgiven_and_a_standing_queue_is_not() {
        let queue = Queue::new(10 * MS);
        assert!(!judge(&queue, 1000, 999, (999, 1)));
        assert!(!judge(&queue, 1050, 1010, (1010, 1)), "50 ms of a burst");
        assert!(!judge(&queue, 1090, 1050, (1050, 40)));
        assert!(judge(&queue, 1120, 1090, (1090, 40)), "120 ms later it still stands");
        assert!(!judge(&queue, 1130, 1128, (1128, 3)), "it is short again");
        assert!(judge(&queue, 1145, 1130, (1130, 3)), "a worker that has refused stays strict");
        assert!(!judge(&queue, 3145, 3130, (3130, 3)), "and forgets that after a while");
    }

    #[test]
    fn what_was_measured_long_ago_says_nothing() {
        let queue = Queue::new(10 * MS);
        assert!(!judge(&queue, 1000, 0, (100, 50)));
    }

    #[test]
    fn a_very_long_wait_is_refused_at_once() {
        let queue = Queue::new(10 * MS);
        assert!(!judge(&queue, 1000, 999, (999, 1)));
        assert!(judge(&queue, 1001, 0, (1000, 200)));
    }

    #[test]
    fn permits_come_back() {
        let shed = Shed::new(&LoadShedding { max_in_flight: 2, ..LoadShedding::default() }).unwrap();
        let first = shed.admit().ok().unwrap();
        let second = shed.admit().ok().unwrap();
        let refusal = shed.admit().err().unwrap();
        assert_eq!((refusal.status().as_u16(), &refusal.headers()[RETRY_AFTER]), (503, &HeaderValue::from_static("1")));
        drop(first);
        assert!(shed.admit().is_ok());
        drop(second);
        assert!(Shed::new(&LoadShedding::default()).is_none());
    }
}
