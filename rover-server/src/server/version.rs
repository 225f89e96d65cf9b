//! Runs one version of the app in a worker, from `on_start` to `on_shutdown`.
//!
//! Comes in: an app that has loaded, and the [`Plan`]. Goes out: the site that answers requests. A worker has one
//! current version; during a reload it also has the next one, and afterwards the old one until its last request has
//! ended. This module must not know of connections.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Config;
use crate::listen::tls::ServerTls;
use crate::log::{self, Level};
use crate::observe::metrics::Archive;
use crate::observe::otlp::Tracer;
use crate::policy::assets::Mounts;
use crate::policy::rate_limit::RateLimits;
use crate::route::FastRouter;
use crate::script::app::{App, Code, Declared, Mistakes};
use crate::script::tasks::Driver;
use crate::service::Site;
use crate::service::handler;

/// How soon a retired version checks whether its last request has ended; the pause doubles each time.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LATEST_LOOK: Duration = Duration::from_secs(1);

/// The least time that `on_shutdown` gets, however long the requests before it took.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What all workers of a version share, settled once the app has loaded.
#[derive(Clone)]
pub(crate) struct Plan {
    /// The code of the version.
    pub(crate) code: Code,
    pub(crate) router: Arc<FastRouter>,
    pub(crate) config: Arc<Config>,
    /// The rate limits of all workers together.
    pub(crate) limits: Option<Arc<RateLimits>>,
    pub(crate) mounts: Arc<Mounts>,
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// The port of https, for redirects.
    pub(crate) https_port: Option<u16>,
}

/// A version that has started.
pub(crate) struct Version {
    pub(crate) site: Rc<Site>,
    /// Runs what the app spawns.
    driver: JoinHandle<()>,
    /// Runs `on_ready`, once it has been announced.
    announced: OnceCell<JoinHandle<()>>,
}

impl Version {
    /// Starts a version and runs `on_start`. `worker` is the worker's number, `archive` keeps what the version counts.
    ///
    /// # Errors
    /// The app declares routes or folders that differ from the plan, or `on_start` failed.
    pub(crate) async fn start(
        app: App,
        declared: &Declared,
        plan: Plan,
        worker: usize,
        archive: &Archive,
    ) -> Result<Version, Mistakes> {
        declared.must_be_like(plan.router.routes(), plan.mounts.declared(), worker)?;
        let patterns = plan.router.routes().iter().map(|route| route.pattern.to_string());
        let tracer = Tracer::start(&plan.config.otlp, patterns);
        let site = Site::new(app, plan.router, plan.config, plan.limits, plan.mounts, archive, tracer);
        let driver = tokio::task::spawn_local(Driver::new(site.app.tasks.clone()));
        let mut version = Version { site, driver, announced: OnceCell::new() };
        let app = version.site.app.clone();
        if let Some(entry) = app.hooks.on_start
            && let Err(failure) = handler::run_hook(&app, entry).await
        {
            let mistake = format!("on_start failed: {}", failure.described());
            version.stop_tasks().await;
            return Err(Mistakes(vec![mistake]));
        }
        Ok(version)
    }

    /// Runs `on_ready` as a task of its own, which is cancelled with the app's tasks.
    pub(crate) fn announce(&self) {
        if let Some(entry) = self.site.app.hooks.on_ready {
            let app = self.site.app.clone();
            self.announced
                .get_or_init(|| tokio::task::spawn_local(async move { report_hook(&app, entry, "on_ready").await }));
        }
    }

    /// Asks streams of events, WebSockets and the like to end.
    pub(crate) fn tell(&self) {
        self.site.app.tasks.ending().tell();
    }

    /// Ends the version when its requests have ended, or when `hurry` says not to wait for them.
    pub(crate) async fn retire(self, mut hurry: watch::Receiver<bool>) {
        self.tell();
        // Every request that has begun holds the site or the app until it ends. So does `on_ready`, which may wait for
        // ever and is no request.
        let app = &self.site.app;
        let is_announcing = || self.announced.get().is_some_and(|hook| !hook.is_finished());
        let own = || 1 + usize::from(is_announcing());
        let is_used = || Rc::strong_count(&self.site) > 1 || Rc::strong_count(app) > own() || app.tasks.has_guests();
        let patience = self.site.config.shutdown_timeout;
        let began = Instant::now();
        let mut has_warned = false;
        let mut pause = FIRST_LOOK;
        while is_used() && !*hurry.borrow() {
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(LATEST_LOOK),
                // An error means that the worker is gone, and with it this task.
                _ = hurry.changed() => {}
            }
            if !has_warned && began.elapsed() > patience {
                has_warned = true;
                let message =
                    "requests of the version before the reload go on; its memory is freed when they have ended";
                log::event(Level::Warn, message).emit();
            }
        }
        let time = if *hurry.borrow() { LAST_WORDS } else { patience };
        self.end(Instant::now() + time).await;
    }

    /// Cancels the app's tasks and `on_ready`, runs `on_shutdown`, and sends the last traces, until the deadline or
    /// `LAST_WORDS` longer.
    pub(crate) async fn end(mut self, deadline: Instant) {
        self.stop_tasks().await;
        let app = &self.site.app;
        if let Some(entry) = app.hooks.on_shutdown {
            let deadline = deadline.max(Instant::now() + LAST_WORDS);
            if timeout_at(deadline, report_hook(app, entry, "on_shutdown")).await.is_err() {
                log::event(Level::Warn, "shutdown_timeout is over: on_shutdown has been cancelled").emit();
            }
        }
        if let Some(tracer) = &self.site.tracer {
            tracer.finish(deadline.max(Instant::now() + LAST_WORDS)).await;
        }
    }

    async fn stop_tasks(&mut self) {
        self.site.app.tasks.stop();
        self.driver.abort();
        let _ = (&mut self.driver).await;
        if let Some(announced) = self.announced.take() {
            announced.abort();
            let _ = announced.await;
        }
    }
}

/// A version that is dropped before it has ended must not leave tasks, which would keep its VM alive.
impl Drop for Version {
    fn drop(&mut self) {
        self.driver.abort();
        if let Some(announced) = self.announced.take() {
            announced.abort();
        }
    }
}

/// Runs a hook whose failure is only logged.
async fn report_hook(app: &Rc<App>, entry: std::ffi::c_int, name: &str) {
    if let Err(failure) = handler::run_hook(app, entry).await {
        log::event(Level::Error, &format!("{name} failed: {}", failure.message))
            .field("traceback", failure.trace().as_str())
            .emit();
    }
}
