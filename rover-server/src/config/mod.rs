//! Comes in: the app's table as plain data, the environment, and what a Rust program or the command line sets. Goes out:
//! one checked `Config`, or every mistake at once. Must not know: Lua, HTTP, and where the command line comes from.

mod connections;
mod compression;
mod cors;
mod database;
mod host;
mod http2;
mod key;
mod keys;
mod kind;
mod tls;
mod operating;
mod load_shedding;
mod otlp;
mod proxies;
mod public;
mod rate_limit;
mod security_headers;
mod socket_file;
mod store;
mod value;
mod watch;
mod websocket;

use std::fmt;
use std::time::Duration;

pub(crate) use compression::CompressionConfig;
pub(crate) use connections::ConnectionSettings;
pub(crate) use cors::{Cors, Origins};
pub(crate) use database::{DEFAULT_DATABASE, DatabaseConfig};
pub(crate) use host::{Endpoint, Host};
pub(crate) use http2::Http2Settings;
pub use key::ConfigKey;
pub use keys::config_keys;
pub(crate) use keys::misspelt_variables;
pub(crate) use load_shedding::LoadShedding;
pub(crate) use operating::{AccessLog, Management, TraceContext};
pub(crate) use otlp::OtlpSettings;
pub(crate) use proxies::{Proxies, ProxyHeaders, Trusted};
#[cfg(test)]
pub(crate) use rate_limit::Rate;
pub(crate) use rate_limit::{LimitRule, Per, RateLimit};
pub(crate) use security_headers::SecurityHeaders;
pub(crate) use socket_file::SocketFile;
pub(crate) use store::StoreLimits;
pub(crate) use tls::{ClientAuth, TlsSettings, TlsVersion};
pub(crate) use value::ConfigValue;
pub(crate) use watch::Limits;
pub(crate) use websocket::{PageOrigins, WebSocketConfig};

use crate::log::Level;

/// What the server runs with. `config_keys` documents each field under the same name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) socket_file: SocketFile,
    /// 1 to 1024.
    pub(crate) workers: usize,
    pub(crate) log_level: Level,
    pub(crate) access_log: AccessLog,
    pub(crate) debug: bool,
    /// Bytes.
    pub(crate) body_size_limit: u64,
    /// The most bytes of JSON that one value may make; 0 for any number.
    pub(crate) json_size_limit: u64,
    /// Never zero.
    pub(crate) body_timeout: Duration,
    /// Bytes a second; 0 is no limit.
    pub(crate) body_min_rate: u64,
    pub(crate) shutdown_timeout: Duration,
    /// What a new version of the app, or of the program, gets to start. Never zero.
    pub(crate) reload_timeout: Duration,
    /// For how long the server accepts after the stop signal.
    pub(crate) drain_delay: Duration,
    /// Requests that take so long are logged. Never zero.
    pub(crate) slow_request: Option<Duration>,
    pub(crate) trace_context: TraceContext,
    pub(crate) management: Management,
    pub(crate) trailing_slash: TrailingSlash,
    /// Paths are brought into one spelling before anything goes by them.
    pub(crate) path_normalisation: bool,
    /// Hooks guard all paths at and below their place, not the routes alone that are declared there.
    pub(crate) path_guards: bool,
    pub(crate) compression: CompressionConfig,
    pub(crate) limits: Limits,
    /// Never zero.
    pub(crate) sse_keep_alive: Duration,
    pub(crate) connections: ConnectionSettings,
    pub(crate) http2: Http2Settings,
    pub(crate) tls: TlsSettings,
    pub(crate) proxies: Proxies,
    pub(crate) cors: Cors,
    pub(crate) security_headers: SecurityHeaders,
    pub(crate) rate_limit: RateLimit,
    pub(crate) load_shedding: LoadShedding,
    pub(crate) websocket: WebSocketConfig,
    pub(crate) store: StoreLimits,
    pub(crate) otlp: OtlpSettings,
    /// That of `rover.db`.
    pub(crate) db: DatabaseConfig,
    pub(crate) further_databases: std::collections::BTreeMap<String, DatabaseConfig>,
}

/// What happens to a path that is known only with the other trailing slash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrailingSlash {
    /// It is another path: 404.
    #[default]
    Strict,
    /// 308 to the one that is declared.
    Redirect,
}

impl TrailingSlash {
    /// Both, with the words for them.
    const WORDS: [(&str, TrailingSlash); 2] =
        [("strict", TrailingSlash::Strict), ("redirect", TrailingSlash::Redirect)];
}

impl Default for Config {
    fn default() -> Self {
        Config {
            host: Host::Ip(std::net::Ipv4Addr::LOCALHOST.into()),
            port: 4242,
            socket_file: SocketFile::default(),
            workers: num_cpus::get().clamp(1, keys::MOST_WORKERS as usize),
            log_level: Level::Info,
            access_log: AccessLog::Auto,
            debug: false,
            body_size_limit: 1024 * 1024,
            json_size_limit: 64 << 20,
            body_timeout: Duration::from_secs(30),
            body_min_rate: 240,
            shutdown_timeout: Duration::from_secs(10),
            reload_timeout: Duration::from_secs(60),
            drain_delay: Duration::ZERO,
            slow_request: None,
            trace_context: TraceContext::Keep,
            management: Management::default(),
            trailing_slash: TrailingSlash::Strict,
            path_normalisation: true,
            path_guards: true,
            compression: CompressionConfig::default(),
            limits: Limits::default(),
            sse_keep_alive: Duration::from_secs(15),
            connections: ConnectionSettings::default(),
            http2: Http2Settings::default(),
            tls: TlsSettings::default(),
            proxies: Proxies::default(),
            cors: Cors::default(),
            security_headers: SecurityHeaders::default(),
            rate_limit: RateLimit::default(),
            load_shedding: LoadShedding::default(),
            websocket: WebSocketConfig::default(),
            store: StoreLimits::DEFAULT,
            otlp: OtlpSettings::default(),
            db: DatabaseConfig::default(),
            further_databases: std::collections::BTreeMap::new(),
        }
    }
}

/// What a Rust program or the command line sets; it wins over every other source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides(Vec<(String, ConfigValue)>);

impl Overrides {
    /// Sets the key of this name. A later value of the same key wins.
    pub(crate) fn set(&mut self, key: impl Into<String>, value: impl Into<ConfigValue>) {
        self.0.push((key.into(), value.into()));
    }

    /// Whether there is a value for the key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(own, _)| own == key)
    }
}

/// The app's `rover.server { … }`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AppTable<'a> {
    /// Where it stands, such as `app.lua:1`.
    pub(crate) origin: &'a str,
    /// Its keys and values; keys that are not text are for the caller to report.
    pub(crate) entries: &'a [(String, ConfigValue)],
}

/// One wrong setting: where it is, what is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigMistake(String);

impl fmt::Display for ConfigMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Config {
    /// Puts the sources together, each winning over the one before: defaults, the app's table, `ROVER_*` variables
    /// (looked up with `variable`), overrides. An empty variable counts as unset; variables that are no key's are
    /// left alone, since the environment is shared with others; [`misspelt_variables`] finds some.
    ///
    /// # Errors
    /// Every mistake of every source, also of values that another source would have replaced.
    pub(crate) fn resolve(
        app: AppTable<'_>,
        variable: impl Fn(&str) -> Option<String>,
        overrides: &Overrides,
    ) -> Result<Config, Vec<ConfigMistake>> {
        let mut config = Config::default();
        let mut mistakes = config.otlp.take_standard(&variable);
        config.take_table(app, &mut mistakes);
        let of_app = config.db.clone();
        config.take_variables(&variable, &mut mistakes);
        mistakes.extend(config.take_database_url(of_app, &variable));
        for (name, value) in &overrides.0 {
            mistakes.extend(match find(name) {
                Some(key) => config.take(key, name, value),
                None => Some(unknown("set", name)),
            });
        }
        mistakes.extend(config.tls.mistakes(config.port));
        if mistakes.is_empty() {
            let place = if app.origin.is_empty() { String::new() } else { format!("{}: ", app.origin) };
            mistakes.extend(config.contradictions().iter().map(|text| ConfigMistake(format!("{place}{text}"))));
        }
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    /// Takes over from `running` what a server cannot change while it runs, and gives the keys that differed.
    pub(crate) fn keep(&mut self, running: &Config) -> Vec<&'static str> {
        let mut running = running.clone();
        let fixed = config_keys().filter(|key| key.needs_restart);
        fixed.filter(|key| key.copy(self, &mut running)).map(|key| key.name.as_str()).collect()
    }

    fn take_table(&mut self, app: AppTable<'_>, mistakes: &mut Vec<ConfigMistake>) {
        for (name, value) in app.entries {
            self.take_entry(app.origin, name, value, mistakes);
        }
    }

    /// Takes a key's value, or those of all keys in the table that `name` is.
    fn take_entry(&mut self, origin: &str, name: &str, value: &ConfigValue, mistakes: &mut Vec<ConfigMistake>) {
        match (find(name), value) {
            (Some(key), _) => mistakes.extend(self.take(key, &format!("{origin}: {name}"), value)),
            (None, ConfigValue::Nil) if is_group(name) => {}
            (None, ConfigValue::Table(entries)) if is_group(name) => {
                for (inner, value) in entries {
                    self.take_entry(origin, &format!("{name}.{inner}"), value, mistakes);
                }
            }
            (None, ConfigValue::List(values)) if is_group(name) && values.is_empty() => {}
            (None, value) if is_group(name) => {
                let mistake = format!("{origin}: {name} must be a table of settings, got {value}");
                mistakes.push(ConfigMistake(mistake));
            }
            (None, _) => mistakes.push(unknown(origin, name)),
        }
    }

    fn take_variables(&mut self, variable: impl Fn(&str) -> Option<String>, mistakes: &mut Vec<ConfigMistake>) {
        for key in config_keys() {
            let name = key.variable();
            let Some(text) = variable(&name).filter(|text| !text.trim().is_empty()) else {
                continue;
            };
            // Kubernetes sets ROVER_PORT=tcp://10.0.0.1:80 in every pod beside a service named "rover".
            if key.name == "port" && (text.starts_with("tcp://") || text.starts_with("udp://")) {
                continue;
            }
            mistakes.extend(self.take(key, &name, &ConfigValue::Text(text)));
        }
    }

    fn take(&mut self, key: &ConfigKey, name: &str, value: &ConfigValue) -> Option<ConfigMistake> {
        if *value == ConfigValue::Nil {
            return None;
        }
        let hint = key.store(self, value).err()?;
        Some(ConfigMistake(kind::wrong(name, &key.takes, value, hint)))
    }
}

fn find(name: &str) -> Option<&'static ConfigKey> {
    config_keys().find(|key| key.name == name)
}

/// Whether there are keys in a table of this name.
fn is_group(name: &str) -> bool {
    config_keys().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

fn unknown(origin: &str, name: &str) -> ConfigMistake {
    let cure = match keys::nearest(name) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "rover --help lists the known ones".to_owned(),
    };
    ConfigMistake(format!("{origin}: unknown config key {name:?}, {cure}"))
}

#[cfg(test)]
mod tests;
