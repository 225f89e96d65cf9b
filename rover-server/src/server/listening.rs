//! Accepts connections until it is told to stop; then ends everything in order.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use super::AppInfo;
use super::control::{Control, ServerPhase, ServerState};
use crate::error::Error;
use crate::listen::accept::Listeners;
use crate::listen::admission::Admission;
use crate::listen::handover::Predecessor;
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
        let addresses = self.addresses();
        let Listening { listeners, management, predecessor, supervisor, info, shared } = self;
        let plan = shared.plan().clone();
        let _watching = match &plan.tls {
            Some(tls) => tls.watch()?,
            None => None,
        };
        let failed = |error| Error::io("cannot start the acceptor", error);
        // The acceptor polls one end together with its sockets; closing the other end wakes it.
        let (end, ending) = UnixStream::pair().map_err(failed)?;
        let descriptors = Descriptors::count(&ending).map_err(failed)?;
        let admission = Admission::new(&plan.config.connections, &plan.config.security_headers, descriptors);
        drop(plan);
        let bound = management.iter().map(|(bound, _)| bound).chain([&listeners]);
        let taken: Vec<u8> = bound.flat_map(|bound| bound.taken_over()).collect();
        let (finish, finished) = oneshot::channel::<()>();
        let acceptor = {
            let shared = shared.clone();
            thread::Builder::new()
                .name("rover-accept".to_owned())
                .spawn(move || {
                    let delay = || shared.plan().config.drain_delay;
                    let accepted = listeners.accept(&ending, delay, |accepted| match admission.admit(&accepted) {
                        Ok(permit) => shared.workers.hand_over(accepted, permit),
                        Err(full) => admission.refuse(accepted, full),
                    });
                    if let Err(error) = accepted {
                        log::event(Level::Error, "cannot accept connections")
                            .field("error", error.to_string().as_str())
                            .emit();
                    }
                    drop(listeners);
                    let _ = finish.send(());
                })
                .map_err(failed)?
        };
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

        let is_asked = {
            let (stop, beyond_help) = (pin!(stop), pin!(supervisor.beyond_help()));
            matches!(select(stop, beyond_help).await, Either::Left(_))
        };
        let beyond_help = "too many threads are in calls that do not come back: the server has to be started anew";
        if !is_asked {
            log::event(Level::Error, beyond_help).emit();
        }
        shared.enter(ServerPhase::Stopping);
        log::event(Level::Info, "the server stops: running requests end, no new ones begin").emit();
        // The acceptor must not wait for a worker that may never come.
        shared.workers.close();
        drop(end);
        let _ = finished.await;
        let _ = acceptor.join();
        supervisor.end().await;
        drop(management);
        log::flush();
        if is_asked { Ok(()) } else { Err(Error::app(beyond_help)) }
    }
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}
