//! A worker: one OS thread with a runtime, a Lua VM and the connections that the acceptor gives it.
//!
//! Comes in: a [`Blueprint`], then the [`Plan`] that all workers share, then connections. Goes out: reports while the
//! server starts. Nothing of a worker is shared with another one: a request runs to its end on the thread that owns its
//! connection, without a channel, a lock or a wake-up across threads.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Handle, LocalOptions};
use tokio::sync::{Notify, oneshot};

use crate::accept::{Accepted, Role, Stream};
use crate::admission::Permit;
use crate::app::{App, Blueprint, Declared, Mistakes};
use crate::config::Config;
use crate::connection::{self, Connection};
use crate::context::Peer;
use crate::handler;
use crate::lifecycle::Lifecycle;
use crate::log::{self, Level};
use crate::route::FastRouter;
use crate::service::Site;
use crate::socket::{Agreed, SpareBuffers, Transport};
use crate::tasks::Driver;
use crate::tls::Tls;

/// What all workers of a server have in common, decided once the first has loaded the app.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) router: Arc<FastRouter>,
    pub(crate) config: Arc<Config>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// Where https is, for connections that are sent there.
    pub(crate) https_port: Option<u16>,
}

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
pub(crate) fn adopt(handle: &Handle, accepted: Accepted, permit: Permit) {
    handle.spawn(async move { here(|this| this.serve(accepted, permit)) });
}

/// Runs the app's `on_ready` on the worker whose runtime `handle` is of.
pub(crate) fn announce(handle: &Handle) {
    handle.spawn(async {
        here(|this| {
            if let Some(entry) = this.site.app.hooks.on_ready {
                let app = this.site.app.clone();
                tokio::task::spawn_local(async move { report_hook(&app, entry, "on_ready").await });
            }
        });
    });
}

/// The worker that a thread is.
struct Here {
    site: Rc<Site>,
    lifecycle: Rc<Lifecycle>,
    spare: Rc<SpareBuffers>,
    tls: Option<Arc<Tls>>,
    https_port: Option<u16>,
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
    fn serve(self: &Rc<Self>, accepted: Accepted, permit: Permit) {
        let Accepted { stream, ip, role } = accepted;
        let transport = match stream {
            Stream::Tcp(stream) => TcpStream::from_std(stream).map(Transport::Tcp),
            Stream::Unix(stream) => UnixStream::from_std(stream).map(Transport::Unix),
        };
        let transport = match transport {
            Ok(transport) => transport,
            Err(error) => {
                return log::event(Level::Error, "cannot watch an accepted connection")
                    .field("error", error.to_string().as_str())
                    .emit();
            }
        };
        match (role, &self.tls) {
            (Role::Tls, Some(tls)) => {
                let (this, tls) = (self.clone(), tls.current());
                tokio::task::spawn_local(async move {
                    let patience = this.site.config.tls.handshake_timeout;
                    if let Some((transport, agreed)) = connection::handshake(transport, tls, patience).await {
                        this.connect(transport, Peer::new(ip, "https"), agreed, permit);
                    }
                });
            }
            (Role::Redirect, _) => {
                let peer = Peer { https_port: self.https_port, ..Peer::new(ip, "http") };
                self.connect(transport, peer, Agreed::Nothing, permit);
            }
            (Role::Plain | Role::Tls, _) => {
                self.connect(transport, Peer::new(ip, "http"), Agreed::Nothing, permit);
            }
        }
    }

    /// Serves a connection, in a task of its own.
    fn connect(&self, transport: Transport, peer: Peer, agreed: Agreed, permit: Permit) {
        let connection =
            Connection::new(transport, peer, agreed, self.site.clone(), &self.lifecycle, self.spare.clone());
        tokio::task::spawn_local(connection.keeping(permit));
    }
}

/// The life of a worker's thread.
fn run(blueprint: &Blueprint, report: &mpsc::Sender<Report>, plans: &mpsc::Receiver<Plan>) -> Result<(), Mistakes> {
    log::set_worker(u32::try_from(blueprint.worker).unwrap_or(0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| Mistakes(vec![format!("cannot start a worker's runtime: {error}")]))?;
    let (app, declared) = App::load(blueprint)?;
    let _ = report.send(Report::Loaded(declared));
    let Ok(plan) = plans.recv() else { return Ok(()) };
    app.settle(&plan.router, &plan.config);
    let Plan { router, config, tls, https_port } = plan;
    let site = Rc::new(Site { app: Rc::new(app), router, config });
    let (lifecycle, spare) = (Rc::default(), Rc::default());
    let this = Rc::new(Here { site, lifecycle, spare, tls, https_port, stop: Notify::new() });
    HERE.set(Some(this.clone()));
    let served = runtime.block_on(serve(&this, runtime.handle(), report));
    // Tasks that are left must not outlive the VM that they point into.
    drop(runtime);
    HERE.set(None);
    served
}

async fn serve(this: &Rc<Here>, handle: &Handle, report: &mpsc::Sender<Report>) -> Result<(), Mistakes> {
    let app = &this.site.app;
    let driver = tokio::task::spawn_local(Driver::new(app.tasks.clone()));
    let (lifecycle, tick) = (this.lifecycle.clone(), connection::tick(&this.site.config.connections));
    tokio::task::spawn_local(async move { lifecycle.run_clock(tick).await });
    if let Some(entry) = app.hooks.on_start {
        handler::run_hook(app, entry)
            .await
            .map_err(|failure| Mistakes(vec![format!("on_start failed: {}", failure.described())]))?;
    }
    let _ = report.send(Report::Ready(handle.clone()));
    this.stop.notified().await;
    app.tasks.ending().tell();
    let timeout = this.site.config.shutdown_timeout;
    if tokio::time::timeout(timeout, this.lifecycle.drain()).await.is_err() {
        log::event(Level::Warn, "shutdown_timeout is over: connections that are left are cut").emit();
    }
    app.tasks.stop();
    driver.abort();
    let _ = driver.await;
    if let Some(entry) = app.hooks.on_shutdown {
        report_hook(app, entry, "on_shutdown").await;
    }
    Ok(())
}

/// Runs a hook whose failure stops nothing.
async fn report_hook(app: &Rc<App>, entry: std::ffi::c_int, name: &str) {
    if let Err(failure) = handler::run_hook(app, entry).await {
        log::event(Level::Error, &format!("{name} failed: {}", failure.message))
            .field("traceback", failure.trace().as_str())
            .emit();
    }
}
