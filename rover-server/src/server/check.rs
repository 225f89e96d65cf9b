//! Loads an app without serving it: for `rover check`, and for the first step of a reload.
//!
//! The app's top level runs on a separate thread, under the watchdog and the limits of a start.

use std::sync::{Arc, mpsc};

use parking_lot::Mutex;

use super::databases::{self, AppDatabase};
use super::start::Settled;
use super::{AppInfo, Server};
use crate::error::Error;
use crate::listen::tls::ServerTls;
use crate::script::app::{Blueprint, Code};
use crate::server::watchdog::{Watchdog, WatchedWorker, roomy_thread};

impl Server {
    /// Loads the app in one VM and returns what it declares.
    ///
    /// # Errors
    /// Everything that is wrong with the app, its routes and its config; its top level took too much time or memory.
    pub fn check(&self) -> Result<AppInfo, Error> {
        let Settled { config, router, limits, mounts } = self.settled_apart()?;
        ServerTls::load(&config.tls, &config.host, config.http2.enabled)?;
        databases::rehearse(&config, &self.blueprint.source)?;
        let mut warnings = config.warnings(!limits.rules.is_empty());
        warnings.extend(mounts.warnings(self.blueprint.source.folder()));
        warnings.extend(super::misspelt_variables());
        Ok(AppInfo::new(&router, &mounts).warned(warnings))
    }

    /// The databases of the app, found out without serving it; the one behind `rover.db` first.
    ///
    /// # Errors
    /// Everything that is wrong with the app; its top level took too much time or memory.
    pub fn databases(&self) -> Result<Vec<AppDatabase>, Error> {
        let Settled { config, .. } = self.settled_apart()?;
        Ok(databases::of(&config, &self.blueprint.source))
    }

    /// What the app declares, and what is decided by it. Its VM has ended.
    ///
    /// # Errors
    /// Everything that is wrong with the app; its top level took too much time or memory.
    pub(super) fn settled_apart(&self) -> Result<Settled, Error> {
        rover_lua::suited().map_err(|why| Error::build(&why))?;
        let mut server = self.clone();
        let limits = server.early().limits;
        server.blueprint = Blueprint {
            stores: Arc::default(),
            code: Code::default(),
            memory_limit: limits.memory_limit,
            ..server.blueprint
        };
        let watchdog = Watchdog::start().map_err(|error| Error::io("cannot start the watchdog", error))?;
        let (reply, replied) = mpsc::channel();
        let begun = load_apart(server, watchdog.watch_worker(0, limits), move |settled| {
            let _ = reply.send(settled);
        });
        let settled = begun.and_then(|()| replied.recv().unwrap_or_else(|_| Err(died())));
        watchdog.end();
        settled
    }
}

/// Loads the app on a separate thread, settles its config and routes, and passes them to the callback.
///
/// # Errors
/// The system refuses the thread.
pub(super) fn load_apart(
    server: Server,
    watched: Arc<WatchedWorker>,
    reply: impl FnOnce(Result<Settled, Error>) + Send + 'static,
) -> Result<(), Error> {
    let reply = Arc::new(Mutex::new(Some(reply)));
    // If the app's top level hangs in C, the thread is given up.
    let own = reply.clone();
    watched.on_release(move |reason| {
        if let Some(reply) = take(&own) {
            reply(Err(Error::app(reason)));
        }
    });
    let load = move || {
        let _on_duty = watched.begin();
        // Drops the VM before the answer is sent.
        let settled = server.load_and_settle(&server.blueprint).map(|(_, settled)| settled);
        if let Some(reply) = take(&reply) {
            reply(settled);
        }
    };
    let spawned = roomy_thread("rover-load".to_owned()).spawn(load);
    spawned.map(drop).map_err(|error| Error::io("cannot start a thread to load the app", error))
}

/// The thread has ended without an answer.
pub(super) fn died() -> Error {
    Error::app("loading the app ended unexpectedly; this is a bug in Rover")
}

fn take<T>(reply: &Mutex<Option<T>>) -> Option<T> {
    reply.lock().take()
}
