//! A dictionary in the memory of the process.
//!
//! Its keys are dealt over shards, each under a lock that is held for one step: measured beside dashmap, scc and papaya
//! with one and two threads, that was the fastest way to count, and as fast to read. (papaya reads a key that all ask
//! for twice as fast, and takes twenty times as long to count.) What a shard knows of expiry stands in a heap, so that
//! what is over is found without a search.

use std::cmp::Reverse;
use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::{Datum, Dictionary, Limits, Refusal};

/// Enough that two workers rarely meet. A power of two.
const SHARDS: usize = 64;

/// What an entry takes besides its key and value, in bytes: its places in the table and in the heap, and what the
/// allocator adds. Resident memory was 96 to 145 bytes for each, and 121 to 171 with expiry, by how full the tables were.
const OVERHEAD: usize = 170;

/// How many expired entries of its shard each change removes at most.
const SWEPT_PER_CHANGE: usize = 8;

/// How many expired entries are removed under a lock at once when room is needed.
const SWEPT_AT_ONCE: usize = 256;

/// The end of an entry that has none.
const NEVER: u64 = u64::MAX;

/// A moment in microseconds since [`BEGINNING`].
type Moment = u64;

static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now() -> Moment {
    u64::try_from(BEGINNING.elapsed().as_micros()).unwrap_or(NEVER - 1)
}

fn end(now: Moment, ttl: Option<Duration>) -> Moment {
    match ttl {
        Some(ttl) => now.saturating_add(u64::try_from(ttl.as_micros()).unwrap_or(NEVER)).min(NEVER - 1),
        None => NEVER,
    }
}

struct Entry {
    value: Datum,
    end: Moment,
}

impl Entry {
    fn lives(&self, now: Moment) -> bool {
        self.end > now
    }
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Arc<[u8]>, Entry, RandomState>,
    /// The ends of entries, the next first. Some are of entries that were changed since.
    ends: BinaryHeap<Reverse<(Moment, Arc<[u8]>)>>,
}

impl Shard {
    /// Removes up to `most` entries that are over. Says how many, and how many bytes they took.
    fn sweep(&mut self, now: Moment, most: usize) -> (usize, usize) {
        let (mut swept, mut bytes) = (0, 0);
        while swept < most && self.ends.peek().is_some_and(|Reverse((end, _))| *end <= now) {
            let Some(Reverse((end, key))) = self.ends.pop() else { break };
            if let MapEntry::Occupied(entry) = self.entries.entry(key)
                && entry.get().end == end
            {
                let (key, entry) = entry.remove_entry();
                bytes += cost(&key, &entry.value);
                swept += 1;
            }
        }
        (swept, bytes)
    }

    /// Entries that are set or deleted again and again would leave any number of ends behind, and the keys with them.
    fn forget_old_ends(&mut self) {
        if self.ends.len() > 2 * self.entries.len() + 16 {
            let live = self.entries.iter().filter(|(_, entry)| entry.end != NEVER);
            self.ends = live.map(|(key, entry)| Reverse((entry.end, key.clone()))).collect();
        }
    }

    fn put(&mut self, key: &[u8], value: Datum, end: Moment) {
        let key = match self.entries.get_mut(key) {
            Some(entry) if entry.end == end => {
                entry.value = value;
                return;
            }
            Some(_) | None => match self.entries.get_key_value(key) {
                Some((known, _)) => known.clone(),
                None => key.into(),
            },
        };
        if end != NEVER {
            self.forget_old_ends();
            self.ends.push(Reverse((end, key.clone())));
        }
        self.entries.insert(key, Entry { value, end });
    }
}

fn cost(key: &[u8], value: &Datum) -> usize {
    key.len() + value.bytes() + OVERHEAD
}

/// What a change puts into an entry, and answers.
struct Change<T> {
    value: Datum,
    /// `None` leaves the end as it was.
    end: Option<Moment>,
    answer: T,
}

/// A dictionary that belongs to this process.
pub(super) struct Memory {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    bytes: AtomicUsize,
    limits: Arc<Limits>,
}

impl Memory {
    pub(super) fn new(limits: Arc<Limits>) -> Memory {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Memory { hasher: RandomState::default(), shards, bytes: AtomicUsize::new(0), limits }
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        // The lowest bits; the tables use a hasher of their own.
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Takes and gives back bytes of the limit; false where there are not enough.
    fn account(&self, before: usize, after: usize) -> bool {
        let more = after.saturating_sub(before);
        if more == 0 {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
            return true;
        }
        let limit = self.limits.get().shared_memory;
        let add = |bytes: usize| bytes.checked_add(more).filter(|bytes| *bytes <= limit);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn sweep(&self, shard: &mut Shard, now: Moment, most: usize) -> usize {
        let (swept, bytes) = shard.sweep(now, most);
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        swept
    }

    /// Removes some entries that are over, wherever they are; false where there are none.
    fn make_room(&self, now: Moment) -> bool {
        let swept: usize = self.shards.iter().map(|shard| self.sweep(&mut shard.lock(), now, SWEPT_AT_ONCE)).sum();
        swept > 0
    }

    /// Changes the entry of `key` in one step. `work` sees its live value, and may be asked again.
    fn change<T>(
        &self,
        key: &[u8],
        now: Moment,
        work: impl Fn(Option<&Datum>) -> Result<Change<T>, Refusal>,
    ) -> Result<T, Refusal> {
        loop {
            {
                let mut shard = self.shard(key).lock();
                self.sweep(&mut shard, now, SWEPT_PER_CHANGE);
                let old = shard.entries.get(key);
                let change = work(old.filter(|old| old.lives(now)).map(|old| &old.value))?;
                let before = old.map_or(0, |old| cost(key, &old.value));
                let end = change.end.or_else(|| old.map(|old| old.end)).unwrap_or(NEVER);
                if self.account(before, cost(key, &change.value)) {
                    shard.put(key, change.value, end);
                    return Ok(change.answer);
                }
            }
            if !self.make_room(now) {
                return Err(Refusal::NoMemory);
            }
        }
    }

    fn get_at(&self, key: &[u8]) -> Option<Datum> {
        let mut shard = self.shard(key).lock();
        let entry = shard.entries.get(key)?;
        // A clock is read only where it matters.
        if entry.end == NEVER || entry.lives(now()) {
            return Some(entry.value.clone());
        }
        if let Some((key, entry)) = shard.entries.remove_entry(key) {
            self.bytes.fetch_sub(cost(&key, &entry.value), Ordering::Relaxed);
        }
        None
    }
}

impl Dictionary for Memory {
    fn get(&self, key: &[u8]) -> Option<Datum> {
        self.get_at(key)
    }

    fn set(&self, key: &[u8], value: Datum, ttl: Option<Duration>) -> Result<(), Refusal> {
        let now = now();
        let end = Some(end(now, ttl));
        self.change(key, now, |_| Ok(Change { value: value.clone(), end, answer: () }))
    }

    fn add(&self, key: &[u8], value: Datum, ttl: Option<Duration>) -> Result<(), Refusal> {
        let now = now();
        let end = Some(end(now, ttl));
        self.change(key, now, |old| match old {
            Some(_) => Err(Refusal::Exists),
            None => Ok(Change { value: value.clone(), end, answer: () }),
        })
    }

    fn replace(&self, key: &[u8], value: Datum, ttl: Option<Duration>) -> Result<(), Refusal> {
        let now = now();
        let end = Some(end(now, ttl));
        self.change(key, now, |old| match old {
            Some(_) => Ok(Change { value: value.clone(), end, answer: () }),
            None => Err(Refusal::NotFound),
        })
    }

    fn expire(&self, key: &[u8], ttl: Option<Duration>) -> Result<(), Refusal> {
        let now = now();
        let end = Some(end(now, ttl));
        self.change(key, now, |old| match old {
            Some(value) => Ok(Change { value: value.clone(), end, answer: () }),
            None => Err(Refusal::NotFound),
        })
    }

    fn ttl(&self, key: &[u8]) -> Result<Option<Duration>, Refusal> {
        let now = now();
        let shard = self.shard(key).lock();
        match shard.entries.get(key).filter(|entry| entry.lives(now)) {
            Some(entry) if entry.end == NEVER => Ok(None),
            Some(entry) => Ok(Some(Duration::from_micros(entry.end - now))),
            None => Err(Refusal::NotFound),
        }
    }

    fn incr(&self, key: &[u8], by: f64, init: Option<f64>, ttl: Option<Duration>) -> Result<f64, Refusal> {
        let now = now();
        self.change(key, now, |old| {
            let (number, end) = match (old, init) {
                (Some(Datum::Number(number)), _) => (number + by, None),
                (Some(_), _) => return Err(Refusal::NotANumber),
                (None, Some(init)) => (init + by, Some(end(now, ttl))),
                (None, None) => return Err(Refusal::NotFound),
            };
            Ok(Change { value: Datum::Number(number), end, answer: number })
        })
    }

    fn delete(&self, key: &[u8]) -> bool {
        let now = now();
        let mut shard = self.shard(key).lock();
        self.sweep(&mut shard, now, SWEPT_PER_CHANGE);
        let Some((key, entry)) = shard.entries.remove_entry(key) else { return false };
        shard.forget_old_ends();
        self.bytes.fetch_sub(cost(&key, &entry.value), Ordering::Relaxed);
        entry.lives(now)
    }

    fn keys(&self, most: usize) -> Vec<Box<[u8]>> {
        let now = now();
        let mut keys = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let live = shard.entries.iter().filter(|(_, entry)| entry.lives(now));
            keys.extend(live.take(most - keys.len()).map(|(key, _)| Box::from(&**key)));
            if keys.len() == most {
                break;
            }
        }
        keys
    }

    fn len(&self) -> usize {
        let now = now();
        let count = |shard: &Mutex<Shard>| loop {
            let mut shard = shard.lock();
            // The lock is let go between, so that others get in.
            if self.sweep(&mut shard, now, SWEPT_AT_ONCE) < SWEPT_AT_ONCE {
                return shard.entries.len();
            }
        };
        self.shards.iter().map(count).sum()
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
