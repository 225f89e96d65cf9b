//! A worker: one OS thread with a runtime, a Lua VM and the connections that the acceptor gives it.
//!
//! Comes in: a [`Blueprint`], then the [`Plan`] that all workers share, then connections. Goes out: reports while the
//! server starts. Nothing of a worker is shared with another one: a request runs to its end on the thread that owns its
//! connection, without a channel, a lock or a wake-up across threads.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Handle, LocalOptions};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::accept::Accepted;
use crate::app::{App, Blueprint, Declared, Mistakes};
use crate::config::Limits;
use crate::connection::Connection;
use crate::context::Peer;
use crate::lifecycle::Lifecycle;
use crate::log::{self, Level};
use crate::service::Current;
use crate::socket::{SpareBuffers, Transport};
use crate::version::{Plan, Version};
use crate::watchdog::{Charge, Listed, Sockets, Watchdog};

/// What a worker tells while the server starts.
pub(crate) enum Report {
    /// The app has loaded, and declares this.
    Loaded(Declared),
    /// `on_start` has run: connections may come.
    Ready(Handle),
    /// The worker has given up.
    Failed(Mistakes),
}

/// A worker that will not end by itself.
enum Ending {
    Lost,
}

/// A worker that is starting or serving.
pub(crate) struct Worker {
    reports: mpsc::Receiver<Report>,
    plan: Option<mpsc::Sender<Plan>>,
    handle: Option<Handle>,
    sockets: Arc<Sockets>,
    /// Fails when the thread has ended.
    ended: Option<oneshot::Receiver<Ending>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread, which loads the app at once.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub(crate) fn start(blueprint: Blueprint, watchdog: &Watchdog, limits: Limits) -> io::Result<Worker> {
        // These channels carry a handful of messages while the server starts, and nothing afterwards.
        let (report, reports) = mpsc::channel();
        let (plan, plans) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let name = format!("rover-{}", blueprint.worker);
        let charge = watchdog.charge(blueprint.worker, limits);
        let sockets = charge.sockets().clone();
        let failed = report.clone();
        // Whoever waits for a worker that is given up waits no more.
        charge.on_release(move |reason| {
            let _ = failed.send(Report::Failed(Mistakes(vec![reason.to_owned()])));
            let _ = end.send(Ending::Lost);
        });
        let thread = thread::Builder::new().name(name).spawn(move || {
            let on_duty = charge.begin();
            if let Err(mistakes) = run(&blueprint, &report, &plans, &charge) {
                let _ = report.send(Report::Failed(mistakes));
            }
            drop(on_duty);
            charge.on_release(|_| {});
        })?;
        Ok(Worker { reports, plan: Some(plan), handle: None, sockets, ended: Some(ended), thread: Some(thread) })
    }

    /// Waits until the app has loaded.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn loaded(&self) -> Result<Declared, Mistakes> {
        match self.reports.recv() {
            Ok(Report::Loaded(declared)) => Ok(declared),
            Ok(Report::Failed(mistakes)) => Err(mistakes),
            Ok(Report::Ready(_)) | Err(_) => Err(died()),
        }
    }

    /// Lets a loaded worker go on to serve.
    pub(crate) fn go(&mut self, plan: Plan) {
        if let Some(sender) = self.plan.take() {
            let _ = sender.send(plan);
        }
    }

    /// Waits until the worker takes connections.
    ///
    /// # Errors
    /// What `on_start` raised.
    pub(crate) fn ready(&mut self) -> Result<(), Mistakes> {
        match self.reports.recv() {
            Ok(Report::Ready(handle)) => {
                self.handle = Some(handle);
                Ok(())
            }
            Ok(Report::Failed(mistakes)) => Err(mistakes),
            Ok(Report::Loaded(_)) | Err(_) => Err(died()),
        }
    }

    /// Where a ready worker is found.
    pub(crate) fn post(&self) -> Option<Post> {
        Some(Post { handle: self.handle.clone()?, sockets: self.sockets.clone() })
    }

    /// Asks a ready worker to finish what it has begun, and to end.
    pub(crate) fn stop(&self) {
        if let Some(handle) = &self.handle {
            handle.spawn(async { here(|this| this.stop.notify_one()) });
        }
    }

    /// Waits until the worker's thread has ended.
    pub(crate) async fn ended(mut self) {
        if let Some(ended) = self.ended.take()
            && let Ok(Ending::Lost) = ended.await
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
    /// A worker that nobody waits for any more ends by itself.
    fn drop(&mut self) {
        self.plan = None;
        self.stop();
    }
}

fn died() -> Mistakes {
    Mistakes(vec!["a worker ended unexpectedly while it started; this is a bug in Rover".to_owned()])
}

/// Where a worker is found, from any thread.
#[derive(Clone)]
pub(crate) struct Post {
    handle: Handle,
    sockets: Arc<Sockets>,
}

/// Gives a connection to the worker at `post`.
pub(crate) fn adopt(post: &Post, accepted: Accepted) {
    let descriptor = match &accepted {
        Accepted::Tcp(stream, _) => stream.as_raw_fd(),
        Accepted::Unix(stream) => stream.as_raw_fd(),
    };
    let accepted = Listed::new(&post.sockets, descriptor, accepted);
    post.handle.spawn(async move { here(|this| this.serve(accepted)) });
}

/// Runs the app's `on_ready` on the worker at `post`.
pub(crate) fn announce(post: &Post) {
    post.handle.spawn(async { here(|this| this.with_version(Version::announce)) });
}

/// Has a worker load the next version of the app beside the one that serves, and run its `on_start`.
pub(crate) async fn prepare(post: &Post, blueprint: Blueprint, plan: Plan) -> Result<(), Mistakes> {
    let (reply, replied) = oneshot::channel();
    post.handle.spawn(async move {
        here(|this| {
            let this = this.clone();
            tokio::task::spawn_local(async move {
                let _ = reply.send(this.prepare(&blueprint, plan).await);
            });
        });
    });
    replied.await.unwrap_or_else(|_| Err(Mistakes(vec!["the server has stopped".to_owned()])))
}

/// Lets a worker's next requests go to the version that has been prepared. The one before ends with its last request.
pub(crate) async fn switch(post: &Post) {
    let (done, is_done) = oneshot::channel::<()>();
    post.handle.spawn(async move {
        here(|this| this.switch());
        let _ = done.send(());
    });
    let _ = is_done.await;
}

/// Has a worker end the version that has been prepared, which is not to serve.
pub(crate) fn discard(post: &Post) {
    post.handle.spawn(async {
        here(|this| {
            let next = this.next.take();
            this.retire(next);
        });
    });
}

/// The worker that a thread is.
struct Here {
    current: Rc<Current>,
    /// The version that serves.
    version: RefCell<Option<Version>>,
    /// The one that has been prepared.
    next: RefCell<Option<Version>>,
    /// Those that have served, each until its last request has ended.
    retired: RefCell<Vec<JoinHandle<()>>>,
    /// Nobody waits for requests of retired versions any more.
    hurry: watch::Sender<bool>,
    lifecycle: Rc<Lifecycle>,
    spare: Rc<SpareBuffers>,
    charge: Arc<Charge>,
    stop: Notify,
}

thread_local! {
    /// How tasks that come from other threads find the worker: nothing of it could travel with them.
    static HERE: RefCell<Option<Rc<Here>>> = const { RefCell::new(None) };
}

fn here(work: impl FnOnce(&Rc<Here>)) {
    let this = HERE.with_borrow(Clone::clone);
    if let Some(this) = this {
        work(&this);
    }
}

impl Here {
    fn new(version: Version, charge: &Arc<Charge>) -> Rc<Here> {
        Rc::new(Here {
            current: Current::new(version.site.clone()),
            version: RefCell::new(Some(version)),
            next: RefCell::default(),
            retired: RefCell::default(),
            hurry: watch::Sender::new(false),
            lifecycle: Rc::default(),
            spare: Rc::default(),
            charge: charge.clone(),
            stop: Notify::new(),
        })
    }

    fn with_version(&self, look: impl FnOnce(&Version)) {
        if let Some(version) = &*self.version.borrow() {
            look(version);
        }
    }

    fn serve(&self, accepted: Listed<Accepted>) {
        let connection = accepted.map(|accepted| -> io::Result<Connection> {
            let (transport, ip) = match accepted {
                Accepted::Tcp(stream, ip) => (Transport::Tcp(TcpStream::from_std(stream)?), Some(ip)),
                Accepted::Unix(stream) => (Transport::Unix(UnixStream::from_std(stream)?), None),
            };
            let peer = Peer::new(ip, "http");
            Ok(Connection::new(transport, peer, self.current.clone(), &self.lifecycle, self.spare.clone()))
        });
        match connection {
            Ok(connection) => {
                tokio::task::spawn_local(connection);
            }
            Err(error) => log::event(Level::Error, "cannot watch an accepted connection")
                .field("error", error.to_string().as_str())
                .emit(),
        }
    }

    async fn prepare(&self, blueprint: &Blueprint, plan: Plan) -> Result<(), Mistakes> {
        self.charge.starts(plan.config.limits);
        let next = async {
            let (app, declared) = App::load(blueprint)?;
            Version::start(app, &declared, plan, blueprint.worker).await
        };
        let next = next.await;
        self.charge.serves(self.current.site().config.limits);
        let next = next?;
        let stale = self.next.replace(Some(next));
        self.retire(stale);
        Ok(())
    }

    fn switch(&self) {
        let Some(next) = self.next.take() else { return };
        self.current.switch(next.site.clone());
        self.charge.serves(next.site.config.limits);
        let last = self.version.replace(Some(next));
        self.retire(last);
    }

    fn retire(&self, version: Option<Version>) {
        let Some(version) = version else { return };
        let mut retired = self.retired.borrow_mut();
        retired.retain(|task| !task.is_finished());
        retired.push(tokio::task::spawn_local(version.retire(self.hurry.subscribe())));
    }

    /// Lets the requests end within the time that the config gives them, and then every version.
    async fn wind_down(&self) {
        let timeout = self.current.site().config.shutdown_timeout;
        let deadline = Instant::now() + timeout;
        self.with_version(Version::tell);
        if timeout_at(deadline, self.lifecycle.drain()).await.is_err() {
            log::event(Level::Warn, "shutdown_timeout is over: connections that are left are cut").emit();
        }
        let next = self.next.take();
        self.retire(next);
        let _ = self.hurry.send(true);
        for retired in self.retired.take() {
            let _ = retired.await;
        }
        let version = self.version.take();
        if let Some(version) = version {
            version.end(deadline).await;
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
    charge: &Arc<Charge>,
) -> Result<(), Mistakes> {
    log::set_worker(u32::try_from(blueprint.worker).unwrap_or(0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| Mistakes(vec![format!("cannot start a worker's runtime: {error}")]))?;
    charge.runs_in(runtime.handle().clone());
    let (app, declared) = App::load(blueprint)?;
    let _ = report.send(Report::Loaded(declared.clone()));
    let Ok(plan) = plans.recv() else { return Ok(()) };
    let served = runtime.block_on(async {
        let limits = plan.config.limits;
        let this = Here::new(Version::start(app, &declared, plan, blueprint.worker).await?, charge);
        charge.serves(limits);
        HERE.set(Some(this.clone()));
        let _ = report.send(Report::Ready(runtime.handle().clone()));
        this.stop.notified().await;
        this.wind_down().await;
        Ok(())
    });
    // Tasks that are left must not outlive the VMs that they point into.
    // Work on other threads may be stuck for good, say in a pipe that nobody writes to: only then this takes its time.
    runtime.shutdown_timeout(PATIENCE_WITH_BLOCKED);
    HERE.set(None);
    served
}
