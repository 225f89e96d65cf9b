//! Comes in: nothing; this is the list of every config key. Goes out: each key's documentation, and the function that
//! checks and stores its value. Messages, the names of the environment's variables and the CLI's help derive from it.
//! Must not know: which source a value came from.
//!
//! A new key is a field of `Config` or of its group's settings, its default, and one row here or in the group's file; the
//! tests hold them together.

use std::sync::LazyLock;

use super::key::{ConfigKey, Group};
use super::kind::{Kind, choice, count_in, custom, either, flag, port, size, time};
use super::{
    Host, TrailingSlash, compression, connections, cors, database, http2, load_shedding, operating, otlp, proxies,
    rate_limit, security_headers, socket_file, store, tls, watch, websocket,
};
use crate::log::Level;
use crate::spelling;

/// Every config key, in the order in which documentation shows them.
pub fn config_keys() -> impl Iterator<Item = &'static ConfigKey> {
    KEYS.iter()
}

/// Keys that belong together come from one group, each in a file of its own where it is more than a few.
static KEYS: LazyLock<Vec<ConfigKey>> = LazyLock::new(|| {
    let groups = [
        fixed(),
        general(),
        socket_file::keys(),
        connections::keys(),
        http2::keys(),
        tls::keys(),
        operating::keys(),
        proxies::keys(),
        cors::keys(),
        security_headers::keys(),
        rate_limit::keys(),
        load_shedding::keys(),
        watch::keys(),
        websocket::keys(),
        compression::keys(),
        store::keys(),
        otlp::keys(),
        database::keys(),
    ];
    groups.into_iter().flatten().collect()
});

pub(super) const MOST_WORKERS: u64 = 1024;

/// Where the server listens, and with how many workers.
fn fixed() -> Vec<ConfigKey> {
    Group::of(|config| config)
        .needs_restart()
        .key("host", "address to listen on; \"localhost\" is both loopbacks")
        .takes(Host::kind(), |config| &mut config.host)
        .key("port", "TCP port; 0 picks a free one")
        .takes(port(), |config| &mut config.port)
        .key("workers", "threads, each with a Lua VM of its own")
        .takes(workers(), |config| &mut config.workers)
        .keys()
}

/// What belongs to no group.
fn general() -> Vec<ConfigKey> {
    Group::of(|config| config)
        .key("log_level", "least level that is logged")
        .takes(level(), |config| &mut config.log_level)
        .key("debug", "error messages and tracebacks in answers; not for production")
        .takes(flag(), |config| &mut config.debug)
        .key("body_size_limit", "largest request body; 413 above, 0 refuses every body")
        .takes(size(), |config| &mut config.body_size_limit)
        .key("json_size_limit", "largest value as JSON, or as a table of rover.shared; 0 sets no limit")
        .takes(size(), |config| &mut config.json_size_limit)
        .key("body_timeout", "seconds a client may stop sending its body before 408")
        .takes(time().above_zero(), |config| &mut config.body_timeout)
        .key(
            "body_min_rate",
            "least bytes a second of a body on average, once body_timeout is over, before 408; 0 is no limit",
        )
        .takes(size(), |config| &mut config.body_min_rate)
        .key("shutdown_timeout", "seconds that running requests get to finish after a stop signal")
        .takes(time(), |config| &mut config.shutdown_timeout)
        .key("trailing_slash", "whether /users/ answers 404 or leads to a declared /users, and the reverse")
        .takes(choice(TrailingSlash::WORDS), |config| &mut config.trailing_slash)
        .key(
            "path_normalisation",
            "whether paths are matched in one spelling, with /%61 as /a and /a/../b as /b; off: as sent",
        )
        .takes(on_or_off(), |config| &mut config.path_normalisation)
        .key(
            "path_guards",
            "whether hooks run for all requests at and below their path, whoever answers; off: for the routes declared there",
        )
        .takes(on_or_off(), |config| &mut config.path_guards)
        .key("sse.keep_alive", "seconds of silence after which a stream of events sends a comment")
        .takes(time().above_zero(), |config| &mut config.sse_keep_alive)
        .keys()
}

fn workers() -> Kind<usize> {
    let Kind { takes, read, .. } = count_in(1..=MOST_WORKERS);
    custom(takes, "one for each core", move |value| {
        let hint = match value.whole(0, 0) {
            Some(_) => "; leave it out for one worker on each core",
            None => "",
        };
        read(value).map_err(|_| hint)
    })
}

fn level() -> Kind<Level> {
    let takes = either(Level::ALL.iter().map(|level| level.name()));
    custom(takes, "info", |value| value.text().and_then(Level::from_name).ok_or(""))
}

fn on_or_off() -> Kind<bool> {
    custom("\"on\" or \"off\"", "on", |value| value.truth().ok_or(""))
}

/// The name of the key that the author probably meant.
pub(super) fn nearest(unknown: &str) -> Option<&'static str> {
    spelling::nearest(unknown, config_keys().map(|key| key.name.as_str()))
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
            key.store(&mut config, &key.default.as_str().into()).unwrap();
            assert_eq!(config, Config::default(), "{}", key.name);
        }
    }

    /// Values of which every key takes one that is not its default.
    const PROBES: &str = "true false 3 2000 70000 0.5 warn redirect new forwarded optional 1.3 gzip 100/s 0660 a=1 \
                          10.0.0.0/8 header:X-Api-Key https://example.com sqlite:app.db \
                          reports=sqlite:reports.db";

    #[test]
    fn every_key_sets_a_field_of_its_own() {
        let before = Config { workers: 1, ..Config::default() };
        let set = |key: &ConfigKey, probe: &str| {
            let mut config = before.clone();
            key.store(&mut config, &probe.into()).ok()?;
            (config != before).then_some(config)
        };
        for key in config_keys() {
            let probe = PROBES.split(' ').find(|probe| set(key, probe).is_some());
            let probe = probe.unwrap_or_else(|| panic!("{} takes none of the values", key.name));
            let config = set(key, probe);
            for other in config_keys().filter(|other| other.name != key.name) {
                assert_ne!(set(other, probe), config, "{} and {}", key.name, other.name);
            }
        }
    }

    #[test]
    fn names_stand_alone_and_documentation_is_one_line() {
        for key in config_keys() {
            assert_eq!(config_keys().filter(|other| other.variable() == key.variable()).count(), 1, "{}", key.name);
            for text in [key.what, &key.takes, &key.default] {
                assert!(!text.is_empty() && !text.contains(['\n', '|']), "{}: {text:?}", key.name);
            }
        }
    }

    #[test]
    fn nearest_key() {
        assert_eq!(nearest("worker"), Some("workers"));
        assert_eq!(nearest("body_limit"), Some("body_size_limit"));
        assert_eq!(nearest("colours"), None);
    }
}
