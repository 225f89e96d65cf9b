//! What can be done to a server while it runs, from any thread.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Server;
use crate::accept::Listeners;
use crate::version::Plan;
use crate::workers::Workers;

/// A handle to a server that listens. Clones are handles to the same one; it may outlive the server.
#[derive(Clone)]
pub struct Control {
    pub(super) shared: Arc<Shared>,
}

/// What a server's handles, its acceptor and its management have in common.
pub(super) struct Shared {
    pub(super) server: Server,
    pub(super) workers: Workers,
    /// While the server listens.
    pub(super) listeners: Weak<Listeners>,
    plan: Mutex<Plan>,
    /// Held while the app is loaded anew: one version after the other.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn new(server: Server, workers: Workers, listeners: &Arc<Listeners>, plan: Plan) -> Arc<Shared> {
        Arc::new(Shared {
            server,
            workers,
            listeners: Arc::downgrade(listeners),
            plan: Mutex::new(plan),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// The router and config of the version that serves.
    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// The Lua files of the app: the one that was named, and each that `require` has looked into so far, also in
    /// versions that did not load.
    pub fn files(&self) -> Vec<PathBuf> {
        self.shared.server.blueprint.files.list()
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("server", &self.shared.server).finish_non_exhaustive()
    }
}
