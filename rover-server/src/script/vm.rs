//! A VM while an app is loaded into it: what the parts of the Lua surface need, and where they add themselves.
//!
//! Comes in: a VM whose contexts and responses are ready. Goes out: the tables that the parts have added to, what they
//! count, and what they do once the config is known. This module must not know of any part.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Function, Lua, Table};
use rover_lua::Waits;
use rover_lua::json::Vocabulary;

use super::tasks::Tasks;
use crate::config::Config;
use crate::exchange::context::{Contexts, Installed};
use crate::exchange::response::Responder;
use crate::observe::metrics::Sources;
use crate::observe::otlp::Tracing;
use crate::outbound::Figures;
use crate::store::Stores;

/// A VM that parts of the Lua surface are installed in.
pub(crate) struct Vm {
    pub(crate) lua: Lua,
    /// Lua: raises at the line of the app.
    pub(crate) mistake: Function,
    /// The global `rover`.
    pub(crate) rover: Table,
    /// The functions that Rust lends to Rover's own Lua files.
    pub(crate) native: Table,
    /// The metatable and the methods of contexts.
    pub(crate) context: Installed,
    /// The metatable of responses.
    pub(crate) response_meta: Table,
    /// What builds responses: `api.json` and its like.
    pub(crate) builders: Table,
    /// Lua: makes a response of what a handler has returned.
    pub(crate) respond: Function,
    /// The metatable of `rover.array`.
    pub(crate) array_meta: Table,
    pub(crate) vocabulary: Rc<Vocabulary>,
    pub(crate) responder: Rc<Responder>,
    pub(crate) waits: Rc<Waits>,
    pub(crate) tasks: Rc<Tasks>,
    pub(crate) tracing: Tracing,
    /// What is counted of requests to other servers.
    pub(crate) figures: Arc<Figures>,
    /// Which worker the VM belongs to, counted from 1.
    pub(crate) worker: usize,
    /// What all workers share.
    pub(crate) stores: Arc<Stores>,
    /// Where the parts register what they count.
    pub(crate) sources: Sources,
    pub(crate) settling: Settling,
}

/// What the parts do with the config, once it is known.
#[derive(Default)]
pub(crate) struct Settling(RefCell<Vec<Settle>>);

type Settle = Box<dyn Fn(&Config)>;

impl Settling {
    /// Has `settle` told of the config whenever it is decided.
    pub(crate) fn add(&self, settle: impl Fn(&Config) + 'static) {
        self.0.borrow_mut().push(Box::new(settle));
    }

    /// Tells all of them.
    pub(crate) fn settle(&self, config: &Config) {
        for settle in &*self.0.borrow() {
            settle(config);
        }
    }
}

impl Vm {
    /// The contexts of requests.
    pub(crate) fn contexts(&self) -> &Rc<Contexts> {
        &self.context.contexts
    }

    /// The builder of the responses of errors.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn refusal(&self) -> mlua::Result<Function> {
        self.builders.raw_get("error")
    }

    /// One of Rover's own Lua files.
    ///
    /// # Errors
    /// Memory errors of mlua.
    pub(crate) fn file(&self, name: &str, code: &str) -> mlua::Result<Function> {
        file(&self.lua, name, code)
    }
}

/// One of Rover's own Lua files, before there is a [`Vm`].
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn file(lua: &Lua, name: &str, code: &str) -> mlua::Result<Function> {
    lua.load(code).set_name(format!("=rover/{name}")).into_function()
}
