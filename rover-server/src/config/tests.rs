//! Precedence of the sources and the wording of mistakes.

use super::*;

type Entry<'a> = (&'a str, ConfigValue);

fn resolve(app: &[Entry<'_>], env: &[(&str, &str)], overrides: &Overrides) -> Result<Config, Vec<String>> {
    let entries: Vec<_> = app.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let table = AppTable { origin: "app.lua:1", entries: &entries };
    let variable = |name: &str| {
        let (_, value) = env.iter().find(|(key, _)| *key == name)?;
        Some((*value).to_owned())
    };
    Config::resolve(table, variable, overrides).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

fn text(text: &str) -> ConfigValue {
    ConfigValue::Text(text.into())
}

fn none() -> Overrides {
    Overrides::default()
}

fn overrides(values: &[Entry<'_>]) -> Overrides {
    let mut overrides = none();
    for (key, value) in values {
        overrides.set(*key, value.clone());
    }
    overrides
}

#[test]
fn the_contract_s_defaults() {
    let config = resolve(&[], &[], &none()).unwrap();
    assert_eq!(config.host.to_string(), "127.0.0.1");
    assert_eq!(config.port, 4242);
    assert_eq!(config.workers, num_cpus::get());
    assert_eq!(config.log_level, Level::Info);
    assert!(!config.debug && !config.management.is_on() && config.slow_request.is_none());
    assert_eq!(config.access_log, AccessLog::Auto);
    assert_eq!(config.body_size_limit, 1 << 20);
    assert_eq!(config.trailing_slash, TrailingSlash::Strict);
    assert_eq!(config.shutdown_timeout, Duration::from_secs(10));
    assert_eq!(config.body_timeout, Duration::from_secs(30));
}

#[test]
fn each_source_wins_over_the_one_before() {
    let app = [
        ("port", ConfigValue::Number(1.0)),
        ("workers", ConfigValue::Number(1.0)),
        ("debug", ConfigValue::Bool(true)),
        ("host", ConfigValue::Nil),
    ];
    let env = [("ROVER_PORT", "2"), ("ROVER_WORKERS", "2")];
    let overrides = overrides(&[("port", ConfigValue::Number(3.0))]);
    let config = resolve(&app, &env, &overrides).unwrap();
    assert_eq!((config.port, config.workers, config.debug), (3, 2, true), "override, variable, table");
    assert_eq!(config.host, Config::default().host, "nil leaves the default");
}

#[test]
fn overrides_are_taken() {
    let mut overrides = Overrides::default();
    overrides.set("host", "::1");
    overrides.set("workers", 1_u64);
    overrides.set("debug", true);
    overrides.set("body_timeout", Duration::from_millis(1));
    overrides.set("shutdown_timeout", Duration::from_millis(2));
    overrides.set("shutdown_timeout", "3s");
    assert!(overrides.has("workers") && !overrides.has("port"));
    let config = resolve(&[], &[], &overrides).unwrap();
    assert_eq!((config.host.to_string().as_str(), config.workers, config.debug), ("::1", 1, true));
    assert_eq!(config.body_timeout, Duration::from_millis(1));
    assert_eq!(config.shutdown_timeout, Duration::from_secs(3), "the last one wins");
    overrides.set("prot", "1");
    let mistakes = resolve(&[], &[], &overrides).unwrap_err();
    assert_eq!(mistakes, ["set: unknown config key \"prot\", did you mean \"port\"?"]);
}

#[test]
fn what_needs_a_restart_stays_as_it_runs() {
    let running = resolve(&[], &[], &none()).unwrap();
    let table = |name: &str, value: ConfigValue| ConfigValue::Table(vec![(name.into(), value)]);
    let app = [
        ("port", ConfigValue::Number(1.0)),
        ("tls", table("self_signed", ConfigValue::Bool(true))),
        ("fs", table("concurrency", ConfigValue::Number(1.0))),
        ("debug", ConfigValue::Bool(true)),
    ];
    let mut next = resolve(&app, &[], &none()).unwrap();
    assert_eq!(next.keep(&running), ["port", "tls.self_signed", "fs.concurrency"]);
    assert_eq!(next, Config { debug: true, ..running });
}

#[test]
fn certificates_in_every_form() {
    let pair = |cert: &str, key: &str| ConfigValue::Table(vec![("cert".into(), text(cert)), ("key".into(), text(key))]);
    let list =
        ConfigValue::List(vec![pair("a.pem", "a.key"), ConfigValue::Table(vec![("cert".into(), text("b.pem"))])]);
    let tls = |value: ConfigValue| {
        let table = ConfigValue::Table(vec![("cert".into(), text("c.pem")), ("certificates".into(), value)]);
        resolve(&[("tls", table)], &[], &none()).map(|config| config.tls.certificates)
    };
    let expected = tls(text("a.pem:a.key, b.pem")).unwrap();
    assert_eq!(expected.len(), 2);
    assert_eq!(tls(list).unwrap(), expected);
    for wrong in [text("a.pem:"), ConfigValue::List(vec![ConfigValue::Bool(true)]), ConfigValue::Number(1.0)] {
        assert!(tls(wrong).is_err());
    }
}

#[test]
fn settings_of_tls_that_do_not_go_together() {
    let table =
        ConfigValue::Table(vec![("key".into(), text("k.pem")), ("redirect_port".into(), ConfigValue::Number(80.0))]);
    assert_eq!(
        resolve(&[("tls", table)], &[], &none()).unwrap_err(),
        [
            "tls.key needs tls.cert, the file of the server's certificate",
            "tls.redirect_port needs tls.cert, the file of the server's certificate",
        ]
    );
    let table = ConfigValue::Table(vec![("cert".into(), text("c.pem")), ("redirect_port".into(), text("443"))]);
    let mistakes = resolve(&[("tls", table), ("port", text("443"))], &[], &none()).unwrap_err();
    assert_eq!(mistakes, ["tls.redirect_port must be another port than port, which speaks https"]);
}

#[test]
fn all_mistakes_at_once_each_with_its_source() {
    let app = [
        ("prot", ConfigValue::Number(3000.0)),
        ("port", text("http")),
        ("workers", ConfigValue::Number(0.0)),
        ("host", ConfigValue::Other("table")),
        ("colours", text("x")),
    ];
    let env = [("ROVER_PORT", "abc"), ("ROVER_LOG_LEVEL", "loud")];
    let overrides = overrides(&[("workers", ConfigValue::Number(5000.0))]);
    let mistakes = resolve(&app, &env, &overrides).unwrap_err();
    assert_eq!(
        mistakes,
        [
            "app.lua:1: unknown config key \"prot\", did you mean \"port\"?",
            "app.lua:1: port must be a whole number from 0 to 65535, got \"http\"",
            "app.lua:1: workers must be a whole number from 1 to 1024, got 0; leave it out for one worker on each core",
            "app.lua:1: host must be an IP address, a host name, or a Unix socket (\"/path\" or \"unix:path\"), got a table",
            "app.lua:1: unknown config key \"colours\", rover --help lists the known ones",
            "ROVER_PORT must be a whole number from 0 to 65535, got \"abc\"",
            "ROVER_LOG_LEVEL must be \"debug\", \"info\", \"warn\", \"error\" or \"off\", got \"loud\"",
            "workers must be a whole number from 1 to 1024, got 5000",
        ]
    );
}

#[test]
fn the_log_is_off_by_two_names() {
    for name in ["off", "nope"] {
        let config = resolve(&[("log_level", text(name))], &[], &none()).unwrap();
        assert_eq!(config.log_level, Level::Off, "{name}");
    }
}

#[test]
fn hints_of_hosts_reach_the_message() {
    let mistakes = resolve(&[("host", text("localhost:80"))], &[], &none()).unwrap_err();
    assert!(mistakes[0].ends_with("got \"localhost:80\"; give the port as port"));
}

#[test]
fn what_the_environment_has_by_accident_is_no_mistake() {
    let env = [("ROVER_PORT", "tcp://10.0.0.1:80"), ("ROVER_HOST", ""), ("ROVER_SERVICE_HOST", "10.0.0.1")];
    assert_eq!(resolve(&[], &env, &none()).unwrap(), Config::default());
}

#[test]
fn settings_that_contradict_each_other() {
    let any = (
        "cors",
        ConfigValue::Table(vec![("credentials".into(), ConfigValue::Bool(true)), ("origins".into(), text("*"))]),
    );
    let alone = ("cors", ConfigValue::Table(vec![("credentials".into(), ConfigValue::Bool(true))]));
    let burst = ("rate_limit", ConfigValue::Table(vec![("burst".into(), ConfigValue::Number(5.0))]));
    for (entry, start) in [
        (any, "app.lua:1: cors.credentials cannot be true where cors.origins is \"*\""),
        (alone, "app.lua:1: cors has settings but no cors.origins"),
        (burst, "app.lua:1: rate_limit has settings but no rate_limit.rate"),
    ] {
        let mistakes = resolve(&[entry], &[], &none()).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(start), "{mistakes:?}");
    }
}

#[test]
fn what_is_unsafe_in_public() {
    let warnings = |app: &[Entry<'_>], has_limits| resolve(app, &[], &none()).unwrap().warnings(has_limits);
    assert!(warnings(&[], false).is_empty(), "the defaults are safe");
    assert!(warnings(&[("host", text("/run/app.sock")), ("debug", ConfigValue::Bool(true))], false).is_empty());
    let cors = || ("cors", ConfigValue::Table(vec![("origins".into(), text("*"))]));
    assert!(warnings(&[cors()], false).is_empty(), "nobody but this machine reaches it");
    let all = [
        ("host", text("0.0.0.0")),
        ("debug", ConfigValue::Bool(true)),
        cors(),
        ("security_headers", ConfigValue::Table(vec![("content_type_options".into(), ConfigValue::Bool(false))])),
    ];
    let found = warnings(&all, false);
    for start in ["debug is on", "cors.origins is", "host is public and speaks", "host is public and there is no rate"]
    {
        assert!(found.iter().any(|warning| warning.starts_with(start)), "{start}: {found:?}");
    }
    assert_eq!(found.len(), 5, "{found:?}");
    assert_eq!(warnings(&all, true).len(), 4, "a route has a limit");
    let behind =
        [("host", text("::")), ("trusted_proxies", text("private")), ("proxy_protocol", ConfigValue::Bool(true))];
    assert!(warnings(&behind, true).is_empty());
    let lenient = ConfigValue::Table(vec![("lenient".into(), ConfigValue::Bool(true))]);
    assert!(warnings(&[("http1", lenient)], false)[0].starts_with("http1.lenient is on: "));
    let found = warnings(&[("trusted_proxies", text("0.0.0.0/0"))], false);
    assert!(found.len() == 1 && found[0].starts_with("trusted_proxies holds"), "{found:?}");
    let table = |entries: &[(&str, ConfigValue)]| {
        ConfigValue::Table(entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    };
    let (on, off) = (ConfigValue::Bool(true), ConfigValue::Bool(false));
    let signed = || ("tls", table(&[("self_signed", on.clone())]));
    for (entries, start) in [
        (vec![signed()], "tls.self_signed is on"),
        (
            vec![
                ("tls", table(&[("cert", text("a.pem"))])),
                ("security_headers", table(&[("strict_transport_security", off)])),
            ],
            "security_headers.strict_transport_security is off",
        ),
        (
            vec![("max_connections", ConfigValue::Number(0.0)), ("trusted_proxies", text("private"))],
            "max_connections is 0",
        ),
        (
            vec![("handler_timeout", ConfigValue::Number(0.0)), ("trusted_proxies", text("private"))],
            "handler_timeout is 0",
        ),
        (
            vec![
                ("cors", table(&[("origins", text("http://a.example")), ("credentials", on.clone())])),
                ("trusted_proxies", text("private")),
            ],
            "cors.credentials is on",
        ),
    ] {
        assert!(warnings(&entries, true).is_empty(), "on this machine: {entries:?}");
        let public: Vec<_> = [("host", text("0.0.0.0"))].into_iter().chain(entries).collect();
        let found = warnings(&public, true);
        assert!(found.len() == 1 && found[0].starts_with(start), "{start}: {found:?}");
    }
    let local = [
        ("host", text("0.0.0.0")),
        ("trusted_proxies", text("private")),
        ("cors", table(&[("origins", text("http://localhost:*, https://a.example")), ("credentials", on)])),
    ];
    assert!(warnings(&local, true).is_empty());
    let management = |host| [("management", table(&[("host", text(host))]))];
    assert!(
        warnings(&management("127.0.0.1"), true).is_empty() && warnings(&management("/run/m.sock"), true).is_empty()
    );
    assert!(warnings(&management("0.0.0.0"), true)[0].starts_with("management.host is public"));
    let found = warnings(&[("host", text("::")), ("proxy_protocol", ConfigValue::Bool(true))], true);
    assert!(found.len() == 1 && found[0].starts_with("proxy_protocol is on"), "{found:?}");
}
