//! The public face: configure a server, start it, learn where it listens, run it until it is told to stop.
//!
//! The order of the text is the order of events: the first worker loads the app; its config and routes are settled,
//! with all mistakes at once; the sockets are bound; the other workers load; every worker runs `on_start`; connections
//! are accepted. Stopping goes the other way.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mlua::{FromLuaMulti, IntoLuaMulti, Lua};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::accept::{Listeners, Role};
use crate::admission::Admission;
use crate::app::{App, Blueprint, Declared, Mistakes, Source};
use crate::config::{AppTable, Config, Endpoint, Overrides, TrailingSlash};
use crate::context::Peer;
use crate::error::Error;
use crate::local::LocalApp;
use crate::log::{self, Level};
use crate::lua::{self, async_function};
use crate::route::{FastRouter, RouteDecl};
use crate::service::Site;
use crate::tls::Tls;
use crate::worker::{self, Plan, Worker};

/// A server to be: an app, and what the embedding program decides about it.
///
/// What is set here wins over environment variables (`ROVER_*`), and those over the app's own `rover.server { … }`.
///
/// ```
/// # fn main() -> Result<(), rover_server::Error> {
/// let server = rover_server::Server::from_source(
///     "hello.lua",
///     "local api = rover.server {} function api.get(ctx) return double(21) end return api",
/// )
/// .port(0)
/// .workers(1)
/// .function("double", |_, n: i64| Ok(2 * n));
/// let listening = server.bind()?;
/// assert!(listening.addresses()[0].starts_with("http://127.0.0.1:"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Server {
    blueprint: Blueprint,
    overrides: Overrides,
}

impl Server {
    /// A server for the app in a file. `require` looks beside it.
    pub fn from_file(path: impl Into<PathBuf>) -> Server {
        Server::new(Source::File(path.into()))
    }

    /// A server for an app given as text; `name` is what errors call it, e.g. `app.lua`.
    pub fn from_source(name: impl Into<String>, code: impl Into<String>) -> Server {
        Server::new(Source::Text { name: name.into(), code: code.into() })
    }

    fn new(source: Source) -> Server {
        let blueprint = Blueprint { source, setup: Vec::new(), worker: 1, workers: num_cpus::get() };
        Server { blueprint, overrides: Overrides::default() }
    }

    /// Listens on this address, name or Unix socket instead of the app's `host`.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Server {
        self.overrides.host = Some(host.into());
        self
    }

    /// Listens on this port instead of the app's; 0 lets the system pick one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Server {
        self.overrides.port = Some(port);
        self
    }

    /// Runs so many workers, 1 to 1024, each with a Lua VM of its own. The default is a worker for each core.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Server {
        self.overrides.workers = Some(workers);
        self
    }

    /// Logs from this level on.
    #[must_use]
    pub fn log_level(mut self, level: Level) -> Server {
        self.overrides.log_level = Some(level);
        self
    }

    /// Logs a line for each request, at level info. On by default.
    #[must_use]
    pub fn access_log(mut self, on: bool) -> Server {
        self.overrides.access_log = Some(on);
        self
    }

    /// Shows messages and tracebacks of errors in answers. For development; off by default.
    #[must_use]
    pub fn debug(mut self, on: bool) -> Server {
        self.overrides.debug = Some(on);
        self
    }

    /// Refuses request bodies above so many bytes with 413. The default is 1 MiB.
    #[must_use]
    pub fn body_size_limit(mut self, bytes: u64) -> Server {
        self.overrides.body_size_limit = Some(bytes);
        self
    }

    /// Answers 408 when a client sends nothing of its body for so long. The default is 30 s.
    #[must_use]
    pub fn body_timeout(mut self, patience: Duration) -> Server {
        self.overrides.body_timeout = Some(patience);
        self
    }

    /// Gives running requests so much time when the server stops. The default is 10 s.
    #[must_use]
    pub fn shutdown_timeout(mut self, time: Duration) -> Server {
        self.overrides.shutdown_timeout = Some(time);
        self
    }

    /// Sends a client that missed or added the slash at the end of a path to the other spelling, with 308. Off by
    /// default.
    #[must_use]
    pub fn redirect_trailing_slash(mut self, on: bool) -> Server {
        self.overrides.trailing_slash = Some(if on { TrailingSlash::Redirect } else { TrailingSlash::Strict });
        self
    }

    /// Sets any key of `rover.server { … }` by its name, to what its variable would hold: `("tls.cert", "cert.pem")`.
    #[must_use]
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Server {
        self.overrides.texts.push((key.into(), value.into()));
        self
    }

    /// Prepares the VM of every worker before the app's code runs in it.
    ///
    /// # Errors
    /// An error of `setup` stops the start of the server.
    #[must_use]
    pub fn setup(mut self, setup: impl Fn(&Lua) -> mlua::Result<()> + Send + Sync + 'static) -> Server {
        self.blueprint.setup.push(Arc::new(move |lua, _| setup(lua)));
        self
    }

    /// Gives the app a global function. It runs on the worker's thread, which serves nothing else meanwhile.
    ///
    /// An error of `function` is raised in Lua.
    #[must_use]
    pub fn function<A, R, F>(mut self, name: impl Into<String>, function: F) -> Server
    where
        A: FromLuaMulti + 'static,
        R: IntoLuaMulti + 'static,
        F: Fn(&Lua, A) -> mlua::Result<R> + Clone + Send + Sync + 'static,
    {
        let name = name.into();
        self.blueprint
            .setup
            .push(Arc::new(move |lua, _| lua.globals().raw_set(name.as_str(), lua::function(lua, function.clone())?)));
        self
    }

    /// Gives the app a global function that may wait. The handler that calls it is suspended until the future is done;
    /// its worker serves other requests meanwhile.
    ///
    /// The future runs in the worker's tokio runtime, with its timers and its IO. When the client goes away while the
    /// handler waits, the future is dropped. An error is raised in Lua.
    #[must_use]
    pub fn async_function<A, R, F, Fut>(mut self, name: impl Into<String>, function: F) -> Server
    where
        A: FromLuaMulti + 'static,
        R: IntoLuaMulti + 'static,
        F: Fn(Lua, A) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = mlua::Result<R>> + 'static,
    {
        let name = name.into();
        self.blueprint.setup.push(Arc::new(move |lua, waits| {
            lua.globals().raw_set(name.as_str(), async_function(lua, waits, &name, function.clone())?)
        }));
        self
    }

    /// Gives the app a module, which `require(name)` returns. `load` makes it, once for each worker.
    #[must_use]
    pub fn module<F>(mut self, name: impl Into<String>, load: F) -> Server
    where
        F: Fn(&Lua) -> mlua::Result<mlua::Table> + Clone + Send + Sync + 'static,
    {
        let name = name.into();
        self.blueprint.setup.push(Arc::new(move |lua, _| {
            let load = load.clone();
            let preload: mlua::Table = lua.globals().get::<mlua::Table>("package")?.get("preload")?;
            preload.raw_set(name.as_str(), lua.create_function(move |lua, _: mlua::MultiValue| load(lua))?)
        }));
        self
    }

    /// Loads the app in one VM and says what it declares.
    ///
    /// # Errors
    /// Everything that is wrong with the app, its routes and its config.
    pub fn check(&self) -> Result<AppInfo, Error> {
        let (_, declared) = App::load(&self.blueprint).map_err(|mistakes| Error::app(mistakes.to_string()))?;
        let (config, router) = self.settle(declared)?;
        Tls::load(&config.tls, &config.host, config.http2.enabled)?;
        Ok(AppInfo::new(&router))
    }

    /// Loads the app for requests that come without a socket: for tests of an app. Runs on the calling thread.
    ///
    /// # Errors
    /// Everything that is wrong with the app, its routes and its config.
    pub fn load(&self) -> Result<LocalApp, Error> {
        Ok(LocalApp::new(self.site()?, Peer { ip: Some([127, 0, 0, 1].into()), scheme: "http" }))
    }

    /// The app on the calling thread, as its only worker.
    pub(crate) fn site(&self) -> Result<Rc<Site>, Error> {
        let blueprint = Blueprint { workers: 1, ..self.blueprint.clone() };
        let (app, declared) = App::load(&blueprint).map_err(|mistakes| Error::app(mistakes.to_string()))?;
        let (mut config, router) = self.settle(declared)?;
        config.workers = 1;
        config.access_log = false;
        // Such an app may run without tokio, whose clock this needs.
        config.connections.handler_timeout = Duration::ZERO;
        let router = Arc::new(router);
        app.settle(&router, &config);
        Ok(Rc::new(Site { app: Rc::new(app), router, config: Arc::new(config) }))
    }

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
        Ok(Listening { listeners, workers, info, plan })
    }

    /// Decides the config and builds the router.
    fn settle(&self, declared: Declared) -> Result<(Config, FastRouter), Error> {
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

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("source", &self.blueprint.source).finish_non_exhaustive()
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
        plain.iter_mut().for_each(|endpoint| match endpoint {
            Endpoint::Tcp(address) => address.set_port(port),
            Endpoint::Unix(_) => {}
        });
        plain.retain(|endpoint| matches!(endpoint, Endpoint::Tcp(_)));
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

/// What an app declares.
#[derive(Debug, Clone)]
pub struct AppInfo {
    routes: Vec<RouteInfo>,
}

/// One route of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// The method, such as `GET`; `any` for a handler of every method that the path does not declare.
    pub method: String,
    /// The pattern, such as `/users/{id}`.
    pub path: String,
    /// The file that declares it, as it was named to Rover.
    pub file: String,
    /// The line of the declaration.
    pub line: u32,
}

impl AppInfo {
    fn new(router: &FastRouter) -> AppInfo {
        let routes = router.routes().iter().map(|route| RouteInfo {
            method: route.verb.to_string(),
            path: route.pattern.to_string(),
            file: route.origin.file.to_string(),
            line: route.origin.line,
        });
        AppInfo { routes: routes.collect() }
    }

    /// The routes in the order declared.
    pub fn routes(&self) -> &[RouteInfo] {
        &self.routes
    }
}

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
    /// [`shutdown_timeout`](Server::shutdown_timeout), runs `on_shutdown`, and returns.
    ///
    /// Runs in any executor: the server has threads of its own. Dropping the future stops the server at once.
    ///
    /// # Errors
    /// The system refuses the acceptor's thread.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let addresses = self.addresses();
        let Listening { listeners, workers, info, plan } = self;
        let handles: Vec<Handle> = workers.iter().filter_map(Worker::handle).collect();
        let _watching = match &plan.tls {
            Some(tls) => tls.watch()?,
            None => None,
        };
        // Closing one end is seen at the other: the acceptor waits for that as it waits for connections.
        let (end, ending) = UnixStream::pair().map_err(|error| Error::io("cannot start the acceptor", error))?;
        let (finish, finished) = oneshot::channel::<()>();
        let acceptor = {
            let handles = handles.clone();
            let admission = Admission::new(&plan.config.connections);
            thread::Builder::new()
                .name("rover-accept".to_owned())
                .spawn(move || {
                    let accepted = listeners.accept(handles.len(), &ending, |turn, accepted, role| {
                        let Some(handle) = handles.get(turn) else { return };
                        match admission.admit(accepted.ip()) {
                            Some(permit) => worker::adopt(handle, accepted, role, permit),
                            None => admission.refuse(accepted, role != Role::Tls),
                        }
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
        if let Some(first) = handles.first() {
            worker::announce(first);
        }

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
