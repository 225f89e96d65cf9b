//! A loaded app: its VM, the routes that it declared, and the functions that answer them.
//!
//! Comes in: a Lua file (or text) and what the embedding program lends to it. Goes out: the [`App`] of one worker, and
//! its [`Declared`] config and routes as plain data, which may cross threads. This module must not know of sockets or
//! workers.

mod declared;
mod load;
mod natives;

use std::cell::Cell;
use std::ffi::c_int;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use declared::{Declared, Hooks, Mistakes};

use crate::config::Config;
use crate::context::{Contexts, Shapes};
use crate::lua::{Coroutines, Waits};
use crate::response::Responder;
use crate::route::{FastRouter, RouteId};
use crate::tasks::Tasks;

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

/// Prepares a VM before the app's own code runs: registers functions, preloads modules.
pub(crate) type Setup = Arc<dyn Fn(&mlua::Lua, &Rc<Waits>) -> mlua::Result<()> + Send + Sync>;

/// Everything that makes an app, as plain data for every worker.
#[derive(Clone)]
pub(crate) struct Blueprint {
    pub(crate) source: Source,
    pub(crate) setup: Vec<Setup>,
    /// Which worker loads the app, counted from 1, and how many there are as far as is known.
    pub(crate) worker: usize,
    pub(crate) workers: usize,
}

/// The app of one worker.
pub(crate) struct App {
    pub(crate) coroutines: Coroutines,
    pub(crate) contexts: Rc<Contexts>,
    pub(crate) responder: Rc<Responder>,
    pub(crate) waits: Rc<Waits>,
    pub(crate) tasks: Rc<Tasks>,
    pub(crate) hooks: Hooks,
    /// Where each entry was declared.
    places: Vec<String>,
    /// Whether each entry has a parameter, and so gets a context.
    takes_context: Vec<bool>,
    debug: Rc<Cell<bool>>,
    workers: Rc<Cell<usize>>,
    handler_timeout: Cell<Duration>,
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

    /// Whether answers show details of errors.
    pub(crate) fn debug(&self) -> bool {
        self.debug.get()
    }

    /// How long a handler may wait in all; zero for as long as it likes.
    pub(crate) fn handler_timeout(&self) -> Duration {
        self.handler_timeout.get()
    }

    /// Where the function of `entry` was declared, as `app.lua:12`.
    pub(crate) fn place_of(&self, entry: c_int) -> String {
        usize::try_from(entry - 1).ok().and_then(|n| self.places.get(n)).cloned().unwrap_or_else(|| "app".to_owned())
    }

    /// Whether the function of `entry` has a parameter that a context could be given to.
    #[inline]
    pub(crate) fn takes_context(&self, entry: c_int) -> bool {
        self.takes_context.get((entry - 1) as usize).is_none_or(|takes| *takes)
    }

    /// Tells the app what was decided after it had loaded.
    pub(crate) fn settle(&self, router: &FastRouter, config: &Config) {
        let _ = self.contexts.shapes.set(Shapes::of(router));
        self.debug.set(config.debug);
        self.tasks.set_keep_alive(config.sse_keep_alive);
        self.workers.set(config.workers);
        self.handler_timeout.set(config.connections.handler_timeout);
    }
}
