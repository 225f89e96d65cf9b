//! Comes in: the keys in `load_shedding = { … }`. Goes out: when a worker has too much to do. Must not know: workers.

use std::time::Duration;

use super::key::{ConfigKey, Group};
use super::kind::{count_in, time};

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

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.load_shedding)
        .table("load_shedding")
        .key("max_in_flight", "requests that one worker may have begun and not answered; 503 above, 0 is no limit")
        .takes(count_in(0..=1_000_000), |shedding| &mut shedding.max_in_flight)
        .key(
            "target_delay",
            "seconds that requests may wait for their turn before some are refused with 503; 0 is no limit",
        )
        .takes(time(), |shedding| &mut shedding.target_delay)
        .key("retry_after", "seconds in the Retry-After of those answers")
        .takes(time(), |shedding| &mut shedding.retry_after)
        .keys()
}
