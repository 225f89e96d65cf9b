//! Migrations: SQL files that bring a database's schema from one state to the next, each once.
//!
//! Comes in: a folder of files such as `0001_users.sql`, run in the order of their names. A ledger in the database says
//! which have been run, and what they said then. `0001_users.down.sql` undoes `0001_users.sql`.

use std::path::Path;

use crate::error::Error;
use crate::migration::{Entry, text};
use crate::settings::Settings;
use crate::sqlite::migrate;

pub use crate::migration::{Migration, create, read};

/// What is known of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationState {
    /// It has been run.
    Applied,
    /// It is to be run.
    Pending,
    /// It has been run, and its file says something else by now.
    Changed,
    /// It has been run, and has no file: a newer version of the app has run it, or its file has gone.
    Unknown,
}

impl MigrationState {
    /// As it is told.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            MigrationState::Applied => "applied",
            MigrationState::Pending => "pending",
            MigrationState::Changed => "changed",
            MigrationState::Unknown => "unknown",
        }
    }
}

/// A migration and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The name of its file without `.sql`.
    pub name: String,
    /// What is known of it.
    pub state: MigrationState,
    /// When it was run, in UTC: `2026-01-31 12:00:00`.
    pub applied_at: Option<String>,
}

fn compare(files: &[Migration], ledger: &[Entry]) -> Vec<Status> {
    let mut found: Vec<Status> = files
        .iter()
        .map(|file| {
            let entry = ledger.iter().find(|entry| entry.name == file.name);
            let state = match entry {
                None => MigrationState::Pending,
                Some(entry) if entry.checksum == file.checksum => MigrationState::Applied,
                Some(_) => MigrationState::Changed,
            };
            Status { name: file.name.clone(), state, applied_at: entry.map(|entry| entry.applied_at.clone()) }
        })
        .collect();
    let gone = ledger.iter().filter(|entry| !files.iter().any(|file| file.name == entry.name));
    found.extend(gone.map(|entry| Status {
        name: entry.name.clone(),
        state: MigrationState::Unknown,
        applied_at: Some(entry.applied_at.clone()),
    }));
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

/// What is known of each migration, in order. A database that is not there yet has none.
///
/// # Errors
/// The folder or the database cannot be read.
pub fn status(settings: &Settings, folder: &Path) -> Result<Vec<Status>, Error> {
    Ok(compare(&read(folder)?, &migrate::ledger(settings)?))
}

/// Runs what is pending, in order, and calls `tell` with the name of each when it has been run. Several processes may do
/// so at once: each file is run by one of them.
///
/// # Errors
/// A file is wrong: those before it stay, it leaves nothing behind unless it asks for no transaction. Nothing is run where
/// a file that has been run has changed.
pub fn migrate(settings: &Settings, folder: &Path, tell: impl FnMut(&str)) -> Result<(), Error> {
    let files = read(folder)?;
    let changed: Vec<String> = compare(&files, &migrate::ledger(settings)?)
        .into_iter()
        .filter(|status| status.state == MigrationState::Changed)
        .map(|status| status.name)
        .collect();
    if !changed.is_empty() {
        return Err(Error::mistake(format!(
            "{} has changed since it was run: put it back as it was, and write a new migration",
            changed.join(", ")
        )));
    }
    migrate::run(settings, &files, tell)
}

/// Undoes the last `steps` migrations that have been run, by their `.down.sql`, and calls `tell` with the name of each.
///
/// # Errors
/// One has no such file, or it is wrong.
pub fn roll_back(settings: &Settings, folder: &Path, steps: usize, mut tell: impl FnMut(&str)) -> Result<(), Error> {
    let files = read(folder)?;
    for _ in 0..steps {
        let Some(last) = migrate::ledger(settings)?.into_iter().max_by(|one, other| one.name.cmp(&other.name)) else {
            return Ok(());
        };
        let down = files.iter().find(|file| file.name == last.name).and_then(|file| file.down.as_ref());
        let Some(down) = down else {
            return Err(Error::mistake(format!("{} cannot be undone: there is no {0}.down.sql", last.name)));
        };
        migrate::undo(settings, &last.name, down)?;
        tell(&last.name);
    }
    Ok(())
}

/// The SQL that makes the schema as it is, in the order in which it was made.
///
/// # Errors
/// The database cannot be read.
pub fn dump(settings: &Settings) -> Result<String, Error> {
    migrate::dump(settings)
}

/// Runs a file of SQL in one transaction, such as one of rows to begin with.
///
/// # Errors
/// It is wrong, and leaves nothing behind.
pub fn seed(settings: &Settings, file: &Path) -> Result<(), Error> {
    migrate::seed(settings, &text(file)?, file)
}

/// Copies the database into `file`, which must not be there, while others use it: the state of one moment.
///
/// # Errors
/// One of them cannot be read or written. `file` is not left half done.
pub fn backup(settings: &Settings, file: &Path) -> Result<(), Error> {
    migrate::backup(settings, file)
}
