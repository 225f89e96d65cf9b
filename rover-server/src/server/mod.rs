//! The public API: configures a server, starts it, says where it listens, and runs it until it is told to stop.
//!
//! This file holds what an embedding program sets. The modules do the rest, in this order: `start` loads the app and
//! binds the sockets, `listening` serves and stops, `control` and `reload` act on the running server; `check` loads an
//! app without serving it.

pub(crate) mod management; // its own pages: metrics and health
pub(crate) mod supervisor; // the workers as a whole; replaces lost ones
pub(crate) mod dispatcher; // gives connections to workers in turn
pub(crate) mod worker; // one thread, one runtime, one Lua VM
pub(crate) mod local; // an app without a socket
pub(crate) mod version; // one version of the app in a worker
pub(crate) mod readiness; // whether the app is ready
pub(crate) mod profile; // where Lua code spends its time
pub(crate) mod watchdog; // stops code that runs for too long
mod board;
mod check;
pub(crate) mod databases;
mod control;
mod info;
mod listening;
mod reload;
mod start;
mod succession;

use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{FromLuaMulti, IntoLuaMulti, Lua};
use rover_lua::async_function;

pub use control::Control;
pub use info::{AppInfo, RouteInfo};
pub use listening::Listening;

use start::Settled;
use succession::InheritedOnce;

use crate::config::{self, AccessLog, Overrides};
use crate::error::Error;
use crate::exchange::context::Peer;
use crate::log::{Level, LogRecord, LogSink};
use crate::observe::metrics::Archive;
use crate::observe::otlp::Tracer;
use crate::policy::rate_limit::RateLimits;
use crate::script::app::{Blueprint, Code, Files, Source};
use crate::server::local::LocalApp;
use crate::service::Site;

/// Builds a server from an app and the settings of the embedding program.
///
/// These settings win over environment variables (`ROVER_*`), and those win over the app's own `rover.server { … }`.
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
    /// Pending migrations are run, not refused.
    migrates: bool,
    inherited: InheritedOnce,
    log_sink: Option<LogSink>,
}

impl Server {
    /// Takes the app from a file. `require` looks beside it.
    pub fn from_file(path: impl Into<PathBuf>) -> Server {
        Server::new(Source::File(path.into()))
    }

    /// Takes the app from text; errors call it `name`, such as `app.lua`.
    pub fn from_source(name: impl Into<String>, code: impl Into<String>) -> Server {
        Server::new(Source::Text { name: name.into(), code: code.into() })
    }

    fn new(source: Source) -> Server {
        let blueprint = Blueprint {
            source,
            setup: Vec::new(),
            stores: Arc::default(),
            worker: 1,
            workers: num_cpus::get(),
            memory_limit: 0,
            files: Files::default(),
            code: Code::default(),
            hub: Arc::default(),
        };
        Server {
            blueprint,
            overrides: Overrides::default(),
            migrates: false,
            inherited: InheritedOnce::default(),
            log_sink: None,
        }
    }

    /// Listens on this address, name or Unix socket instead of the app's `host`.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Server {
        self.overrides.set("host", host.into());
        self
    }

    /// Listens on this port instead of the app's; 0 lets the system choose one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Server {
        self.overrides.set("port", u64::from(port));
        self
    }

    /// Sets the number of workers, 1 to 1024, each with its own Lua VM. The default is one for each core.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Server {
        self.overrides.set("workers", workers as u64);
        self
    }

    /// Sets the lowest level that is logged.
    #[must_use]
    pub fn log_level(mut self, level: Level) -> Server {
        self.overrides.set("log_level", level.name());
        self
    }

    /// Hands the log to this program instead of writing it to stderr: `sink` gets every line, those of requests
    /// included, as a record.
    ///
    /// It is called on the log's own thread, for one record after the other, warnings and errors at once and the rest
    /// within 20 ms. It may block, for nobody waits for it; what comes in meanwhile is kept up to 1 MiB for each
    /// thread, then dropped and counted. A record at which it panics is lost.
    ///
    /// A process has one log: the sink given last is the one for all its servers. Once a server without a sink was
    /// bound, the log stays on stderr, and [`bind`](Server::bind) fails for one that has a sink.
    #[must_use]
    pub fn log_to(mut self, sink: impl Fn(&LogRecord) + Send + Sync + 'static) -> Server {
        self.log_sink = Some(Arc::new(sink));
        self
    }

    /// Logs a line for each request, at level info. On by default.
    #[must_use]
    pub fn access_log(mut self, on: bool) -> Server {
        self.overrides.set("access_log", on);
        self
    }

    /// Shows messages and tracebacks of errors in answers. For development; off by default.
    #[must_use]
    pub fn debug(mut self, on: bool) -> Server {
        self.overrides.set("debug", on);
        self
    }

    /// Runs the migrations that are pending before the app is served, and before a new version of it is; else such an app is
    /// refused.
    #[must_use]
    pub fn migrate(mut self, on: bool) -> Server {
        self.migrates = on;
        self
    }

    /// Refuses request bodies of more bytes with 413. The default is 1 MiB.
    #[must_use]
    pub fn body_size_limit(mut self, bytes: u64) -> Server {
        self.overrides.set("body_size_limit", bytes);
        self
    }

    /// Answers 408 when a client sends nothing of its body for this long. The default is 30 s.
    #[must_use]
    pub fn body_timeout(mut self, patience: Duration) -> Server {
        self.overrides.set("body_timeout", patience);
        self
    }

    /// Sets how long running requests may take after the stop signal. The default is 10 s.
    #[must_use]
    pub fn shutdown_timeout(mut self, time: Duration) -> Server {
        self.overrides.set("shutdown_timeout", time);
        self
    }

    /// Stops Lua code that takes more CPU time than this between two waits, and answers 503. The default is 1 s; zero
    /// sets no limit. The app's top level and `on_start` get ten times as much.
    #[must_use]
    pub fn handler_cpu_limit(mut self, time: Duration) -> Server {
        self.overrides.set("handler_cpu_limit", time);
        self
    }

    /// Replaces a worker that has been in one call for this long. The default is 30 s; zero sets no limit.
    #[must_use]
    pub fn worker_stall_limit(mut self, time: Duration) -> Server {
        self.overrides.set("worker_stall_limit", time);
        self
    }

    /// Limits the memory of each worker's Lua VM, in bytes. The default is 1 GiB; 0 sets no limit.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Server {
        self.overrides.set("memory_limit", bytes);
        self
    }

    /// Keeps accepting connections for this long after the stop signal, while the readiness check already fails. The
    /// default is 0.
    #[must_use]
    pub fn drain_delay(mut self, time: Duration) -> Server {
        self.overrides.set("drain_delay", time);
        self
    }

    /// Redirects with 308 a path that is known only with, or without, a slash at its end. Off by default.
    #[must_use]
    pub fn redirect_trailing_slash(mut self, on: bool) -> Server {
        self.overrides.set("trailing_slash", if on { "redirect" } else { "strict" });
        self
    }

    /// Sets any config key by name, with a value as in its `ROVER_*` variable. The last value of a key wins. Mistakes are
    /// reported when the server starts. [`config_keys`](crate::config_keys) lists the keys.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Server {
        self.overrides.set(key, value.into());
        self
    }

    /// Prepares the VM of every worker before the app's code runs in it.
    ///
    /// # Errors
    /// If `setup` fails, the server does not start.
    #[must_use]
    pub fn setup(mut self, setup: impl Fn(&Lua) -> mlua::Result<()> + Send + Sync + 'static) -> Server {
        self.blueprint.setup.push(Arc::new(move |lua, _| setup(lua)));
        self
    }

    /// Adds a global function for the app. It runs on the worker's thread, which serves nothing else meanwhile.
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
        self.blueprint.setup.push(Arc::new(move |lua, _| {
            lua.globals().raw_set(name.as_str(), rover_lua::function(lua, function.clone())?)
        }));
        self
    }

    /// Adds a global function that may wait. The calling handler is suspended until the future completes; its worker
    /// serves other requests meanwhile.
    ///
    /// The future runs in the worker's tokio runtime, with its timers and its IO. If the client goes away while the
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

    /// Adds a module, which `require(name)` returns. `load` makes it, once for each worker.
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

    /// Loads the app for requests without a socket, in tests of an app. Runs on the calling thread.
    ///
    /// # Errors
    /// Everything that is wrong with the app, its routes and its config.
    pub fn load(&self) -> Result<LocalApp, Error> {
        Ok(LocalApp::new(self.site(false)?, Peer::new(Some([127, 0, 0, 1].into()), "http")))
    }

    /// Loads the app on the calling thread, as its only worker. Exporting traces needs a tokio runtime.
    pub(crate) fn site(&self, exports: bool) -> Result<Rc<Site>, Error> {
        rover_lua::suited().map_err(|why| Error::build(&why))?;
        let blueprint =
            Blueprint { workers: 1, stores: Arc::default(), code: Code::default(), ..self.blueprint.clone() };
        let (app, settled) = self.load_and_settle(&blueprint)?;
        let Settled { mut config, router, limits, mounts } = settled;
        config.workers = 1;
        config.access_log = AccessLog::Off;
        // Such an app may run without tokio, whose clock this needs.
        config.connections.handler_timeout = Duration::ZERO;
        let limits = RateLimits::new(&config.rate_limit, &limits);
        let archive = Archive::default();
        let patterns = router.routes().iter().map(|route| route.pattern.to_string());
        let tracer = if exports { Tracer::start(&config.otlp, patterns) } else { None };
        Ok(Site::new(app, Arc::new(router), Arc::new(config), limits, Arc::new(mounts), &archive, tracer))
    }
}

/// Warnings about environment variables that look like misspelt ones of Rover.
fn misspelt_variables() -> Vec<String> {
    let set = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    config::misspelt_variables(set.filter_map(|(name, _)| name.into_string().ok()))
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("source", &self.blueprint.source).finish_non_exhaustive()
    }
}
