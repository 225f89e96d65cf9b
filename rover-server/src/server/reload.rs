//! Replaces the version that serves by a new one, without losing a request.
//!
//! The version is first loaded on a separate thread, to find all its mistakes. Then each worker in turn loads it into a
//! VM beside the one that serves and runs `on_start`. Only when all have, their next requests go to it. If anything
//! fails before that, the old version keeps serving.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::check::{died, load_apart};
use super::control::ServerPhase;
use super::start::Settled;
use super::{Control, Server, databases};
use crate::config::Config;
use crate::error::Error;
use crate::log::{self, Level};
use crate::policy::rate_limit::RateLimits;
use crate::script::app::{Blueprint, Code};
use crate::server::version::Plan;
use crate::server::watchdog::WatchedWorker;
use crate::server::worker::{self, WorkerHandle};

impl Control {
    /// Reloads the app, and serves the new version once it is ready in every worker. Requests that have begun end in
    /// their own version, which is then freed.
    ///
    /// Runs in any executor. A second call waits for the first. If the future is dropped before the new version serves,
    /// the old one stays. The log reports the outcome too. `host`, `port`, `workers`, `tls` and the limits of
    /// connections keep their values until the server is restarted.
    ///
    /// # Errors
    /// Everything that is wrong with the new version, which has `reload_timeout` to run `on_start`; the old one keeps
    /// serving. Or the server is stopping.
    pub async fn reload(&self) -> Result<(), Error> {
        let _turn = self.shared.turn.lock().await;
        let reloaded = self.load_next().await;
        self.shared.reloads.note(reloaded.is_ok());
        match &reloaded {
            Ok(count) => {
                let workers = *count as u64;
                log::event(Level::Info, "the app has been reloaded").field("workers", workers).emit();
            }
            Err(error) => log::event(Level::Error, "the app could not be reloaded, the version before serves on")
                .field("error", error.to_string().as_str())
                .emit(),
        }
        reloaded.map(|_| ())
    }

    /// Loads the next version into all workers and switches to it; returns the number of workers.
    async fn load_next(&self) -> Result<usize, Error> {
        if self.shared.phase() == ServerPhase::Stopping {
            return Err(Error::app("the server stops"));
        }
        let mut server = self.shared.server.clone();
        server.blueprint.code = Code::default();
        let running = self.shared.plan().clone();
        let watched = self.shared.watchdog.watch_worker(0, running.config.limits);
        let mut plan = try_out(server, watched, &running).await?;
        plan.config = Arc::new(keep_what_is_bound(&running.config, (*plan.config).clone()));

        let mut prepared = Prepared::default();
        while let Some((worker, handle)) = self.unprepared(&prepared, &plan) {
            let workers = self.shared.workers.places();
            let code = plan.code.clone();
            let blueprint = Blueprint { worker, workers, code, ..self.shared.server.blueprint.clone() };
            let done = worker::prepare(&handle, blueprint, plan.clone()).await;
            done.map_err(|mistakes| Error::app(mistakes.to_string()))?;
            prepared.0.push(handle);
        }
        let handles = std::mem::take(&mut prepared.0);
        log::set_level(plan.config.log_level);
        join_all(handles.iter().map(worker::switch)).await;
        self.shared.workers.announce();
        Ok(handles.len())
    }

    /// Returns a worker that has not prepared the next version yet. If all have, the next version becomes the current
    /// plan in the same step: so a worker that replaces a lost one meanwhile is either found here or starts with it.
    fn unprepared(&self, prepared: &Prepared, plan: &Plan) -> Option<(usize, WorkerHandle)> {
        let mut current = self.shared.plan();
        let is_prepared = |handle: &WorkerHandle| prepared.0.iter().any(|known| known.is(handle));
        let next = self.shared.workers.handles().into_iter().find(|(_, handle)| !is_prepared(handle));
        if next.is_none() {
            *current = plan.clone();
        }
        next
    }
}

/// Workers that have prepared the next version. Dropped, it tells them to discard it.
#[derive(Default)]
struct Prepared(Vec<WorkerHandle>);

impl Drop for Prepared {
    fn drop(&mut self) {
        self.0.iter().for_each(worker::discard);
    }
}

/// Loads the app on a separate thread, and settles its config and routes.
async fn try_out(server: Server, watched: Arc<WatchedWorker>, running: &Plan) -> Result<Plan, Error> {
    let code = server.blueprint.code.clone();
    let (reply, replied) = oneshot::channel();
    let (source, migrates) = (server.blueprint.source.clone(), server.migrates);
    load_apart(server, watched, move |settled| {
        let ready = settled.and_then(|settled| {
            databases::prepare(&settled.config, &source, migrates)?;
            Ok(settled)
        });
        let _ = reply.send(ready);
    })?;
    let Settled { config, router, limits, mounts } = replied.await.unwrap_or_else(|_| Err(died()))?;
    let limits = RateLimits::new(&config.rate_limit, &limits);
    let (router, config, mounts) = (Arc::new(router), Arc::new(config), Arc::new(mounts));
    Ok(Plan { code, router, config, limits, mounts, tls: running.tls.clone(), https_port: running.https_port })
}

/// Takes the new config, except for keys that a running server cannot change; logs those that differ.
fn keep_what_is_bound(running: &Config, mut next: Config) -> Config {
    for key in next.keep(running) {
        let message = format!("{key} has changed, which takes effect when the server is restarted");
        log::event(Level::Warn, &message).emit();
    }
    next
}
