//! Counts the workers lost in each route, and closes routes that lose too many.
//!
//! Comes in: losses. Goes out: the routes that are closed until another version of the app takes over. This module must
//! not know how a route is closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::log::{self, Level};
use crate::route::FastRouter;
use crate::server::watchdog::Lost;

/// How many threads may be stuck in a route before it is closed.
const COSTS: usize = 3;

/// The losses in the version that serves.
#[derive(Default)]
pub(super) struct Damage {
    version: Option<Arc<FastRouter>>,
    /// By function: for each worker that was lost in it, whether its thread has come back.
    lost: BTreeMap<u32, Vec<Arc<AtomicBool>>>,
}

impl Damage {
    /// Notes a loss in the version of this router. Returns whether its route is to be closed.
    pub(super) fn note(&mut self, lost: &Lost, version: &Arc<FastRouter>) -> bool {
        if !self.is_of(version) {
            *self = Damage { version: Some(version.clone()), lost: BTreeMap::new() };
        }
        let route = usize::try_from(lost.function).ok().and_then(|n| version.routes().get(n.checked_sub(1)?));
        let Some(route) = route else { return false };
        let stuck = self.lost.entry(lost.function).or_default();
        let is_closed = stuck.len() >= COSTS;
        if !is_closed {
            stuck.retain(|is_back| !is_back.load(Ordering::Acquire));
        }
        stuck.push(lost.is_back.clone());
        let closes = !is_closed && stuck.len() >= COSTS;
        if closes {
            let route = format!("{} {}", route.verb.name().to_uppercase(), route.pattern);
            let message =
                format!("{route} is closed until the app is reloaded: {COSTS} workers do not come back from it");
            log::event(Level::Error, &message).emit();
        }
        closes
    }

    /// The functions of this version that are closed.
    pub(super) fn closed(&self, version: &Arc<FastRouter>) -> impl Iterator<Item = u32> {
        let is_of = self.is_of(version);
        self.lost.iter().filter(move |(_, stuck)| is_of && stuck.len() >= COSTS).map(|(function, _)| *function)
    }

    fn is_of(&self, version: &Arc<FastRouter>) -> bool {
        self.version.as_ref().is_some_and(|own| Arc::ptr_eq(own, version))
    }
}
