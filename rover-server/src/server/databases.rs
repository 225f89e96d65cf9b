//! The databases of an app before it serves: what its migrations say, and whether they have been run.
//!
//! Comes in: the config, and where the app is. Goes out: databases that are as the app expects them, or why they are not.

use std::path::{Path, PathBuf};

use rover_data::Settings;
use rover_data::migrations::{self, MigrationState, Status};

use crate::config::{Config, DEFAULT_DATABASE};
use crate::error::Error;
use crate::log::{self, Level};
use crate::script::app::Source;

/// The folder of migrations, beside the app.
const FOLDER: &str = "migrations";

/// A database of an app, for whoever looks after it.
#[derive(Clone, Debug)]
pub struct AppDatabase {
    settings: Settings,
    folder: PathBuf,
    beside: PathBuf,
}

impl AppDatabase {
    /// The name that the app has for it; `default` is the one behind `rover.db`.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// The folder of its migrations.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of the app.
    pub fn beside(&self) -> &Path {
        &self.beside
    }

    /// Makes an empty migration behind the others, and tells where it is.
    ///
    /// # Errors
    /// `name` is no name for a file, or the file cannot be written.
    pub fn create(&self, name: &str) -> Result<PathBuf, Error> {
        migrations::create(&self.folder, name).map_err(|error| told(&error))
    }

    /// What is known of each migration, in order.
    ///
    /// # Errors
    /// The folder or the database cannot be read.
    pub fn status(&self) -> Result<Vec<Status>, Error> {
        migrations::status(&self.settings, &self.folder).map_err(|error| told(&error))
    }

    /// Runs what is pending, in order, and calls `tell` with the name of each that has been run.
    ///
    /// # Errors
    /// A file is wrong: those before it stay, it leaves nothing behind unless it asks for no transaction.
    pub fn migrate(&self, tell: impl FnMut(&str)) -> Result<(), Error> {
        migrations::migrate(&self.settings, &self.folder, tell).map_err(|error| told(&error))
    }

    /// Undoes the last `steps` migrations by their `.down.sql`, and calls `tell` with the name of each.
    ///
    /// # Errors
    /// One has no such file, or it is wrong.
    pub fn roll_back(&self, steps: usize, tell: impl FnMut(&str)) -> Result<(), Error> {
        migrations::roll_back(&self.settings, &self.folder, steps, tell).map_err(|error| told(&error))
    }

    /// The SQL that makes the schema as it is.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn dump(&self) -> Result<String, Error> {
        migrations::dump(&self.settings).map_err(|error| told(&error))
    }

    /// Runs a file of SQL in one transaction.
    ///
    /// # Errors
    /// It is wrong, and leaves nothing behind.
    pub fn seed(&self, file: &Path) -> Result<(), Error> {
        migrations::seed(&self.settings, file).map_err(|error| told(&error))
    }

    /// Copies the database into a new file while others use it.
    ///
    /// # Errors
    /// One of them cannot be read or written.
    pub fn backup(&self, file: &Path) -> Result<(), Error> {
        migrations::backup(&self.settings, file).map_err(|error| told(&error))
    }
}

/// An error with a picture of where it is.
fn told(error: &rover_data::Error) -> Error {
    match error.picture() {
        Some(picture) => Error::app(format!("{}\n  {}", error.message(), picture.replace('\n', "\n  "))),
        None => Error::app(error.message()),
    }
}

/// The databases of an app, the one behind `rover.db` first.
pub(super) fn of(config: &Config, source: &Source) -> Vec<AppDatabase> {
    let beside = source.folder().to_owned();
    let mut all: Vec<AppDatabase> = config
        .databases(&beside)
        .into_iter()
        .map(|(name, settings)| {
            let folder = beside.join(FOLDER);
            let folder = if name == DEFAULT_DATABASE { folder } else { folder.join(name) };
            AppDatabase { settings, folder, beside: beside.clone() }
        })
        .collect();
    all.sort_by_key(|database| database.name() != DEFAULT_DATABASE);
    all
}

/// Those that have migrations. An app that is no file has none beside it.
fn with_migrations(config: &Config, source: &Source) -> Result<Vec<AppDatabase>, Error> {
    if matches!(source, Source::Text { .. }) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for database in of(config, source) {
        if !migrations::read(&database.folder).map_err(|error| told(&error))?.is_empty() {
            found.push(database);
        }
    }
    Ok(found)
}

/// Sees to it that every migration has been run before the app is served.
///
/// # Errors
/// Some are pending, or one that is to be run is wrong.
pub(super) fn prepare(config: &Config, source: &Source, migrates: bool) -> Result<(), Error> {
    for database in with_migrations(config, source)? {
        if migrates {
            database.migrate(|name| {
                log::event(Level::Info, "a migration has been run")
                    .field("migration", name)
                    .field("database", database.name())
                    .emit();
            })?;
        }
        let status = database.status()?;
        let names = |state| {
            let of_state = status.iter().filter(|status| status.state == state).map(|status| status.name.as_str());
            of_state.collect::<Vec<_>>().join(", ")
        };
        let pending = names(MigrationState::Pending);
        if !pending.is_empty() {
            return Err(Error::app(format!(
                "migrations of the database {:?} have not been run: {pending}\n  run them with: rover db migrate, or \
                 start with --migrate",
                database.name()
            )));
        }
        for (state, message) in [
            (MigrationState::Changed, "a migration has changed since it was run"),
            (MigrationState::Unknown, "a migration has been run that this version does not know"),
        ] {
            let names = names(state);
            if !names.is_empty() {
                let event = log::event(Level::Warn, message).field("migrations", names.as_str());
                event.field("database", database.name()).emit();
            }
        }
    }
    Ok(())
}

/// Runs every migration on an empty file, which is thrown away.
///
/// # Errors
/// One is wrong.
pub(super) fn rehearse(config: &Config, source: &Source) -> Result<(), Error> {
    for database in with_migrations(config, source)? {
        let file = std::env::temp_dir().join(format!("rover-check-{}-{:x}.db", std::process::id(), fastrand::u64(..)));
        let mut settings = database.settings.clone();
        settings.path = Some(file.clone());
        settings.read_only = false;
        let done = migrations::migrate(&settings, &database.folder, |_| {}).map_err(|error| told(&error));
        for ending in ["", "-wal", "-shm", "-journal"] {
            let mut name = file.clone().into_os_string();
            name.push(ending);
            let _ = std::fs::remove_file(name);
        }
        done?;
    }
    Ok(())
}
