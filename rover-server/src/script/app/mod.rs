//! A loaded app: its VM, the routes that it declared, and the functions that answer them.
//!
//! Comes in: a Lua file (or text) and what the embedding program lends to it. Goes out: the [`App`] of one worker, and
//! its [`Declared`] config and routes as plain data, which may cross threads. This module must not know of sockets or
//! workers.

mod chunk;
mod code;
mod config_value;
mod declared;
mod draft;
mod endpoint;
mod entries;
mod guarding;
mod install;
mod load;
mod modules;
mod natives;
mod places;

use std::cell::{Cell, OnceCell};
use std::collections::BTreeSet;
use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub(crate) use code::Code;
pub(crate) use declared::{Declared, Hooks, Mistakes, Unfinished};
pub(crate) use endpoint::Endpoint;
use guarding::Guarding;
use natives::Limiting;
use rover_lua::{Coroutine, Coroutines, Outside, Waits};

use crate::config::Config;
use crate::exchange::context::{Contexts, Guarded, ParamShapes, Peer};
use crate::exchange::failure::Failure;
use crate::exchange::response::Responder;
use crate::log::{self, Level};
use crate::observe::metrics::Sources;
use crate::observe::otlp::{Tracer, Tracing};
use crate::policy::rate_limit::RateLimits;
use crate::route::{FastRouter, Pattern, RouteId};
use crate::runtime::budget::{self, Budget, InFlight, Share};
use crate::script::tasks::Tasks;
use crate::script::vm::Settling;
use crate::script::websocket::Hub;
use crate::store::Stores;

/// Where the app's code is.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A file, which `require` looks beside.
    File(PathBuf),
    /// Text, with the name that errors show.
    Text {
        /// As errors show it, e.g. `app.lua`.
        name: String,
        /// The Lua code.
        code: String,
    },
}

impl Source {
    /// The name of the app's file, without folders and ending.
    pub(crate) fn stem(&self) -> String {
        let path = match self {
            Source::File(path) => path.as_path(),
            Source::Text { name, .. } => Path::new(name),
        };
        path.file_stem().map_or_else(|| "app".to_owned(), |stem| stem.to_string_lossy().into_owned())
    }

    /// The app's file as messages call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Text { name, .. } => name.clone(),
        }
    }

    /// The folder that relative names in the app start from.
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Source::File(path) => path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")),
            Source::Text { .. } => Path::new("."),
        }
    }
}

/// Prepares a VM before the app's own code runs: registers functions, preloads modules.
pub(crate) type Setup = Arc<dyn Fn(&mlua::Lua, &Rc<Waits>) -> mlua::Result<()> + Send + Sync>;

/// Everything that makes an app, as plain data for every worker.
#[derive(Clone)]
pub(crate) struct Blueprint {
    pub(crate) source: Source,
    pub(crate) setup: Vec<Setup>,
    /// What all workers share.
    pub(crate) stores: Arc<Stores>,
    /// Which worker loads the app, counted from 1, and how many there are as far as is known.
    pub(crate) worker: usize,
    pub(crate) workers: usize,
    /// Bytes that the VM may hold while the app loads; 0 for no limit.
    pub(crate) memory_limit: u64,
    /// How the workers' WebSockets hear of each other.
    pub(crate) hub: Arc<Hub>,
    pub(crate) files: Files,
    /// Of the version that is loaded.
    pub(crate) code: Code,
}

/// The Lua files that an app consists of, as far as any of its VMs has looked for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Files {
    /// More than an app has; it could ask for modules by names that come from outside.
    const MOST: usize = 10_000;

    fn note(&self, file: PathBuf) {
        let mut files = self.0.lock();
        if files.len() < Files::MOST {
            files.insert(file);
        }
    }

    /// In the order of their names.
    pub(crate) fn list(&self) -> Vec<PathBuf> {
        self.0.lock().iter().cloned().collect()
    }
}

/// The app of one worker.
pub(crate) struct App {
    pub(crate) coroutines: Coroutines,
    pub(crate) contexts: Rc<Contexts>,
    pub(crate) responder: Rc<Responder>,
    pub(crate) waits: Rc<Waits>,
    pub(crate) tasks: Rc<Tasks>,
    tracing: Tracing,
    pub(crate) hooks: Hooks,
    /// Which paths have hooks.
    guarding: Rc<Guarding>,
    /// The function of `cors.origins`.
    cors_origins: Option<mlua::Function>,
    limiting: Rc<Limiting>,
    /// What the parts of the VM do with the config.
    settling: Settling,
    /// Where each entry was declared.
    places: Vec<String>,
    /// Whether each entry has a parameter, and so gets a context.
    takes_context: Vec<bool>,
    /// What is known of the requests of each entry.
    endpoints: Vec<Endpoint>,
    debug: Cell<bool>,
    stores: Arc<Stores>,
    /// Known once the app is settled.
    budget: OnceCell<Rc<Budget>>,
    longest_body: Cell<u64>,
    handler_timeout: Cell<Duration>,
    watches_waits: Cell<bool>,
    /// Where the parts of the VM register what they count.
    pub(crate) sources: Sources,
    /// Lua: how many rounds the garbage collector has finished.
    gc_rounds: mlua::Function,
    /// Lua: closes the entry of a number.
    close: mlua::Function,
}

impl App {
    /// Where every coroutine's stack holds the table of entry functions.
    pub(crate) const ENTRIES: c_int = 1;
    /// Where every coroutine's stack holds the metatable of contexts.
    pub(crate) const CONTEXT_META: c_int = 2;
    /// How many values every coroutine's stack begins with.
    pub(crate) const BASE: c_int = 2;

    /// The entry that answers a route.
    #[inline]
    pub(crate) fn entry_of(route: RouteId) -> c_int {
        route.0 as c_int + 1
    }

    /// Says which hooks guard a path that no route answers, for the entry `hooks.rest`; `None` where none do. `known` is the
    /// pattern that the path matches, where only its methods are others.
    #[cold]
    pub(crate) fn guarded(&self, path: &str, known: Option<&Pattern>) -> Option<Guarded> {
        let mut guarded = Guarded::default();
        guarded.key = guarding::key(self.guarding.guards.get()?, path, known, &mut guarded.values)?;
        Some(guarded)
    }

    /// Whether answers show details of errors.
    pub(crate) fn debug(&self) -> bool {
        self.debug.get()
    }

    /// How long the handler of `entry` may wait in all; zero for as long as it likes.
    pub(crate) fn handler_timeout(&self, entry: c_int) -> Duration {
        self.endpoint(entry).timeout.unwrap_or(self.handler_timeout.get())
    }

    /// Where the function of `entry` was declared, as `app.lua:12`.
    pub(crate) fn place_of(&self, entry: c_int) -> String {
        usize::try_from(entry - 1).ok().and_then(|n| self.places.get(n)).cloned().unwrap_or_else(|| "app".to_owned())
    }

    /// Reads the error that the function of `entry` has raised in `coroutine`.
    #[cold]
    pub(crate) fn failure(&self, coroutine: &mut Coroutine, entry: c_int) -> Failure {
        let lua = self.coroutines.lua();
        Failure::raised(coroutine, &self.place_of(entry), lua, &self.contexts, &self.responder)
    }

    /// What is known of the requests that `entry` answers.
    #[inline]
    pub(crate) fn endpoint(&self, entry: c_int) -> Endpoint {
        self.endpoints.get((entry - 1) as usize).copied().unwrap_or_default()
    }

    /// Whether the function of `entry` has a parameter that a context could be given to.
    #[inline]
    pub(crate) fn takes_context(&self, entry: c_int) -> bool {
        self.takes_context.get((entry - 1) as usize).is_none_or(|takes| *takes)
    }

    /// Whether somebody wants to know where handlers wait.
    pub(crate) fn watches_waits(&self) -> bool {
        self.watches_waits.get()
    }

    /// How many rounds the VM's garbage collector has finished.
    pub(crate) fn gc_rounds(&self) -> u64 {
        self.gc_rounds.call::<f64>(()).map_or(0, |rounds| rounds as u64)
    }

    /// Has the entry of this number answer 503 from now on, without running its function.
    pub(crate) fn close(&self, entry: u32) {
        if let Err(error) = self.close.call::<()>(entry) {
            log::event(Level::Error, &rover_lua::plain_message(&error)).emit();
        }
    }

    /// Asks the app's function of `cors.origins` about an origin. One that raises allows nothing.
    pub(crate) fn allows_origin(&self, origin: &str) -> bool {
        let Some(function) = &self.cors_origins else { return false };
        match function.call::<mlua::Value>(origin) {
            Ok(answer) => !matches!(answer, mlua::Value::Nil | mlua::Value::Boolean(false)),
            Err(error) => {
                log::event(Level::Error, &rover_lua::plain_message(&error)).field("function", "cors.origins").emit();
                false
            }
        }
    }

    /// A share that counts the body of a request on the connection with `peer`; `None` before the app is settled.
    #[cold]
    pub(crate) fn share(&self, peer: &Peer) -> Option<Share> {
        self.budget.get().map(|budget| budget.share(peer.held(), budget::Kind::Request))
    }

    /// The longest body that the VM has room for.
    #[inline]
    pub(crate) fn longest_body(&self) -> u64 {
        self.longest_body.get()
    }

    /// The app serves from now on: what it runs is not cut into slices any more.
    pub(crate) fn serves(&self) {
        self.waits.slice(None);
    }

    /// What asks for room for large bodies; `None` before the app is settled.
    pub(crate) fn budget(&self) -> Option<&Rc<Budget>> {
        self.budget.get()
    }

    /// The bytes that all workers hold.
    pub(crate) fn in_flight(&self) -> &Arc<InFlight> {
        self.stores.in_flight()
    }

    /// Lends the server's limits to the functions that count from within Lua.
    pub(crate) fn limit(&self, limits: Arc<RateLimits>) {
        let _ = self.limiting.limits.set(limits);
    }

    /// Tells the app what was decided after it had loaded.
    pub(crate) fn settle(&self, router: &FastRouter, config: &Config, tracer: Option<&Tracer>) {
        self.tracing.settle(tracer);
        let _ = self.contexts.shapes.set(ParamShapes::of(router, self.guarding.guards.get()));
        self.stores.settle(config.store.clone());
        self.debug.set(config.debug);
        self.watches_waits.set(config.slow_request.is_some());
        self.tasks.set_keep_alive(config.sse_keep_alive);
        self.settling.settle(config);
        self.handler_timeout.set(config.connections.handler_timeout);
        self.contexts.vocabulary.limit(config.json_size_limit);
        limit_memory(self.coroutines.lua(), config.limits.memory_limit);
        let settings = &config.connections;
        let largest = self.endpoints.iter().filter_map(|endpoint| endpoint.body_size_limit).max();
        let largest = largest.unwrap_or(0).max(config.body_size_limit);
        let limits = budget::Limits::new(settings.buffer_limit, settings.buffer_limit_per_connection, largest);
        let most = most_beside(config.limits.memory_limit);
        self.longest_body.set(u64::try_from(most).unwrap_or(u64::MAX));
        let vm = OfVm { outside: Outside::of(self.coroutines.lua()), most };
        let _ = self.budget.set(Budget::new(self.stores.in_flight().clone(), limits, Arc::new(vm)));
    }
}

/// How much of a VM's limit the bodies of its requests may take: the rest is for the code that reads them.
fn most_beside(memory_limit: u64) -> usize {
    match usize::try_from(memory_limit) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(limit) => limit - limit / 8,
    }
}

/// Counts bodies in the limit of the VM that gets them.
struct OfVm {
    outside: Outside,
    most: usize,
}

impl budget::Tally for OfVm {
    fn add(&self, bytes: usize) -> bool {
        self.outside.add(bytes) <= self.most
    }

    fn remove(&self, bytes: usize) {
        self.outside.remove(bytes);
    }
}

/// Sets how much the VM may hold, as far as that is possible.
fn limit_memory(lua: &mlua::Lua, bytes: u64) {
    if let Err(error) = rover_lua::limit_memory(lua, usize::try_from(bytes).unwrap_or(usize::MAX)) {
        log::event(Level::Warn, &rover_lua::plain_message(&error)).emit();
    }
}
