//! A new version of the app that does not start: the one before serves on, and the next reload finds nothing left of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rover_server::{Level, Server};
use tokio::sync::Notify;

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

#[test]
fn a_worker_that_is_replaced_meanwhile_serves_the_new_version() {
    let code = "local api = rover.server {}
                local number = version()
                function api.get() return rover.worker.id .. ' ' .. number end
                function api.block.get() block() end
                function api.on_start() if is_held() then wait() end end
                return api";
    let (version, is_held) = (Arc::new(AtomicUsize::new(1)), Arc::new(AtomicBool::new(false)));
    let (waiting, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (told, held, waits, released) = (version.clone(), is_held.clone(), waiting.clone(), release.clone());
    let server = Server::from_source("app.lua", code)
        .function("version", move |_, ()| Ok(told.load(Ordering::SeqCst)))
        .function("is_held", move |_, ()| Ok(held.load(Ordering::SeqCst)))
        .function("block", |_, ()| {
            thread::sleep(DEADLINE);
            Ok(())
        })
        .async_function("wait", move |_, ()| {
            waits.fetch_add(1, Ordering::SeqCst);
            let released = released.clone();
            async move {
                released.notified().await;
                Ok(())
            }
        });
    let server = server.handler_cpu_limit(Duration::ZERO).worker_stall_limit(Duration::from_millis(100));
    let app = App::start_server(server.workers(2).log_level(Level::Off));

    is_held.store(true, Ordering::SeqCst);
    let mut client = app.connect();
    client.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.rest(), "");
    wait_until(|| waiting.load(Ordering::SeqCst) == 1);
    // The one that takes the lost worker's place has loaded version 1, and is not ready.
    is_held.store(false, Ordering::SeqCst);
    version.store(2, Ordering::SeqCst);
    app.reload().expect("the worker that is there serves version 2");
    release.notify_one();
    let mut serve = [false; 2];
    wait_until(|| {
        let answer = app.get("/");
        let (worker, version) = answer.text().split_once(' ').unwrap();
        assert_eq!(version, "2");
        serve[worker.parse::<usize>().unwrap() - 1] = true;
        serve == [true; 2]
    });
}

#[test]
fn a_stop_gives_the_version_before_no_second_shutdown_timeout() {
    let code = "function api.wait.get() rover.sleep(1000) end
                function api.on_shutdown() rover.sleep(1000) end";
    let time = Duration::from_secs(6);
    let (mut app, _) = start(code, |server| server.workers(1).shutdown_timeout(time));
    let mut client = app.connect();
    client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    // Answered on a later connection of the same worker: the request before it has begun.
    assert_eq!(app.get("/").text(), "on");
    app.reload().expect("the next version loads");
    let began = Instant::now();
    app.begin_stop();
    app.ended();
    // A moment for the `on_shutdown` of each version is all that comes on top.
    assert!(began.elapsed() < time + Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(client.rest(), "");
}

#[test]
fn an_on_ready_that_waits_for_ever_keeps_no_version() {
    each_worker_count(|workers| {
        let (ready, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (readied, ended) = (ready.clone(), over.clone());
        let code = "function api.on_ready() ready() rover.sleep(1000) end function api.on_shutdown() over() end";
        let (mut app, _) = start(code, |server| {
            let count = |count: Arc<AtomicUsize>| {
                move |_: &mlua::Lua, ()| {
                    count.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }
            };
            server.workers(workers).function("ready", count(readied)).function("over", count(ended))
        });
        for version in 1..=2 {
            wait_until(|| ready.load(Ordering::SeqCst) == version);
            app.reload().unwrap();
            wait_until(|| over.load(Ordering::SeqCst) == version * workers);
        }
        app.begin_stop();
        app.ended();
        assert_eq!(over.load(Ordering::SeqCst), 3 * workers);
    });
}

/// Only the code of the next version has the time of one that starts.
#[test]
fn an_on_start_that_waits_leaves_the_limits_of_the_version_that_serves() {
    let began = Arc::new(AtomicBool::new(false));
    let has_begun = began.clone();
    let code = "function api.on_start() while is_bad() do begun() rover.sleep(0.01) end end
                function api.busy.get() while true do end end";
    let (app, is_bad) = start(code, |server| {
        let server = server.workers(1).debug(true).handler_cpu_limit(Duration::from_millis(100));
        server.function("begun", move |_, ()| {
            began.store(true, Ordering::SeqCst);
            Ok(())
        })
    });
    is_bad.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        let reload = scope.spawn(|| app.reload());
        wait_until(|| has_begun.load(Ordering::SeqCst));
        let answer = app.get("/busy");
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("stopped after 0.1 s of CPU time"), "{}", answer.text());
        is_bad.store(false, Ordering::SeqCst);
        reload.join().unwrap().expect("the next version starts");
    });
}

/// The clock of connections was set for times of a minute; now it is to keep one of 50 ms.
#[test]
fn a_header_timeout_that_has_become_short() {
    let code = "local is_short = is_bad()
        local api = rover.server { header_timeout = is_short and 0.05 or 60, idle_timeout = 60, send_timeout = 60 }
        function api.get() return 'on' end return api";
    let is_bad = Arc::new(AtomicBool::new(false));
    let bad = is_bad.clone();
    let server = Server::from_source("app.lua", code).workers(1);
    let app = App::start_server(server.function("is_bad", move |_, ()| Ok(bad.load(Ordering::SeqCst))));
    is_bad.store(true, Ordering::SeqCst);
    app.reload().unwrap();
    let taken = (0..5).map(|_| {
        let mut client = app.connect();
        let began = Instant::now();
        client.send("GET / HT");
        assert_eq!(client.answer().status, 408);
        began.elapsed()
    });
    // With the clock of before, each would take a second at least.
    assert!(taken.min().unwrap() < Duration::from_millis(700));
}
