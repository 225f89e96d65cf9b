//! Comes in: nothing; this is the list of every config key. Goes out: each key's documentation, and the function that
//! checks and stores its value. Messages, the names of the environment's variables and the CLI's help derive from it.
//! Must not know: which source a value came from.
//!
//! A new key is a field of `Config` or of its group's settings, its default, and one row here or in the group's file; the
//! tests hold them together.

use super::compression::COMPRESSION_KEYS;
use super::connections::CONNECTION_KEYS;
use super::cors::CORS_KEYS;
use super::database::DATABASE_KEYS;
use super::http2::HTTP2_KEYS;
use super::key::ConfigKey;
use super::load_shedding::LOAD_SHEDDING_KEYS;
use super::operating::OPERATING_KEYS;
use super::otlp::OTLP_KEYS;
use super::proxies::PROXY_KEYS;
use super::rate_limit::RATE_LIMIT_KEYS;
use super::security_headers::SECURITY_HEADER_KEYS;
use super::socket_file::SOCKET_FILE_KEYS;
use super::store::STORE_KEYS;
use super::tls::TLS_KEYS;
use super::watch::WATCH_KEYS;
use super::websocket::WEBSOCKET_KEYS;
use super::{Host, TrailingSlash};
use crate::log::Level;

/// Every config key, in the order in which documentation shows them.
pub fn config_keys() -> impl Iterator<Item = &'static ConfigKey> {
    GROUPS.iter().copied().flatten()
}

/// Keys that belong together, each group in a file of its own where it is more than a few.
static GROUPS: &[&[ConfigKey]] = &[
    KEYS,
    SOCKET_FILE_KEYS,
    CONNECTION_KEYS,
    HTTP2_KEYS,
    TLS_KEYS,
    OPERATING_KEYS,
    PROXY_KEYS,
    CORS_KEYS,
    SECURITY_HEADER_KEYS,
    RATE_LIMIT_KEYS,
    LOAD_SHEDDING_KEYS,
    WATCH_KEYS,
    WEBSOCKET_KEYS,
    COMPRESSION_KEYS,
    STORE_KEYS,
    OTLP_KEYS,
    DATABASE_KEYS,
];

pub(super) const MOST_WORKERS: u64 = 1024;

pub(super) static KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "host",
        what: "address to listen on; \"localhost\" is both loopbacks",
        takes: "an IP address, a host name, or a Unix socket (\"/path\" or \"unix:path\")",
        default: "127.0.0.1",
        example: "\"0.0.0.0\"",
        store: |config, value| {
            config.host = Host::parse(value.text().ok_or("")?)?;
            Ok(())
        },
    },
    ConfigKey {
        name: "port",
        what: "TCP port; 0 picks a free one",
        takes: "a whole number from 0 to 65535",
        default: "4242",
        example: "3000",
        store: |config, value| {
            let port = value.whole(0, u16::MAX.into()).ok_or("")?;
            config.port = u16::try_from(port).map_err(|_| "")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "workers",
        what: "threads, each with a Lua VM of its own",
        takes: "a whole number from 1 to 1024",
        default: "one for each core",
        example: "4",
        store: |config, value| {
            let hint = match value.whole(0, 0) {
                Some(_) => "; leave it out for one worker on each core",
                None => "",
            };
            let workers = value.whole(1, MOST_WORKERS).ok_or(hint)?;
            config.workers = usize::try_from(workers).map_err(|_| "")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "log_level",
        what: "least level that is logged",
        takes: "\"debug\", \"info\", \"warn\", \"error\" or \"nope\"",
        default: "info",
        example: "\"warn\"",
        store: |config, value| {
            config.log_level = value.text().and_then(Level::from_name).ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "debug",
        what: "error messages and tracebacks in answers; not for production",
        takes: "true or false",
        default: "false",
        example: "true",
        store: |config, value| {
            config.debug = value.truth().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "body_size_limit",
        what: "largest request body; 413 above, 0 refuses every body",
        takes: "a size: a number of bytes, or text such as \"64MB\"",
        default: "1MB",
        example: "\"64MB\"",
        store: |config, value| {
            config.body_size_limit = value.size().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "json_size_limit",
        what: "largest value as JSON, or as a table of rover.shared; 0 sets no limit",
        takes: "a size: a number of bytes, or text such as \"64MB\"",
        default: "64MB",
        example: "\"256MB\"",
        store: |config, value| {
            config.json_size_limit = value.size().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "body_timeout",
        what: "seconds a client may stop sending its body before 408",
        takes: "a time above 0: seconds, or text such as \"500ms\"",
        default: "30",
        example: "10",
        store: |config, value| {
            config.body_timeout = value.time().filter(|time| !time.is_zero()).ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "body_min_rate",
        what: "bytes a second that a body must come with on average, once body_timeout is over, before 408; 0 is no limit",
        takes: "a size: a number of bytes, or text such as \"1KB\"",
        default: "240",
        example: "500",
        store: |config, value| {
            config.body_min_rate = value.size().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "shutdown_timeout",
        what: "seconds that running requests get to finish after a stop signal",
        takes: "a time: seconds, or text such as \"500ms\"",
        default: "10",
        example: "30",
        store: |config, value| {
            config.shutdown_timeout = value.time().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "trailing_slash",
        what: "whether /users/ answers 404 or leads to a declared /users, and the reverse",
        takes: "\"strict\" or \"redirect\"",
        default: "strict",
        example: "\"redirect\"",
        store: |config, value| {
            config.trailing_slash = match value.text() {
                Some("strict") => TrailingSlash::Strict,
                Some("redirect") => TrailingSlash::Redirect,
                _ => return Err(""),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "path_normalisation",
        what: "whether paths are matched in one spelling, with /%61 as /a and /a/../b as /b; off: as sent",
        takes: "\"on\" or \"off\"",
        default: "on",
        example: "\"off\"",
        store: |config, value| {
            config.path_normalisation = value.truth().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "sse.keep_alive",
        what: "seconds of silence after which a stream of events sends a comment",
        takes: "a time above 0: seconds, or text such as \"500ms\"",
        default: "15",
        example: "30",
        store: |config, value| {
            config.sse_keep_alive = value.time().filter(|time| !time.is_zero()).ok_or("")?;
            Ok(())
        },
    },
];

/// The known key that the author probably meant: the one with the fewest edits, upper case, `_` and `-` aside.
pub(super) fn nearest(unknown: &str) -> Option<&'static str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-', '.'], "");
    let meant = plain(unknown);
    let edits = |key: &ConfigKey| strsim::damerau_levenshtein(&meant, &plain(key.name));
    let (distance, key) = config_keys().map(|key| (edits(key), key)).min_by_key(|(distance, _)| *distance)?;
    let most = (key.name.len() / 3).max(1);
    (distance <= most).then_some(key.name)
}

/// Of the names of variables those that are no key's but look as if they were meant to be one's, each with its cure.
/// Others are left alone: the environment is shared, with what Kubernetes sets beside a service named "rover" for one.
pub(crate) fn misspelt_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let told = names.filter_map(|name| {
        let own = name.strip_prefix("ROVER_")?;
        if config_keys().any(|key| key.variable() == name) {
            return None;
        }
        let near = nearest(own).and_then(|near| config_keys().find(|key| key.name == near))?;
        Some(format!("the variable {name} sets nothing; did you mean {}?", near.variable()))
    });
    let mut told: Vec<String> = told.collect();
    told.sort();
    told
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::value::ConfigValue;
    use super::*;

    #[test]
    fn misspelt_variables_are_told() {
        let told = |names: &[&str]| misspelt_variables(names.iter().map(|name| (*name).to_owned()));
        assert_eq!(
            told(&["ROVER_LOGLEVEL", "ROVER_BODY_LIMIT", "ROVER_PORT", "PORT"]),
            [
                "the variable ROVER_BODY_LIMIT sets nothing; did you mean ROVER_BODY_SIZE_LIMIT?",
                "the variable ROVER_LOGLEVEL sets nothing; did you mean ROVER_LOG_LEVEL?",
            ]
        );
        let others = [
            "ROVER_PREDECESSOR",
            "ROVER_SERVICE_HOST",
            "ROVER_SERVICE_PORT",
            "ROVER_SERVICE_PORT_HTTP",
            "ROVER_PORT_80_TCP",
            "ROVER_PORT_80_TCP_ADDR",
            "ROVER_PORT_80_TCP_PORT",
            "ROVER_PORT_80_TCP_PROTO",
            "ROVER_COLOURS",
        ];
        assert!(told(&others).is_empty(), "{:?}", told(&others));
    }

    #[test]
    fn documented_defaults_are_the_defaults() {
        for key in config_keys().filter(|key| key.name != "workers") {
            let mut config = Config::default();
            (key.store)(&mut config, &ConfigValue::Text(key.default.into())).unwrap();
            assert_eq!(config, Config::default(), "{}", key.name);
        }
    }

    #[test]
    fn examples_are_accepted_and_change_something() {
        for key in config_keys() {
            let mut config = Config { workers: 1, ..Config::default() };
            let before = config.clone();
            let text = key.example.trim_matches('"').to_owned();
            (key.store)(&mut config, &ConfigValue::Text(text)).unwrap();
            assert_ne!(config, before, "{}", key.name);
        }
    }

    #[test]
    fn nearest_key() {
        assert_eq!(nearest("prot"), Some("port"));
        assert_eq!(nearest("logLevel"), Some("log_level"));
        assert_eq!(nearest("worker"), Some("workers"));
        assert_eq!(nearest("body_limit"), Some("body_size_limit"));
        assert_eq!(nearest("colours"), None);
    }
}
