//! `rover.db`: databases, as Lua authors use them.
//!
//! Comes in: SQL text and values. Goes out: rows as tables, or why there are none: what a handler cannot answer is raised
//! and answered 503 by itself, a mistake is raised at the line of the app, what values break is returned. This module must
//! not know of engines, nor of requests.

mod calls;
mod outcome;
mod rows;
mod stream;
mod transaction;
mod values;
mod write;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;
use mlua::Table;
use rover_data::{Answer, Database, Dialect, Error, Settings, Sql, Statement, Stream};

use self::rows::RowShapes;
use self::stream::RowStream;
use self::transaction::Tx;
use self::values::{Blob, List};
use crate::config::{Config, DEFAULT_DATABASE};
use crate::log::{self, Level};
use crate::observe::metrics::{Samples, Sources};
use crate::script::tasks::{Tasks, alive};
use crate::script::vm::Vm;
use rover_lua::json::Vocabulary;
use rover_lua::{Name, OwnedMeta, Raise, Returns, Shared, Stack, anchor};

/// How many SQL texts a VM keeps that have been read.
const TEXTS: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// The databases of one VM.
struct Databases {
    tasks: Weak<Tasks>,
    vocabulary: Rc<Vocabulary>,
    handles: OwnedMeta<Handle>,
    lists: OwnedMeta<List>,
    blobs: OwnedMeta<Blob>,
    streams: OwnedMeta<RowStream>,
    shapes: RowShapes,
    texts: RefCell<LruCache<Box<str>, Arc<Sql>>>,
    /// The identity of the metatable of responses.
    response_meta: *const c_void,
    /// Registry reference of the metatable of errors that are answered 503.
    outage_meta: i32,
    /// Streams that the app may still read.
    open: RefCell<Vec<Weak<stream::State>>>,
    /// Registry reference of Lua's `collectgarbage`.
    collect: i32,
    workers: Cell<usize>,
    /// Where relative names of files begin.
    folder: PathBuf,
    /// By name, once the config is known.
    known: OnceCell<BTreeMap<String, Database>>,
    /// The app has not named the database of `rover.db`.
    is_made_up: Cell<bool>,
    own: Weak<Databases>,
}

/// A database as Lua holds it.
enum Handle {
    Named(Rc<str>),
    /// Within a transaction.
    Within(Rc<Tx>),
}

/// What a call goes to.
#[derive(Clone)]
enum Target {
    Database(Database),
    Transaction(Rc<Tx>),
}

impl Target {
    fn database(&self) -> &Database {
        match self {
            Target::Database(database) => database,
            Target::Transaction(tx) => tx.database(),
        }
    }

    async fn run(&self, statement: Statement) -> Result<Answer, Error> {
        match self {
            Target::Database(database) => database.run(statement).await,
            Target::Transaction(tx) => tx.run(statement).await,
        }
    }

    async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Answer>, Error> {
        match self {
            Target::Database(database) => database.batch(statements).await,
            Target::Transaction(tx) => tx.batch(statements).await,
        }
    }

    async fn stream(&self, statement: Statement) -> Result<Stream, Error> {
        match self {
            Target::Database(database) => database.stream(statement).await,
            Target::Transaction(tx) => tx.stream(statement).await,
        }
    }
}

/// Adds `db`, `database`, `list` and `blob` to `rover`.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn install(vm: &Vm, folder: &Path) -> mlua::Result<()> {
    let Vm { lua, rover, tasks, vocabulary, .. } = vm;
    let metas = [lua.create_table()?, lua.create_table()?, lua.create_table()?, lua.create_table()?];
    let [handle_meta, list_meta, blob_meta, stream_meta] = &metas;
    let outage_meta: Table = vm.file("db", include_str!("outage.lua"))?.call(())?;
    let (handles, lists) = (OwnedMeta::new(lua, handle_meta)?, OwnedMeta::new(lua, list_meta)?);
    let (blobs, streams) = (OwnedMeta::new(lua, blob_meta)?, OwnedMeta::new(lua, stream_meta)?);
    for (meta, name) in metas.iter().zip(["db", "list", "blob", "rows"]) {
        meta.raw_set("__name", name)?;
        meta.raw_set("__metatable", false)?;
    }
    let shapes = RowShapes::new(vocabulary.row_metas(lua)?);
    let outage_meta = anchor(lua, &outage_meta)?;
    let collect = anchor(lua, lua.globals().raw_get::<mlua::Function>("collectgarbage")?)?;
    let databases = Rc::new_cyclic(|own| Databases {
        tasks: Rc::downgrade(tasks),
        vocabulary: vocabulary.clone(),
        handles,
        lists,
        blobs,
        streams,
        shapes,
        texts: RefCell::new(LruCache::new(TEXTS)),
        response_meta: vm.response_meta.to_pointer(),
        outage_meta,
        open: RefCell::default(),
        collect,
        workers: Cell::new(1),
        folder: folder.to_owned(),
        known: OnceCell::new(),
        is_made_up: Cell::new(false),
        own: own.clone(),
    });
    let shared = Shared::new(lua, databases.clone())?;
    let waits = tasks.waits();
    let methods = lua.create_table()?;
    calls::install(lua, &shared, waits, &methods)?;
    write::install(lua, &shared, waits, &methods)?;
    transaction::install(lua, &shared, waits, &methods)?;
    stream::install(lua, &shared, waits, &methods, stream_meta)?;
    methods.raw_set("stats", shared.function(lua, stats)?)?;
    let encode: mlua::Function = rover.raw_get::<Table>("json")?.raw_get("encode")?;
    let decode: mlua::Function = rover.raw_get::<Table>("json")?.raw_get("decode")?;
    let query: mlua::Function = methods.raw_get("query")?;
    let page: mlua::Function = vm.file("db", include_str!("page.lua"))?.call((&vm.mistake, encode, decode, query))?;
    methods.raw_set("page", page)?;
    handle_meta.raw_set("__index", methods)?;
    rover.raw_set("list", shared.function(lua, values::list)?)?;
    rover.raw_set("blob", shared.function(lua, values::blob)?)?;
    rover.raw_set("database", shared.function(lua, database)?)?;
    rover.raw_set("db", shared.function(lua, default)?.call::<mlua::Value>(())?)?;
    // The numbers are the process's, so one worker tells them.
    if vm.worker <= 1 {
        databases.count_in(&vm.sources);
    }
    vm.settling.add(move |config| databases.settle(config));
    Ok(())
}

/// `rover.db`.
fn default(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    databases.handles.push(stack, Handle::Named(DEFAULT_DATABASE.into()));
    Ok(1)
}

/// `database(name)` → a handle.
fn database(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    let Some(name) = stack.bytes(1).and_then(|name| std::str::from_utf8(name).ok()) else {
        let kind = stack.kind(1).name();
        return Err(Raise::Mistake(format!("rover.database expects the name of a database, not {kind}")));
    };
    let name: Rc<str> = name.into();
    databases.handles.push(stack, Handle::Named(name));
    Ok(1)
}

/// `stats()` → a table.
fn stats(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    let stats = databases.receiver(stack, "stats")?.database().stats();
    stack.push_table(0, 8);
    let table = stack.top();
    let counts = [
        ("connections", stats.connections as f64),
        ("busy", stats.busy as f64),
        ("waiting", stats.waiting as f64),
        ("transactions", stats.transactions as f64),
        ("streams", stats.streams as f64),
        ("statements", stats.statements as f64),
        ("errors", stats.errors as f64),
        ("time", stats.time.as_secs_f64()),
        ("commits", stats.commits as f64),
    ];
    for (name, value) in counts {
        stack.push_bytes(name.as_bytes());
        stack.push_number(value);
        stack.set_field(table);
    }
    Ok(1)
}

impl Databases {
    /// Opens what the config names.
    fn settle(&self, config: &Config) {
        self.is_made_up.set(config.has_made_up_database());
        self.workers.set(config.workers.max(1));
        let mut known = BTreeMap::new();
        for (name, settings) in config.databases(&self.folder) {
            match Database::open(&settings) {
                Ok(database) => {
                    known.insert(name, database);
                }
                Err(error) => log::event(Level::Error, error.message()).field("database", &*name).emit(),
            }
        }
        let _ = self.known.set(known);
    }

    /// Has it noted what has been done, and what is going on.
    fn count_in(&self, sources: &Sources) {
        let databases = self.shared();
        sources.add(move |samples| {
            if let Some(databases) = databases.upgrade() {
                databases.count(samples);
            }
        });
    }

    fn count(&self, samples: &mut Samples) {
        for (name, database) in self.known.get().into_iter().flatten() {
            let stats = database.stats();
            let labels = [("database", name.as_str())];
            let mut gauge = |name, help, value: usize| samples.gauge(name, help, &labels, value as f64);
            gauge("rover_db_connections", "Connections to databases that are open.", stats.connections);
            gauge("rover_db_busy_connections", "Connections to databases in use.", stats.busy);
            gauge("rover_db_waiting", "Statements and transactions that wait for a connection.", stats.waiting);
            gauge("rover_db_transactions", "Transactions that are open.", stats.transactions);
            let mut counter = |name, help, value: f64| samples.counter(name, help, &labels, value);
            counter("rover_db_statements_total", "Statements that were run.", stats.statements as f64);
            counter("rover_db_errors_total", "Statements that failed.", stats.errors as f64);
            counter("rover_db_seconds_total", "How long statements took.", stats.time.as_secs_f64());
        }
    }

    /// The same, for what outlives a call; `None` once the VM is closing.
    fn shared(&self) -> Weak<Databases> {
        self.own.clone()
    }

    /// Suspends the running function, which the app calls `name`, until `work` is done; `push` then pushes what it has brought.
    fn wait<T: 'static>(
        &self,
        stack: &mut Stack<'_>,
        name: &'static str,
        work: impl Future<Output = Result<T, Error>> + 'static,
        push: impl FnOnce(&Databases, &mut Stack<'_>, T) -> Returns + 'static,
    ) -> Returns {
        let shared = self.shared();
        self.tasks()?.waits().suspend(stack, Name::Own(name), async move {
            let outcome = work.await;
            move |stack: &mut Stack<'_>| {
                let databases = alive(&shared)?;
                match outcome {
                    Ok(brought) => push(&databases, stack, brought),
                    Err(error) => databases.failed(stack, &error),
                }
            }
        })
    }

    fn tasks(&self) -> Result<Rc<Tasks>, Raise> {
        alive(&self.tasks)
    }

    /// What the value at 1 stands for.
    fn receiver(&self, stack: &mut Stack<'_>, call: &str) -> Result<Target, Raise> {
        let name = match self.handles.get(stack, 1) {
            Some(Handle::Named(name)) => name.clone(),
            Some(Handle::Within(tx)) => return Ok(Target::Transaction(tx.clone())),
            None => return Err(Raise::Mistake(format!("call it with a colon: db:{call}(…)"))),
        };
        let Some(known) = self.known.get() else {
            return Err(Raise::Mistake(format!(
                "db:{call} cannot be called at the top level of the app: call it in a handler, a hook or a task"
            )));
        };
        match known.get(&*name) {
            Some(database) => {
                if *name == *DEFAULT_DATABASE && self.is_made_up.take() {
                    tell_of_default(database.settings());
                }
                Ok(Target::Database(database.clone()))
            }
            None if &*name == DEFAULT_DATABASE => Err(Raise::mistake(
                "there is no database: name it, as in rover.server { db = \"sqlite:app.db\" }, or with DATABASE_URL",
            )),
            None => Err(Raise::Mistake(format!(
                "there is no database {name:?}: name it, as in rover.server {{ databases = {{ {name} = \"sqlite:{name}.db\" }} }}"
            ))),
        }
    }

    /// What a call that waits goes to.
    ///
    /// # Errors
    /// It would wait for the transaction that it is in.
    fn target(&self, stack: &mut Stack<'_>, call: &str) -> Result<Target, Raise> {
        let target = self.receiver(stack, call)?;
        if let Target::Database(database) = &target {
            let tasks = self.tasks()?;
            if tasks.scopes::<Tx>().any(|tx| tx.is_open() && tx.database().settings() == database.settings()) {
                return Err(Raise::Mistake(format!(
                    "db:{call} within a transaction of its own, which it is no part of: call it on what the function was given, tx:{call}"
                )));
            }
        }
        Ok(target)
    }

    /// What has been read of a text.
    fn read(&self, text: &str, dialect: Dialect) -> Result<Arc<Sql>, rover_data::Error> {
        if let Some(known) = self.texts.borrow_mut().get(text) {
            return Ok(known.clone());
        }
        let sql = Sql::read(text, dialect)?;
        self.texts.borrow_mut().put(text.into(), sql.clone());
        Ok(sql)
    }
}

/// Tells, once in the process, that the app has a database that it did not name.
#[cold]
fn tell_of_default(settings: &Settings) {
    static HAS_TOLD: AtomicBool = AtomicBool::new(false);
    if !HAS_TOLD.swap(true, Ordering::Relaxed) {
        let file = settings.path.as_deref().unwrap_or(Path::new("")).display().to_string();
        let message = "no database is named, so rover.db is a file beside the app as long as debug is on";
        log::event(Level::Info, message).field("file", file.as_str()).emit();
    }
}
