//! From an app's file to workers that are ready.
//!
//! The order of the text is the order of events: the first worker loads the app; its config and routes are settled,
//! with all mistakes at once; the sockets are bound; the other workers load; every worker runs `on_start`.

use std::sync::Arc;

use super::{AppInfo, Listening, Server};
use crate::accept::{Listeners, Role};
use crate::app::{Blueprint, Declared, Mistakes};
use crate::config::{AppTable, Config, Endpoint, TrailingSlash};
use crate::error::Error;
use crate::log;
use crate::route::{FastRouter, RouteDecl};
use crate::tls::Tls;
use crate::worker::{Plan, Worker};

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

    fn start(self) -> Result<Listening, Error> {
        // Until the app's own table is known, the log follows the environment and the embedding program.
        let early = Config::resolve(AppTable::default(), variable, &self.overrides).unwrap_or_default();
        log::init(early.log_level).map_err(|error| Error::io("cannot start the log", error))?;

        // Where the app has no say in the number of workers, all of them load at once; else the first one tells.
        let is_known = self.overrides.workers.is_some() || variable("ROVER_WORKERS").is_some();
        let at_once = if is_known { early.workers } else { 1 };
        let mut blueprint = Blueprint { workers: early.workers, ..self.blueprint.clone() };
        let mut workers = Vec::new();
        for worker in 1..=at_once {
            workers.push(start_worker(&Blueprint { worker, ..blueprint.clone() })?);
        }
        let declared = workers[0].loaded().map_err(|mistakes| Error::app(mistakes.to_string()))?;
        let routes = declared.routes.clone();
        let (config, router) = self.settle(declared)?;
        let _ = log::init(config.log_level);

        let endpoints = config
            .host
            .endpoints(config.port)
            .map_err(|error| Error::io(format!("cannot find the address of {}", config.host), error))?;
        let tls = Tls::load(&config.tls, &config.host, config.http2.enabled)?;
        let listeners = bind(&config, &endpoints, tls.is_some())?;

        blueprint.workers = config.workers;
        for worker in workers.len() + 1..=config.workers {
            workers.push(start_worker(&Blueprint { worker, ..blueprint.clone() })?);
        }
        for (n, worker) in workers.iter().enumerate().skip(1) {
            let declared = worker.loaded().map_err(|mistakes| Error::app(mistakes.to_string()))?;
            same_routes(&routes, &declared.routes, n + 1)?;
        }
        let info = AppInfo::new(&router);
        let https_port = listeners.tls_port();
        let plan = Plan { router: Arc::new(router), config: Arc::new(config), tls, https_port };
        for worker in &mut workers {
            worker.go(plan.clone());
        }
        for worker in &mut workers {
            worker.ready().map_err(|mistakes| Error::app(mistakes.to_string()))?;
        }
        Ok(Listening::new(listeners, workers, info, plan))
    }

    /// Decides the config and builds the router.
    pub(super) fn settle(&self, declared: Declared) -> Result<(Config, FastRouter), Error> {
        let table = AppTable { origin: &declared.origin, entries: &declared.config };
        let config = Config::resolve(table, variable, &self.overrides);
        let trailing = config.as_ref().map_or(TrailingSlash::Strict, |config| config.trailing_slash);
        let router = FastRouter::build(declared.routes, trailing);
        match (config, router, declared.mistakes.0.is_empty()) {
            (Ok(config), Ok(router), true) => Ok((config, router)),
            (config, router, _) => {
                let mut all = declared.mistakes.0;
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

/// Binds the server's addresses, and those that lead to them.
fn bind(config: &Config, endpoints: &[Endpoint], is_tls: bool) -> Result<Listeners, Error> {
    let mut listeners = Listeners::bind(endpoints, if is_tls { Role::Tls } else { Role::Plain })?;
    if let Some(port) = config.tls.redirect_port.filter(|_| is_tls) {
        let mut plain = endpoints.to_vec();
        plain.retain_mut(|endpoint| match endpoint {
            Endpoint::Tcp(address) => {
                address.set_port(port);
                true
            }
            Endpoint::Unix(_) => false,
        });
        listeners.add(Listeners::bind(&plain, Role::Redirect)?);
    }
    Ok(listeners)
}

fn start_worker(blueprint: &Blueprint) -> Result<Worker, Error> {
    Worker::start(blueprint.clone()).map_err(|error| Error::io("cannot start a worker", error))
}

/// Every VM must declare the same routes, for their numbers are what the workers share.
fn same_routes(first: &[RouteDecl], other: &[RouteDecl], worker: usize) -> Result<(), Error> {
    let shown = |route: &RouteDecl| format!("{} {} ({})", route.verb, route.pattern, route.origin);
    let same = |a: &RouteDecl, b: &RouteDecl| a.verb == b.verb && a.pattern == b.pattern;
    let n = first.iter().zip(other).take_while(|(a, b)| same(a, b)).count();
    let difference = match (first.get(n), other.get(n)) {
        (None, None) => return Ok(()),
        (Some(a), Some(b)) => format!("{} where worker 1 has {}", shown(b), shown(a)),
        (Some(a), None) => format!("nothing where worker 1 has {}", shown(a)),
        (None, Some(b)) => format!("{}, which worker 1 has not", shown(b)),
    };
    Err(Error::app(format!(
        "worker {worker} declares {difference}: routes must not depend on the worker, on time or on chance"
    )))
}
