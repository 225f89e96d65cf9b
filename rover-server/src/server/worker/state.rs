//! The state of a worker on its own thread, and the requests of other threads to it.
//!
//! Nothing of a worker can move to another thread. So other threads spawn a task on its runtime, which finds the worker
//! in a thread-local.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::config::Limits;
use crate::connection::{self, Connection, HandshakeOutcome};
use crate::exchange::context::Peer;
use crate::listen::accept::{AcceptedStream, ClientStream, Role};
use crate::listen::admission::ConnectionPermit;
use crate::listen::proxy_protocol;
use crate::listen::tls::{self, ServerTls};
use crate::log::{self, Level};
use crate::observe::metrics::{Archive, Lag};
use crate::route::FastRouter;
use crate::script::app::{App, Blueprint, Mistakes};
use crate::server::readiness;
use crate::server::version::{Plan, Version};
use crate::server::watchdog::{Listed, WatchedWorker};
use crate::service::CurrentSite;
use crate::transport::lifecycle::Lifecycle;
use crate::transport::socket::{Agreed, SpareBuffers, Transport};

use super::WorkerHandle;

/// Gives a connection to the worker.
pub(crate) fn adopt(worker: &WorkerHandle, accepted: AcceptedStream, permit: ConnectionPermit) {
    let descriptor = match &accepted.stream {
        ClientStream::Tcp(stream) => stream.as_raw_fd(),
        ClientStream::Unix(stream) => stream.as_raw_fd(),
    };
    let role = accepted.role;
    let accepted = Listed::new(&worker.sockets, descriptor, accepted);
    worker.handle.spawn(async move { with_worker(|this| this.serve(accepted, role, permit)) });
}

/// Runs the app's `on_ready` on the worker.
pub(crate) fn announce(worker: &WorkerHandle) {
    worker.handle.spawn(async { with_worker(|this| this.with_version(Version::announce)) });
}

/// Has a worker load the next version of the app beside the one that serves, and run its `on_start`. Dropping the
/// future cancels this, and everything that the version has begun.
///
/// # Errors
/// What is wrong with the version; it has not started within `reload_timeout`; or the worker is gone.
pub(crate) async fn prepare(worker: &WorkerHandle, blueprint: Blueprint, plan: Plan) -> Result<(), Mistakes> {
    let number = blueprint.worker;
    let (mut reply, replied) = oneshot::channel();
    worker.handle.spawn(async move {
        with_worker(|this| {
            let this = this.clone();
            tokio::task::spawn_local(async move {
                let prepared = tokio::select! {
                    biased;
                    () = reply.closed() => return,
                    prepared = this.prepare(&blueprint, plan) => prepared,
                };
                if reply.send(prepared).is_err() {
                    this.discard();
                }
            });
        });
    });
    let failed = |reason: String| Err(Mistakes(vec![reason]));
    match worker.unless_gone(replied).await {
        Some(Ok(prepared)) => prepared,
        Some(Err(_)) => failed("the server has stopped".to_owned()),
        None => failed(format!("worker {number} was lost before the new version was ready in it")),
    }
}

/// Switches a worker's next requests to the prepared version. The old one ends with its last request.
pub(crate) async fn switch(worker: &WorkerHandle) {
    let (done, is_done) = oneshot::channel::<()>();
    worker.handle.spawn(async move {
        with_worker(|this| this.switch());
        let _ = done.send(());
    });
    // A lost worker does not return to serve.
    let _ = worker.unless_gone(is_done).await;
}

/// Has a worker end the prepared version without serving it.
pub(crate) fn discard(worker: &WorkerHandle) {
    worker.handle.spawn(async { with_worker(|this| this.discard()) });
}

/// Has the version of this router answer 503 for this function, without running it.
pub(crate) fn close_route(worker: &WorkerHandle, version: &Arc<FastRouter>, function: u32) {
    let version = version.clone();
    worker.handle.spawn(async move {
        with_worker(|this| {
            let site = this.current.site();
            if Arc::ptr_eq(&site.router, &version) {
                site.app.close(function);
            }
        });
    });
}

/// Asks the app in a worker whether it is ready. Dropping the future cancels the app's check.
///
/// # Errors
/// Why it is not.
pub(crate) async fn check(worker: &WorkerHandle) -> Result<(), String> {
    let (mut reply, replied) = oneshot::channel();
    worker.handle.spawn(async move {
        with_worker(|this| {
            let site = this.current.site();
            tokio::task::spawn_local(async move {
                let checked = tokio::select! {
                    biased;
                    () = reply.closed() => return,
                    checked = readiness::check(&site.app) => checked,
                };
                let _ = reply.send(checked);
            });
        });
    });
    replied.await.unwrap_or_else(|_| Err("the server has stopped".to_owned()))
}

/// Held while code of the next version runs, with the limits of a start. Dropped, it restores the worker's limits.
struct StartLimits<'a>(&'a WorkerState);

impl<'a> StartLimits<'a> {
    fn new(this: &'a WorkerState, limits: Limits) -> StartLimits<'a> {
        this.watched.starts(limits);
        StartLimits(this)
    }
}

impl Drop for StartLimits<'_> {
    fn drop(&mut self) {
        self.0.watched.serves(self.0.current.site().config.limits);
    }
}

/// What a worker needs for https.
pub(super) struct Https {
    pub(super) tls: Option<Arc<ServerTls>>,
    /// The port of https, for redirects.
    pub(super) port: Option<u16>,
}

/// The state of a worker.
pub(super) struct WorkerState {
    pub(super) number: usize,
    pub(super) current: Rc<CurrentSite>,
    /// The version that serves.
    pub(super) version: RefCell<Option<Version>>,
    /// The prepared version.
    next: RefCell<Option<Version>>,
    /// Old versions, each until its last request has ended.
    pub(super) retired: RefCell<Vec<JoinHandle<()>>>,
    /// Says not to wait for the requests of retired versions any more.
    hurry: watch::Sender<bool>,
    pub(super) lifecycle: Rc<Lifecycle>,
    /// Moves the clock of the connections.
    clock: RefCell<Option<JoinHandle<()>>>,
    pub(super) spare: Rc<SpareBuffers>,
    pub(super) accepted: Cell<u64>,
    pub(super) lag: Rc<Lag>,
    pub(super) archive: Archive,
    watched: Arc<WatchedWorker>,
    https: Https,
    pub(super) stop: Notify,
    lag_signal: Rc<LagSignal>,
}

thread_local! {
    /// How often this thread has found work.
    static TURNS: Cell<u64> = const { Cell::new(0) };
    /// The lag is not measured until the thread has work.
    static LAG_STANDS: Cell<bool> = const { Cell::new(false) };
    /// How tasks from other threads find the worker, which cannot move with them.
    static WORKER: RefCell<Option<Rc<WorkerState>>> = const { RefCell::new(None) };
}

pub(super) fn with_worker(work: impl FnOnce(&Rc<WorkerState>)) {
    let this = WORKER.with_borrow(Clone::clone);
    if let Some(this) = this {
        work(&this);
    }
}

/// Wakes the measuring of the lag when there is work.
#[derive(Default)]
struct LagSignal {
    at: Cell<Option<Instant>>,
    notify: Notify,
}

impl LagSignal {
    fn tell(&self) {
        self.at.set(Some(Instant::now()));
        self.notify.notify_one();
    }

    /// Waits, and returns when it was told.
    async fn told(&self) -> Instant {
        self.notify.notified().await;
        self.at.take().unwrap_or_else(Instant::now)
    }
}

/// Notes that this thread has found work.
pub(super) fn found_work() {
    TURNS.set(TURNS.get().wrapping_add(1));
    if LAG_STANDS.take() {
        with_worker(|this| this.lag_signal.tell());
    }
}

impl WorkerState {
    /// Makes this thread a worker whose first version has started.
    pub(super) fn begin(
        version: Version,
        number: usize,
        archive: Archive,
        watched: &Arc<WatchedWorker>,
        https: Https,
    ) -> Rc<WorkerState> {
        let this = Rc::new(WorkerState {
            number,
            current: CurrentSite::new(version.site.clone()),
            version: RefCell::new(Some(version)),
            next: RefCell::default(),
            retired: RefCell::default(),
            hurry: watch::Sender::new(false),
            lifecycle: Rc::default(),
            clock: RefCell::default(),
            spare: Rc::default(),
            accepted: Cell::new(0),
            lag: Rc::default(),
            archive,
            watched: watched.clone(),
            https,
            stop: Notify::new(),
            lag_signal: Rc::default(),
        });
        if this.current.site().config.management.is_on() {
            this.watch_lag();
        }
        this.count_cpu();
        this.start_clock();
        tokio::task::spawn_local(this.current.site().app.in_flight().clone().give_back());
        WORKER.set(Some(this.clone()));
        this
    }

    /// Starts the connections' clock with the tick that the current version needs.
    fn start_clock(&self) {
        let (lifecycle, tick) = (self.lifecycle.clone(), connection::tick(&self.current.site().config));
        let clock = tokio::task::spawn_local(async move { lifecycle.run_clock(tick).await });
        if let Some(last) = self.clock.replace(Some(clock)) {
            last.abort();
        }
    }

    /// Ends the worker of this thread.
    pub(super) fn end() {
        WORKER.set(None);
    }

    /// Measures how late the event loop is, repeatedly, while it has work.
    fn watch_lag(&self) {
        let (lag, lag_signal) = (self.lag.clone(), self.lag_signal.clone());
        tokio::task::spawn_local(async move {
            loop {
                let before = TURNS.get();
                let due = Instant::now() + Lag::PERIOD;
                sleep_until(due).await;
                lag.note(due.elapsed());
                // One turn is that of the timer itself.
                if TURNS.get().wrapping_sub(before) <= 1 {
                    LAG_STANDS.set(true);
                    lag.note(lag_signal.told().await.elapsed());
                }
            }
        });
    }

    /// Counts the CPU time of functions in the meter of the current version.
    fn count_cpu(&self) {
        self.watched.counts_into(self.current.site().meter.as_ref().map(|meter| meter.cpu_times()));
    }

    fn with_version(&self, look: impl FnOnce(&Version)) {
        if let Some(version) = &*self.version.borrow() {
            look(version);
        }
    }

    fn connection(&self, transport: Transport, peer: Peer, agreed: Agreed, permit: ConnectionPermit) -> Connection {
        let current = self.current.clone();
        Connection::new(transport, peer, agreed, current, &self.lifecycle, self.spare.clone()).keeping(permit)
    }

    /// Serves a connection on which something comes before HTTP. The connection counts from its beginning, so that a
    /// stop does not cut off a client in its handshake.
    async fn serve_wrapped(self: Rc<Self>, transport: Transport, peer: Peer, role: Role, permit: ConnectionPermit) {
        let mut slot = Lifecycle::add(&self.lifecycle);
        let Some(Some((transport, peer, agreed))) = slot.finish(self.unwrap(transport, peer, role)).await else {
            return;
        };
        let connection = self.connection(transport, peer, agreed, permit);
        drop(slot);
        connection.await;
    }

    /// Reads what comes before HTTP: a header of the PROXY protocol, then TLS. `None` for a connection without that.
    async fn unwrap(&self, mut transport: Transport, mut peer: Peer, role: Role) -> Option<(Transport, Peer, Agreed)> {
        if self.current.site().config.proxies.protocol && !self.read_proxy_header(&mut transport, &mut peer).await {
            return None;
        }
        let mut agreed = Agreed::Nothing;
        if let (Role::Tls, Some(tls)) = (role, &self.https.tls) {
            let patience = self.current.site().config.tls.handshake_timeout;
            match connection::handshake(transport, tls.current(), patience).await {
                HandshakeOutcome::Encrypted { transport: encrypted, agreed: own, certificate } => {
                    (transport, agreed) = (encrypted, own);
                    peer.certificate = certificate.as_deref().and_then(tls::client_certificate).map(Rc::new);
                }
                HandshakeOutcome::Plain(transport) => {
                    if let Some((head, bytes)) = connection::refuse_plain(transport).await {
                        self.current.record_refusal(&peer, &head, StatusCode::BAD_REQUEST, bytes);
                    }
                    return None;
                }
                HandshakeOutcome::Failed => return None,
            }
            peer.scheme = "https";
        }
        Some((transport, peer, agreed))
    }

    /// Reads the client from a header of the PROXY protocol; false if there is no trusted one.
    async fn read_proxy_header(&self, transport: &mut Transport, peer: &mut Peer) -> bool {
        let site = self.current.site();
        let trusted = site.config.proxies.trusted.as_ref();
        let is_trusted = trusted.is_none_or(|trusted| trusted.contains(peer.ip));
        drop(site);
        let told = match is_trusted {
            true => proxy_protocol::read(transport).await,
            false => Err(io::Error::other("the peer is not one of trusted_proxies")),
        };
        match told {
            Ok(told) => {
                if told.is_secure {
                    peer.scheme = "https";
                }
                peer.ip = told.ip.or(peer.ip);
                true
            }
            Err(error) => {
                log::event(Level::Debug, "a connection without a PROXY header was closed")
                    .field("error", error.to_string().as_str())
                    .field("ip", peer.ip.map(|ip| ip.to_string()).unwrap_or_default().as_str())
                    .emit();
                false
            }
        }
    }

    fn serve(self: &Rc<Self>, accepted: Listed<AcceptedStream>, role: Role, permit: ConnectionPermit) {
        self.accepted.set(self.accepted.get() + 1);
        let transport = accepted.map(|accepted| -> io::Result<(Transport, Peer)> {
            let transport = match accepted.stream {
                ClientStream::Tcp(stream) => Transport::Tcp(TcpStream::from_std(stream)?),
                ClientStream::Unix(stream) => Transport::Unix(UnixStream::from_std(stream)?),
            };
            let mut peer = Peer::new(accepted.ip, "http");
            if role == Role::Redirect {
                peer.https_port = self.https.port;
            }
            Ok((transport, peer))
        });
        let is_wrapped = role == Role::Tls || self.current.site().config.proxies.protocol;
        let spawned = match (transport, is_wrapped) {
            (Ok(transport), false) => transport
                .map(|(transport, peer)| Ok(self.connection(transport, peer, Agreed::Nothing, permit)))
                .map(|serving| drop(tokio::task::spawn_local(serving))),
            (Ok(transport), true) => transport
                .map(|(transport, peer)| Ok(Box::pin(self.clone().serve_wrapped(transport, peer, role, permit))))
                .map(|serving| drop(tokio::task::spawn_local(serving))),
            (Err(error), _) => Err(error),
        };
        if let Err(error) = spawned {
            log::event(Level::Error, "cannot watch an accepted connection")
                .field("error", error.to_string().as_str())
                .emit();
        }
    }

    async fn prepare(&self, blueprint: &Blueprint, plan: Plan) -> Result<(), Mistakes> {
        let (limits, patience) = (plan.config.limits, plan.config.reload_timeout);
        let mut loading = pin!(App::load_in_slices(blueprint));
        // While the next version gives way, the one that serves is held to its own limits.
        let loaded = poll_fn(|cx| {
            let _lenient = StartLimits::new(self, limits);
            loading.as_mut().poll(cx)
        });
        let (app, declared) = loaded.await?;
        let mut started = pin!(Version::start(app, &declared, plan, blueprint.worker, &self.archive));
        let started = poll_fn(|cx| {
            let _lenient = StartLimits::new(self, limits);
            started.as_mut().poll(cx)
        });
        let Ok(next) = timeout(patience, started).await else { return Err(super::too_slow(patience)) };
        let stale = self.next.replace(Some(next?));
        self.retire(stale);
        Ok(())
    }

    /// Ends the version that has been prepared.
    fn discard(&self) {
        let next = self.next.take();
        self.retire(next);
    }

    fn switch(&self) {
        let Some(next) = self.next.take() else { return };
        next.site.app.serves();
        self.current.switch(next.site.clone());
        self.watched.serves(next.site.config.limits);
        self.count_cpu();
        // Never a longer tick: what a connection has noted in ticks would then seem longer ago.
        if connection::tick(&self.current.site().config) < self.lifecycle.tick() {
            self.start_clock();
        }
        let last = self.version.replace(Some(next));
        self.retire(last);
    }

    fn retire(&self, version: Option<Version>) {
        let Some(version) = version else { return };
        let mut retired = self.retired.borrow_mut();
        retired.retain(|task| !task.is_finished());
        retired.push(tokio::task::spawn_local(version.retire(self.hurry.subscribe())));
    }

    /// Lets requests end within `shutdown_timeout`, then ends every version.
    pub(super) async fn wind_down(&self) {
        self.with_version(Version::tell);
        let deadline = Instant::now() + self.current.site().config.shutdown_timeout;
        if timeout_at(deadline, self.lifecycle.drain()).await.is_err() {
            log::event(Level::Warn, "shutdown_timeout is over: connections that are left are cut").emit();
        }
        self.discard();
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
