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

#[test]
fn the_contract_s_defaults() {
    let config = resolve(&[], &[], &none()).unwrap();
    assert_eq!(config.host.to_string(), "127.0.0.1");
    assert_eq!(config.port, 4242);
    assert_eq!(config.workers, num_cpus::get());
    assert_eq!(config.log_level, Level::Info);
    assert!(!config.debug && config.access_log);
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
    let overrides = Overrides { port: Some(3), ..none() };
    let config = resolve(&app, &env, &overrides).unwrap();
    assert_eq!((config.port, config.workers, config.debug), (3, 2, true), "override, variable, table");
    assert_eq!(config.host, Config::default().host, "nil leaves the default");
}

#[test]
fn overrides_are_taken() {
    let overrides = Overrides {
        host: Some("::1".into()),
        port: Some(1),
        workers: Some(1),
        log_level: Some(Level::Nope),
        access_log: Some(false),
        debug: Some(true),
        body_size_limit: Some(1),
        body_timeout: Some(Duration::from_millis(1)),
        shutdown_timeout: Some(Duration::from_millis(2)),
        trailing_slash: Some(TrailingSlash::Redirect),
        named: vec![("shutdown_timeout".to_owned(), "3s".to_owned()), ("tls.self_signed".to_owned(), "yes".to_owned())],
    };
    let names: Vec<_> = overrides.values().map(|(name, _)| name).collect();
    assert!(names.iter().all(|name| find(name).is_some()), "{names:?}");
    let config = resolve(&[], &[], &overrides).unwrap();
    assert_eq!(config.body_timeout, Duration::from_millis(1));
    assert_eq!(config.log_level, Level::Nope);
    assert_eq!(config.trailing_slash, TrailingSlash::Redirect);
    assert_eq!(config.shutdown_timeout, Duration::from_secs(3), "what is named comes last");
    assert!(config.tls.self_signed);
    let overrides = Overrides { named: vec![("prot".to_owned(), "1".to_owned())], ..none() };
    let mistakes = resolve(&[], &[], &overrides).unwrap_err();
    assert_eq!(mistakes, ["set: unknown config key \"prot\", did you mean \"port\"?"]);
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
    let overrides = Overrides { workers: Some(5000), ..none() };
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
            "ROVER_LOG_LEVEL must be \"debug\", \"info\", \"warn\", \"error\" or \"nope\", got \"loud\"",
            "workers must be a whole number from 1 to 1024, got 5000",
        ]
    );
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
