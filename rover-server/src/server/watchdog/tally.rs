//! Samples on which functions a worker spends its CPU time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rover_lua::Look;

/// Nanoseconds of CPU time by the numbers of functions; those of numbers beyond the last count as 0's.
pub(crate) type CpuTimes = Arc<[AtomicU64]>;

/// On which functions the worker spends its CPU time, as far as looks at it tell.
#[derive(Default)]
pub(super) struct CpuTally {
    /// The CPU time at the last look.
    cpu: Duration,
    pub(super) times: Option<CpuTimes>,
}

impl CpuTally {
    /// Counts the CPU time since the last look for the function that runs now: inexact for one look, right over many.
    pub(super) fn note(&mut self, look: Look) {
        let spent = look.cpu.saturating_sub(std::mem::replace(&mut self.cpu, look.cpu));
        if let (true, Some(times)) = (look.is_in_lua(), &self.times) {
            let known = usize::try_from(look.label).ok().and_then(|label| times.get(label));
            if let Some(time) = known.or(times.first()) {
                time.fetch_add(u64::try_from(spent.as_nanos()).unwrap_or(0), Ordering::Relaxed);
            }
        }
    }
}
