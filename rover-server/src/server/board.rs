//! The pages of the management listener.

use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::future::join_all;
use http::StatusCode;
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use tokio::time::timeout;

use super::AppInfo;
use super::control::{Control, ServerPhase, ServerState};
use crate::log;
use crate::observe::metrics::Samples;
use crate::server::management::{Page, PageAnswer, PageRequest, Pages};
use crate::server::worker::{self, WorkerFigures, WorkerHandle};

/// How long a worker has to answer before its last figures are used.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the app's own check gets.
const CHECK_TIME: Duration = Duration::from_secs(5);

/// The default length of a profile, in seconds.
const PROFILE_TIME: u64 = 10;

/// The longest profile, in seconds.
const LONGEST_PROFILE: u64 = 300;

/// The pages, and their state between requests.
struct StatusPages {
    shared: Arc<ServerState>,
    known: Mutex<LastFigures>,
    /// When the last check ended, and its result. Locked during the next one: one at a time.
    checked: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
}

/// What earlier requests were told.
#[derive(Default)]
struct LastFigures {
    /// The last figures of each worker's place, and the worker they are from.
    last: Vec<Option<(WorkerHandle, WorkerFigures)>>,
    /// The counts of workers that are gone: counters must not shrink when a worker is replaced.
    past: Samples,
}

/// The pages about a server.
pub(super) fn pages(shared: Arc<ServerState>) -> Pages {
    let board = Arc::new(StatusPages { shared, known: Mutex::default(), checked: tokio::sync::Mutex::default() });
    Arc::new(move |asked| {
        let board = board.clone();
        Box::pin(async move { board.tell(&asked).await }) as Pin<Box<_>>
    })
}

impl StatusPages {
    async fn tell(&self, asked: &PageRequest) -> PageAnswer {
        match (asked.path.as_str(), asked.is_post) {
            // Only POST, because recording costs time: no link, image or crawler must start one.
            ("/profile", true) => PageAnswer::Page(self.profile(&asked.query).await),
            ("/profile", false) => PageAnswer::Only("POST"),
            (path, false) => self.page(path).await.map_or(PageAnswer::Nothing, PageAnswer::Page),
            (path, true) => match self.page(path).await {
                Some(_) => PageAnswer::Only("GET, HEAD"),
                None => PageAnswer::Nothing,
            },
        }
    }

    async fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/metrics" => Some(Page {
                status: StatusCode::OK,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                body: self.metrics().await,
            }),
            "/healthz" => Some(json_page(StatusCode::OK, &json!({ "status": "ok" }))),
            "/readyz" => Some(self.readiness().await),
            "/routes" => Some(json_page(StatusCode::OK, &self.routes())),
            "/workers" => Some(json_page(StatusCode::OK, &self.workers().await)),
            _ => None,
        }
    }

    async fn readiness(&self) -> Page {
        let ready = match self.shared.phase() {
            ServerPhase::Starting => Err("the server is starting".to_owned()),
            ServerPhase::Stopping => Err("the server is stopping".to_owned()),
            ServerPhase::Serving => self.check().await,
        };
        match ready {
            Ok(()) => json_page(StatusCode::OK, &json!({ "ready": true })),
            Err(reason) => json_page(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reason": reason })),
        }
    }

    /// Runs the app's check. Requests that come while one runs share its result.
    async fn check(&self) -> Result<(), String> {
        let asked = Instant::now();
        let mut checked = self.checked.lock().await;
        if let Some((ended, verdict)) = &*checked
            && *ended >= asked
        {
            return verdict.clone();
        }
        let late = |_| Err("on_ready_check has not ended within 5 s".to_owned());
        let verdict = timeout(CHECK_TIME, self.ask()).await.unwrap_or_else(late);
        *checked = Some((Instant::now(), verdict.clone()));
        verdict
    }

    async fn ask(&self) -> Result<(), String> {
        match self.shared.workers.handles().first() {
            Some((_, first)) => worker::check(first).await,
            None => Err("there are no workers".to_owned()),
        }
    }

    /// Records a flame graph of the next seconds.
    async fn profile(&self, query: &str) -> Page {
        let error = |status, error: &str| json_page(status, &json!({ "error": error }));
        let seconds = match query.strip_prefix("seconds=").map(str::parse) {
            None if query.is_empty() => PROFILE_TIME,
            Some(Ok(seconds)) if (1..=LONGEST_PROFILE).contains(&seconds) => seconds,
            _ => {
                let reason = format!("seconds is a whole number from 1 to {LONGEST_PROFILE}");
                return error(StatusCode::BAD_REQUEST, &reason);
            }
        };
        let profiler = Control { shared: self.shared.clone() }.profiler();
        match profiler.record_alone(Duration::from_secs(seconds), std::future::pending()).await {
            Some(Ok(body)) => Page { status: StatusCode::OK, content_type: "image/svg+xml", body },
            Some(Err(reason)) => error(StatusCode::SERVICE_UNAVAILABLE, &reason.to_string()),
            None => error(StatusCode::CONFLICT, "a profile is being recorded already"),
        }
    }

    fn routes(&self) -> serde_json::Value {
        let plan = self.shared.plan().clone();
        let info = AppInfo::new(&plan.router, &plan.mounts);
        let routes = info
            .routes()
            .iter()
            .map(|route| json!({ "method": route.method, "path": route.path, "file": route.file, "line": route.line }));
        routes.collect()
    }

    /// The figures of each worker, and whether they are current.
    async fn figures(&self) -> Vec<(Option<WorkerFigures>, bool)> {
        let handles = self.shared.workers.handles();
        let asked = handles.iter().map(|(_, handle)| timeout(PATIENCE, worker::report(handle)));
        // A place whose worker is being replaced has no answer.
        let mut answers = vec![None; self.shared.workers.places()];
        for ((number, handle), answer) in handles.iter().zip(join_all(asked).await) {
            if let Some(place) = answers.get_mut(number - 1) {
                *place = answer.ok().flatten().map(|figures| (handle.clone(), figures));
            }
        }
        let mut known = self.known();
        let LastFigures { last, past } = &mut *known;
        last.resize(answers.len(), None);
        let told = answers.into_iter().zip(last.iter_mut()).map(|(answer, last)| {
            let responds = answer.is_some();
            if let Some((handle, figures)) = answer {
                if let Some((_, gone)) = last.as_ref().filter(|(before, _)| !before.is(&handle)) {
                    past.merge((*gone.samples).clone().totals());
                }
                *last = Some((handle, figures));
            }
            (last.as_ref().map(|(_, figures)| figures.clone()), responds)
        });
        told.collect()
    }

    fn known(&self) -> MutexGuard<'_, LastFigures> {
        self.known.lock()
    }

    async fn workers(&self) -> serde_json::Value {
        let figures = self.figures().await;
        let workers = figures.into_iter().enumerate().map(|(n, (figures, responds))| match figures {
            Some(figures) => json!({
                "worker": figures.worker,
                "responds": responds,
                "connections": figures.connections,
                "connections_accepted": figures.accepted,
                "requests_in_flight": figures.in_flight,
                "retired_versions": figures.retired,
                "lua_memory_bytes": figures.lua_bytes,
                "event_loop_lag_seconds": figures.lag.as_secs_f64(),
                "cpu_seconds": figures.cpu.as_secs_f64(),
            }),
            None => json!({ "worker": n + 1, "responds": false }),
        });
        workers.collect()
    }

    async fn metrics(&self) -> String {
        let mut samples = Samples::default();
        for (n, (figures, responds)) in self.figures().await.into_iter().enumerate() {
            let number = (n + 1).to_string();
            let help = "1 where the worker answered within a second, else its other figures are older.";
            let up = if responds { 1.0 } else { 0.0 };
            samples.gauge("rover_worker_up", help, &[("worker", &number)], up);
            if let Some(figures) = figures {
                samples.merge((*figures.samples).clone());
            }
        }
        samples.merge(self.known().past.clone());
        self.of_the_server(&mut samples);
        of_the_process(&mut samples);
        samples.text()
    }

    fn of_the_server(&self, samples: &mut Samples) {
        let shared = &self.shared;
        samples.gauge("rover_info", "1, with the version of Rover.", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let is_serving = if shared.phase() == ServerPhase::Serving { 1.0 } else { 0.0 };
        samples.gauge("rover_serving", "1 while the server is neither starting nor stopping.", &[], is_serving);
        let (done, failed, last) = shared.reloads.counts();
        let help = "Reloads of the app.";
        samples.counter("rover_reloads_total", help, &[("result", "ok")], done as f64);
        samples.counter("rover_reloads_total", help, &[("result", "failed")], failed as f64);
        let help = "When the version of the app that serves was loaded, in seconds since 1970.";
        samples.gauge("rover_loaded_timestamp_seconds", help, &[], seconds_since_1970(last));
        let help = "Lines of the log that were lost because the output could not keep up.";
        samples.counter("rover_log_lines_dropped_total", help, &[], log::dropped() as f64);
        let watched = shared.watchdog.counters();
        let help = "Lua code that the watchdog has stopped.";
        samples.counter("rover_watchdog_stops_total", help, &[], watched.stops.load(Ordering::Relaxed) as f64);
        let help = "Workers that were lost, to a call that does not come back or to a panic.";
        samples.counter("rover_workers_lost_total", help, &[], watched.lost.load(Ordering::Relaxed) as f64);
        let help = "Workers that took the place of another.";
        samples.counter("rover_workers_replaced_total", help, &[], watched.restarts.load(Ordering::Relaxed) as f64);
        let help = "Threads of lost workers that are in a call that has not come back.";
        samples.gauge("rover_stuck_threads", help, &[], watched.stuck.load(Ordering::Relaxed) as f64);
        let started = seconds_since_1970(shared.started);
        samples.gauge("process_start_time_seconds", "When the server started, in seconds since 1970.", &[], started);
    }
}

fn seconds_since_1970(time: std::time::SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Figures of the process, under the usual names of Prometheus clients.
fn of_the_process(samples: &mut Samples) {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let resident = pages.as_deref().and_then(|pages| pages.split(' ').nth(1)?.parse::<f64>().ok());
    if let Some(resident) = resident {
        let bytes = resident * rustix::param::page_size() as f64;
        samples.gauge("process_resident_memory_bytes", "Bytes of memory that the process holds.", &[], bytes);
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        samples.gauge("process_open_fds", "Open file descriptors.", &[], descriptors.count() as f64);
    }
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    samples.counter("process_cpu_seconds_total", "Seconds that all threads have computed.", &[], seconds);
}

fn json_page(status: StatusCode, value: &serde_json::Value) -> Page {
    let mut body = String::new();
    let _ = writeln!(body, "{value}");
    Page { status, content_type: "application/json", body }
}
