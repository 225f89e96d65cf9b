//! Keeps files in a worker's memory, by the path as sent.
//!
//! Comes in: resources that were read. Goes out: those that were checked within the last second. Bounded in number and
//! in bytes; the least recently used go first. Must not know: requests.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::resource::Resource;

/// How long a file is served without checking whether it has changed.
const TRUST: Duration = Duration::from_secs(1);

/// How many paths are kept.
const MOST_PATHS: usize = 1024;

/// How many bytes of files are kept.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// The longest path that is kept, in bytes.
const LONGEST_PATH: usize = 512;

struct Slot {
    resource: Rc<Resource>,
    checked: Cell<Instant>,
}

/// Resources by path.
pub(super) struct Cache {
    slots: LruCache<Box<str>, Slot, foldhash::fast::RandomState>,
    bytes: usize,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache { slots: LruCache::unbounded_with_hasher(foldhash::fast::RandomState::default()), bytes: 0 }
    }
}

/// What is known of a path.
pub(super) enum Known {
    /// It is as it was within the last second.
    Fresh(Rc<Resource>),
    /// It was like this longer ago.
    Old(Rc<Resource>),
    Nothing,
}

impl Cache {
    pub(super) fn get(&mut self, path: &str, now: Instant) -> Known {
        match self.slots.get(path) {
            Some(slot) if now.saturating_duration_since(slot.checked.get()) < TRUST => {
                Known::Fresh(slot.resource.clone())
            }
            Some(slot) => Known::Old(slot.resource.clone()),
            None => Known::Nothing,
        }
    }

    /// Keeps a resource that was looked at just now, in place of what the path led to before.
    pub(super) fn put(&mut self, path: &str, resource: &Rc<Resource>, now: Instant) {
        self.forget(path);
        let bytes = resource.held();
        if path.len() > LONGEST_PATH || bytes > MOST_BYTES {
            return;
        }
        while self.slots.len() >= MOST_PATHS || self.bytes + bytes > MOST_BYTES {
            match self.slots.pop_lru() {
                Some((_, slot)) => self.bytes -= slot.resource.held(),
                None => break,
            }
        }
        self.bytes += bytes;
        self.slots.put(path.into(), Slot { resource: resource.clone(), checked: Cell::new(now) });
    }

    pub(super) fn forget(&mut self, path: &str) {
        if let Some(slot) = self.slots.pop(path) {
            self.bytes -= slot.resource.held();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_in_number_and_in_bytes() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let of = |bytes: usize| Rc::new(Resource::of_bytes(vec![0; bytes].into()));
        for n in 0..2000 {
            cache.put(&format!("/{n}"), &of(10), now);
        }
        assert_eq!((cache.slots.len(), cache.bytes), (MOST_PATHS, MOST_PATHS * 10));
        assert!(matches!(cache.get("/1999", now), Known::Fresh(_)));
        assert!(matches!(cache.get("/0", now), Known::Nothing));
        for n in 0..40 {
            cache.put(&format!("/large{n}"), &of(1024 * 1024), now);
            assert!(cache.bytes <= MOST_BYTES);
        }
        assert!(cache.slots.len() <= 16);
        cache.put("/large39", &of(1), now);
        assert!(matches!(cache.get("/large39", now + TRUST), Known::Old(_)));
        cache.put(&"x".repeat(513), &of(1), now);
        assert!(matches!(cache.get(&"x".repeat(513), now), Known::Nothing));
        for n in 0..40 {
            cache.forget(&format!("/large{n}"));
        }
        cache.forget("/1999");
        assert_eq!(cache.bytes, cache.slots.iter().map(|(_, slot)| slot.resource.held()).sum::<usize>());
    }
}
