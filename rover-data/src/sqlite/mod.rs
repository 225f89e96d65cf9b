//! SQLite, on threads of its own: one that writes, and some that read.
//!
//! SQLite has one writer at a time, whoever asks: so that nobody meets `SQLITE_BUSY`, there is one thread for it in the
//! whole process, and what waits for it is committed together. What SQLite says of a statement decides where it runs.

mod connection;
pub(crate) mod migrate;
mod problem;
mod reader;
mod session;
mod streaming;
mod watch;
mod writer;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) use self::session::Session;
use crate::error::{Error, Outage};
use crate::figures::{Figures, Stats, Tell};
use crate::queue::{Queue, QueuePlace, Ticket};
use crate::rows::Answer;
use crate::settings::{Begin, Settings};
use crate::sql::Statement;
use crate::stream::Stream;

/// How long a further thread waits for work before it ends, with its connection.
const IDLE: Duration = Duration::from_secs(60);

/// Work for a thread.
struct QueuedWork {
    ticket: Arc<Ticket>,
    work: Work,
}

enum Work {
    /// All or none.
    Run(Vec<Statement>, Reply<Vec<Answer>>),
    Begin(Begin, Reply<Session>),
    Stream(Statement, Reply<Stream>),
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;

impl QueuedWork {
    /// Ends it with an error.
    fn fail(self, error: Error) {
        // Nobody may be there any more.
        match self.work {
            Work::Run(_, tell) => drop(tell.send(Err(error))),
            Work::Begin(_, tell) => drop(tell.send(Err(error))),
            Work::Stream(_, tell) => drop(tell.send(Err(error))),
        }
    }
}

/// What the threads of one database share.
struct Shared {
    settings: Settings,
    /// The name of a database that has no file.
    memory: String,
    writer: Queue<QueuedWork>,
    readers: Queue<QueuedWork>,
    figures: Figures,
    tell: Mutex<Option<Tell>>,
    has_opened: AtomicBool,
    /// The file that was opened first.
    file: OnceLock<Identity>,
    /// The last look at the file found another one, or none.
    is_gone: AtomicBool,
}

/// A file as the system knows it, whatever its name.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Shared {
    /// Whether a file that is not there is made: once, and never in place of one that has gone.
    fn may_create(&self) -> bool {
        self.settings.path.is_none() || (self.settings.create && !self.has_opened.load(Ordering::Relaxed))
    }

    fn has_opened(&self) {
        self.has_opened.store(true, Ordering::Relaxed);
        if let Some(found) = self.settings.path.as_deref().and_then(identity) {
            let _ = self.file.set(found);
        }
    }

    /// Whether the file's name still leads to what was opened first. Another file there is left alone, for its log would be
    /// taken for the old one's: both lie under the same name.
    ///
    /// # Errors
    /// It does not.
    fn is_same_file(&self) -> Result<(), Error> {
        let (Some(path), Some(known)) = (self.settings.path.as_deref(), self.file.get()) else { return Ok(()) };
        let found = identity(path);
        self.is_gone.store(found != Some(*known), Ordering::Relaxed);
        match found {
            Some(found) if found == *known => Ok(()),
            found => {
                let what = if found.is_some() { "has been replaced" } else { "has gone" };
                let message = format!("{}: the file {what} while it was in use: start again", path.display());
                Err(Error::outage(Outage::Lost, message))
            }
        }
    }

    /// How many threads read at most.
    fn most_readers(&self) -> usize {
        self.settings.readers.max(2)
    }

    /// How many of them stream, or are in a transaction.
    fn most_long(&self) -> usize {
        self.most_readers() - 1
    }
}

/// A database of SQLite's. Its threads end when the last of its clones is dropped.
#[derive(Clone)]
pub(crate) struct Sqlite(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.writer.close();
        self.shared.readers.close();
    }
}

/// Databases that are open, by what they were opened with: everybody in the process has the same writer.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, Weak<Handle>>>> = LazyLock::new(Mutex::default);

/// Numbers databases in memory.
static MEMORY: AtomicU64 = AtomicU64::new(1);

impl Sqlite {
    /// Opens a database, or finds it where the process has it open with the same settings.
    ///
    /// # Errors
    /// The path cannot be made absolute.
    pub(crate) fn open(settings: &Settings) -> Result<Sqlite, Error> {
        let mut settings = settings.clone();
        let Some(path) = &settings.path else { return Ok(Sqlite::new(settings)) };
        let path = std::path::absolute(path)
            .map_err(|error| Error::outage(Outage::CannotOpen, format!("{}: {error}", path.display())))?;
        settings.path = Some(path.clone());
        let mut open = OPEN.lock();
        open.retain(|_, handle| handle.strong_count() > 0);
        if let Some(handle) = open.get(&path).and_then(Weak::upgrade)
            && handle.shared.settings == settings
        {
            return Ok(Sqlite(handle));
        }
        let made = Sqlite::new(settings);
        open.insert(path, Arc::downgrade(&made.0));
        Ok(made)
    }

    fn new(settings: Settings) -> Sqlite {
        let memory = format!("file:/rover-{}?vfs=memdb", MEMORY.fetch_add(1, Ordering::Relaxed));
        let shared = Shared {
            settings,
            memory,
            writer: Queue::new(),
            readers: Queue::new(),
            figures: Figures::default(),
            tell: Mutex::default(),
            has_opened: AtomicBool::new(false),
            file: OnceLock::new(),
            is_gone: AtomicBool::new(false),
        };
        Sqlite(Arc::new(Handle { shared: Arc::new(shared) }))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.shared.settings
    }

    pub(crate) fn tell_of_slow(&self, tell: Tell) {
        *self.0.shared.tell.lock() = Some(tell);
    }

    pub(crate) fn stats(&self) -> Stats {
        let shared = &self.0.shared;
        shared.figures.stats(shared.writer.len() + shared.readers.len())
    }

    pub(crate) async fn run(&self, statements: Vec<Statement>) -> Result<Vec<Answer>, Error> {
        let reads = statements.iter().all(|statement| statement.sql.reads());
        self.ask(reads, false, |tell| Work::Run(statements, tell)).await
    }

    pub(crate) async fn begin(&self, begin: Begin) -> Result<Session, Error> {
        self.ask(begin.read_only, begin.read_only, |tell| Work::Begin(begin, tell)).await
    }

    pub(crate) async fn stream(&self, statement: Statement) -> Result<Stream, Error> {
        self.ask(true, true, |tell| Work::Stream(statement, tell)).await
    }

    /// Has work done by the writer or a reader.
    async fn ask<T>(&self, reads: bool, is_long: bool, work: impl FnOnce(Reply<T>) -> Work) -> Result<T, Error> {
        let shared = &self.0.shared;
        let (tell, told) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let task = QueuedWork { ticket: ticket.clone(), work: work(tell) };
        let queue = if reads { &shared.readers } else { &shared.writer };
        let number = put(shared, task, reads, is_long)?;
        let place = QueuePlace { queue, number, ticket, is_done: false };
        place.wait(told, shared.settings.queue_timeout).await
    }

    /// Waits until the threads have ended and their connections are closed, after the last clone was dropped.
    ///
    /// Tells whether they have within `limit`.
    pub(crate) fn close(self, limit: Duration) -> bool {
        let shared = self.0.shared.clone();
        drop(self);
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            let is_deserted = shared.writer.is_deserted() && shared.readers.is_deserted();
            if is_deserted && shared.figures.connections.load(Ordering::Relaxed) == 0 {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }
}

/// Puts work into a queue, and sees to it that a thread comes for it.
fn put(shared: &Arc<Shared>, task: QueuedWork, reads: bool, is_long: bool) -> Result<u64, Error> {
    let queue = if reads { &shared.readers } else { &shared.writer };
    let most = if reads { shared.most_readers() } else { 1 };
    let Some((number, needs_thread)) = queue.push(task, is_long, most) else {
        return Err(Error::outage(Outage::Closed, "the database has been closed"));
    };
    if needs_thread {
        let name = if reads { "rover-db-read" } else { "rover-db-write" };
        let of_thread = shared.clone();
        let live = move || if reads { reader::live(&of_thread) } else { writer::live(&of_thread) };
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(live);
        if let Err(error) = started
            && !queue.no_thread()
        {
            return Err(Error::outage(
                Outage::Exhausted,
                format!("the system has no thread for the database: {error}"),
            ));
        }
    }
    Ok(number)
}
