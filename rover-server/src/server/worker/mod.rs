//! Runs a worker: one OS thread with a runtime, a Lua VM and the connections that the acceptor gives it.
//!
//! Comes in: a [`Blueprint`], then the [`Plan`] that all workers share, then connections. Goes out: reports while the
//! server starts. Nothing of a worker is shared with another one: a request runs to its end on the thread that owns its
//! connection, without a channel, a lock or a wake-up across threads.

mod state;
mod report;

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Handle, LocalOptions};
use tokio::sync::{oneshot, watch};

pub(crate) use report::{WorkerFigures, report};
pub(crate) use state::{adopt, announce, check, close_route, discard, prepare, switch};

use crate::config::Limits;
use crate::log;
use crate::observe::metrics::Archive;
use crate::runtime::blocking;
use crate::runtime::random;
use crate::script::app::{App, Blueprint, Declared, Mistakes, Unfinished};
use crate::server::version::{Plan, Version};
use crate::server::watchdog::{OpenSockets, Watchdog, WatchedWorker, roomy_thread};

use state::{Https, WorkerState, with_worker};

/// What a worker reports while the server starts.
pub(crate) enum Report {
    /// The app has loaded and declares this, or has failed to load.
    Loaded(Result<Declared, Unfinished>),
    /// `on_start` has run: connections may come.
    Ready(Handle),
    /// The worker has given up.
    Failed(Mistakes),
}

/// Why a worker is not waited for any more.
enum WorkerEnd {
    Lost,
}

/// A worker that is starting or serving.
pub(crate) struct Worker {
    reports: mpsc::Receiver<Report>,
    plan: Option<mpsc::Sender<Plan>>,
    /// Dropped, it cancels a running `on_start`.
    _kept: oneshot::Sender<()>,
    handle: Option<Handle>,
    sockets: Arc<OpenSockets>,
    is_gone: watch::Receiver<()>,
    /// Fails when the thread has ended.
    ended: Option<oneshot::Receiver<WorkerEnd>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// The worker's thread, until it has been joined.
    pub(crate) fn thread(&self) -> Option<thread::ThreadId> {
        self.thread.as_ref().map(|thread| thread.thread().id())
    }

    /// Starts the thread, which loads the app at once.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub(crate) fn start(blueprint: Blueprint, watchdog: &Watchdog, limits: Limits) -> io::Result<Worker> {
        // These channels carry a handful of messages while the server starts, and nothing afterwards.
        let (report, reports) = mpsc::channel();
        let (plan, plans) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let (kept, is_kept) = oneshot::channel();
        let name = format!("rover-{}", blueprint.worker);
        let watched = watchdog.watch_worker(blueprint.worker, limits);
        let sockets = watched.sockets().clone();
        let failed = report.clone();
        let (with_worker, is_gone) = watch::channel(());
        // Releases those who wait for a worker that is given up.
        watched.on_release(move |reason| {
            drop(with_worker);
            let _ = failed.send(Report::Failed(Mistakes(vec![reason.to_owned()])));
            let _ = end.send(WorkerEnd::Lost);
        });
        let own = watched.clone();
        let spawned = roomy_thread(name).spawn(move || {
            let watch_guard = watched.begin();
            if let Err(mistakes) = run(&blueprint, &report, &plans, is_kept, &watched) {
                let _ = report.send(Report::Failed(mistakes));
            }
            drop(watch_guard);
            watched.on_release(|_| {});
        });
        let thread = spawned.inspect_err(|_| own.dismiss())?;
        let (plan, ended, thread) = (Some(plan), Some(ended), Some(thread));
        Ok(Worker { reports, plan, _kept: kept, handle: None, sockets, is_gone, ended, thread })
    }

    /// Waits until the app has loaded.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn loaded(&self) -> Result<Declared, Unfinished> {
        match self.reports.recv() {
            Ok(Report::Loaded(loaded)) => loaded,
            Ok(Report::Failed(mistakes)) => Err(mistakes.into()),
            Ok(Report::Ready(_)) | Err(_) => Err(died().into()),
        }
    }

    /// Gives a loaded worker its plan, with which it serves.
    pub(crate) fn go(&mut self, plan: Plan) {
        if let Some(sender) = self.plan.take() {
            let _ = sender.send(plan);
        }
    }

    /// Waits until the worker takes connections, at most for `patience` if that is given.
    ///
    /// # Errors
    /// What `on_start` raised; or that it took too long.
    pub(crate) fn ready(&mut self, patience: Option<Duration>) -> Result<(), Mistakes> {
        let report = match patience {
            None => self.reports.recv().map_err(|_| died()),
            Some(patience) => self.reports.recv_timeout(patience).map_err(|error| match error {
                mpsc::RecvTimeoutError::Timeout => too_slow(patience),
                mpsc::RecvTimeoutError::Disconnected => died(),
            }),
        };
        match report {
            Err(mistakes) => Err(mistakes),
            Ok(Report::Ready(handle)) => {
                self.handle = Some(handle);
                Ok(())
            }
            Ok(Report::Failed(mistakes)) => Err(mistakes),
            Ok(Report::Loaded(_)) => Err(died()),
        }
    }

    /// The post of a ready worker.
    pub(crate) fn handle(&self) -> Option<WorkerHandle> {
        Some(WorkerHandle {
            handle: self.handle.clone()?,
            sockets: self.sockets.clone(),
            is_gone: self.is_gone.clone(),
        })
    }

    /// Asks a ready worker to finish what it has begun, and to end.
    pub(crate) fn stop(&self) {
        if let Some(handle) = &self.handle {
            handle.spawn(async { with_worker(|this| this.stop.notify_one()) });
        }
    }

    /// Waits until the worker's thread has ended.
    pub(crate) async fn ended(mut self) {
        if let Some(ended) = self.ended.take()
            && let Ok(WorkerEnd::Lost) = ended.await
        {
            // Its thread may never end.
            return;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    /// A dropped worker ends by itself.
    fn drop(&mut self) {
        self.plan = None;
        self.stop();
    }
}

fn died() -> Mistakes {
    Mistakes(vec!["a worker ended unexpectedly while it started; this is a bug in Rover".to_owned()])
}

/// `on_start` has had `patience`.
fn too_slow(patience: Duration) -> Mistakes {
    let seconds = patience.as_secs_f64();
    Mistakes(vec![format!("on_start has not ended within {seconds} s (reload_timeout)")])
}

/// A handle to a worker, for any thread.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    handle: Handle,
    sockets: Arc<OpenSockets>,
    /// Closed once the worker has ended, or was given up.
    is_gone: watch::Receiver<()>,
}

impl WorkerHandle {
    /// Whether both are handles to the same worker.
    pub(crate) fn is(&self, other: &WorkerHandle) -> bool {
        Arc::ptr_eq(&self.sockets, &other.sockets)
    }

    /// Waits for `work` of the worker; `None` if the worker is gone first.
    async fn unless_gone<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut is_gone = self.is_gone.clone();
        tokio::select! {
            biased;
            done = work => Some(done),
            _ = is_gone.changed() => None,
        }
    }
}

/// How long a worker that ends waits for work on other threads, such as a file being written.
const PATIENCE_WITH_BLOCKED: Duration = Duration::from_secs(1);

/// The life of a worker's thread.
fn run(
    blueprint: &Blueprint,
    report: &mpsc::Sender<Report>,
    plans: &mpsc::Receiver<Plan>,
    is_kept: oneshot::Receiver<()>,
    watched: &Arc<WatchedWorker>,
) -> Result<(), Mistakes> {
    log::set_worker(u32::try_from(blueprint.worker).unwrap_or(0));
    // For the ids of requests and traces.
    fastrand::seed(random::seed());
    let (parks, unparks) = (watched.clone(), watched.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || parks.parks())
        .on_thread_unpark(move || {
            unparks.unparks();
            state::found_work();
        })
        .build_local(LocalOptions::default())
        .map_err(|error| Mistakes(vec![format!("cannot start a worker's runtime: {error}")]))?;
    watched.runs_in(runtime.handle().clone());
    let (app, declared) = match App::load(blueprint) {
        Ok(loaded) => loaded,
        Err(unfinished) => {
            let _ = report.send(Report::Loaded(Err(unfinished)));
            return Ok(());
        }
    };
    let _ = report.send(Report::Loaded(Ok(declared.clone())));
    let Ok(plan) = plans.recv() else { return Ok(()) };
    let served = runtime.block_on(async {
        let limits = plan.config.limits;
        let https = Https { tls: plan.tls.clone(), port: plan.https_port };
        let archive = Archive::default();
        let version = tokio::select! {
            biased;
            started = Version::start(app, &declared, plan, blueprint.worker, &archive) => started?,
            // Nobody waits for it any more.
            _ = is_kept => return Ok(()),
        };
        let this = WorkerState::begin(version, blueprint.worker, archive, watched, https);
        watched.serves(limits);
        let _ = report.send(Report::Ready(runtime.handle().clone()));
        this.stop.notified().await;
        this.wind_down().await;
        Ok(())
    });
    // Remaining tasks must not outlive the VMs that they point into. Work on other threads may be stuck, for example in
    // a pipe that nobody writes to: only then does this take the whole time.
    blocking::wait_for_own(PATIENCE_WITH_BLOCKED);
    runtime.shutdown_timeout(PATIENCE_WITH_BLOCKED);
    WorkerState::end();
    served
}
