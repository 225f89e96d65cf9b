//! Holds what all workers of one server share: dictionaries, caches, and turns for blocking work.
//!
//! Comes in: plain data from any thread. Goes out: copies of it. The workers reach it through the blueprint that each
//! loads, so two servers in one process see nothing of each other. This module must not know of Lua.

mod cache;
mod datum;
mod dictionary;
mod gate;
mod memory;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

use parking_lot::Mutex;

pub(crate) use cache::{Cache, Joined, Lead, Outcome};
pub(crate) use datum::Datum;
pub(crate) use dictionary::{Dictionary, Refusal};
pub(crate) use gate::{Gate, Turn};

use crate::config::StoreLimits;
use crate::runtime::budget::InFlight;

/// How many dictionaries, and how many caches, a server has at most: names come from the app's text, not from clients.
const MOST_NAMES: usize = 1024;

/// The limits of a server: the defaults until its config is known.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    settled: OnceLock<StoreLimits>,
}

impl Limits {
    fn get(&self) -> &StoreLimits {
        self.settled.get().unwrap_or(&StoreLimits::DEFAULT)
    }
}

/// Things by their names.
type Named<T> = Mutex<HashMap<Box<[u8]>, Arc<T>>>;

/// Everything that the workers of one server share.
#[derive(Default)]
pub(crate) struct Stores {
    limits: Arc<Limits>,
    dictionaries: Named<dyn Dictionary>,
    caches: Named<Cache>,
    files: OnceLock<Gate>,
    processes: OnceLock<Gate>,
    in_flight: Arc<InFlight>,
}

impl Stores {
    /// Tells what the config says; only the first call counts.
    pub(crate) fn settle(&self, limits: StoreLimits) {
        let _ = self.limits.settled.set(limits);
    }

    /// The dictionary of this name; `None` where there would be too many.
    pub(crate) fn dictionary(&self, name: &[u8]) -> Option<Arc<dyn Dictionary>> {
        named(&self.dictionaries, name, || Arc::new(memory::Memory::new(self.limits.clone())))
    }

    /// The cache of this name; `None` where there would be too many. The config should be settled.
    pub(crate) fn cache(&self, name: &[u8]) -> Option<Arc<Cache>> {
        named(&self.caches, name, || Arc::new(Cache::new(self.limits.get())))
    }

    /// Waits no more for what a thread computes that has been given up.
    pub(crate) fn abandon(&self, thread: ThreadId) {
        let caches: Vec<_> = self.caches.lock().values().cloned().collect();
        for cache in caches {
            cache.abandon(thread);
        }
    }

    /// The bytes that requests and answers hold.
    pub(crate) fn in_flight(&self) -> &Arc<InFlight> {
        &self.in_flight
    }

    /// Who may do work on files. The config should be settled.
    pub(crate) fn files(&self) -> &Gate {
        self.files.get_or_init(|| Gate::new(self.limits.get().fs_concurrency))
    }

    /// Who may run processes. The config should be settled.
    pub(crate) fn processes(&self) -> &Gate {
        self.processes.get_or_init(|| Gate::new(self.limits.get().exec_concurrency))
    }
}

fn named<T: ?Sized>(all: &Named<T>, name: &[u8], make: impl FnOnce() -> Arc<T>) -> Option<Arc<T>> {
    let mut all = all.lock();
    if let Some(known) = all.get(name) {
        return Some(known.clone());
    }
    if all.len() >= MOST_NAMES {
        return None;
    }
    let new = make();
    all.insert(name.into(), new.clone());
    Some(new)
}
