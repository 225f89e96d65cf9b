//! Records where the Lua code of a running server spends its time, as a flame graph.
//!
//! Comes in: the workers under watch, and for how long to record. Goes out: an SVG of Lua functions, with file and
//! line, under the routes that called them. A thread looks at every worker about every two milliseconds; a worker that
//! runs Lua code gets a signal and notes its call stack at the next instruction. LuaJIT's own profiler can follow one
//! VM of a process; this one follows all. It costs nothing while nobody records.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use inferno::flamegraph::{self, Options};
use rover_lua::Look;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::route::FastRouter;
use crate::server::watchdog::{ProfilePermit, Watchdog, WatchedWorker};

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_millis(2);
/// The longest recording.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long a worker may take to begin or to end its part.
const PATIENCE: Duration = Duration::from_secs(2);

/// Records where a running server's Lua code spends its time, by the routes that it had when this was made. Clones are
/// handles to the same server, which they may outlive.
#[derive(Clone)]
pub struct Profiler {
    watchdog: Watchdog,
    router: Arc<FastRouter>,
}

impl Profiler {
    pub(crate) fn new(watchdog: Watchdog, router: Arc<FastRouter>) -> Profiler {
        Profiler { watchdog, router }
    }

    /// Records for `time`, an hour at most, and returns the flame graph as SVG. It covers the workers that run when it
    /// begins.
    ///
    /// Runs in any executor. Dropping the future ends the recording soon.
    ///
    /// # Errors
    /// Another recording is running, the system refuses a thread, or no worker did anything.
    pub async fn record(&self, time: Duration) -> Result<String, Error> {
        self.record_until(time, std::future::pending()).await
    }

    /// Like [`record`](Profiler::record), but ends as soon as `end` completes.
    ///
    /// # Errors
    /// The same.
    pub async fn record_until(&self, time: Duration, end: impl Future<Output = ()>) -> Result<String, Error> {
        let busy = || Error::app("a profile is being recorded already");
        self.record_alone(time, end).await.unwrap_or_else(|| Err(busy()))
    }

    /// Like [`record_until`](Profiler::record_until); `None` if another recording is running.
    pub(crate) async fn record_alone(
        &self,
        time: Duration,
        end: impl Future<Output = ()>,
    ) -> Option<Result<String, Error>> {
        let recording = self.watchdog.recording()?;
        Some(self.record_with(recording, time, end).await)
    }

    async fn record_with(
        &self,
        recording: ProfilePermit,
        time: Duration,
        end: impl Future<Output = ()>,
    ) -> Result<String, Error> {
        let (reply, mut replied) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let own = self.clone();
        let spawned = thread::Builder::new().name("rover-profile".to_owned()).spawn(move || {
            let recorded = own.watch(time.min(LONGEST), stopped);
            drop(recording);
            let _ = reply.send(recorded);
        });
        spawned.map_err(|error| Error::io("cannot start a thread to record a profile", error))?;
        let mut end = std::pin::pin!(end);
        let mut stop = Some(stop);
        let recorded = std::future::poll_fn(|cx| {
            if stop.is_some() && end.as_mut().poll(cx).is_ready() {
                stop = None;
            }
            std::pin::Pin::new(&mut replied).poll(cx)
        });
        recorded.await.unwrap_or_else(|_| Err(Error::app("recording the profile ended unexpectedly")))
    }

    fn watch(&self, time: Duration, mut stopped: oneshot::Receiver<()>) -> Result<String, Error> {
        let mut workers: Vec<Subject> =
            self.watchdog.watched_workers().into_iter().filter_map(Subject::begin).collect();
        let began = Instant::now();
        let mut looks = 0u32;
        // The sender is dropped when nobody waits any more.
        while began.elapsed() < time && matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            // Random, so as not to run in step with periodic work.
            thread::sleep(INTERVAL.mul_f64(0.5 + fastrand::f64()));
            looks += 1;
            for worker in &mut workers {
                worker.watched.thread().sample();
            }
        }
        let interval = began.elapsed() / looks.max(1);
        let mut counts = BTreeMap::new();
        for worker in workers {
            worker.end(interval, &mut counts, |label| self.route(label));
        }
        graph(&counts, began.elapsed(), interval)
    }

    /// The route of the function with this number.
    fn route(&self, label: u32) -> String {
        let route = usize::try_from(label).ok().and_then(|n| self.router.routes().get(n.checked_sub(1)?));
        match route {
            Some(route) => format!("{} {}", route.verb, route.pattern),
            None => "(hooks and tasks)".to_owned(),
        }
    }
}

impl std::fmt::Debug for Profiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profiler").finish_non_exhaustive()
    }
}

/// A worker that is being recorded.
struct Subject {
    watched: Arc<WatchedWorker>,
    before: Look,
}

impl Subject {
    fn begin(watched: Arc<WatchedWorker>) -> Option<Subject> {
        let before = watched.thread().look()?;
        ask(&watched, rover_lua::begin_samples)?;
        Some(Subject { watched, before })
    }

    /// Adds what the worker has recorded to `counts`.
    fn end(self, interval: Duration, counts: &mut BTreeMap<String, u64>, route: impl Fn(u32) -> String) {
        let after = self.watched.thread().look();
        let samples = ask(&self.watched, rover_lua::end_samples).unwrap_or_default();
        let mut in_lua = 0;
        for ((label, stack), count) in samples {
            in_lua += count;
            let stack = if stack.is_empty() { String::new() } else { format!(";{stack}") };
            *counts.entry(format!("{}{stack}", route(label).replace(';', ":"))).or_default() += count;
        }
        let cpu = after.map_or(Duration::ZERO, |after| after.cpu.saturating_sub(self.before.cpu));
        let all = cpu.as_nanos() / interval.as_nanos().max(1);
        let outside = u64::try_from(all).unwrap_or(0).saturating_sub(in_lua);
        if outside > 0 {
            *counts.entry("(outside of Lua)".to_owned()).or_default() += outside;
        }
    }
}

/// Runs `work` on a worker and waits for its result; `None` if it does not answer in time.
fn ask<T: Send + 'static>(watched: &WatchedWorker, work: fn() -> T) -> Option<T> {
    let (reply, replied) = std::sync::mpsc::channel();
    watched.handle()?.spawn(async move {
        let _ = reply.send(work());
    });
    replied.recv_timeout(PATIENCE).ok()
}

fn graph(counts: &BTreeMap<String, u64>, time: Duration, interval: Duration) -> Result<String, Error> {
    if counts.is_empty() {
        return Err(Error::app("nothing was recorded: no worker ran Lua code for long enough to be seen"));
    }
    let mut options = Options::default();
    options.title = "Lua functions under their routes".to_owned();
    let mut subtitle = String::new();
    let _ = write!(subtitle, "{:.1} s, a look every {:.2} ms", time.as_secs_f64(), interval.as_secs_f64() * 1000.0);
    options.subtitle = Some(subtitle);
    options.count_name = "looks".to_owned();
    options.deterministic = true;
    let lines: Vec<String> = counts.iter().map(|(stack, count)| format!("{stack} {count}")).collect();
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(|error| Error::app(format!("cannot draw the profile: {error}")))?;
    String::from_utf8(svg).map_err(|_| Error::app("cannot draw the profile: it is not text"))
}
