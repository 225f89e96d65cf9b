//! A new version of the app in place of the one that serves, without losing a request.
//!
//! The version is loaded on a thread of its own first, where all its mistakes come to light while nobody waits. Then each
//! worker in turn loads it into a VM beside the one that serves and runs `on_start`; only when all have, their next
//! requests go to it. Whatever fails before that leaves the old version as it was.

use std::sync::Arc;
use std::thread;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::{Control, Server};
use crate::app::{App, Blueprint};
use crate::config::Config;
use crate::error::Error;
use crate::log::{self, Level};
use crate::rate_limit::RateLimits;
use crate::version::Plan;
use crate::watchdog::Charge;
use crate::worker;

impl Control {
    /// Loads the app anew, and serves the new version once it is ready in every worker. Requests that have begun end
    /// in the version where they began, which is then freed.
    ///
    /// Runs in any executor. A second call waits for the first. What happens stands in the log too. `host`, `port`,
    /// `workers`, `tls` and the limits of connections keep their values until the server is restarted.
    ///
    /// # Errors
    /// Everything that is wrong with the new version; the old one serves on. Or the server has stopped.
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

    /// Gives the number of workers that serve the next version.
    async fn load_next(&self) -> Result<usize, Error> {
        let server = self.shared.server.clone();
        let running = self.shared.plan().clone();
        let charge = self.shared.watchdog.charge(0, running.config.limits);
        let mut plan = try_out(server, charge, &running).await?;
        plan.config = Arc::new(keep_what_is_bound(&running.config, (*plan.config).clone()));

        // One that is being replaced meanwhile gets the version that serves by then.
        let posts = self.shared.workers.posts();
        let workers = self.shared.workers.places();
        for (worker, post) in &posts {
            let blueprint = Blueprint { worker: *worker, workers, ..self.shared.server.blueprint.clone() };
            if let Err(mistakes) = worker::prepare(post, blueprint, plan.clone()).await {
                posts.iter().for_each(|(_, post)| worker::discard(post));
                return Err(Error::app(mistakes.to_string()));
            }
        }
        join_all(posts.iter().map(|(_, post)| worker::switch(post))).await;
        let _ = log::init(plan.config.log_level);
        *self.shared.plan() = plan;
        self.shared.workers.announce();
        Ok(posts.len())
    }
}

/// Loads the app on a thread of its own, and decides its config and routes.
async fn try_out(server: Server, charge: Arc<Charge>, running: &Plan) -> Result<Plan, Error> {
    let (reply, replied) = oneshot::channel();
    let load = move || {
        let _on_duty = charge.begin();
        let loaded = App::load(&server.blueprint).map_err(|mistakes| Error::app(mistakes.to_string()));
        // The VM ends here, before the answer goes out.
        let settled = loaded.and_then(|(_, declared)| server.settle(declared));
        let _ = reply.send(settled);
    };
    thread::Builder::new()
        .name("rover-reload".to_owned())
        .spawn(load)
        .map_err(|error| Error::io("cannot start a thread to load the app", error))?;
    let died = || Error::app("loading the app ended unexpectedly; this is a bug in Rover");
    let (config, router, limits, mounts) = replied.await.unwrap_or_else(|_| Err(died()))?;
    let limits = RateLimits::new(&config.rate_limit, &limits);
    let (router, config, mounts) = (Arc::new(router), Arc::new(config), Arc::new(mounts));
    Ok(Plan { router, config, limits, mounts, tls: running.tls.clone(), https_port: running.https_port })
}

/// The new config, but for what a running server cannot change. What differs is logged.
fn keep_what_is_bound(running: &Config, mut next: Config) -> Config {
    for key in next.keep(running) {
        let message = format!("{key} has changed, which takes effect when the server is restarted");
        log::event(Level::Warn, &message).emit();
    }
    next
}
