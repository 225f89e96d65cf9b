//! Watches the workers: stops code that runs for too long, and gives up a worker that cannot be stopped.
//!
//! Comes in: the [`WatchedWorker`] of each worker. Goes out: signals that stop Lua code, and a callback when a worker is lost.
//! One thread looks at all workers 25 to 100 times a second; each of them counts in one word, without a system call or
//! a lock. This module must not know what workers do, nor how another takes a lost one's place.

mod counters;
mod heart;
mod rest;
mod sockets;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rover_lua::{Look, Watched};
use tokio::runtime::Handle;

use crate::config::Limits;
use crate::log::{self, Level};
use crate::runtime::turn::{self, Allowance};

pub(crate) use counters::{Counters, Lost};
use heart::{Heartbeat, HeartbeatState};
use rest::{WatchdogSleep, WorkerRest};
pub(crate) use sockets::{Listed, OpenSockets};
use tally::CpuTally;
pub(crate) use tally::CpuTimes;

/// How often the workers are looked at while one of them runs Lua code.
const EAGER: Duration = Duration::from_millis(10);
/// How often the workers are looked at while none does.
const CALM: Duration = Duration::from_millis(40);
/// How much CPU time stopped code has to reach its next instruction of Lua.
const GRACE: Duration = Duration::from_secs(1);
/// The factor for limits while an app starts.
const START: u32 = 10;
/// A look that is this late means that the whole process stood still, for example in a debugger or a paused container.
const STANDSTILL: Duration = Duration::from_millis(500);

/// The callback for losses.
type OnLoss = Arc<dyn Fn(&Lost) + Send + Sync>;

/// Releases those who wait for a worker, with the reason.
type Release = Box<dyn FnOnce(&str) + Send>;

/// A handle to the watching thread and what it shares with the workers. Clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct Watchdog {
    shared: Arc<WatchdogState>,
}

struct WatchdogState {
    watched_workers: Mutex<WatchedWorkers>,
    changed: Condvar,
    counters: Arc<Counters>,
    on_loss: Mutex<Option<OnLoss>>,
    /// Nothing is watched until a worker has something to do.
    own: WatchdogSleep,
    /// A profile is being recorded.
    is_recorded: AtomicBool,
}

#[derive(Default)]
struct WatchedWorkers {
    list: Vec<Arc<WatchedWorker>>,
    has_ended: bool,
}

/// A worker under watch.
pub(crate) struct WatchedWorker {
    /// Its number, counted from 1.
    worker: usize,
    thread: Arc<Watched>,
    limits: Mutex<Limits>,
    /// Its runtime, once there is one.
    handle: Mutex<Option<Handle>>,
    seen: Mutex<Option<LastProgress>>,
    heart: Mutex<Heartbeat>,
    /// The CPU time for code that goes from one ready wait to the next.
    allowance: Arc<Allowance>,
    /// It has started. Before that, a loss is reported only to whoever waits for its start.
    is_serving: AtomicBool,
    /// The server stops: its limits stay as they are.
    is_ending: AtomicBool,
    /// It was given up.
    is_lost: AtomicBool,
    /// It was given up, and its thread has come back.
    is_back: Arc<AtomicBool>,
    rest: WorkerRest,
    tally: Mutex<CpuTally>,
    sockets: Arc<OpenSockets>,
    /// Releases those who wait for the worker.
    release: Mutex<Option<Release>>,
    watchdog: std::sync::Weak<WatchdogState>,
}

/// What the worker did when its count last moved.
#[derive(Clone, Copy)]
struct LastProgress {
    look: Look,
    since: Instant,
    is_condemned: bool,
}

impl Watchdog {
    /// Starts the thread, which ends when it is told to.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub(crate) fn start() -> io::Result<Watchdog> {
        let shared = Arc::new(WatchdogState {
            watched_workers: Mutex::default(),
            changed: Condvar::new(),
            counters: Arc::default(),
            on_loss: Mutex::default(),
            own: WatchdogSleep::default(),
            is_recorded: AtomicBool::new(false),
        });
        let own = shared.clone();
        thread::Builder::new().name("rover-watchdog".to_owned()).spawn(move || own.watch())?;
        Ok(Watchdog { shared })
    }

    /// Begins to watch worker number `worker`, whose limits are ten times `limits` until it [serves](WatchedWorker::serves).
    pub(crate) fn watch_worker(&self, worker: usize, limits: Limits) -> Arc<WatchedWorker> {
        let watched = Arc::new(WatchedWorker {
            worker,
            thread: Watched::new(),
            limits: Mutex::new(limits),
            handle: Mutex::default(),
            seen: Mutex::default(),
            heart: Mutex::default(),
            allowance: Arc::default(),
            is_serving: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
            is_back: Arc::default(),
            rest: WorkerRest::new(&self.shared.own),
            tally: Mutex::default(),
            sockets: Arc::default(),
            release: Mutex::default(),
            watchdog: Arc::downgrade(&self.shared),
        });
        watched.starts(limits);
        let mut watched_workers = self.shared.watched_workers.lock();
        watched_workers.list.push(watched.clone());
        self.shared.own.wake();
        drop(watched_workers);
        self.shared.changed.notify_all();
        watched
    }

    /// The watchdog's counters.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// Sets the callback for losses.
    pub(crate) fn on_loss(&self, tell: impl Fn(&Lost) + Send + Sync + 'static) {
        *self.shared.on_loss.lock() = Some(Arc::new(tell));
    }

    /// The workers that run.
    pub(crate) fn watched_workers(&self) -> Vec<Arc<WatchedWorker>> {
        self.shared.watched_workers.lock().list.clone()
    }

    /// Takes the right to record a profile, until the result is dropped; `None` while another recording runs.
    pub(crate) fn recording(&self) -> Option<ProfilePermit> {
        let is_free = !self.shared.is_recorded.swap(true, Ordering::AcqRel);
        is_free.then(|| ProfilePermit(self.shared.clone()))
    }

    /// Ends the watch.
    pub(crate) fn end(&self) {
        self.shared.watched_workers.lock().has_ended = true;
        *self.shared.on_loss.lock() = None;
        self.shared.changed.notify_all();
    }
}

/// The right to record a profile.
pub(crate) struct ProfilePermit(Arc<WatchdogState>);

impl Drop for ProfilePermit {
    fn drop(&mut self) {
        self.0.is_recorded.store(false, Ordering::Release);
    }
}

impl WatchdogState {
    fn watch(&self) {
        let mut last = Instant::now();
        let mut turns = 0;
        loop {
            let watched_workers = self.watched_workers.lock();
            if watched_workers.has_ended {
                return;
            }
            let list = watched_workers.list.clone();
            drop(watched_workers);
            let now = Instant::now();
            let pause = now - std::mem::replace(&mut last, now);
            let mut is_busy = false;
            for watched in &list {
                if pause > STANDSTILL {
                    watched.excuse(pause);
                }
                is_busy |= watched.check(now, &self.counters);
            }
            let period = if is_busy { EAGER } else { CALM };
            let watched_workers = self.watched_workers.lock();
            if watched_workers.has_ended {
                return;
            }
            let so_far = watched_workers.turns();
            let is_quiet = std::mem::replace(&mut turns, so_far) == so_far && !is_busy;
            let mut watched_workers =
                match is_quiet && self.own.try_sleep(watched_workers.list.iter().map(|watched| &watched.rest)) {
                    false => watched_workers,
                    true => {
                        self.sleep(watched_workers);
                        let woken = Instant::now();
                        list.iter().for_each(|watched| watched.excuse(woken - now));
                        last = woken;
                        continue;
                    }
                };
            // Woken by a new worker or by the end.
            self.changed.wait_for(&mut watched_workers, period);
        }
    }

    fn sleep(&self, mut watched_workers: MutexGuard<'_, WatchedWorkers>) {
        while self.own.is_asleep() && !watched_workers.has_ended {
            self.changed.wait(&mut watched_workers);
        }
        self.own.wake();
    }

    fn lose(&self, watched: &WatchedWorker, function: u32) {
        self.watched_workers.lock().list.retain(|other| !std::ptr::eq(&raw const **other, watched));
        if !watched.is_serving.load(Ordering::Acquire) {
            return;
        }
        self.counters.lost.fetch_add(1, Ordering::Relaxed);
        let on_loss = self.on_loss.lock().clone();
        if let Some(tell) = on_loss {
            tell(&Lost { worker: watched.worker, function, is_back: watched.is_back.clone() });
        }
    }
}

impl WatchedWorkers {
    /// How often all workers together have found work.
    fn turns(&self) -> u64 {
        self.list.iter().map(|watched| watched.rest.turns()).fold(0, u64::wrapping_add)
    }
}

impl WatchedWorker {
    /// The worker waits for something to do.
    pub(crate) fn parks(&self) {
        self.rest.begins();
    }

    /// The worker has found something to do. Called only on its own thread.
    pub(crate) fn unparks(&self) {
        if self.rest.ends() {
            self.wake_dog();
        }
    }

    #[cold]
    fn wake_dog(&self) {
        if let Some(watchdog) = self.watchdog.upgrade() {
            let watched_workers = watchdog.watched_workers.lock();
            watchdog.own.wake();
            drop(watched_workers);
            watchdog.changed.notify_all();
        }
    }

    /// Watches the calling thread, the worker's own, until the result is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> WatchGuard {
        turn::allow(Some(self.allowance.clone()));
        WatchGuard { _watch: self.thread.begin(), watched: self.clone() }
    }

    /// Sets the worker's runtime, to which tasks can be sent.
    pub(crate) fn runs_in(&self, handle: Handle) {
        *self.handle.lock() = Some(handle);
    }

    /// Sets where the CPU time of functions is counted from now on.
    pub(crate) fn counts_into(&self, times: Option<CpuTimes>) {
        self.tally.lock().times = times;
    }

    /// The worker begins to load an app; its limits are ten times `limits`.
    pub(crate) fn starts(&self, limits: Limits) {
        if self.is_ending.load(Ordering::Acquire) {
            return;
        }
        let handler_cpu_limit = limits.handler_cpu_limit.saturating_mul(START);
        self.allowance.set(handler_cpu_limit);
        *self.limits.lock() =
            Limits { handler_cpu_limit, worker_stall_limit: limits.worker_stall_limit.saturating_mul(START), ..limits };
    }

    /// The worker has started, and is held to these limits from now on.
    pub(crate) fn serves(&self, limits: Limits) {
        if !self.is_ending.load(Ordering::Acquire) {
            self.allowance.set(limits.handler_cpu_limit);
            *self.limits.lock() = limits;
        }
        self.is_serving.store(true, Ordering::Release);
    }

    /// The server stops: calls that take longer than `time`, and workers that are starting, are not waited for.
    pub(crate) fn ends(&self, time: Duration) {
        self.is_ending.store(true, Ordering::Release);
        let mut limits = self.limits.lock();
        let limit = &mut limits.worker_stall_limit;
        *limit = if limit.is_zero() { time } else { time.min(*limit) };
        drop(limits);
        if !self.is_serving.load(Ordering::Acquire) {
            self.let_go("the server stops");
        }
    }

    /// Sets the callback for when the worker is given up; it gets the reason.
    pub(crate) fn on_release(&self, release: impl FnOnce(&str) + Send + 'static) {
        *self.release.lock() = Some(Box::new(release));
    }

    /// The worker's connections.
    pub(crate) fn sockets(&self) -> &Arc<OpenSockets> {
        &self.sockets
    }

    /// The worker's thread, for a profiler.
    pub(crate) fn thread(&self) -> &Watched {
        &self.thread
    }

    /// The worker's runtime.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.handle.lock().clone()
    }

    /// Does not count the time in which nothing ran.
    fn excuse(&self, pause: Duration) {
        if let Some(seen) = &mut *self.seen.lock() {
            seen.since += pause;
        }
        self.heart.lock().excuse(pause);
    }

    /// Looks at the worker, and acts. Returns whether it is busy.
    fn check(&self, now: Instant, counters: &Counters) -> bool {
        counters.stops.fetch_add(self.allowance.take_excesses(), Ordering::Relaxed);
        let Some(look) = self.thread.look() else { return false };
        self.tally.lock().note(look);
        let limits = *self.limits.lock();
        match self.heart.lock().check(look, now, limits, || self.handle.lock().clone()) {
            HeartbeatState::Lost(time) => self.give_up(time, look),
            HeartbeatState::Idle if !look.is_in_lua() => return false,
            HeartbeatState::Idle | HeartbeatState::Busy => self.check_code(look, now, limits, counters),
        }
        true
    }

    /// Checks whether Lua code has run for too long.
    fn check_code(&self, look: Look, now: Instant, limits: Limits, counters: &Counters) {
        let mut seen = self.seen.lock();
        let seen = match &mut *seen {
            Some(seen) if seen.look.epoch == look.epoch => seen,
            other => {
                *other = Some(LastProgress { look, since: now, is_condemned: false });
                return;
            }
        };
        if !look.is_in_lua() {
            return;
        }
        let limit = limits.handler_cpu_limit;
        let (cpu, time) = (look.cpu.saturating_sub(seen.look.cpu), now.saturating_duration_since(seen.since));
        if is_over(limit, cpu) {
            self.stop(seen, look.epoch, limit, counters);
        }
        if !limit.is_zero() && cpu >= limit + GRACE || is_over(limits.worker_stall_limit, time) {
            self.give_up(time, look);
        }
    }

    /// Stops the code that runs, again at every look until it has ended.
    fn stop(&self, seen: &mut LastProgress, epoch: u64, limit: Duration, counters: &Counters) {
        let stopped = self.thread.stop(epoch, limit);
        if !seen.is_condemned {
            seen.is_condemned = true;
            counters.stops.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = stopped {
                log::event(Level::Error, "cannot stop Lua code that runs for too long")
                    .field("error", error.to_string().as_str())
                    .emit();
            }
        }
    }

    /// Gives the worker up: it cannot be stopped, and is not watched any more.
    fn give_up(&self, time: Duration, look: Look) {
        let function = if look.is_in_lua() { look.label } else { 0 };
        self.thread.give_up();
        if let Some(watchdog) = self.watchdog.upgrade() {
            watchdog.counters.stuck.fetch_add(1, Ordering::AcqRel);
        }
        self.is_lost.store(true, Ordering::Release);
        self.allowance.lose();
        let seconds = format!("{:.1}", time.as_secs_f64());
        let who = match self.worker {
            0 => "loading the app is given up".to_owned(),
            worker => format!("worker {worker} is lost"),
        };
        let message = format!("{who}: it has been in one call for {seconds} s");
        self.lost(function, &message);
        let cut = self.sockets.shut_down();
        if cut > 0 {
            log::event(Level::Warn, "the connections of a lost worker are cut").field("connections", cut as u64).emit();
        }
    }

    fn lost(&self, function: u32, message: &str) {
        log::event(Level::Error, message).emit();
        // First, so that whoever hears of the loss finds that the worker gets no more connections.
        if let Some(watchdog) = self.watchdog.upgrade() {
            watchdog.lose(self, function);
        }
        self.let_go(message);
    }

    /// Ends the watch: the worker has ended, or its thread could not be started.
    pub(crate) fn dismiss(&self) {
        if let Some(watchdog) = self.watchdog.upgrade() {
            watchdog.watched_workers.lock().list.retain(|other| !std::ptr::eq(&raw const **other, self));
        }
    }

    /// Releases those who wait for the worker.
    fn let_go(&self, reason: &str) {
        let release = self.release.lock().take();
        if let Some(release) = release {
            release(reason);
        }
    }
}

/// Builds a thread with a stack that is large enough for Lua code.
pub(crate) fn roomy_thread(name: String) -> thread::Builder {
    thread::Builder::new().name(name).stack_size(rover_lua::STACK)
}

/// Held by a worker's thread while it is watched.
pub(crate) struct WatchGuard {
    _watch: rover_lua::Watch,
    watched: Arc<WatchedWorker>,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        turn::allow(None);
        if self.watched.is_lost.load(Ordering::Acquire) {
            self.watched.is_back.store(true, Ordering::Release);
            if let Some(watchdog) = self.watched.watchdog.upgrade() {
                watchdog.counters.stuck.fetch_sub(1, Ordering::AcqRel);
            }
            return;
        }
        if thread::panicking() {
            let message = format!("worker {} has panicked; this is a bug in Rover", self.watched.worker);
            return self.watched.lost(0, &message);
        }
        self.watched.dismiss();
    }
}

/// Whether a limit is reached; zero sets no limit.
fn is_over(limit: Duration, taken: Duration) -> bool {
    !limit.is_zero() && taken >= limit
}
