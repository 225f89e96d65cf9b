//! Load shedding: refuses some requests at once, so that the others are answered in time.
//!
//! Comes in: the moment when a request begins. Goes out: a permit that it holds until it is answered, or a refusal. Two
//! things are bounded for each worker: how many requests have begun and are not answered, and how long requests wait for
//! their turn. The wait is measured by a probe, a task that goes round in the same queue as the connections as long as
//! requests come. As CoDel does (RFC 8289), a wait is forgiven that was short at some moment of the last 100 ms: a burst
//! ends by itself, a standing queue does not.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::RETRY_AFTER;
use http::{Response, StatusCode};
use tokio::runtime::Handle;

use crate::config::LoadShedding;
use crate::exchange::failure;
use crate::message::body::Body;

/// How long a queue may last before it counts as standing.
const INTERVAL: u64 = Duration::from_millis(100).as_nanos() as u64;

/// How long a worker stays strict after it has refused a request.
const HOLD: u64 = Duration::from_secs(1).as_nanos() as u64;

/// The limits of one worker.
pub(crate) struct Shed {
    begun: Rc<Cell<u32>>,
    /// 0 for no limit.
    most: u32,
    queue: Option<Queue>,
    retry_after: HeaderValue,
}

/// A request's place among the unanswered ones. Dropping it makes room.
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

    /// Lets a request begin, if there is room for it.
    pub(crate) fn admit(&self) -> Option<Permit> {
        let is_full = self.most > 0 && self.begun.get() >= self.most;
        if is_full || self.queue.as_ref().is_some_and(Queue::is_too_long) {
            return None;
        }
        self.begun.set(self.begun.get() + 1);
        Some(Permit(self.begun.clone()))
    }

    /// The answer to a request that may not begin.
    #[cold]
    pub(crate) fn refusal(&self) -> Response<Body> {
        let mut response = failure::answer(StatusCode::SERVICE_UNAVAILABLE);
        response.headers_mut().insert(RETRY_AFTER, self.retry_after.clone());
        response
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

/// What the probe has seen, in nanoseconds since `zero`. The probe is a task that must be `Send`, so these are atomic;
/// nobody else ever touches them.
struct Probe {
    zero: Instant,
    is_under_way: AtomicBool,
    /// When the round that goes on began; 0 where none does.
    began: AtomicU64,
    /// When the last one ended.
    ended: AtomicU64,
    /// How long that took.
    took: AtomicU64,
    /// Requests that have come in this round.
    requests: AtomicU64,
}

impl Probe {
    fn now(&self) -> u64 {
        // 1 and not 0, which means never.
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// Goes through the queue until a round brings no request. The runtime looks for new work before it goes on with a
    /// task that has yielded, so each round takes as long as all that was ready.
    async fn go_round(self: Arc<Self>) {
        loop {
            let began = self.now();
            self.began.store(began, Ordering::Relaxed);
            self.requests.store(0, Ordering::Relaxed);
            tokio::task::yield_now().await;
            let now = self.now();
            self.took.store(now.saturating_sub(began), Ordering::Relaxed);
            self.ended.store(now, Ordering::Relaxed);
            if self.requests.load(Ordering::Relaxed) == 0 {
                self.began.store(0, Ordering::Relaxed);
                self.is_under_way.store(false, Ordering::Relaxed);
                return;
            }
        }
    }
}

impl Queue {
    fn new(target: u64) -> Queue {
        let probe = Probe {
            zero: Instant::now(),
            is_under_way: AtomicBool::new(false),
            began: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            took: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        };
        Queue { target, probe: Arc::new(probe), good: Cell::new(0), refused: Cell::new(0) }
    }

    /// Whether the request whose turn it is has waited too long. The first of each round never has: a handler that takes
    /// longer than the target makes no queue by itself.
    fn is_too_long(&self) -> bool {
        let now = self.probe.now();
        let is_first = self.probe.requests.fetch_add(1, Ordering::Relaxed) == 0;
        if !self.probe.is_under_way.load(Ordering::Relaxed) {
            if let Ok(runtime) = Handle::try_current() {
                self.probe.is_under_way.store(true, Ordering::Relaxed);
                runtime.spawn(self.probe.clone().go_round());
            }
            // The worker had nothing to do.
            self.good.set(now);
            return false;
        }
        self.judge(now) && !is_first
    }

    fn judge(&self, now: u64) -> bool {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let (began, ended, took) = (load(&self.probe.began), load(&self.probe.ended), load(&self.probe.took));
        // What was measured holds for as long as it took; after that the queue may be another one.
        let measured = if now.saturating_sub(ended) <= took { took } else { 0 };
        let under_way = if began == 0 { 0 } else { now.saturating_sub(began) };
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

    /// At so many milliseconds a round goes on since `began`, and the last one took `took` until `ended`.
    fn judge(queue: &Queue, now: u64, began: u64, (ended, took): (u64, u64)) -> bool {
        queue.probe.began.store(began * MS, Ordering::Relaxed);
        queue.probe.ended.store(ended * MS, Ordering::Relaxed);
        queue.probe.took.store(took * MS, Ordering::Relaxed);
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
        assert!(!judge(&queue, 3000, 2999, (2999, 3)), "it is short again");
        assert!(!judge(&queue, 3020, 3001, (3001, 3)), "and has forgotten after a while");
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
    fn one_handler_makes_no_queue() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let queue = Queue::new(MS);
            for _ in 0..50 {
                assert!(!queue.is_too_long());
                std::thread::sleep(Duration::from_millis(4));
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn permits_come_back() {
        let shed = Shed::new(&LoadShedding { max_in_flight: 2, ..LoadShedding::default() }).unwrap();
        let first = shed.admit().unwrap();
        let second = shed.admit().unwrap();
        assert!(shed.admit().is_none());
        let refusal = shed.refusal();
        assert_eq!((refusal.status().as_u16(), &refusal.headers()[RETRY_AFTER]), (503, &HeaderValue::from_static("1")));
        drop(first);
        assert!(shed.admit().is_some());
        drop(second);
        assert!(Shed::new(&LoadShedding::default()).is_none());
    }
}
