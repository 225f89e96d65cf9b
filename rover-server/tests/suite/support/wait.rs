//! Waiting for what happens elsewhere: looks again and again, and fails after a deadline.

use std::time::{Duration, Instant};

/// Nothing here takes longer, on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(if cfg!(vm_on_system_memory) { 120 } else { 20 });

/// The time between two looks: short beside what is waited for, and long enough to leave the processor to it.
const PAUSE: Duration = Duration::from_millis(1);

/// Waits until something is true, and fails when that takes too long.
pub fn wait_until(mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < DEADLINE, "it did not happen in time");
        std::thread::sleep(PAUSE);
    }
}
