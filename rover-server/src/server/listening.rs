//! A server that listens: connections are accepted until it is told to stop; then everything is let go in order.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;

use super::AppInfo;
use crate::accept::Listeners;
use crate::admission::Admission;
use crate::error::Error;
use crate::log::{self, Level};
use crate::worker::{Plan, Worker};
use crate::workers::Workers;

/// A server whose workers are ready and whose address is bound.
///
/// Dropping it closes the address and ends the workers.
pub struct Listening {
    // Dropped first: no connection must come to workers that are ending.
    listeners: Listeners,
    workers: Vec<Worker>,
    info: AppInfo,
    plan: Plan,
}

impl Listening {
    pub(super) fn new(listeners: Listeners, workers: Vec<Worker>, info: AppInfo, plan: Plan) -> Listening {
        Listening { listeners, workers, info, plan }
    }

    /// Where clients find the server: `http://127.0.0.1:4242`, `https://127.0.0.1:4242`, `unix:/run/app.sock`. Addresses
    /// that only lead to https come last.
    pub fn addresses(&self) -> Vec<String> {
        self.listeners.addresses().collect()
    }

    /// What the app declares.
    pub fn app(&self) -> &AppInfo {
        &self.info
    }

    /// Serves until `stop` completes; then accepts nothing more, lets running requests finish within
    /// [`shutdown_timeout`](super::Server::shutdown_timeout), runs `on_shutdown`, and returns.
    ///
    /// Runs in any executor: the server has threads of its own. Dropping the future stops the server at once.
    ///
    /// # Errors
    /// The system refuses the acceptor's thread.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let addresses = self.addresses();
        let Listening { listeners, workers, info, plan } = self;
        let turns = Arc::new(Workers::new(workers.iter().filter_map(Worker::handle).collect()));
        let _watching = match &plan.tls {
            Some(tls) => tls.watch()?,
            None => None,
        };
        let admission = Admission::new(&plan.config.connections);
        // Closing one end is seen at the other: the acceptor waits for that as it waits for connections.
        let (end, ending) = UnixStream::pair().map_err(|error| Error::io("cannot start the acceptor", error))?;
        let (finish, finished) = oneshot::channel::<()>();
        let acceptor = {
            let turns = turns.clone();
            thread::Builder::new()
                .name("rover-accept".to_owned())
                .spawn(move || {
                    let accepted = listeners.accept(&ending, |accepted| match admission.admit(accepted.ip) {
                        Some(permit) => turns.hand_over(accepted, permit),
                        None => admission.refuse(accepted),
                    });
                    if let Err(error) = accepted {
                        log::event(Level::Error, "cannot accept connections")
                            .field("error", error.to_string().as_str())
                            .emit();
                    }
                    let _ = finish.send(());
                })
                .map_err(|error| Error::io("cannot start the acceptor", error))?
        };
        let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
        let message = format!(
            "rover {} listening on {}, {}, {}",
            env!("CARGO_PKG_VERSION"),
            addresses.join(" and "),
            count(plan.config.workers, "worker"),
            count(info.routes().len(), "route"),
        );
        log::event(Level::Info, &message).emit();
        turns.announce();

        stop.await;

        drop(end);
        let _ = finished.await;
        let _ = acceptor.join();
        for worker in &workers {
            worker.stop();
        }
        for worker in workers {
            worker.ended().await;
        }
        log::flush();
        Ok(())
    }
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}
