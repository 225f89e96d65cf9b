//! Holds the clients of all limits, in memory of a fixed size.
//!
//! Comes in: a client's key, and what becomes of its moment. Goes out: the moment that stands there afterwards. A client
//! has a place in one set of sixteen; a set has a lock, which is held for some nanoseconds. Where a set is full, the
//! place of a client whose bucket is full again is taken, for such a client is the same as an unknown one; where all
//! sixteen have something left to wait for, the one that has least is forgotten. So a flood of new clients can make
//! the server lenient to some, but never large or slow, and needs nobody to sweep: crates that keep clients in a growing
//! map do.

use parking_lot::Mutex;

/// Who a client is: 128 bits of a keyed hash, so that two clients never share one.
pub(super) type Key = [u64; 2];

/// Clients in a set.
const WAYS: usize = 16;

#[derive(Clone, Copy, Default)]
struct Place {
    key: Key,
    /// When the client's bucket is full, in nanoseconds; 0 for a place that nobody has taken.
    full_at: u64,
}

/// The moments of many clients.
pub(super) struct Table {
    sets: Box<[Mutex<[Place; WAYS]>]>,
}

impl Table {
    /// Room for so many clients, rounded up.
    pub(super) fn new(clients: usize) -> Table {
        let sets = clients.div_ceil(WAYS).max(1);
        Table { sets: (0..sets).map(|_| Mutex::default()).collect() }
    }

    /// How many sets there are.
    #[cfg(test)]
    pub(super) fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Replaces a client's moment by what `next` makes of it, unless that is `None`. Gives the moment that stands
    /// afterwards, and whether it was replaced. An unknown client has a moment in the past.
    pub(super) fn update(&self, key: Key, now: u64, next: impl FnOnce(u64) -> Option<u64>) -> (u64, bool) {
        let set = (key[0] % self.sets.len() as u64) as usize;
        let mut places = self.sets[set].lock();
        let known = places.iter().position(|place| place.key == key);
        let full_at = known.map_or(0, |place| places[place].full_at);
        let Some(replaced) = next(full_at) else { return (full_at, false) };
        let place = known.unwrap_or_else(|| {
            // Those that are free or full again come first.
            let least = places.iter().enumerate().min_by_key(|(_, place)| place.full_at.max(now));
            least.map_or(0, |(place, _)| place)
        });
        places[place] = Place { key, full_at: replaced };
        (replaced, true)
    }
}
