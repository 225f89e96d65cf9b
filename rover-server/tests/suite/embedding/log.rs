//! docs/embedding-log.md: the log goes to the program instead of stderr. A process has one log, so each test has a process.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rover_server::{Level, LogRecord, Server};
use serde_json::json;

use crate::support::apart::is_apart;
use crate::support::{App, wait_until};

const APP: &str = r#"
local api = rover.server { access_log = "text" }
function api.order.get(ctx)
  rover.log.warn("low on stock", { item = "tea", left = 2, tags = { "a", "b" }, time = "never" })
  rover.log.debug("not at this level")
  return "ordered"
end
function api.fails.get() error("out of tea") end
return api
"#;

fn server() -> Server {
    Server::from_source("app.lua", APP).workers(1).log_level(Level::Info)
}

/// Keeps every record.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<LogRecord>>>);

impl Kept {
    fn sink(&self) -> impl Fn(&LogRecord) + Send + Sync + 'static {
        let kept = self.0.clone();
        move |record| kept.lock().expect("no panic").push(record.clone())
    }

    fn with(&self, message: &str) -> Option<LogRecord> {
        self.0.lock().expect("no panic").iter().find(|record| record.message == message).cloned()
    }

    fn wait_for(&self, message: &str) -> LogRecord {
        wait_until(|| self.with(message).is_some());
        self.with(message).expect("it is there")
    }
}

#[test]
fn every_line_comes_as_a_record() {
    if !is_apart("embedding::log::every_line_comes_as_a_record", "") {
        return;
    }
    let kept = Kept::default();
    let began = SystemTime::now() - Duration::from_secs(1);
    let app = App::start_logging(server().log_to(kept.sink()));
    app.get("/order?of=tea");
    let record = kept.wait_for("low on stock");
    assert_eq!((record.level, record.worker), (Level::Warn, Some(1)));
    assert!(record.time > began && record.time <= SystemTime::now());
    assert_eq!(record.field("item"), Some(&json!("tea")));
    assert_eq!(record.field("left"), Some(&json!(2)));
    assert_eq!(record.field("tags"), Some(&json!(["a", "b"])));
    assert_eq!(record.field("time_"), Some(&json!("never")));

    // The line of a request is a record like any other, whatever form `access_log` asks for.
    let request = kept.wait_for("request");
    assert_eq!((request.level, request.worker), (Level::Info, Some(1)));
    assert_eq!(request.field("path"), Some(&json!("/order")));
    assert_eq!(request.field("query"), Some(&json!("of=tea")));
    assert_eq!(request.field("status"), Some(&json!(200)));

    app.get("/fails");
    let is_error = |record: &&LogRecord| record.level == Level::Error;
    wait_until(|| kept.0.lock().expect("no panic").iter().any(|record| is_error(&record)));
    let records = kept.0.lock().expect("no panic").clone();
    let failure = records.iter().find(is_error).expect("it is there");
    assert!(format!("{failure:?}").contains("app.lua:8: out of tea"), "{failure:?}");
    assert_eq!(kept.with("not at this level"), None);

    // All is handed over before the server has ended.
    drop(app);
    let last = kept.0.lock().expect("no panic").len();
    assert!(last >= records.len());
}

#[test]
fn the_sink_given_last_has_the_log_of_all_servers() {
    if !is_apart("embedding::log::the_sink_given_last_has_the_log_of_all_servers", "") {
        return;
    }
    let (first, second) = (Kept::default(), Kept::default());
    let before = App::start_logging(server().log_to(first.sink()));
    before.get("/order");
    first.wait_for("low on stock");
    let without = App::start_logging(server());
    let after = App::start_logging(server().log_to(second.sink()));
    for app in [&before, &without, &after] {
        app.get("/order");
    }
    let count =
        |kept: &Kept| kept.0.lock().expect("no panic").iter().filter(|record| record.message == "low on stock").count();
    wait_until(|| count(&second) == 3);
    assert_eq!(count(&first), 1);
}

#[test]
fn a_sink_that_blocks_or_panics_holds_nobody_up() {
    if !is_apart("embedding::log::a_sink_that_blocks_or_panics_holds_nobody_up", "") {
        return;
    }
    let (blocked, handed) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (stays, count) = (blocked.clone(), handed.clone());
    let app = App::start_logging(server().log_to(move |record: &LogRecord| {
        if record.message == "low on stock" {
            wait_until(|| !stays.load(Ordering::SeqCst));
            count.fetch_add(1, Ordering::SeqCst);
            panic!("a sink that fails");
        }
    }));
    for _ in 0..3 {
        assert_eq!(app.get("/order").text(), "ordered");
    }
    blocked.store(false, Ordering::SeqCst);
    wait_until(|| handed.load(Ordering::SeqCst) == 3);
}

#[test]
fn a_log_on_stderr_stays_there() {
    if !is_apart("embedding::log::a_log_on_stderr_stays_there", "") {
        return;
    }
    let app = App::start_logging(server().log_level(Level::Off));
    let error = server().port(0).log_to(|_| ()).bind().expect_err("the log has its place");
    assert!(error.is_io() && error.to_string().contains("log_to on the first one"), "{error}");
    assert_eq!(app.get("/order").text(), "ordered");
}
