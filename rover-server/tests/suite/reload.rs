//! A new version of the app that does not start: the one before serves on, and the next reload finds nothing left of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rover_server::Server;

use crate::support::{App, DEADLINE, each_worker_count, wait_until};

/// An app whose versions do what `code` says; `is_bad()` tells whether this one is to go wrong, `block()` is a call that
/// does not come back before the test has long been over.
fn start(code: &str, server: impl FnOnce(Server) -> Server) -> (App, Arc<AtomicBool>) {
    let is_bad = Arc::new(AtomicBool::new(false));
    let bad = is_bad.clone();
    let code = format!("local api = rover.server {{}} {code} function api.get() return 'on' end return api");
    let server = server(Server::from_source("app.lua", code))
        .function("is_bad", move |_, ()| Ok(bad.load(Ordering::SeqCst)))
        .function("block", |_, ()| {
            thread::sleep(DEADLINE);
            Ok(())
        });
    (App::start_server(server), is_bad)
}

/// The reload fails with a message that holds `reason`; the version before serves, and the next reload succeeds.
fn is_refused(app: &App, is_bad: &AtomicBool, reason: &str) {
    is_bad.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let error = app.reload().unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
    assert!(began.elapsed() < DEADLINE / 2, "the reload is given up");
    is_bad.store(false, Ordering::SeqCst);
    wait_until(|| app.get("/").text() == "on");
    app.reload().expect("nothing is left of the version that failed");
    assert_eq!(app.get("/").text(), "on");
}

#[test]
fn an_on_start_that_waits_for_ever() {
    each_worker_count(|workers| {
        let code = "function api.on_start() if is_bad() then rover.sleep(1000) end end";
        let (app, is_bad) = start(code, |server| server.workers(workers).set("reload_timeout", "200ms"));
        is_refused(&app, &is_bad, "on_start has not ended within 0.2 s (reload_timeout)");
    });
}

#[test]
fn a_top_level_that_is_stuck_in_a_call() {
    let (app, is_bad) =
        start("if is_bad() then block() end", |server| server.workers(1).worker_stall_limit(Duration::from_millis(50)));
    is_refused(&app, &is_bad, "loading the app is given up: it has been in one call for");
}

#[test]
fn an_on_start_that_is_stuck_in_a_call() {
    each_worker_count(|workers| {
        let code = "function api.on_start() if is_bad() then block() end end";
        let (app, is_bad) = start(code, |server| server.workers(workers).worker_stall_limit(Duration::from_millis(50)));
        is_refused(&app, &is_bad, "was lost before the new version was ready in it");
    });
}

#[test]
fn one_that_nobody_waits_for_any_more() {
    /// Counts the versions whose `on_start` waits.
    struct Waiting(Arc<AtomicUsize>);
    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let waiting = Arc::new(AtomicUsize::new(0));
    let own = waiting.clone();
    let code = "function api.on_start()
                  if is_bad() then
                    rover.every(0.001, function() end)
                    wait()
                  end
                end";
    let (app, is_bad) = start(code, |server| {
        server.workers(1).async_function("wait", move |_, ()| {
            own.fetch_add(1, Ordering::SeqCst);
            let waiting = Waiting(own.clone());
            async move {
                let _waiting = waiting;
                std::future::pending::<()>().await;
                Ok(())
            }
        })
    });
    is_bad.store(true, Ordering::SeqCst);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::select! {
            reloaded = app.control.reload() => panic!("{reloaded:?}"),
            () = async {
                while waiting.load(Ordering::SeqCst) == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            } => {}
        }
    });
    wait_until(|| waiting.load(Ordering::SeqCst) == 0);
    is_bad.store(false, Ordering::SeqCst);
    assert_eq!(app.get("/").text(), "on");
    app.reload().expect("the next one has its turn");
}

#[test]
fn none_while_the_server_stops() {
    let (mut app, _) = start("", |server| server.workers(1).drain_delay(Duration::from_secs(1)));
    app.begin_stop();
    wait_until(|| app.reload().is_err_and(|error| error.to_string() == "the server stops"));
}
