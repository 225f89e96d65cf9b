//! Starts a server: from an app's file to workers that are ready.
//!
//! The order of the text is the order of events: the first worker loads the app; its config and routes are settled,
//! with all mistakes at once; the sockets are bound; the other workers load; every worker runs `on_start`.

use std::sync::Arc;

use parking_lot::Mutex;

use super::board;
use super::control::ServerState;
use super::{AppInfo, Listening, Server, databases};
use crate::config::{AppTable, Config, Endpoint, Limits, TrailingSlash};
use crate::error::Error;
use crate::listen::accept::{InheritedListener, Listeners, Role};
use crate::listen::tls::ServerTls;
use crate::log::{self, Level};
use crate::policy::assets::Mounts;
use crate::policy::rate_limit::{RateLimits, RouteLimits};
use crate::route::FastRouter;
use crate::runtime::blocking;
use crate::runtime::resources;
use crate::script::app::{App, Blueprint, Code, Declared, Mistakes, Unfinished};
use crate::server::dispatcher::Workers;
use crate::server::management::{HostNames, ManagementThread};
use crate::server::supervisor::Supervisor;
use crate::server::version::Plan;
use crate::server::watchdog::Watchdog;
use crate::server::worker::Worker;

/// What a server takes from the declarations of its app.
pub(super) struct Settled {
    pub(super) config: Config,
    pub(super) router: FastRouter,
    pub(super) limits: RouteLimits,
    pub(super) mounts: Mounts,
}

impl Server {
    /// Loads the app in every worker and binds the address. Blocks while the app's top-level code and `on_start` run.
    ///
    /// # Errors
    /// Everything that is wrong with the app, its routes and its config; an address that cannot be bound; an
    /// `on_start` that fails.
    pub fn bind(self) -> Result<Listening, Error> {
        let started = self.start();
        if started.is_err() {
            log::flush();
        }
        started
    }

    fn start(mut self) -> Result<Listening, Error> {
        rover_lua::suited().map_err(|why| Error::build(&why))?;
        // Two servers built from one `Server` share nothing; the versions of one server share its stores and its
        // clients.
        self.blueprint.stores = Arc::default();
        self.blueprint.hub = Arc::default();
        self.blueprint.code = Code::default();
        // Until the app's own config is known, the log follows the environment and the embedding program.
        let early = self.early();
        log::init(early.log_level, self.log_sink.as_ref()).map_err(|error| Error::io("cannot start the log", error))?;

        // If the number of workers does not depend on the app, all of them load at once; else the first one determines
        // it.
        let is_known = self.overrides.has("workers") || variable("ROVER_WORKERS").is_some();
        let at_once = if is_known { early.workers } else { 1 };
        resources::prepare().map_err(|error| Error::io("cannot handle signals", error))?;
        blocking::start().map_err(|error| Error::io("cannot start a thread", error))?;
        let watchdog = Watchdog::start().map_err(|error| Error::io("cannot start the watchdog", error))?;
        let started = self.start_watched(&early, at_once, &watchdog);
        if started.is_err() {
            watchdog.end();
        }
        started
    }

    fn start_watched(mut self, early: &Config, at_once: usize, watchdog: &Watchdog) -> Result<Listening, Error> {
        let limits = early.limits;
        self.blueprint.memory_limit = limits.memory_limit;
        let mut blueprint = Blueprint { workers: early.workers, ..self.blueprint.clone() };
        let mut workers = Vec::new();
        for worker in 1..=at_once {
            workers.push(start_worker(Blueprint { worker, ..blueprint.clone() }, watchdog, limits)?);
        }
        let declared = workers[0].loaded().map_err(|unfinished| self.settle_unfinished(unfinished))?;
        let Settled { config, router, limits: route_limits, mounts } = self.settle(declared)?;
        log::set_level(config.log_level);
        databases::prepare(&config, &self.blueprint.source, self.migrates)?;
        for warning in super::misspelt_variables() {
            log::event(Level::Warn, &warning).emit();
        }

        let mut inherited = self.inherited.take();
        let endpoints = config.host.endpoints(config.port).map_err(|error| Error::io("cannot listen", error))?;
        let tls = ServerTls::load(&config.tls, &config.host, config.http2.enabled)?;
        let listeners = bind(&config, &endpoints, tls.is_some(), std::mem::take(&mut inherited.serving))?;

        blueprint.workers = config.workers;
        for worker in workers.len() + 1..=config.workers {
            workers.push(start_worker(Blueprint { worker, ..blueprint.clone() }, watchdog, limits)?);
        }
        for worker in workers.iter().skip(1) {
            worker.loaded().map_err(|unfinished| Error::app(Mistakes::from(unfinished).to_string()))?;
        }
        let info = AppInfo::new(&router, &mounts);
        let limits = RateLimits::new(&config.rate_limit, &route_limits);
        let https_port = listeners.tls_port();
        let (router, config, mounts) = (Arc::new(router), Arc::new(config), Arc::new(mounts));
        let code = blueprint.code.clone();
        let plan = Plan { code, router, config, limits, mounts, tls, https_port };
        for worker in &mut workers {
            worker.go(plan.clone());
        }
        for worker in &mut workers {
            worker.ready(None).map_err(|mistakes| Error::app(mistakes.to_string()))?;
        }
        let turns = Arc::new(Workers::new(workers.iter().filter_map(Worker::handle).collect()));
        let wanted = plan.config.management.clone();
        let failed = |error| Error::io("cannot start the management listener", error);
        let bound = match wanted.is_on() {
            true => {
                let (endpoints, file) = (wanted.endpoints().map_err(failed)?, &plan.config.socket_file);
                Some(Arc::new(Listeners::bind(&endpoints, Role::Plain, file, &mut inherited.management)?))
            }
            false => None,
        };
        let plan = Arc::new(Mutex::new(plan));
        let supervisor = Supervisor::new(blueprint, plan.clone(), watchdog.clone(), turns.clone(), workers)
            .map_err(|error| Error::io("cannot start a thread", error))?;
        let listeners = Arc::new(listeners);
        let shared = ServerState::new(self, turns, (&listeners, bound.as_ref()), plan, watchdog.clone());
        let management = match bound {
            Some(bound) => {
                let thread = ManagementThread::start(
                    bound.clone(),
                    HostNames::new(wanted.names()),
                    board::pages(shared.clone()),
                )
                .map_err(failed)?;
                Some((bound, thread))
            }
            None => None,
        };
        Ok(Listening::new(listeners, management, inherited.predecessor, supervisor, info, shared))
    }

    /// Loads the app on the calling thread, and settles what it declares.
    pub(super) fn load_and_settle(&self, blueprint: &Blueprint) -> Result<(App, Settled), Error> {
        match App::load(blueprint) {
            Ok((app, declared)) => Ok((app, self.settle(declared)?)),
            Err(unfinished) => Err(self.settle_unfinished(unfinished)),
        }
    }

    /// All mistakes in what was declared before the app's top level failed, and that failure.
    fn settle_unfinished(&self, unfinished: Unfinished) -> Error {
        let why = unfinished.0.mistakes.to_string();
        self.settle(*unfinished.0).err().unwrap_or_else(|| Error::app(why))
    }

    /// The config from the environment and the embedding program, before the app's own is known.
    pub(super) fn early(&self) -> Config {
        Config::resolve(AppTable::default(), variable, &self.overrides).unwrap_or_default()
    }

    /// Decides the config, builds the router and checks the folders.
    fn settle(&self, declared: Declared) -> Result<Settled, Error> {
        let table = AppTable { origin: &declared.origin, entries: &declared.config };
        let config = Config::resolve(table, variable, &self.overrides);
        let trailing = config.as_ref().map_or(TrailingSlash::Strict, |config| config.trailing_slash);
        let router = FastRouter::build(declared.routes, trailing);
        let mounts = Mounts::build(declared.mounts, self.blueprint.source.folder());
        match (config, router, mounts, declared.mistakes.0.is_empty()) {
            (Ok(mut config), Ok(router), Ok(mounts), true) => {
                config.otlp.name_service(&self.blueprint.source.stem());
                Ok(Settled { config, router, limits: declared.limits, mounts })
            }
            (config, router, mounts, _) => {
                let mut all = declared.mistakes.0;
                all.extend(mounts.err().into_iter().flatten());
                all.extend(router.err().into_iter().flatten().map(|mistake| mistake.to_string()));
                all.extend(config.err().into_iter().flatten().map(|mistake| mistake.to_string()));
                Err(Error::app(Mistakes(all).sorted().to_string()))
            }
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Binds the server's addresses, and those that redirect to them, or takes the `given` sockets.
fn bind(
    config: &Config,
    endpoints: &[Endpoint],
    is_tls: bool,
    given: Vec<InheritedListener>,
) -> Result<Listeners, Error> {
    let redirect = config.tls.redirect_port.filter(|_| is_tls);
    // Of a service manager's sockets, the one with this port is for plain HTTP.
    let is_plain = |given: &InheritedListener| redirect.is_some_and(|port| given.is_lent_for(port));
    let (mut given_plain, mut given): (Vec<_>, Vec<_>) = given.into_iter().partition(is_plain);
    let (role, file) = (if is_tls { Role::Tls } else { Role::Plain }, &config.socket_file);
    let mut listeners = Listeners::bind(endpoints, role, file, &mut given)?;
    if let Some(port) = redirect {
        given_plain.append(&mut given);
        let mut plain = endpoints.to_vec();
        plain.retain_mut(|endpoint| match endpoint {
            Endpoint::Tcp(address) => {
                address.set_port(port);
                true
            }
            Endpoint::Unix(_) => false,
        });
        listeners.add(Listeners::bind(&plain, Role::Redirect, file, &mut given_plain)?);
    }
    Ok(listeners)
}

fn start_worker(blueprint: Blueprint, watchdog: &Watchdog, limits: Limits) -> Result<Worker, Error> {
    Worker::start(blueprint, watchdog, limits).map_err(|error| Error::io("cannot start a worker", error))
}
