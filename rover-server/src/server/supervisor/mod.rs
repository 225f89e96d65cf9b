//! Supervises the workers of a server: replaces lost ones, and ends all of them at a stop.
//!
//! Comes in: workers that are ready, and losses. Goes out: new workers in their places, after a pause that grows with
//! repeated losses; and closed routes that have lost too many workers. This module must not know why a worker was lost.

mod damage;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::log::{self, Level};
use crate::script::app::{Blueprint, Mistakes};
use crate::server::dispatcher::Workers;
use crate::server::version::Plan;
use crate::server::watchdog::{Lost, Watchdog};
use crate::server::worker::{self, Worker};

use damage::Damage;

/// The pause before a place is filled for the second time in a row; it doubles with each further time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A worker that has lived this long does not count as a failure.
const GOOD_LIFE: Duration = Duration::from_secs(60);

/// The least time that a call gets when the server stops.
const SHORTEST_END: Duration = Duration::from_secs(1);

/// How many threads may be stuck for each worker. They cannot be ended from within the process. Beyond this number no
/// worker is replaced until some threads have returned; when no worker is left, only a new process helps.
const MOST_STUCK: usize = 4;
/// This many may be stuck in any case.
const FEW_STUCK: usize = 8;
/// How often a waiting place checks that number.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The workers of one server.
pub(crate) struct Supervisor {
    blueprint: Blueprint,
    /// The plan of the version that serves.
    plan: Arc<Mutex<Plan>>,
    watchdog: Watchdog,
    turns: Arc<Workers>,
    places: Mutex<WorkerSlots>,
    damage: Mutex<Damage>,
    /// Signalled when a place was filled or given up.
    settled: Notify,
    /// Signalled when no place is filled any more.
    closed: Condvar,
    /// Signalled when no worker is left and too many threads are stuck to start another.
    beyond_help: Notify,
    vacant: Arc<Vacant>,
}

/// Places to be filled, for the thread that fills them.
#[derive(Default)]
struct Vacant {
    state: Mutex<Vacancies>,
    changed: Condvar,
}

#[derive(Default)]
struct Vacancies {
    /// Numbers of workers, and how often in a row each place has become vacant.
    list: Vec<(usize, u32)>,
    is_closed: bool,
}

impl Vacant {
    fn change(&self, change: impl FnOnce(&mut Vacancies)) {
        change(&mut self.state.lock());
        self.changed.notify_all();
    }

    /// Waits for a place; `None` once none will become vacant any more.
    fn next(&self) -> Option<(usize, u32)> {
        let mut state = self.state.lock();
        let is_calm = |state: &mut Vacancies| state.list.is_empty() && !state.is_closed;
        self.changed.wait_while(&mut state, is_calm);
        state.list.pop()
    }
}

struct WorkerSlots {
    list: Vec<WorkerSlot>,
    is_closed: bool,
    /// How many places are being filled.
    open: usize,
}

struct WorkerSlot {
    worker: Option<Worker>,
    since: Instant,
    failures: u32,
}

impl Supervisor {
    /// Supervises `workers`, which are ready.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn new(
        blueprint: Blueprint,
        plan: Arc<Mutex<Plan>>,
        watchdog: Watchdog,
        turns: Arc<Workers>,
        workers: Vec<Worker>,
    ) -> io::Result<Arc<Supervisor>> {
        let since = Instant::now();
        let list = workers.into_iter().map(|worker| WorkerSlot { worker: Some(worker), since, failures: 0 }).collect();
        let places = Mutex::new(WorkerSlots { list, is_closed: false, open: 0 });
        let supervisor = Arc::new(Supervisor {
            blueprint,
            plan,
            watchdog,
            turns,
            places,
            damage: Mutex::default(),
            settled: Notify::new(),
            closed: Condvar::new(),
            beyond_help: Notify::new(),
            vacant: Arc::default(),
        });
        let (own, vacant) = (Arc::downgrade(&supervisor), supervisor.vacant.clone());
        // Started now, because the system may have no thread to spare when a worker is lost.
        thread::Builder::new().name("rover-supervise".to_owned()).spawn(move || {
            while let (Some((worker, failures)), Some(supervisor)) = (vacant.next(), own.upgrade()) {
                supervisor.fill_beside(worker, failures);
            }
        })?;
        let own = Arc::downgrade(&supervisor);
        supervisor.watchdog.on_loss(move |lost| {
            if let Some(supervisor) = own.upgrade() {
                supervisor.note(lost);
                supervisor.replace(lost.worker);
            }
        });
        Ok(supervisor)
    }

    /// Has the place of a lost worker filled.
    fn replace(self: &Arc<Self>, worker: usize) {
        self.turns.take_out(worker);
        let mut places = self.places();
        if places.is_closed {
            return;
        }
        let Some(place) = places.list.get_mut(worker.wrapping_sub(1)) else { return };
        let lost = place.worker.take();
        place.failures = if place.since.elapsed() < GOOD_LIFE { place.failures + 1 } else { 1 };
        let failures = place.failures;
        places.open += 1;
        drop(places);
        if let Some(thread) = lost.as_ref().and_then(Worker::thread) {
            self.blueprint.stores.abandon(thread);
        }
        drop(lost);
        self.vacant.change(|vacant| vacant.list.push((worker, failures)));
    }

    /// Fills a place on a new thread, or on this one if the system has none: then other places wait.
    fn fill_beside(self: Arc<Self>, worker: usize, failures: u32) {
        let supervisor = self.clone();
        let filling = thread::Builder::new().name("rover-restart".to_owned());
        if filling.spawn(move || supervisor.fill(worker, failures)).is_err() {
            self.fill(worker, failures);
        }
    }

    /// Closes the route in which the worker was lost, if it has lost too many.
    fn note(&self, lost: &Lost) {
        let plan = self.plan();
        let mut damage = self.damage.lock();
        if damage.note(lost, &plan.router) {
            drop(damage);
            for (_, handle) in self.turns.handles() {
                worker::close_route(&handle, &plan.router, lost.function);
            }
        }
    }

    /// Waits while too many threads are stuck. Returns false if the place must not be filled: the server stops, or no
    /// worker is left, which the server is told.
    fn has_room(&self, number: usize) -> bool {
        let mut places = self.places();
        let mut is_told = false;
        loop {
            if places.is_closed {
                return false;
            }
            let most = (MOST_STUCK * places.list.len()).max(FEW_STUCK);
            let stuck = self.watchdog.counters().stuck.load(Ordering::Acquire);
            if stuck <= most {
                return true;
            }
            let serving = places.list.iter().filter(|place| place.worker.is_some()).count();
            if serving == 0 {
                self.beyond_help.notify_one();
                return false;
            }
            if !std::mem::replace(&mut is_told, true) {
                let message = format!("worker {number} is not replaced as long as {stuck} threads do not come back");
                log::event(Level::Error, &message).field("workers", serving as u64).emit();
            }
            self.closed.wait_for(&mut places, LOOK_AGAIN);
        }
    }

    /// Waits until no worker is left and too many threads are stuck in calls that do not return, so that the process
    /// should end.
    pub(crate) async fn beyond_help(&self) {
        self.beyond_help.notified().await;
    }

    fn fill(&self, number: usize, mut failures: u32) {
        while self.has_room(number) {
            if failures > 1 {
                let pause = (FIRST_PAUSE * (1 << (failures - 2).min(10))).min(LONGEST_PAUSE);
                self.closed.wait_while_for(&mut self.places(), |places| !places.is_closed, pause);
            }
            if self.places().is_closed {
                break;
            }
            match self.start(number) {
                Ok((worker, plan)) => {
                    if self.settle(number, worker, &plan, failures) {
                        break;
                    }
                }
                Err(_) if self.places().is_closed => break,
                Err(mistakes) => {
                    let message = format!("worker {number} cannot be replaced yet: {mistakes}");
                    log::event(Level::Error, &message).emit();
                    failures += 1;
                }
            }
        }
        self.close_place();
    }

    fn start(&self, worker: usize) -> Result<(Worker, Plan), Mistakes> {
        let plan = self.plan();
        // The version that serves, even if the files have changed.
        let blueprint = Blueprint { worker, code: plan.code.clone(), ..self.blueprint.clone() };
        let mut worker = Worker::start(blueprint, &self.watchdog, plan.config.limits)
            .map_err(|error| Mistakes(vec![format!("cannot start a thread: {error}")]))?;
        worker.loaded()?;
        worker.go(plan.clone());
        worker.ready(Some(plan.config.reload_timeout))?;
        Ok((worker, plan))
    }

    /// Lets the worker serve; false if its version has been replaced meanwhile.
    fn settle(&self, number: usize, worker: Worker, plan: &Plan, failures: u32) -> bool {
        let mut places = self.places();
        if places.is_closed {
            return true;
        }
        // Held until the worker has its turns: a reload either finds it there, or makes it start again.
        let current = self.plan.lock();
        if !Arc::ptr_eq(&plan.router, &current.router) {
            return false;
        }
        let handle = worker.handle();
        if let (Some(place), Some(handle)) = (places.list.get_mut(number.wrapping_sub(1)), handle) {
            let damage = self.damage.lock();
            damage.closed(&plan.router).for_each(|function| worker::close_route(&handle, &plan.router, function));
            drop(damage);
            *place = WorkerSlot { worker: Some(worker), since: Instant::now(), failures };
            self.turns.put_in(number, handle);
            drop((current, places));
            self.watchdog.counters().restarts.fetch_add(1, Ordering::Relaxed);
            log::event(Level::Info, &format!("worker {number} has been replaced")).emit();
        }
        true
    }

    fn plan(&self) -> Plan {
        self.plan.lock().clone()
    }

    fn close_place(&self) {
        self.places().open -= 1;
        self.settled.notify_one();
    }

    /// Asks all workers to finish, and waits until they have ended, but not for calls that do not return. No worker is
    /// replaced any more.
    pub(crate) async fn end(&self) {
        self.turns.close();
        let longest = self.plan().config.shutdown_timeout.max(SHORTEST_END);
        let workers: Vec<Worker> = {
            let mut places = self.places();
            places.is_closed = true;
            places.list.iter_mut().filter_map(|place| place.worker.take()).collect()
        };
        self.vacant.change(|vacant| vacant.is_closed = true);
        self.closed.notify_all();
        for watched in self.watchdog.watched_workers() {
            watched.ends(longest);
        }
        for worker in &workers {
            worker.stop();
        }
        for worker in workers {
            worker.ended().await;
        }
        // A worker that was being started ends by itself, because nobody holds it.
        while self.places().open > 0 {
            self.settled.notified().await;
        }
        self.watchdog.end();
    }

    fn places(&self) -> MutexGuard<'_, WorkerSlots> {
        self.places.lock()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.vacant.change(|vacant| vacant.is_closed = true);
        self.turns.close();
        self.watchdog.end();
    }
}
