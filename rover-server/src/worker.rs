//! A worker: one OS thread with a runtime, a Lua VM and the connections that the acceptor gives it.
//!
//! Comes in: a [`Blueprint`], then the [`Plan`] that all workers share, then connections. Goes out: reports while the
//! server starts. Nothing of a worker is shared with another one: a request runs to its end on the thread that owns its
//! connection, without a channel, a lock or a wake-up across threads.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
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
use crate::connection::Connection;
use crate::context::Peer;
use crate::lifecycle::Lifecycle;
use crate::log::{self, Level};
use crate::proxy_protocol;
use crate::service::Current;
use crate::socket::{SpareBuffers, Transport};
use crate::version::{Plan, Version};

/// What a worker tells while the server starts.
pub(crate) enum Report {
    /// The app has loaded, and declares this.
    Loaded(Declared),
    /// `on_start` has run: connections may come.
    Ready(Handle),
    /// The worker has given up.
    Failed(Mistakes),
}

/// A worker that is starting or serving.
pub(crate) struct Worker {
    reports: mpsc::Receiver<Report>,
    plan: Option<mpsc::Sender<Plan>>,
    handle: Option<Handle>,
    ended: Option<oneshot::Receiver<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread, which loads the app at once.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub(crate) fn start(blueprint: Blueprint) -> io::Result<Worker> {
        // These channels carry a handful of messages while the server starts, and nothing afterwards.
        let (report, reports) = mpsc::channel();
        let (plan, plans) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let name = format!("rover-{}", blueprint.worker);
        let thread = thread::Builder::new().name(name).spawn(move || {
            if let Err(mistakes) = run(&blueprint, &report, &plans) {
                let _ = report.send(Report::Failed(mistakes));
            }
            let _ = end.send(());
        })?;
        Ok(Worker { reports, plan: Some(plan), handle: None, ended: Some(ended), thread: Some(thread) })
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

    /// The runtime of a ready worker.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.handle.clone()
    }

    /// Asks a ready worker to finish what it has begun, and to end.
    pub(crate) fn stop(&self) {
        if let Some(handle) = &self.handle {
            handle.spawn(async { here(|this| this.stop.notify_one()) });
        }
    }

    /// Waits until the worker's thread has ended.
    pub(crate) async fn ended(mut self) {
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
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

/// Gives a connection to the worker whose runtime `handle` is of.
pub(crate) fn adopt(handle: &Handle, accepted: Accepted) {
    handle.spawn(async move { here(|this| this.serve(accepted)) });
}

/// Runs the app's `on_ready` on the worker whose runtime `handle` is of.
pub(crate) fn announce(handle: &Handle) {
    handle.spawn(async { here(|this| this.with_version(Version::announce)) });
}

/// Has a worker load the next version of the app beside the one that serves, and run its `on_start`.
pub(crate) async fn prepare(handle: &Handle, blueprint: Blueprint, plan: Plan) -> Result<(), Mistakes> {
    let (reply, replied) = oneshot::channel();
    handle.spawn(async move {
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
pub(crate) async fn switch(handle: &Handle) {
    let (done, is_done) = oneshot::channel::<()>();
    handle.spawn(async move {
        here(|this| this.switch());
        let _ = done.send(());
    });
    let _ = is_done.await;
}

/// Has a worker end the version that has been prepared, which is not to serve.
pub(crate) fn discard(handle: &Handle) {
    handle.spawn(async {
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
    fn new(version: Version) -> Rc<Here> {
        Rc::new(Here {
            current: Current::new(version.site.clone()),
            version: RefCell::new(Some(version)),
            next: RefCell::default(),
            retired: RefCell::default(),
            hurry: watch::Sender::new(false),
            lifecycle: Rc::default(),
            spare: Rc::default(),
            stop: Notify::new(),
        })
    }

    fn with_version(&self, look: impl FnOnce(&Version)) {
        if let Some(version) = &*self.version.borrow() {
            look(version);
        }
    }

    fn connection(&self, transport: Transport, peer: Peer) -> Connection {
        Connection::new(transport, peer, self.current.clone(), &self.lifecycle, self.spare.clone())
    }

    /// Serves a connection that begins with a header of the PROXY protocol. One that does not is closed.
    async fn serve_behind_proxy(self: Rc<Self>, mut transport: Transport, mut peer: Peer) {
        let site = self.current.site();
        let trusted = site.config.proxies.trusted.as_ref();
        let told = match trusted.is_none_or(|trusted| trusted.contains(peer.ip)) {
            true => proxy_protocol::read(&mut transport).await,
            false => Err(io::Error::other("the peer is not one of trusted_proxies")),
        };
        drop(site);
        match told {
            Ok(told) => {
                if told.is_secure {
                    peer.scheme = "https";
                }
                peer.ip = told.ip.or(peer.ip);
                self.connection(transport, peer).await;
            }
            Err(error) => log::event(Level::Debug, "a connection without a PROXY header was closed")
                .field("error", error.to_string().as_str())
                .field("ip", peer.ip.map(|ip| ip.to_string()).unwrap_or_default().as_str())
                .emit(),
        }
    }

    fn serve(self: &Rc<Self>, accepted: Accepted) {
        let (transport, ip) = match accepted {
            Accepted::Tcp(stream, ip) => (TcpStream::from_std(stream).map(Transport::Tcp), Some(ip)),
            Accepted::Unix(stream) => (UnixStream::from_std(stream).map(Transport::Unix), None),
        };
        match transport {
            Ok(transport) => {
                let peer = Peer::new(ip, "http");
                if self.current.site().config.proxies.protocol {
                    tokio::task::spawn_local(self.clone().serve_behind_proxy(transport, peer));
                } else {
                    tokio::task::spawn_local(self.connection(transport, peer));
                }
            }
            Err(error) => log::event(Level::Error, "cannot watch an accepted connection")
                .field("error", error.to_string().as_str())
                .emit(),
        }
    }

    async fn prepare(&self, blueprint: &Blueprint, plan: Plan) -> Result<(), Mistakes> {
        let (app, declared) = App::load(blueprint)?;
        let next = Version::start(app, &declared, plan, blueprint.worker).await?;
        let stale = self.next.replace(Some(next));
        self.retire(stale);
        Ok(())
    }

    fn switch(&self) {
        let Some(next) = self.next.take() else { return };
        self.current.switch(next.site.clone());
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
fn run(blueprint: &Blueprint, report: &mpsc::Sender<Report>, plans: &mpsc::Receiver<Plan>) -> Result<(), Mistakes> {
    log::set_worker(u32::try_from(blueprint.worker).unwrap_or(0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| Mistakes(vec![format!("cannot start a worker's runtime: {error}")]))?;
    let (app, declared) = App::load(blueprint)?;
    let _ = report.send(Report::Loaded(declared.clone()));
    let Ok(plan) = plans.recv() else { return Ok(()) };
    let served = runtime.block_on(async {
        let this = Here::new(Version::start(app, &declared, plan, blueprint.worker).await?);
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
