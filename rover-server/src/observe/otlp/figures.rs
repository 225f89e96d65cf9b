//! Counts a worker's spans by their fate. The counters belong to the thread, so they outlive the versions of the app in
//! it.

use std::cell::Cell;

use crate::observe::metrics::Samples;

thread_local! {
    static EXPORTED: Cell<u64> = const { Cell::new(0) };
    static DROPPED: Cell<u64> = const { Cell::new(0) };
    static FAILED: Cell<u64> = const { Cell::new(0) };
}

fn add(counter: &'static std::thread::LocalKey<Cell<u64>>, spans: u64) {
    // At the end of a thread they may be gone.
    let _ = counter.try_with(|counter| counter.set(counter.get() + spans));
}

/// The collector has taken so many.
pub(super) fn count_exported(spans: u64) {
    add(&EXPORTED, spans);
}

/// So many found no room, or no time at the end.
pub(super) fn count_dropped(spans: u64) {
    add(&DROPPED, spans);
}

/// The collector did not get so many, or did not want them.
pub(super) fn count_failed(spans: u64) {
    add(&FAILED, spans);
}

/// How many were dropped so far.
pub(super) fn dropped() -> u64 {
    DROPPED.get()
}

/// Notes them all.
pub(super) fn write(samples: &mut Samples) {
    let help = "Spans by what became of them.";
    for (result, counter) in [("exported", &EXPORTED), ("dropped", &DROPPED), ("failed", &FAILED)] {
        samples.counter("rover_otlp_spans_total", help, &[("result", result)], counter.get() as f64);
    }
}
