//! A cache that computes each value once for all workers.
//!
//! Comes in: keys, and values from whoever [leads](Lead) their computation. Goes out: copies of values, or a
//! [wait](Following) for the leader. A leader that gives up, such as a cancelled handler, leaves the lead to one of
//! those who wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Datum;
use crate::config::StoreLimits;

/// What an entry takes besides its key and value, in bytes.
const OVERHEAD: usize = 300;

/// How a computation ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// With a value, which is kept.
    Value(Datum),
    /// With nil, and what stands behind it.
    Nothing(Option<Datum>),
    /// With an error.
    Raised(Datum),
    /// With what cannot be kept: a mistake of whoever asks, each at its own line.
    Mistake(Arc<str>),
}

#[derive(Clone)]
struct Cached {
    value: Datum,
    ttl: Option<Duration>,
}

struct Ttl;

impl Expiry<Arc<[u8]>, Cached> for Ttl {
    fn expire_after_create(&self, _: &Arc<[u8]>, cached: &Cached, _: Instant) -> Option<Duration> {
        cached.ttl
    }

    fn expire_after_update(&self, _: &Arc<[u8]>, cached: &Cached, _: Instant, _: Option<Duration>) -> Option<Duration> {
        cached.ttl
    }
}

/// What those who wait for a computation are told.
#[derive(Clone, Debug)]
enum News {
    /// It goes on.
    None,
    Ended(Outcome),
    /// Its thread has been given up, so it may never end.
    Lost,
}

/// A running computation.
struct Flight {
    news: watch::Sender<News>,
    leader: ThreadId,
}

/// A cache that all workers see.
pub(crate) struct Cache {
    values: moka::sync::Cache<Arc<[u8]>, Cached, RandomState>,
    flights: Mutex<HashMap<Arc<[u8]>, Arc<Flight>>>,
}

/// The result of asking for a value.
pub(crate) enum Joined {
    Hit(Datum),
    /// The asker is to compute it.
    Lead(Lead),
    /// Somebody else does.
    Follow(Following),
}

impl Cache {
    pub(super) fn new(limits: &StoreLimits) -> Cache {
        let bytes = limits.cache_memory as u64;
        // One measure for both bounds: an entry weighs its bytes, and at least its share of the number of entries.
        let share = u32::try_from(bytes / limits.cache_entries as u64).unwrap_or(u32::MAX);
        let values = moka::sync::Cache::builder()
            .max_capacity(bytes)
            .weigher(move |key: &Arc<[u8]>, cached: &Cached| weight(key, &cached.value).max(share))
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(Ttl)
            .build_with_hasher(RandomState::default());
        Cache { values, flights: Mutex::default() }
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Datum> {
        self.values.get(key).map(|cached| cached.value)
    }

    /// Stores a value. A computation for this key that goes on does not replace it.
    pub(crate) fn set(&self, key: &[u8], value: Datum, ttl: Option<Duration>) {
        {
            let mut flights = self.flights.lock();
            flights.remove(key);
            self.values.insert(key.into(), Cached { value, ttl });
        }
        self.tidy();
    }

    /// Removes a value. What a computation for this key that goes on brings is not kept.
    pub(crate) fn delete(&self, key: &[u8]) {
        let mut flights = self.flights.lock();
        flights.remove(key);
        self.values.invalidate(key);
    }

    /// Evicts entries beyond the bounds. By itself moka would do so some hundred writes later, which may be any number
    /// of bytes.
    fn tidy(&self) {
        self.values.run_pending_tasks();
    }

    /// Asks for the value of `key`.
    pub(crate) fn join(self: &Arc<Cache>, key: &[u8]) -> Joined {
        if let Some(value) = self.get(key) {
            return Joined::Hit(value);
        }
        let mut flights = self.flights.lock();
        // It may have come since.
        if let Some(value) = self.get(key) {
            return Joined::Hit(value);
        }
        if let Some(flight) = flights.get(key) {
            return Joined::Follow(Following { news: flight.news.subscribe() });
        }
        let flight = Flight { news: watch::Sender::new(News::None), leader: thread::current().id() };
        let (key, flight): (Arc<[u8]>, _) = (key.into(), Arc::new(flight));
        flights.insert(key.clone(), flight.clone());
        Joined::Lead(Lead { cache: self.clone(), key, flight })
    }

    /// Ends the waits for a thread that has been given up.
    pub(super) fn abandon(&self, leader: ThreadId) {
        self.flights.lock().retain(|_, flight| {
            let is_lost = flight.leader == leader;
            if is_lost {
                flight.news.send_replace(News::Lost);
            }
            !is_lost
        });
    }
}

fn weight(key: &[u8], value: &Datum) -> u32 {
    u32::try_from(key.len() + value.bytes() + OVERHEAD).unwrap_or(u32::MAX)
}

/// The duty to compute a value. Dropping it leaves it to one of those who wait.
pub(crate) struct Lead {
    cache: Arc<Cache>,
    key: Arc<[u8]>,
    flight: Arc<Flight>,
}

impl Lead {
    /// Keeps the value, if that is the outcome, and tells all who wait.
    pub(crate) fn end(self, outcome: Outcome, ttl: Option<Duration>) {
        let value = match &outcome {
            Outcome::Value(value) => Some(value.clone()),
            Outcome::Nothing(_) | Outcome::Raised(_) | Outcome::Mistake(_) => None,
        };
        {
            let flights = self.cache.flights.lock();
            // Not where it was set or deleted meanwhile.
            let counts = flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
            if let Some(value) = value.filter(|_| counts) {
                self.cache.values.insert(self.key.clone(), Cached { value, ttl });
            }
        }
        self.flight.news.send_replace(News::Ended(outcome));
        self.cache.tidy();
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut flights = self.cache.flights.lock();
        if flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            flights.remove(&self.key);
        }
        // With the last sender goes the wait of those who follow.
    }
}

/// A wait for whoever computes the value.
pub(crate) struct Following {
    news: watch::Receiver<News>,
}

impl Following {
    /// The outcome; `None` if the leader gave up, and the caller should ask again.
    pub(crate) async fn outcome(mut self) -> Option<Outcome> {
        match &*self.news.wait_for(|news| !matches!(news, News::None)).await.ok()? {
            News::Ended(outcome) => Some(outcome.clone()),
            News::None | News::Lost => None,
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
