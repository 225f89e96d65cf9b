//! Comes in: finished lines, from any thread. Goes out: their bytes to the sink, in batches, from one thread.
//! Must not know: what a line says, apart from the one that reports lost lines.
//!
//! Each thread appends to a lane of its own. A lane is a buffer behind a mutex that only its thread and, some fifty
//! times a second for the time of a pointer swap, the writer take: uncontended, it costs one atomic exchange each way.
//! The first line after a quiet time wakes the writer; it waits a moment for more, swaps every lane's buffer for an
//! empty one, and writes them out. So no lane waits for the sink, an idle server has no timer, and a busy one makes
//! one system call per lane and batch instead of one per line.

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Form, Level, LogEvent, Timestamp};

/// How long an ordinary line may wait for others to share its system call.
const BATCH_TIME: Duration = Duration::from_millis(20);

/// What a lane holds at most, in bytes, while the sink is stuck: about seven thousand access lines.
const LANE_LIMIT: usize = 1024 * 1024;

/// Above this an ordinary line is dropped; the rest of the lane is kept for warnings and errors.
const ORDINARY_LIMIT: usize = LANE_LIMIT / 4 * 3;

/// Above this the writer is woken before its time.
const EARLY_LIMIT: usize = LANE_LIMIT / 4;

/// How long the writer waits before it tries a sink again that would block.
const RETRY_TIME: Duration = Duration::from_millis(5);

/// Lines lost since the process started.
pub(super) static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The handle of a writer thread, which ends with it.
#[derive(Debug)]
pub(super) struct LogWriter {
    shared: Arc<WriterState>,
    thread: thread::Thread,
}

/// Where one thread puts its lines.
#[derive(Debug)]
pub(super) struct Lane {
    shared: Arc<WriterState>,
    thread: thread::Thread,
    pending: Arc<Mutex<PendingLines>>,
}

#[derive(Debug, Default)]
struct WriterState {
    lanes: Mutex<Vec<Arc<Mutex<PendingLines>>>>,
    /// Some lane has lines, and the writer knows.
    dirty: AtomicBool,
    /// They should go out at once.
    urgent: AtomicBool,
    /// The handle is gone.
    closed: AtomicBool,
    flush_asked: AtomicU64,
    flush_done: Mutex<u64>,
    flushed: Condvar,
}

#[derive(Debug, Default)]
struct PendingLines {
    bytes: Vec<u8>,
    lines: u64,
    dropped: u64,
}

impl LogWriter {
    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub(super) fn start(sink: impl Write + Send + 'static, form: Form) -> io::Result<LogWriter> {
        let shared = Arc::new(WriterState::default());
        let theirs = Arc::clone(&shared);
        let handle =
            thread::Builder::new().name("rover-log".into()).spawn(move || run(&theirs, Sink::new(sink), form))?;
        let thread = handle.thread().clone();
        Ok(LogWriter { shared, thread })
    }

    /// A lane for the calling thread.
    pub(super) fn lane(&self) -> Lane {
        let pending = Arc::new(Mutex::new(PendingLines::default()));
        self.shared.lanes.lock().push(Arc::clone(&pending));
        Lane { shared: Arc::clone(&self.shared), thread: self.thread.clone(), pending }
    }

    /// Waits until what was appended before the call is written or lost, at most for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let ticket = self.shared.flush_asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.shared.urgent.store(true, Ordering::Release);
        self.shared.dirty.store(true, Ordering::Release);
        self.thread.unpark();
        let mut done = self.shared.flush_done.lock();
        self.shared.flushed.wait_while_for(&mut done, |done| *done < ticket, limit);
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Lane {
    /// Has `write` append one line. Where the lane is full, the line is counted instead.
    pub(super) fn append(&self, urgent: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let limit = if urgent { LANE_LIMIT } else { ORDINARY_LIMIT };
        let mut pending = self.pending.lock();
        if pending.bytes.len() > limit {
            pending.dropped += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        write(&mut pending.bytes);
        pending.lines += 1;
        let early = urgent || pending.bytes.len() > EARLY_LIMIT;
        drop(pending);
        if early && !self.shared.urgent.swap(true, Ordering::AcqRel) {
            self.shared.dirty.store(true, Ordering::Release);
            self.thread.unpark();
        // A stale `true` loses nothing: the writer clears the flag before it takes the lanes' locks. Had it taken ours
        // before us, the lock would have shown us the cleared flag; if it comes after us, it takes our line along.
        } else if !self.shared.dirty.load(Ordering::Relaxed) && !self.shared.dirty.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }
}

/// The writer thread.
fn run<W: Write>(shared: &WriterState, mut sink: Sink<W>, form: Form) {
    let mut batch = PendingLines::default();
    let mut stamp = Timestamp::default();
    while !shared.closed.load(Ordering::Acquire) {
        if !shared.dirty.load(Ordering::Acquire) {
            thread::park();
            continue;
        }
        gather(shared);
        // The flags before the lanes: a line that comes too late for this batch sets them again.
        shared.dirty.store(false, Ordering::Release);
        shared.urgent.store(false, Ordering::Release);
        let ticket = shared.flush_asked.load(Ordering::Acquire);
        let lanes = shared.lanes.lock().clone();
        for lane in &lanes {
            mem::swap(&mut *lane.lock(), &mut batch);
            sink.write(&mut batch);
        }
        drop(lanes);
        if sink.lost > 0 && sink.works {
            stamp.refresh();
            report(&mut sink, form, &stamp);
        }
        forget_ended(shared);
        *shared.flush_done.lock() = ticket;
        shared.flushed.notify_all();
    }
}

/// Gives other lines a moment to join the batch, unless one of them is urgent.
fn gather(shared: &WriterState) {
    let end = Instant::now() + BATCH_TIME;
    while !shared.urgent.load(Ordering::Acquire) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

/// Drops the lanes whose threads have ended, once they are empty.
fn forget_ended(shared: &WriterState) {
    shared.lanes.lock().retain(|lane| Arc::strong_count(lane) > 1 || lane.lock().lines > 0);
}

fn report<W: Write>(sink: &mut Sink<W>, form: Form, stamp: &Timestamp) {
    let mut line = PendingLines::default();
    LogEvent::new(Level::Warn, "log lines were lost: the output could not keep up").field("lost", sink.lost).write(
        form,
        stamp,
        &mut line.bytes,
    );
    let lost = mem::take(&mut sink.lost);
    sink.write(&mut line);
    if !sink.works {
        sink.lost += lost;
    }
}

/// The output, and what it failed to take.
struct Sink<W> {
    inner: W,
    /// Lines lost since the last report.
    lost: u64,
    /// Whether the last write succeeded.
    works: bool,
    /// The last write ended inside a line.
    broken_line: bool,
}

impl<W: Write> Sink<W> {
    fn new(inner: W) -> Self {
        Sink { inner, lost: 0, works: true, broken_line: false }
    }

    /// Writes the batch and empties it. What cannot be written (a full disk, a closed pipe) is counted.
    fn write(&mut self, batch: &mut PendingLines) {
        self.lost += mem::take(&mut batch.dropped);
        let lines = mem::take(&mut batch.lines);
        if !batch.bytes.is_empty() {
            if mem::take(&mut self.broken_line) {
                batch.bytes.insert(0, b'\n');
            }
            let written = self.write_all(&batch.bytes);
            self.works = written == batch.bytes.len();
            if !self.works {
                let out = &batch.bytes[..written];
                let whole = memchr::memchr_iter(b'\n', out).count() as u64;
                self.lost += lines.saturating_sub(whole);
                DROPPED.fetch_add(lines.saturating_sub(whole), Ordering::Relaxed);
                self.broken_line = out.last().is_some_and(|last| *last != b'\n');
            }
        }
        batch.bytes.clear();
        // One burst should not hold its memory for ever.
        batch.bytes.shrink_to(2 * EARLY_LIMIT);
    }

    /// Writes until all is out or the sink fails; the number of bytes that went out.
    fn write_all(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.inner.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody made the shared terminal or pipe non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_TIME),
                Err(_) => break,
            }
        }
        written
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
