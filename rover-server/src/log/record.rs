//! Comes in: finished lines, in batches, on the writer's thread. Goes out: each as a record, to a function of the
//! embedding program. Must not know: who wrote a line, and what the function does with it.
//!
//! Lines stay JSON until here, so that a worker does the same work whether they go to stderr or to a program.

use std::fmt;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use time::{Date, Month, PrimitiveDateTime, Time};

use super::Level;
use super::writer::DROPPED;

/// One entry of the log, as [`Server::log_to`](crate::Server::log_to) hands it out.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LogRecord {
    /// When it was logged, to the millisecond.
    pub time: SystemTime,
    /// How much it matters.
    pub level: Level,
    /// What is said; `request` in the entries of the access log.
    pub message: String,
    /// The worker that logged it, from 1; `None` for the server's other threads.
    pub worker: Option<u32>,
    /// Everything else, in the order in which it was added.
    pub fields: Vec<(String, Value)>,
}

impl LogRecord {
    /// The first field of that name.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Reads a line. One that is no object of a log becomes the message.
    fn from_line(line: &[u8]) -> LogRecord {
        serde_json::from_slice(line)
            .unwrap_or_else(|_| LogRecord { message: String::from_utf8_lossy(line).into_owned(), ..LogRecord::empty() })
    }

    fn empty() -> LogRecord {
        LogRecord {
            time: SystemTime::now(),
            level: Level::Info,
            message: String::new(),
            worker: None,
            fields: Vec::new(),
        }
    }
}

/// What an embedding program does with a record.
pub(crate) type LogSink = Arc<dyn Fn(&LogRecord) + Send + Sync>;

/// The other end of a writer: hands each line to the sink that was given last.
#[derive(Clone)]
pub(super) struct Records {
    sink: Arc<Mutex<LogSink>>,
}

impl Records {
    pub(super) fn new(sink: LogSink) -> Records {
        Records { sink: Arc::new(Mutex::new(sink)) }
    }

    /// Hands what comes from now on to another sink.
    pub(super) fn replace(&self, sink: LogSink) {
        *self.sink.lock() = sink;
    }
}

impl Write for Records {
    /// Takes whole lines, all of them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not under the lock: a sink may take its time, and may bind another server.
        let sink = Arc::clone(&self.sink.lock());
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record = LogRecord::from_line(line);
            // The log goes on without the record that its sink fails at.
            if catch_unwind(AssertUnwindSafe(|| sink(&record))).is_err() {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'de> Deserialize<'de> for LogRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LogRecord, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = LogRecord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a line of the log")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LogRecord, A::Error> {
                let mut record = LogRecord::empty();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    match (key.as_str(), &value) {
                        ("time", Value::String(text)) => record.time = time_of(text).unwrap_or(record.time),
                        ("level", Value::String(name)) => record.level = Level::from_name(name).unwrap_or(record.level),
                        ("msg", Value::String(text)) => record.message.clone_from(text),
                        ("worker", Value::Number(id)) => record.worker = id.as_u64().and_then(|id| id.try_into().ok()),
                        _ => record.fields.push((key, value)),
                    }
                }
                Ok(record)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// Reads `2026-01-02T03:04:05.678Z`.
fn time_of(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u16>().ok();
    let byte = |from: usize| u8::try_from(number(from, from + 2)?).ok();
    let month = Month::try_from(byte(5)?).ok()?;
    let date = Date::from_calendar_date(number(0, 4)?.into(), month, byte(8)?).ok()?;
    let clock = Time::from_hms_milli(byte(11)?, byte(14)?, byte(17)?, number(20, 23)?).ok()?;
    Some(PrimitiveDateTime::new(date, clock).assume_utc().into())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::json;

    use super::super::{Form, LogEvent, Timestamp};
    use super::*;

    fn line(event: &LogEvent<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        event.write(Form::Record, &Timestamp::fixed(Duration::from_millis(1_767_323_045_678), 2), &mut out);
        out
    }

    #[test]
    fn a_line_reads_back() {
        let event =
            LogEvent::new(Level::Warn, "low on \"stock\"\n").field("left", 2).field("item", "tea").field("time", "x");
        let record = LogRecord::from_line(line(&event).trim_ascii_end());
        assert_eq!(record.time, UNIX_EPOCH + Duration::from_millis(1_767_323_045_678));
        assert_eq!((record.level, record.worker), (Level::Warn, Some(2)));
        assert_eq!(record.message, "low on \"stock\"\n");
        let fields = [("left", json!(2)), ("item", json!("tea")), ("time_", json!("x"))];
        assert_eq!(record.fields, fields.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(record.field("item"), Some(&json!("tea")));
    }

    #[test]
    fn what_is_no_line_becomes_a_message() {
        for text in ["", "words", "[1]", "{\"time\":"] {
            let record = LogRecord::from_line(text.as_bytes());
            assert_eq!((record.message.as_str(), record.level, record.fields.len()), (text, Level::Info, 0));
        }
        for time in ["", "2026-13-02T03:04:05.678Z", "2026-01-02T03:04", "é026-01-02T03:04:05.678Z"] {
            assert_eq!(time_of(time), None, "{time}");
        }
    }

    #[test]
    fn a_sink_that_panics_loses_its_record_alone() {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let ours = taken.clone();
        let mut records = Records::new(Arc::new(move |record: &LogRecord| {
            assert_ne!(record.message, "bad");
            ours.lock().push(record.message.clone());
        }));
        let mut lines = Vec::new();
        for message in ["one", "bad", "two"] {
            lines.extend(line(&LogEvent::new(Level::Info, message)));
        }
        assert_eq!(records.write(&lines).unwrap(), lines.len());
        assert_eq!(*taken.lock(), ["one", "two"]);
        let other = Arc::new(Mutex::new(0));
        let count = other.clone();
        records.replace(Arc::new(move |_: &LogRecord| *count.lock() += 1));
        records.write_all(&lines).unwrap();
        assert_eq!((*other.lock(), taken.lock().len()), (3, 2));
    }
}
