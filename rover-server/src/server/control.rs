//! Acts on a running server, from any thread.

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

/// A handle to a running server. Clones are handles to the same server; a handle may outlive it.
#[derive(Clone)]
pub struct Control {
    pub(super) shared: Arc<ServerState>,
}

/// What a server's handles, its acceptor and its management listener share.
pub(super) struct ServerState {
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
    /// Held during a reload or a restart: one at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// The phase of a server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ServerPhase {
    Starting,
    Serving,
    Stopping,
}

/// Counts reloads.
pub(super) struct Reloads(Mutex<(u64, u64, SystemTime)>);

impl Reloads {
    fn new() -> Reloads {
        Reloads(Mutex::new((0, 0, SystemTime::now())))
    }

    /// Counts one reload.
    pub(super) fn note(&self, is_done: bool) {
        let mut counts = self.0.lock();
        match is_done {
            true => (counts.0, counts.2) = (counts.0 + 1, SystemTime::now()),
            false => counts.1 += 1,
        }
    }

    /// Successful reloads, failed reloads, and when the current version was loaded.
    pub(super) fn counts(&self) -> (u64, u64, SystemTime) {
        *self.0.lock()
    }
}

impl ServerState {
    pub(super) fn new(
        server: Server,
        workers: Arc<Workers>,
        (listeners, management): (&Arc<Listeners>, Option<&Arc<Listeners>>),
        plan: Arc<Mutex<Plan>>,
        watchdog: Watchdog,
    ) -> Arc<ServerState> {
        Arc::new(ServerState {
            server,
            workers,
            listeners: Arc::downgrade(listeners),
            management: management.map(Arc::downgrade).unwrap_or_default(),
            plan,
            watchdog,
            phase: AtomicU8::new(ServerPhase::Starting as u8),
            reloads: Reloads::new(),
            started: SystemTime::now(),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    pub(super) fn phase(&self) -> ServerPhase {
        match self.phase.load(Ordering::Acquire) {
            0 => ServerPhase::Starting,
            1 => ServerPhase::Serving,
            _ => ServerPhase::Stopping,
        }
    }

    pub(super) fn enter(&self, phase: ServerPhase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The plan of the version that serves.
    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock()
    }
}

impl Control {
    /// Returns a profiler, which records where the Lua code spends its time.
    pub fn profiler(&self) -> Profiler {
        Profiler::new(self.shared.watchdog.clone(), self.shared.plan().router.clone())
    }

    /// Returns the Lua files of the app: its own file and each that `require` has looked for so far, found or not,
    /// including those of versions that did not load.
    pub fn files(&self) -> Vec<PathBuf> {
        self.shared.server.blueprint.files.list()
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("server", &self.shared.server).finish_non_exhaustive()
    }
}
