//! Runs migrations on a connection of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Connection, OptionalExtension};

use super::connection::{Role, open_raw};
use super::{problem, watch};
use crate::error::{Error, Outage};
use crate::migration::{Entry, Migration, has_transaction};
use crate::settings::Settings;

/// How long the migrations of another process are waited for.
const PATIENCE: Duration = Duration::from_secs(60);

const LEDGER: &str = "CREATE TABLE IF NOT EXISTS rover_migrations (
  name text PRIMARY KEY NOT NULL,
  checksum text NOT NULL,
  applied_at text NOT NULL DEFAULT CURRENT_TIMESTAMP
)";

fn open(settings: &Settings, create: bool) -> Result<Connection, Error> {
    let mut settings = settings.clone();
    settings.busy_timeout = settings.busy_timeout.max(PATIENCE);
    let name = settings.path.as_deref().unwrap_or(Path::new(":memory:")).display().to_string();
    if settings.path.is_none() {
        return Err(Error::mistake("a database in memory has no migrations of its own"));
    }
    watch::end();
    open_raw(&settings, "", create, Role::Writes).map_err(|error| {
        let error = problem::sort(&error);
        Error::outage(Outage::CannotOpen, format!("{name}: {}", error.message()))
    })
}

/// Runs statements of the engine's own.
fn own<T>(run: impl FnOnce() -> rusqlite::Result<T>) -> Result<T, Error> {
    watch::own(run).map_err(|error| problem::sort(&error))
}

/// What has been run, in the order of the names.
pub(crate) fn ledger(settings: &Settings) -> Result<Vec<Entry>, Error> {
    if settings.path.as_deref().is_some_and(|path| !path.exists()) {
        return Ok(Vec::new());
    }
    let connection = open(settings, false)?;
    own(|| {
        let known = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'rover_migrations'";
        if connection.query_row(known, [], |_| Ok(())).optional()?.is_none() {
            return Ok(Vec::new());
        }
        let mut rows = connection.prepare("SELECT name, checksum, applied_at FROM rover_migrations ORDER BY name")?;
        let entries =
            rows.query_map([], |row| Ok(Entry { name: row.get(0)?, checksum: row.get(1)?, applied_at: row.get(2)? }))?;
        entries.collect()
    })
}

/// Runs those that are not in the ledger.
pub(crate) fn run(settings: &Settings, files: &[Migration], mut tell: impl FnMut(&str)) -> Result<(), Error> {
    let connection = open(settings, true)?;
    own(|| connection.execute_batch(LEDGER))?;
    for file in files {
        let note = |connection: &Connection| {
            let sql = "INSERT INTO rover_migrations (name, checksum) VALUES (?, ?)";
            own(|| connection.execute(sql, [&file.name, &file.checksum]).map(|_| ()))
        };
        let is_known = |connection: &Connection| {
            let sql = "SELECT 1 FROM rover_migrations WHERE name = ?";
            own(|| connection.query_row(sql, [&file.name], |_| Ok(())).optional().map(|row| row.is_some()))
        };
        if is_known(&connection)? {
            continue;
        }
        let is_run = match file.has_transaction() {
            true => transaction(&connection, |connection| {
                // Another process may have run it since.
                if is_known(connection)? {
                    return Ok(false);
                }
                apply(connection, &file.text, &file.path)?;
                note(connection)?;
                Ok(true)
            })?,
            false => {
                watch::own(|| apply(&connection, &file.text, &file.path))?;
                note(&connection)?;
                true
            }
        };
        if is_run {
            tell(&file.name);
        }
    }
    Ok(())
}

/// Undoes one.
pub(crate) fn undo(settings: &Settings, name: &str, (path, text): &(PathBuf, String)) -> Result<(), Error> {
    let connection = open(settings, false)?;
    let forget = |connection: &Connection| {
        own(|| connection.execute("DELETE FROM rover_migrations WHERE name = ?", [name]).map(|_| ()))
    };
    match has_transaction(text) {
        true => transaction(&connection, |connection| {
            apply(connection, text, path)?;
            forget(connection)
        }),
        false => {
            watch::own(|| apply(&connection, text, path))?;
            forget(&connection)
        }
    }
}

/// Runs a file of rows to begin with.
pub(crate) fn seed(settings: &Settings, text: &str, path: &Path) -> Result<(), Error> {
    let connection = open(settings, true)?;
    transaction(&connection, |connection| apply(connection, text, path))
}

/// Does all of `run` or nothing. References between tables are checked at the end, so that a table can be rebuilt.
fn transaction<T>(connection: &Connection, run: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
    own(|| connection.execute_batch("PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE"))?;
    let result = run(connection).and_then(|value| {
        check_references(connection)?;
        own(|| connection.execute_batch("COMMIT"))?;
        Ok(value)
    });
    if result.is_err() {
        let _ = watch::own(|| connection.execute_batch("ROLLBACK"));
    }
    own(|| connection.execute_batch("PRAGMA foreign_keys = ON"))?;
    result
}

fn check_references(connection: &Connection) -> Result<(), Error> {
    let broken = own(|| {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(2)?));
        connection.query_row("PRAGMA foreign_key_check", [], row).optional()
    })?;
    match broken {
        None => Ok(()),
        Some((table, parent)) => {
            Err(Error::mistake(format!("rows of {table} refer to rows of {parent} that are not there")))
        }
    }
}

/// Runs a file's statements.
fn apply(connection: &Connection, text: &str, path: &Path) -> Result<(), Error> {
    let mut batch = rusqlite::Batch::new(connection, text);
    let mut from = 0;
    loop {
        let mut statement = match batch.next() {
            Ok(Some(statement)) => statement,
            Ok(None) => return Ok(()),
            Err(error) => {
                let at = match &error {
                    // The text that it was given begins where the statement does.
                    rusqlite::Error::SqlInputError { sql, offset, .. } => {
                        text.len() - sql.len().min(text.len()) + usize::try_from(*offset).unwrap_or(0)
                    }
                    _ => from + (text[from..].len() - text[from..].trim_start().len()),
                };
                return Err(located(&error, text, path, at));
            }
        };
        // Where it begins; what is before it has been run.
        let written = statement.expanded_sql().unwrap_or_default();
        let start = text[from..].find(written.trim()).map_or(from, |at| from + at);
        from = (start + written.trim().len()).min(text.len());
        let mut rows = statement.raw_query();
        loop {
            match rows.next() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => return Err(located(&error, text, path, start)),
            }
        }
    }
}

/// Tells in which line of the file it is.
fn located(error: &rusqlite::Error, text: &str, path: &Path, at: usize) -> Error {
    let found = problem::sort(error);
    let at = at.min(text.len());
    let line = text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
    let text: std::sync::Arc<str> = text.into();
    Error::mistake(format!("{}:{line}: {}", path.display(), found.message())).in_sql(&text, Some(at))
}

/// The SQL that makes the schema.
pub(crate) fn dump(settings: &Settings) -> Result<String, Error> {
    let connection = open(settings, false)?;
    let statements: Vec<String> = own(|| {
        // What virtual tables keep their rows in is made with them.
        let sql = "SELECT sql FROM sqlite_schema
            WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND tbl_name <> 'rover_migrations'
              AND name NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow')
            ORDER BY rowid";
        let mut rows = connection.prepare(sql)?;
        let rows = rows.query_map([], |row| row.get::<_, String>(0))?;
        rows.collect()
    })?;
    Ok(statements.into_iter().map(|statement| statement + ";\n").collect())
}

/// Copies the database.
pub(crate) fn backup(settings: &Settings, file: &Path) -> Result<(), Error> {
    let cannot = |why: String| Error::outage(Outage::CannotOpen, format!("{}: {why}", file.display()));
    if file.exists() {
        return Err(Error::mistake(format!("{}: it is there already", file.display())));
    }
    let source = open(settings, false)?;
    // What is half done is not to be mistaken for a copy.
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let copied = (|| {
        let mut target = Connection::open(&partial)?;
        watch::own(|| -> rusqlite::Result<()> {
            let backup = Backup::new(&source, &mut target)?;
            loop {
                // In one step, which sees one state and holds up no writer.
                match backup.step(-1)? {
                    StepResult::Done => return Ok(()),
                    _ => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        })?;
        // A copy is one file; it is given its log by whoever opens it.
        watch::own(|| target.pragma_update(None, "journal_mode", "delete"))?;
        target.close().map_err(|(_, error)| error)
    })();
    let kept = copied.map_err(|error: rusqlite::Error| cannot(error.to_string())).and_then(|()| {
        let synced = std::fs::File::open(&partial).and_then(|file| file.sync_all());
        synced.and_then(|()| std::fs::rename(&partial, file)).map_err(|error| cannot(error.to_string()))
    });
    if kept.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    kept
}
