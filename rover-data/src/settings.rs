//! What can be set of a database, and the URL that names it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;

/// When SQLite waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// At checkpoints: a crash of the program loses nothing, a power loss may lose the last commits.
    #[default]
    Normal,
    /// At each commit.
    Full,
}

/// How SQLite keeps a transaction apart until it is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Journal {
    /// A log beside the file: readers and the writer do not wait for each other.
    #[default]
    Wal,
    /// A journal that is removed at each commit, for file systems without shared memory.
    Delete,
}

/// A database and how it is to be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// As messages and figures name it.
    pub name: String,
    /// The file; none for a database in memory, which ends with its last handle.
    pub path: Option<PathBuf>,
    /// Make the file where there is none.
    pub create: bool,
    /// Nothing may be written.
    pub read_only: bool,
    /// When the disk is waited for.
    pub synchronous: Synchronous,
    /// How transactions are kept apart.
    pub journal: Journal,
    /// How many threads read at most. Streams and transactions that only read take at most one less.
    pub readers: usize,
    /// How long a statement waits for its turn.
    pub queue_timeout: Duration,
    /// How long a statement may run; none is no limit.
    pub statement_timeout: Option<Duration>,
    /// How long the lock of another process is waited for.
    pub busy_timeout: Duration,
    /// How many prepared statements each connection keeps.
    pub statement_cache: usize,
    /// The largest answer that is collected, in bytes.
    pub answer_limit: usize,
    /// From when on a statement is told as slow.
    pub slow: Option<Duration>,
}

impl Settings {
    /// The settings of a file, with what is usual for the rest.
    #[must_use]
    pub fn of_file(path: &Path) -> Settings {
        Settings {
            name: "default".to_owned(),
            path: Some(path.to_owned()),
            create: true,
            read_only: false,
            synchronous: Synchronous::default(),
            journal: Journal::default(),
            readers: 4,
            queue_timeout: Duration::from_secs(5),
            statement_timeout: Some(Duration::from_secs(30)),
            busy_timeout: Duration::from_secs(5),
            statement_cache: 256,
            answer_limit: 64 << 20,
            slow: None,
        }
    }

    /// The settings of a URL: `sqlite:app.db`, `sqlite:/var/lib/app.db`, `sqlite::memory:`.
    ///
    /// # Errors
    /// It names no database that this build knows.
    pub fn of_url(url: &str) -> Result<Settings, Error> {
        let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
        if !scheme.eq_ignore_ascii_case("sqlite") && !scheme.eq_ignore_ascii_case("sqlite3") {
            return Err(Error::mistake(match scheme.to_ascii_lowercase().as_str() {
                "postgres" | "postgresql" | "mysql" | "mariadb" => {
                    format!("{scheme} is not among the databases of this version: sqlite is")
                }
                // Such a URL may have a password in it.
                _ => "a database is named by a URL such as sqlite:app.db".to_owned(),
            }));
        }
        if rest == ":memory:" {
            return Ok(Settings { path: None, ..Settings::of_file(Path::new("")) });
        }
        let path = match rest.strip_prefix("//") {
            // `sqlite:///srv/app.db` has an empty host.
            Some(path) if path.starts_with('/') => path,
            Some(path) => path,
            None => rest,
        };
        if path.is_empty() || path.ends_with('/') {
            return Err(Error::mistake("the URL names no file: write sqlite:app.db"));
        }
        if path.contains(['?', '#', '\0']) {
            return Err(Error::mistake("the URL of an SQLite file takes no parameters: they are options of their own"));
        }
        Ok(Settings::of_file(Path::new(path)))
    }
}

/// How a transaction begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// It only reads, beside whoever writes, and sees the state of its beginning.
    pub read_only: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_files() {
        let path =
            |url| Settings::of_url(url).map(|settings| settings.path.unwrap_or_default()).map_err(|e| e.to_string());
        assert_eq!(path("sqlite:app.db"), Ok("app.db".into()));
        assert_eq!(path("sqlite:/srv/app.db"), Ok("/srv/app.db".into()));
        assert_eq!(path("sqlite:///srv/app.db"), Ok("/srv/app.db".into()));
        assert_eq!(path("sqlite://data/app.db"), Ok("data/app.db".into()));
        assert_eq!(path("SQLite::memory:"), Ok("".into()));
        for bad in ["app.db", "", "sqlite:", "sqlite:x/", "postgres://u:secret@h/d", "sqlite:a?mode=ro"] {
            let error = path(bad).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
