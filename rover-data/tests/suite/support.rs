//! Engines to test, and what tests say often.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rover_data::{Answer, Argument, Class, Database, Datum, Error, Outage, Settings, Sql, Statement, Value, Violation};

/// A folder that goes when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("rover-data-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An engine that keeps the contract. A further one is one more row of [`engines`].
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    /// Makes the settings of an empty database, which may be in the folder.
    pub(crate) settings: fn(&Path) -> Settings,
    /// The type of a key that counts by itself.
    pub(crate) key: &'static str,
}

pub(crate) fn engines() -> Vec<Engine> {
    let file = |folder: &Path| Settings::of_file(&folder.join("app.db"));
    let memory = |_: &Path| Settings::of_url("sqlite::memory:").unwrap();
    vec![
        Engine { name: "sqlite, a file", settings: file, key: "integer primary key" },
        Engine { name: "sqlite, in memory", settings: memory, key: "integer primary key" },
    ]
}

/// Runs a test on each engine, on a runtime of one thread as Rover's workers have.
pub(crate) fn each<F: Future<Output = ()>>(test: impl Fn(Database, &'static str) -> F) {
    for engine in engines() {
        let folder = Folder::new();
        println!("{}", engine.name);
        let database = Database::open(&(engine.settings)(folder.path())).unwrap();
        wait(test(database, engine.key));
    }
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(crate) fn file(change: impl FnOnce(&mut Settings)) -> (Folder, Database) {
    let folder = Folder::new();
    let mut settings = Settings::of_file(&folder.path().join("app.db"));
    change(&mut settings);
    let database = Database::open(&settings).unwrap();
    (folder, database)
}

pub(crate) fn statement(database: &Database, sql: &str, values: &[Value]) -> Statement {
    let arguments = values.iter().cloned().map(Argument::One).collect();
    Sql::read(sql, database.dialect()).unwrap().with(arguments).unwrap()
}

pub(crate) async fn run(database: &Database, sql: &str, values: &[Value]) -> Result<Answer, Error> {
    database.run(statement(database, sql, values)).await
}

pub(crate) async fn done(database: &Database, sql: &str) -> Answer {
    run(database, sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The first value of an answer as text.
pub(crate) fn first(answer: &Answer) -> String {
    shown(answer.rows.get(0, 0))
}

pub(crate) async fn value(database: &Database, sql: &str) -> String {
    first(&done(database, sql).await)
}

pub(crate) fn shown(datum: Datum<'_>) -> String {
    match datum {
        Datum::Text(bytes) | Datum::Json(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Datum::Integer(value) => value.to_string(),
        Datum::Real(value) => format!("{value:?}"),
        other => format!("{other:?}"),
    }
}

pub(crate) fn outage<T>(result: &Result<T, Error>) -> Option<Outage> {
    match result.as_ref().err()?.class() {
        Class::Unavailable(outage) => Some(outage),
        _ => None,
    }
}

pub(crate) fn violation<T>(result: &Result<T, Error>) -> Option<Violation> {
    match result.as_ref().err()?.class() {
        Class::Violation(violation) => Some(violation),
        _ => None,
    }
}

pub(crate) fn is_mistake<T>(result: &Result<T, Error>) -> bool {
    result.as_ref().is_err_and(|error| error.class() == Class::Mistake)
}

/// Waits until something is so.
pub(crate) fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
