//! Comes in: nothing; the keys of what all workers share, and how much of it there may be. Goes out: [`StoreLimits`]. Must
//! not know: what is stored.

use super::keys::ConfigKey;

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

const SIZE: &str = "a size: a number of bytes, or text such as \"64MB\"";

pub(super) static STORE_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "shared.memory_limit",
        what: "largest size of each dictionary of rover.shared; a full one refuses what is new",
        takes: SIZE,
        default: "64MB",
        example: "\"256MB\"",
        store: |config, value| {
            config.store.shared_memory = size(value.size())?;
            Ok(())
        },
    },
    ConfigKey {
        name: "cache.memory_limit",
        what: "largest size of each cache of rover.cache; what was used least recently goes first",
        takes: SIZE,
        default: "64MB",
        example: "\"256MB\"",
        store: |config, value| {
            config.store.cache_memory = size(value.size())?;
            Ok(())
        },
    },
    ConfigKey {
        name: "cache.entries_limit",
        what: "most entries of each cache of rover.cache",
        takes: "a whole number from 1 to 100000000",
        default: "100000",
        example: "1000",
        store: |config, value| {
            config.store.cache_entries = size(value.whole(1, 100_000_000))?;
            Ok(())
        },
    },
    ConfigKey {
        name: "fs.concurrency",
        what: "most calls of rover.fs that work at once, over all workers; others queue",
        takes: "a whole number from 1 to 512",
        default: "16",
        example: "64",
        store: |config, value| {
            config.store.fs_concurrency = size(value.whole(1, MOST_PLACES))?;
            Ok(())
        },
    },
    ConfigKey {
        name: "exec.concurrency",
        what: "most processes of rover.exec that run at once, over all workers; others queue",
        takes: "a whole number from 1 to 512",
        default: "16",
        example: "4",
        store: |config, value| {
            config.store.exec_concurrency = size(value.whole(1, MOST_PLACES))?;
            Ok(())
        },
    },
];

fn size(number: Option<u64>) -> Result<usize, &'static str> {
    number.and_then(|number| usize::try_from(number).ok()).ok_or("")
}
