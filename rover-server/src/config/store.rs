//! Comes in: nothing; the keys of what all workers share, and how much of it there may be. Goes out: [`StoreLimits`]. Must
//! not know: what is stored.

use super::key::ConfigKey;

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

impl StoreLimits {
    /// Takes over what was made when it was first used, and gives the keys that differed.
    pub(super) fn keep(&mut self, running: &StoreLimits) -> Vec<&'static str> {
        let kept = [
            ("shared.memory_limit", &mut self.shared_memory, running.shared_memory),
            ("cache.memory_limit", &mut self.cache_memory, running.cache_memory),
            ("cache.entries_limit", &mut self.cache_entries, running.cache_entries),
            ("fs.concurrency", &mut self.fs_concurrency, running.fs_concurrency),
            ("exec.concurrency", &mut self.exec_concurrency, running.exec_concurrency),
        ];
        let differ = kept.into_iter().filter(|(_, own, running)| **own != *running);
        differ
            .map(|(key, own, running)| {
                *own = running;
                key
            })
            .collect()
    }
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
