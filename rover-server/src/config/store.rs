//! Comes in: nothing; the keys of what all workers share, and how much of it there may be. Goes out: [`StoreLimits`]. Must
//! not know: what is stored.

use super::key::{ConfigKey, Group};
use super::kind::{count_in, size};

const MB: usize = 1024 * 1024;

/// The most places at once: each blocks a thread.
const MOST_PLACES: u64 = 512;

/// How much the workers of a server may share.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoreLimits {
    /// Bytes of each dictionary of `rover.shared`.
    pub(crate) shared_memory: usize,
    /// Bytes of each cache.
    pub(crate) cache_memory: usize,
    /// Entries of each cache; never 0.
    pub(crate) cache_entries: usize,
    /// How much work on files goes on at once; never 0.
    pub(crate) fs_concurrency: usize,
    /// How many processes run at once; never 0.
    pub(crate) exec_concurrency: usize,
}

impl StoreLimits {
    pub(crate) const DEFAULT: StoreLimits = StoreLimits {
        shared_memory: 64 * MB,
        cache_memory: 64 * MB,
        cache_entries: 100_000,
        fs_concurrency: 16,
        exec_concurrency: 16,
    };
}

impl Default for StoreLimits {
    fn default() -> StoreLimits {
        StoreLimits::DEFAULT
    }
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.store)
        .needs_restart()
        .table("shared")
        .key("memory_limit", "largest size of each dictionary of rover.shared; a full one refuses what is new")
        .takes(size(), |store| &mut store.shared_memory)
        .table("cache")
        .key("memory_limit", "largest size of each cache of rover.cache; what was used least recently goes first")
        .takes(size(), |store| &mut store.cache_memory)
        .key("entries_limit", "most entries of each cache of rover.cache")
        .takes(count_in(1..=100_000_000), |store| &mut store.cache_entries)
        .table("fs")
        .key("concurrency", "most calls of rover.fs that work at once, over all workers; others queue")
        .takes(count_in(1..=MOST_PLACES), |store| &mut store.fs_concurrency)
        .table("exec")
        .key("concurrency", "most processes of rover.exec that run at once, over all workers; others queue")
        .takes(count_in(1..=MOST_PLACES), |store| &mut store.exec_concurrency)
        .keys()
}
