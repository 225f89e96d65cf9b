//! Comes in: the system's clock and the thread's worker id. Goes out: the time as log lines show it, in UTC.
//! Must not know: what a line looks like otherwise.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A thread's clock for log lines. The text of the second is kept: a busy worker logs thousands of lines in one.
#[derive(Debug, Default)]
pub(crate) struct Timestamp {
    worker: u32,
    second: u64,
    millisecond: u32,
    /// `2026-01-02T03:04:05` of `second`; empty before the first `refresh`.
    text: Vec<u8>,
}

impl Timestamp {
    /// Reads the clock.
    pub(super) fn refresh(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.set(now.unwrap_or(Duration::ZERO));
    }

    pub(super) fn set_worker(&mut self, id: u32) {
        self.worker = id;
    }

    /// The worker of this thread, from 1; `None` on any other thread.
    pub(crate) fn worker(&self) -> Option<u32> {
        (self.worker > 0).then_some(self.worker)
    }

    /// `2026-01-02T03:04:05.678Z`
    pub(crate) fn push_iso(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text);
        let digit = |n: u32| b'0' + (n % 10) as u8;
        let ms = self.millisecond;
        out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
    }

    /// `03:04:05`
    pub(crate) fn push_clock(&self, out: &mut Vec<u8>) {
        const DATE: usize = "2026-01-02T".len();
        out.extend_from_slice(self.text.get(DATE..).unwrap_or_default());
    }

    fn set(&mut self, since_epoch: Duration) {
        self.millisecond = since_epoch.subsec_millis();
        if self.second != since_epoch.as_secs() || self.text.is_empty() {
            self.second = since_epoch.as_secs();
            self.write_second();
        }
    }

    #[cold]
    fn write_second(&mut self) {
        let second = i64::try_from(self.second).unwrap_or(0);
        let time = time::OffsetDateTime::from_unix_timestamp(second).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
        let (date, clock) = (time.date(), time.time());
        self.text.clear();
        // Writing into memory does not fail.
        let _ = write!(
            self.text,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            date.year(),
            u8::from(date.month()),
            date.day(),
            clock.hour(),
            clock.minute(),
            clock.second()
        );
    }
}

#[cfg(test)]
impl Timestamp {
    /// A stamp that stands still.
    pub(crate) fn fixed(since_epoch: Duration, worker: u32) -> Timestamp {
        let mut stamp = Timestamp::default();
        stamp.set(since_epoch);
        stamp.set_worker(worker);
        stamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iso(stamp: &Timestamp) -> String {
        let mut out = Vec::new();
        stamp.push_iso(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_times() {
        let mut stamp = Timestamp::fixed(Duration::ZERO, 0);
        assert_eq!(iso(&stamp), "1970-01-01T00:00:00.000Z");
        stamp.set(Duration::from_millis(1_767_323_045_678));
        assert_eq!(iso(&stamp), "2026-01-02T03:04:05.678Z");
        stamp.set(Duration::from_millis(1_767_323_045_009));
        assert_eq!(iso(&stamp), "2026-01-02T03:04:05.009Z");
        stamp.set(Duration::from_secs(1_709_210_096));
        assert_eq!(iso(&stamp), "2024-02-29T12:34:56.000Z");
        let mut clock = Vec::new();
        stamp.push_clock(&mut clock);
        assert_eq!(clock, b"12:34:56");
    }
}
