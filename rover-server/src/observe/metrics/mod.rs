//! Counts a worker's requests, and turns the counts into text for Prometheus.
//!
//! Comes in: the begin and the end of requests, on the worker that serves them. Goes out: [`Samples`], when somebody asks.
//! All counters are plain cells of one thread: nothing is shared, and nothing is looked up by name before somebody asks.
//! With the management listener off there is no [`RequestMeter`], and a request costs a test for one. This module must not know
//! of sockets or Lua.

mod histogram;
mod samples;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use rustix::time::{ClockId, clock_gettime};
use smallvec::SmallVec;

pub(crate) use histogram::{Histogram, Lag};
pub(crate) use samples::Samples;

/// The methods that are counted apart, by their number; any other counts as the last.
const METHODS: [&str; 10] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "other"];

fn number_of(method: &Method) -> u8 {
    match *method {
        Method::GET => 0,
        Method::POST => 1,
        Method::PUT => 2,
        Method::PATCH => 3,
        Method::DELETE => 4,
        Method::HEAD => 5,
        Method::OPTIONS => 6,
        Method::CONNECT => 7,
        Method::TRACE => 8,
        _ => 9,
    }
}

/// The status if the client went away before there was one, as in the access log.
const CANCELLED: u16 = 499;

/// Counts the requests of one version of the app in one worker.
pub(crate) struct RequestMeter {
    /// By the routes' ids; the last counts the requests that no route answered.
    routes: Vec<RouteMeter>,
    /// Requests that wait. Others are over before anybody could ask.
    in_flight: Cell<u64>,
    /// Nanoseconds of CPU time: of hooks and tasks, then of each route. The watchdog counts them.
    cpu: Arc<[AtomicU64]>,
    archive: Archive,
}

struct RouteMeter {
    pattern: String,
    /// The method that the route was declared for; `any` for all.
    declared: String,
    /// The method and status of the last answer, and how many there were: most routes see no other.
    usual: Cell<(u32, u64)>,
    /// The other ones.
    answers: RefCell<SmallVec<[(u32, u64); 2]>>,
    times: Histogram,
}

impl RouteMeter {
    #[inline]
    fn note(&self, key: u32, nanos: u64) {
        self.times.note(nanos);
        let (usual, count) = self.usual.get();
        if usual == key {
            self.usual.set((key, count + 1));
        } else {
            self.change_usual(key);
        }
    }

    #[cold]
    fn change_usual(&self, key: u32) {
        let Ok(mut answers) = self.answers.try_borrow_mut() else { return };
        let before = self.usual.get();
        let known = answers.iter().position(|(known, _)| *known == key);
        let count = known.map_or(0, |place| answers.swap_remove(place).1);
        if before.1 > 0 {
            answers.push(before);
        }
        self.usual.set((key, count + 1));
    }
}

/// When a request began, and its method.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    nanos: u64,
    method: u8,
}

impl Arrival {
    /// A request with this method begins.
    #[inline]
    pub(crate) fn now(method: &Method) -> Arrival {
        Arrival { nanos: nanos(), method: number_of(method) }
    }
}

/// A clock in nanoseconds; the numbers of the system's own, for `Instant` takes three times the instructions.
#[inline]
fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// The meters of a worker: those in use, and the sums of those that are not any more.
#[derive(Clone, Default)]
pub(crate) struct Archive(Rc<ArchivedMeters>);

#[derive(Default)]
struct ArchivedMeters {
    live: RefCell<Vec<Weak<RequestMeter>>>,
    past: RefCell<Samples>,
}

impl Archive {
    /// A meter for an app with these routes, as methods and patterns.
    pub(crate) fn meter(&self, routes: impl Iterator<Item = (String, String)>) -> Rc<RequestMeter> {
        let unmatched = std::iter::once(("any".to_owned(), String::new()));
        let routes = routes.chain(unmatched).map(|(declared, pattern)| RouteMeter {
            pattern,
            declared,
            usual: Cell::default(),
            answers: RefCell::default(),
            times: Histogram::default(),
        });
        let routes: Vec<RouteMeter> = routes.collect();
        let cpu = routes.iter().map(|_| AtomicU64::new(0)).collect();
        let meter = Rc::new(RequestMeter { routes, in_flight: Cell::new(0), cpu, archive: self.clone() });
        let mut live = self.0.live.borrow_mut();
        live.retain(|meter| meter.strong_count() > 0);
        live.push(Rc::downgrade(&meter));
        meter
    }

    /// What all meters have counted, and how many requests are under way.
    pub(crate) fn samples(&self) -> (Samples, u64) {
        let mut samples = self.0.past.borrow().clone();
        let mut in_flight = 0;
        for meter in self.0.live.borrow().iter().filter_map(Weak::upgrade) {
            meter.write(&mut samples);
            in_flight += meter.in_flight.get();
        }
        (samples, in_flight)
    }
}

impl RequestMeter {
    /// Counts a request that is over. `route` is the id of the one that answered; others count as none.
    #[inline]
    pub(crate) fn note(&self, arrival: Arrival, route: usize, status: u16) {
        let time = nanos().saturating_sub(arrival.nanos);
        if let Some(route) = self.routes.get(route).or(self.routes.last()) {
            route.note(u32::from(arrival.method) << 16 | u32::from(status), time);
        }
    }

    /// Counts a request in that is not over yet.
    pub(crate) fn follow(self: &Rc<Self>, arrival: Arrival, route: usize) -> OpenRequest {
        self.in_flight.set(self.in_flight.get() + 1);
        OpenRequest { meter: self.clone(), arrival, route, status: CANCELLED }
    }

    /// Where the CPU time of functions is counted.
    pub(crate) fn cpu_times(&self) -> Arc<[AtomicU64]> {
        self.cpu.clone()
    }

    fn write(&self, samples: &mut Samples) {
        let others = std::iter::once(("(hooks and tasks)", "any"));
        let routes = self.routes.iter().map(|route| (route.pattern.as_str(), route.declared.as_str()));
        for ((pattern, declared), time) in others.chain(routes).zip(&*self.cpu) {
            let time = time.load(Ordering::Relaxed);
            if time > 0 {
                let help = "Seconds of CPU time that Lua functions took, by route, as far as looks at them tell.";
                let labels = [("route", pattern), ("method", declared)];
                samples.counter("rover_lua_cpu_seconds_total", help, &labels, time as f64 / 1e9);
            }
        }
        for route in &self.routes {
            let usual = Some(route.usual.get()).filter(|(_, count)| *count > 0);
            for (key, count) in route.answers.borrow().iter().copied().chain(usual) {
                let method = METHODS.get((key >> 16) as usize).copied().unwrap_or("other");
                let status = (key as u16).to_string();
                let labels = [("route", route.pattern.as_str()), ("method", method), ("status", &status)];
                let help = "Requests by the pattern of their route (empty where none matched), method and status.";
                samples.counter("rover_requests_total", help, &labels, count as f64);
            }
            if !route.times.is_empty() {
                let labels = [("route", route.pattern.as_str()), ("method", route.declared.as_str())];
                let help = "Seconds from the head of a request to the end of its answer.";
                route.times.write(samples, "rover_request_duration_seconds", help, &labels);
            }
        }
    }
}

impl Drop for RequestMeter {
    fn drop(&mut self) {
        if let Ok(mut past) = self.archive.0.past.try_borrow_mut() {
            self.write(&mut past);
        }
    }
}

/// A request that is not over yet. Dropping it counts it out.
pub(crate) struct OpenRequest {
    meter: Rc<RequestMeter>,
    arrival: Arrival,
    route: usize,
    status: u16,
}

impl OpenRequest {
    /// Sets the status of the answer.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.meter.in_flight.set(self.meter.in_flight.get().saturating_sub(1));
        self.meter.note(self.arrival, self.route, self.status);
    }
}

/// Figures of another part of a VM: pools, breakers, queues.
type MetricSource = Box<dyn Fn(&mut Samples)>;

/// The parts of an app that have figures. They are asked on the worker's thread.
#[derive(Default)]
pub(crate) struct Sources(RefCell<Vec<MetricSource>>);

impl Sources {
    /// Registers `source`, which notes its figures whenever somebody asks.
    pub(crate) fn add(&self, source: impl Fn(&mut Samples) + 'static) {
        self.0.borrow_mut().push(Box::new(source));
    }

    /// Asks all of them.
    pub(crate) fn write(&self, samples: &mut Samples) {
        for source in &*self.0.borrow() {
            source(samples);
        }
    }
}
