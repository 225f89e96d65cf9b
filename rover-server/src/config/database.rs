//! The keys `db` and `databases`. Comes in: a URL, or a table of one and options. Goes out: how each database is used. Must
//! not know: who asks them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rover_data::{Settings, Synchronous};

use super::key::{ConfigKey, Group};
use super::kind::custom;
use super::value::ConfigValue;
use super::{Config, ConfigMistake};

/// The database of an app that has named none, while it is developed.
const WHILE_DEVELOPING: &str = "sqlite:app.db";

/// The name of the database behind `rover.db`.
pub(crate) const DEFAULT_DATABASE: &str = "default";

/// One database.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DatabaseConfig {
    /// `None`: there is no such database.
    url: Option<String>,
    /// Connections for each worker. Never 0.
    pool: usize,
    queue_timeout: Duration,
    /// `None`: no limit.
    statement_timeout: Option<Duration>,
    busy_timeout: Duration,
    synchronous: Synchronous,
    read_only: bool,
    /// `None`: no statement is told as slow.
    slow_query: Option<Duration>,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        DatabaseConfig {
            url: None,
            pool: 2,
            queue_timeout: Duration::from_secs(5),
            statement_timeout: Some(Duration::from_secs(30)),
            busy_timeout: Duration::from_secs(5),
            synchronous: Synchronous::Normal,
            read_only: false,
            slow_query: Some(Duration::from_secs(1)),
        }
    }
}

impl DatabaseConfig {
    /// As the crate of databases takes it; `None` where there is no database.
    fn settings(&self, name: &str, folder: &Path, workers: usize) -> Option<Settings> {
        let mut settings = Settings::of_url(self.url.as_deref()?).ok()?;
        settings.name = name.to_owned();
        settings.path = settings.path.map(|path| folder.join(path));
        settings.readers = self.pool.saturating_mul(workers).clamp(2, 64);
        settings.queue_timeout = self.queue_timeout;
        settings.statement_timeout = self.statement_timeout;
        settings.busy_timeout = self.busy_timeout;
        settings.synchronous = self.synchronous;
        settings.read_only = self.read_only;
        settings.slow = self.slow_query;
        Some(settings)
    }

    /// Reads a URL, or a table of one and options.
    fn read(value: &ConfigValue) -> Result<DatabaseConfig, &'static str> {
        let mut database = DatabaseConfig::default();
        match value {
            ConfigValue::Table(entries) => {
                entries.iter().try_for_each(|(name, value)| database.take_option(name, value))?;
            }
            value => database.take_url(value)?,
        }
        Ok(database)
    }

    fn take_url(&mut self, value: &ConfigValue) -> Result<(), &'static str> {
        let url = value.text().ok_or("")?.trim();
        if url == "none" {
            self.url = None;
            return Ok(());
        }
        Settings::of_url(url).map_err(|_| "")?;
        self.url = Some(url.to_owned());
        Ok(())
    }

    fn take_option(&mut self, name: &str, value: &ConfigValue) -> Result<(), &'static str> {
        let time = || value.time().filter(|time| !time.is_zero());
        match name {
            "url" => return self.take_url(value),
            "pool" => {
                self.pool = usize::try_from(value.whole(1, 1000).ok_or("; pool is a whole number from 1")?).unwrap_or(2)
            }
            "queue_timeout" => self.queue_timeout = time().ok_or("; queue_timeout is a time above 0")?,
            "busy_timeout" => self.busy_timeout = value.time().ok_or("; busy_timeout is a time")?,
            "statement_timeout" => {
                let limit = value.time().ok_or("; statement_timeout is a time, 0 for no limit")?;
                self.statement_timeout = Some(limit).filter(|limit| !limit.is_zero());
            }
            "slow_query" => {
                let slow = value.time().ok_or("; slow_query is a time, 0 for none")?;
                self.slow_query = Some(slow).filter(|slow| !slow.is_zero());
            }
            "synchronous" => {
                self.synchronous = match value.text() {
                    Some("normal") => Synchronous::Normal,
                    Some("full") => Synchronous::Full,
                    _ => return Err("; synchronous is \"normal\" or \"full\""),
                }
            }
            "read_only" => self.read_only = value.truth().ok_or("; read_only is true or false")?,
            _ => {
                return Err(
                    "; its options are url, pool, queue_timeout, statement_timeout, busy_timeout, synchronous, \
                            read_only and slow_query",
                );
            }
        }
        Ok(())
    }
}

impl Config {
    /// Every database by its name, that of `rover.db` among them, with names of files beginning in `folder`. While the app is
    /// developed there is one also where it names none.
    pub(crate) fn databases(&self, folder: &Path) -> BTreeMap<String, Settings> {
        let mut own = self.db.clone();
        if self.has_made_up_database() {
            own.url = Some(WHILE_DEVELOPING.to_owned());
        }
        let further = self.further_databases.iter().map(|(name, database)| (name.as_str(), database));
        let all = further.chain([(DEFAULT_DATABASE, &own)]);
        let settled = all.filter_map(|(name, database)| Some((name, database.settings(name, folder, self.workers)?)));
        settled.map(|(name, settings)| (name.to_owned(), settings)).collect()
    }

    /// Whether `rover.db` is a database that the app has not named.
    pub(crate) fn has_made_up_database(&self) -> bool {
        self.db.url.is_none() && self.debug
    }

    /// Takes the variables that name the database behind `rover.db`, `DATABASE_URL` and, before it, `ROVER_DB`. They win over
    /// the URL of the app, `app`, and leave its options as they are.
    pub(super) fn take_database_url(
        &mut self,
        app: DatabaseConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Option<ConfigMistake> {
        let set = |name| variable(name).filter(|text| !text.trim().is_empty());
        let own = set("ROVER_DB").map(|_| self.db.url.take());
        self.db = app;
        if let Some(url) = own {
            self.db.url = url;
            return None;
        }
        let url = set("DATABASE_URL")?;
        self.db.take_url(&ConfigValue::Text(url.clone())).err().map(|_| {
            // The rest may have a password in it.
            let scheme = url.split(':').next().unwrap_or_default();
            ConfigMistake(format!("DATABASE_URL must be {URL}, got {scheme:?}:…"))
        })
    }
}

const URL: &str = "a URL such as \"sqlite:app.db\", or a table with url and options";

/// Further databases by their names.
pub(crate) type Named = BTreeMap<String, DatabaseConfig>;

/// Reads databases by their names.
fn named(value: &ConfigValue) -> Result<Named, &'static str> {
    let one = |name: &str, value: &ConfigValue| match name {
        "" | DEFAULT_DATABASE => Err("; \"default\" is the one of rover.db: write db = …"),
        name => Ok((name.to_owned(), DatabaseConfig::read(value)?)),
    };
    match value {
        ConfigValue::Table(entries) => entries.iter().map(|(name, value)| one(name, value)).collect(),
        ConfigValue::List(values) if values.is_empty() => Ok(Named::new()),
        value => {
            let parts = value.text().ok_or("")?.split(',').filter(|part| *part != "none");
            let pairs = parts.map(|part| part.split_once('=').ok_or(""));
            pairs
                .map(|pair| pair.and_then(|(name, url)| one(name.trim(), &ConfigValue::Text(url.trim().to_owned()))))
                .collect()
        }
    }
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    let further = "a table of names and URLs (or tables with url and options), as text \"name=url,name=url\"";
    let db = Group::of(|config| &mut config.db)
        .key("db", "database behind rover.db; DATABASE_URL wins over the app, ROVER_DB over both")
        .takes(custom(URL, "none", DatabaseConfig::read), |db| db);
    let databases = Group::of(|config| &mut config.further_databases)
        .key("databases", "further databases by name, for rover.database(name)")
        .takes(custom(further, "none", named), |databases| databases);
    let mut keys = db.keys();
    keys.extend(databases.keys());
    keys
}
