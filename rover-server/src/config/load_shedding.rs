//! Comes in: the keys in `load_shedding = { … }`. Goes out: when a worker has too much to do. Must not know: workers.

use std::time::Duration;

use super::key::ConfigKey;

/// When requests are refused because a worker has too much to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoadShedding {
    /// Requests that one worker has begun and not answered; 0 for no limit.
    pub(crate) max_in_flight: u32,
    /// How long requests may wait for their turn; zero for no limit.
    pub(crate) target_delay: Duration,
    /// What clients that are refused are told to wait.
    pub(crate) retry_after: Duration,
}

impl Default for LoadShedding {
    fn default() -> LoadShedding {
        LoadShedding { max_in_flight: 0, target_delay: Duration::ZERO, retry_after: Duration::from_secs(1) }
    }
}

pub(super) static LOAD_SHEDDING_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "load_shedding.max_in_flight",
        what: "requests that one worker may have begun and not answered; 503 above, 0 is no limit",
        takes: "a whole number from 0 to 1000000",
        default: "0",
        example: "1000",
        store: |config, value| {
            let most = value.whole(0, 1_000_000).ok_or("")?;
            config.load_shedding.max_in_flight = u32::try_from(most).map_err(|_| "")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "load_shedding.target_delay",
        what: "seconds that requests may wait for their turn before some are refused with 503; 0 is no limit",
        takes: "a time: seconds, or text such as \"20ms\"",
        default: "0",
        example: "\"20ms\"",
        store: |config, value| {
            config.load_shedding.target_delay = value.time().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "load_shedding.retry_after",
        what: "seconds in the Retry-After of those answers",
        takes: "a time: seconds, or text such as \"2m\"",
        default: "1",
        example: "5",
        store: |config, value| {
            config.load_shedding.retry_after = value.time().ok_or("")?;
            Ok(())
        },
    },
];
