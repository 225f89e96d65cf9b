//! Comes in: a level, a message and fields, from any thread. Goes out: a line on stderr, readable on a terminal and JSON
//! otherwise; or a record to the embedding program. Must not know: Lua, HTTP and the config.
//!
//! The state is global because its other end is: a process has one stderr, and a line must come out in order wherever
//! it was written. Before `init` nothing is logged.
//!
//! Lines of one thread keep their order; those of different threads may swap within one batch, and carry their time.

mod line;
mod record;
mod stamp;
mod writer;

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(crate) use line::{Colour, FieldValue, Form, LogEvent};
pub(crate) use line::{LONGEST_TEXT, push_json_head, push_json_text, push_number, push_plain};
pub use record::LogRecord;
pub(crate) use record::LogSink;
use record::Records;
pub(crate) use stamp::Timestamp;
use writer::{Lane, LogWriter};

/// The level of a line, and the lowest level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For development.
    Debug,
    /// What a running server reports: its start, its requests. The default.
    Info,
    /// Something to check, although the request was served.
    Warn,
    /// Something failed.
    Error,
    /// As the lowest level: nothing is logged.
    Off,
}

impl Level {
    /// Every level, from the most verbose on.
    pub const ALL: [Level; 5] = [Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Off];

    /// `debug`, `info`, `warn`, `error` or `off`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Off => "off",
        }
    }

    /// The level of that name, in lower case; `nope` is `off` as well.
    pub fn from_name(name: &str) -> Option<Level> {
        match name {
            "nope" => Some(Level::Off),
            name => Level::ALL.into_iter().find(|level| level.name() == name),
        }
    }
}

/// The least level that is logged, as a number; above every level until `init`.
static LEAST: AtomicU8 = AtomicU8::new(u8::MAX);

static OUTPUT: OnceLock<LogOutput> = OnceLock::new();

struct LogOutput {
    writer: LogWriter,
    form: Form,
    /// Where the embedding program has the log.
    records: Option<Records>,
}

impl LogOutput {
    /// Lines for stderr.
    fn stderr() -> io::Result<LogOutput> {
        let stderr = io::stderr();
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let form = match (stderr.is_terminal(), set("NO_COLOR") || dumb) {
            (true, false) => Form::Terminal(Colour::On),
            (true, true) => Form::Terminal(Colour::Off),
            (false, _) => Form::Json,
        };
        // A descriptor of our own: writing through `io::stderr()` would hold its lock while a terminal is stuck, and
        // block the thread that reports a panic.
        let out = std::fs::File::from(stderr.as_fd().try_clone_to_owned()?);
        Ok(LogOutput { writer: LogWriter::start(out, form)?, form, records: None })
    }

    /// Records for the embedding program.
    fn records(sink: LogSink) -> io::Result<LogOutput> {
        let records = Records::new(sink);
        let writer = LogWriter::start(records.clone(), Form::Record)?;
        Ok(LogOutput { writer, form: Form::Record, records: Some(records) })
    }
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::new(Local::default());
}

/// What a thread keeps to write lines without asking another.
#[derive(Default)]
struct Local {
    lane: Option<Lane>,
    stamp: Timestamp,
}

/// Starts the writer thread with the first call, and sets the least level.
///
/// Lines go to `sink`, as records; to the one of an earlier call where none is given, or to stderr where none ever was.
/// On a terminal, lines are coloured unless `NO_COLOR` is set or `TERM` is `dumb`.
///
/// # Errors
/// The system refuses another thread or file descriptor; there is a sink, but lines go to stderr already.
pub(crate) fn init(level: Level, sink: Option<&LogSink>) -> io::Result<()> {
    let output = match OUTPUT.get() {
        Some(output) => output,
        None => {
            let output = sink.map_or_else(LogOutput::stderr, |sink| LogOutput::records(Arc::clone(sink)))?;
            // Where two threads start at once, the second writer ends with its last handle, having nothing to write.
            OUTPUT.get_or_init(|| output)
        }
    };
    match (sink, &output.records) {
        (Some(sink), Some(records)) => records.replace(Arc::clone(sink)),
        (Some(_), None) => {
            return Err(io::Error::other(
                "it goes to stderr since this process has bound a server without log_to: call log_to on the first one",
            ));
        }
        (None, _) => {}
    }
    set_level(level);
    Ok(())
}

/// Sets the least level that is logged.
pub(crate) fn set_level(level: Level) {
    LEAST.store(level as u8, Ordering::Relaxed);
}

/// Whether a line of this level is logged at all. One relaxed load.
#[inline]
pub(crate) fn enabled(level: Level) -> bool {
    level as u8 >= LEAST.load(Ordering::Relaxed) && level != Level::Off
}

/// Begins a line; `emit` writes it.
pub(crate) fn event<'a>(level: Level, message: &'a str) -> LogEvent<'a> {
    LogEvent::new(level, message)
}

/// Sets the worker that this thread's lines carry, from 1; 0 for none.
pub(crate) fn set_worker(id: u32) {
    let _ = LOCAL.try_with(|local| local.borrow_mut().stamp.set_worker(id));
}

/// How many lines were lost because the output could not keep up.
pub(crate) fn dropped() -> u64 {
    writer::DROPPED.load(Ordering::Relaxed)
}

/// Waits until every line written before the call is out, 1 s at most. For the end of the process.
pub(crate) fn flush() {
    if let Some(output) = OUTPUT.get() {
        output.writer.flush(Duration::from_secs(1));
    }
}

/// Has `write` append one line, newline included, to this thread's pending lines. Never waits for the output; when
/// that is stuck, the line is dropped and counted. `write` must not log.
pub(crate) fn write_line(level: Level, write: impl FnOnce(Form, &Timestamp, &mut Vec<u8>)) {
    if !enabled(level) {
        return;
    }
    let Some(output) = OUTPUT.get() else { return };
    // A thread that is ending has no lane any more; its last words are lost.
    let _ = LOCAL.try_with(|local| {
        let Ok(mut local) = local.try_borrow_mut() else {
            return;
        };
        let Local { lane, stamp } = &mut *local;
        stamp.refresh();
        let lane = lane.get_or_insert_with(|| output.writer.lane());
        let urgent = level >= Level::Warn;
        lane.append(urgent, |pending| write(output.form, stamp, pending));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_levels_read_back() {
        for level in Level::ALL {
            assert_eq!(Level::from_name(level.name()), Some(level));
        }
        assert_eq!(Level::from_name("INFO"), None);
    }

    #[test]
    fn nothing_is_enabled_before_init() {
        assert!(Level::ALL.into_iter().all(|level| !enabled(level)));
        event(Level::Error, "lost").emit();
        flush();
    }
}
