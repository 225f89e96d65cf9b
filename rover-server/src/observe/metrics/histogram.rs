//! Histograms of times, with powers of two as bounds.

use std::cell::Cell;
use std::time::Duration;

use super::Samples;
use super::samples::Labels;

/// The first bucket ends at 128 µs, each further one at twice the time before it, the last but one at 16.8 s.
const FIRST: u64 = 128_000;
const BUCKETS: usize = 19;

/// Counts times. Finding a bucket takes one instruction, which is why the bounds are powers of two.
#[derive(Default)]
pub(crate) struct Histogram {
    buckets: [Cell<u64>; BUCKETS],
    /// Nanoseconds.
    sum: Cell<u64>,
}

impl Histogram {
    /// Counts one time, in nanoseconds.
    #[inline]
    pub(super) fn note(&self, nanos: u64) {
        let place = 64 - (nanos.saturating_sub(1) / FIRST).leading_zeros() as usize;
        let bucket = &self.buckets[place.min(BUCKETS - 1)];
        bucket.set(bucket.get() + 1);
        self.sum.set(self.sum.get().wrapping_add(nanos));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.get() == 0)
    }

    pub(super) fn write(&self, samples: &mut Samples, name: &'static str, help: &'static str, labels: &Labels<'_>) {
        let buckets = self.buckets.iter().enumerate().map(|(place, bucket)| {
            let bound = if place + 1 < BUCKETS { (FIRST << place) as f64 / 1e9 } else { f64::INFINITY };
            (bound, bucket.get())
        });
        samples.histogram(name, help, labels, buckets, self.sum.get() as f64 / 1e9);
    }
}

/// How late a worker's event loop was.
#[derive(Default)]
pub(crate) struct Lag {
    times: Histogram,
    last: Cell<Duration>,
}

impl Lag {
    /// How often it is measured.
    pub(crate) const PERIOD: Duration = Duration::from_millis(100);

    /// Notes one measure.
    pub(crate) fn note(&self, lag: Duration) {
        self.times.note(u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX));
        self.last.set(lag);
    }

    /// The last measure.
    pub(crate) fn last(&self) -> Duration {
        self.last.get()
    }

    /// Notes all measures as those of `worker`.
    pub(crate) fn write(&self, samples: &mut Samples, worker: &str) {
        let help = "Seconds that the event loop of a worker came late to a timer, measured ten times a second while it has something to do.";
        self.times.write(samples, "rover_event_loop_lag_seconds", help, &[("worker", worker)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_that_they_do_not_exceed() {
        for (micros, place) in [(0, 0), (128, 0), (129, 1), (256, 1), (257, 2), (16_777_216, 17), (16_777_217, 18)] {
            let histogram = Histogram::default();
            histogram.note(micros * 1000);
            assert_eq!(histogram.buckets[place].get(), 1, "{micros} µs");
        }
        let longest = Histogram::default();
        longest.note(u64::MAX);
        assert_eq!(longest.buckets[BUCKETS - 1].get(), 1);
    }
}
