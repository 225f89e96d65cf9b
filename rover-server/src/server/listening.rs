//! Accepts connections until it is told to stop; then ends everything in order.

use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use super::AppInfo;
use super::control::{Control, ServerPhase, ServerState};
use crate::error::Error;
use crate::listen::accept::Listeners;
use crate::listen::admission::Admission;
use crate::listen::handover::Predecessor;
use crate::listen::tls::CertificateWatch;
use crate::log::{self, Level};
use crate::runtime::resources::Descriptors;
use crate::server::management::ManagementThread;
use crate::server::profile::Profiler;
use crate::server::supervisor::Supervisor;

/// A server whose workers are ready and whose addresses are bound.
///
/// Dropping it closes the addresses and ends the workers.
pub struct Listening {
    // Dropped first: no connection must come to workers that are ending.
    listeners: Arc<Listeners>,
    management: Option<(Arc<Listeners>, ManagementThread)>,
    predecessor: Option<Predecessor>,
    supervisor: Arc<Supervisor>,
    info: AppInfo,
    shared: Arc<ServerState>,
}

impl Listening {
    pub(super) fn new(
        listeners: Arc<Listeners>,
        management: Option<(Arc<Listeners>, ManagementThread)>,
        predecessor: Option<Predecessor>,
        supervisor: Arc<Supervisor>,
        info: AppInfo,
        shared: Arc<ServerState>,
    ) -> Listening {
        Listening { listeners, management, predecessor, supervisor, info, shared }
    }

    /// Returns a handle that acts on the running server.
    pub fn control(&self) -> Control {
        Control { shared: self.shared.clone() }
    }

    /// Returns a profiler, which records where the Lua code spends its time.
    pub fn profiler(&self) -> Profiler {
        self.control().profiler()
    }

    /// Returns the addresses for clients: `http://127.0.0.1:4242`, `https://127.0.0.1:4242`, `unix:/run/app.sock`.
    /// Addresses that only redirect to https come last.
    pub fn addresses(&self) -> Vec<String> {
        self.listeners.addresses().collect()
    }

    /// Returns the addresses of the management listener; empty if it is off.
    pub fn management_addresses(&self) -> Vec<String> {
        self.management.iter().flat_map(|(bound, _)| bound.addresses()).collect()
    }

    /// Returns what the app declares.
    pub fn app(&self) -> &AppInfo {
        &self.info
    }

    /// Serves until `stop` completes. Then keeps accepting for [`drain_delay`](super::Server::drain_delay), stops
    /// accepting, lets running requests finish within [`shutdown_timeout`](super::Server::shutdown_timeout), runs
    /// `on_shutdown`, and returns.
    ///
    /// Runs in any executor, because the server has its own threads. Dropping the future stops the server at once.
    ///
    /// # Errors
    /// The system refuses the acceptor's thread. Or too many threads were stuck and no worker was left: the server has
    /// stopped by itself, so that a new process can take its place.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let serving = self.serve()?;
        let has_failed = serving.wait_for(stop).await;
        serving.end().await;
        if has_failed { Err(Error::app(BEYOND_HELP)) } else { Ok(()) }
    }

    /// Begins to accept connections, and says so to the log, the workers and the predecessor.
    fn serve(self) -> Result<Serving, Error> {
        let addresses = self.addresses();
        let Listening { listeners, management, predecessor, supervisor, info, shared } = self;
        let tls = shared.plan().tls.clone();
        let certificates = match &tls {
            Some(tls) => tls.watch()?,
            None => None,
        };
        let bound = management.iter().map(|(bound, _)| bound).chain([&listeners]);
        let taken: Vec<u8> = bound.flat_map(|bound| bound.taken_over()).collect();
        let acceptor = Acceptor::start(listeners, shared.clone())
            .map_err(|error| Error::io("cannot start the acceptor", error))?;
        let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
        let message = format!(
            "rover {} listening on {}, {}, {}",
            env!("CARGO_PKG_VERSION"),
            addresses.join(" and "),
            count(shared.workers.places(), "worker"),
            count(info.routes().len(), "route"),
        );
        log::event(Level::Info, &message).emit();
        if let Some((bound, _)) = &management {
            let addresses: Vec<String> = bound.addresses().collect();
            let message = format!("metrics and health on {}", addresses.join(" and "));
            log::event(Level::Info, &message).emit();
        }
        shared.enter(ServerPhase::Serving);
        shared.workers.announce();
        if let Some(predecessor) = predecessor {
            predecessor.relieve(&taken);
        }
        Ok(Serving { acceptor, _certificates: certificates, shared, supervisor, management })
    }
}

/// Why a server stops that nobody has stopped.
const BEYOND_HELP: &str = "too many threads are in calls that do not come back: the server has to be started anew";

/// A server that accepts connections. Dropping it stops the server at once.
struct Serving {
    // Dropped first: no connection must come to workers that are ending.
    acceptor: Acceptor,
    _certificates: Option<CertificateWatch>,
    shared: Arc<ServerState>,
    supervisor: Arc<Supervisor>,
    management: Option<(Arc<Listeners>, ManagementThread)>,
}

impl Serving {
    /// Waits until `stop` completes, or until no worker is left and none can be started; true for the latter.
    async fn wait_for(&self, stop: impl Future<Output = ()>) -> bool {
        let (stop, beyond_help) = (pin!(stop), pin!(self.supervisor.beyond_help()));
        let has_failed = matches!(select(stop, beyond_help).await, Either::Right(_));
        if has_failed {
            log::event(Level::Error, BEYOND_HELP).emit();
        }
        has_failed
    }

    /// Stops accepting, and ends the workers with the requests that are running.
    async fn end(self) {
        self.shared.enter(ServerPhase::Stopping);
        log::event(Level::Info, "the server stops: running requests end, no new ones begin").emit();
        // The acceptor must not wait for a worker that may never come.
        self.shared.workers.close();
        self.acceptor.end().await;
        self.supervisor.end().await;
        drop(self.management);
        log::flush();
    }
}

/// The thread that accepts connections. Dropping it makes the thread end, without waiting for that.
struct Acceptor {
    /// The thread polls the other end together with its sockets; closing this one wakes it.
    stop: UnixStream,
    finished: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Acceptor {
    /// Accepts what comes to `listeners`, and hands to the workers what the connection limits let in.
    ///
    /// # Errors
    /// The system has no thread or no descriptor to spare.
    fn start(listeners: Arc<Listeners>, shared: Arc<ServerState>) -> io::Result<Acceptor> {
        let (stop, stopped) = UnixStream::pair()?;
        let descriptors = Descriptors::count(&stopped)?;
        let config = shared.plan().config.clone();
        let admission = Admission::new(&config.connections, &config.security_headers, descriptors);
        let (finish, finished) = oneshot::channel();
        let thread = thread::Builder::new().name("rover-accept".to_owned()).spawn(move || {
            let delay = || shared.plan().config.drain_delay;
            let accepted = listeners.accept(&stopped, delay, |accepted| match admission.admit(&accepted) {
                Ok(permit) => shared.workers.hand_over(accepted, permit),
                Err(full) => admission.refuse(accepted, full),
            });
            if let Err(error) = accepted {
                log::event(Level::Error, "cannot accept connections").field("error", error.to_string().as_str()).emit();
            }
            drop(listeners);
            let _ = finish.send(());
        })?;
        Ok(Acceptor { stop, finished, thread })
    }

    /// Stops accepting, once the connections that the kernel has completed have been accepted.
    async fn end(self) {
        drop(self.stop);
        let _ = self.finished.await;
        let _ = self.thread.join();
    }
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}
