//! What can be done to a server while it runs, from any thread.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};

use super::Server;
use crate::listen::accept::Listeners;
use crate::server::dispatcher::Workers;
use crate::server::profile::Profiler;
use crate::server::version::Plan;
use crate::server::watchdog::Watchdog;

/// A handle to a server that listens. Clones are handles to the same one; it may outlive the server.
#[derive(Clone)]
pub struct Control {
    pub(super) shared: Arc<Shared>,
}

/// What a server's handles, its acceptor and its management have in common.
pub(super) struct Shared {
    pub(super) server: Server,
    pub(super) workers: Arc<Workers>,
    /// While the server listens.
    pub(super) listeners: Weak<Listeners>,
    /// As `listeners`, for operators.
    pub(super) management: Weak<Listeners>,
    plan: Arc<Mutex<Plan>>,
    phase: AtomicU8,
    pub(super) reloads: Reloads,
    pub(super) started: SystemTime,
    pub(super) watchdog: Watchdog,
    /// Held while the app is loaded anew: one version after the other.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// Where in its life a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    Starting,
    Serving,
    Stopping,
}

/// How often the app was loaded anew.
pub(super) struct Reloads(Mutex<(u64, u64, SystemTime)>);

impl Reloads {
    fn new() -> Reloads {
        Reloads(Mutex::new((0, 0, SystemTime::now())))
    }

    /// Counts one.
    pub(super) fn note(&self, is_done: bool) {
        let mut counts = self.0.lock();
        match is_done {
            true => (counts.0, counts.2) = (counts.0 + 1, SystemTime::now()),
            false => counts.1 += 1,
        }
    }

    /// How many succeeded, how many failed, and when the version that serves was loaded.
    pub(super) fn counts(&self) -> (u64, u64, SystemTime) {
        *self.0.lock()
    }
}

impl Shared {
    pub(super) fn new(
        server: Server,
        workers: Arc<Workers>,
        (listeners, management): (&Arc<Listeners>, Option<&Arc<Listeners>>),
        plan: Arc<Mutex<Plan>>,
        watchdog: Watchdog,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            server,
            workers,
            listeners: Arc::downgrade(listeners),
            management: management.map(Arc::downgrade).unwrap_or_default(),
            plan,
            watchdog,
            phase: AtomicU8::new(Phase::Starting as u8),
            reloads: Reloads::new(),
            started: SystemTime::now(),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Stopping,
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The router and config of the version that serves.
    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock()
    }
}

impl Control {
    /// Records where the Lua code spends its time.
    pub fn profiler(&self) -> Profiler {
        Profiler::new(self.shared.watchdog.clone(), self.shared.plan().router.clone())
    }

    /// The Lua files of the app: the one that was named, and each that `require` has looked into so far, or for
    /// in vain, also in versions that did not load.
    pub fn files(&self) -> Vec<PathBuf> {
        self.shared.server.blueprint.files.list()
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("server", &self.shared.server).finish_non_exhaustive()
    }
}
