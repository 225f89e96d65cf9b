//! Starting, stopping, and what a failing request leaves alone.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rover_server::Server;
use tokio::sync::Notify;

use crate::support::{App, DEADLINE, wait_until};

/// An app with `park()`, which waits until `release` is notified, and counts who waits.
fn parking(code: &str) -> (Server, Arc<Notify>, Arc<AtomicUsize>) {
    struct Parked(Arc<AtomicUsize>);
    impl Drop for Parked {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let release = Arc::new(Notify::new());
    let parked = Arc::new(AtomicUsize::new(0));
    let (wake, count) = (release.clone(), parked.clone());
    let server = Server::from_source("app.lua", code).workers(1).async_function("park", move |_, ()| {
        let (wake, count) = (wake.clone(), count.clone());
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let _parked = Parked(count);
            wake.notified().await;
            Ok("released")
        }
    });
    (server, release, parked)
}

const PARK: &str = "local api = rover.server { shutdown_timeout = 0.3 } \
                    function api.get() return 'home' end function api.park.get() return park() end return api";

const GET_PARK: &str = "GET /park HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn a_handler_that_waits_leaves_its_worker_free() {
    let (server, release, parked) = parking(PARK);
    let app = App::start_server(server);
    let mut waiting = app.connect();
    waiting.send(GET_PARK);
    wait_until(|| parked.load(Ordering::SeqCst) == 1);
    assert_eq!(app.get("/").text(), "home");
    release.notify_one();
    assert_eq!(waiting.answer().text(), "released");
}

#[test]
fn a_client_that_goes_away_cancels_its_handler() {
    let (server, _release, parked) = parking(PARK);
    let app = App::start_server(server);
    let mut waiting = app.connect();
    waiting.send(GET_PARK);
    wait_until(|| parked.load(Ordering::SeqCst) == 1);
    drop(waiting);
    wait_until(|| parked.load(Ordering::SeqCst) == 0);
    assert_eq!(app.get("/").text(), "home");
}

#[test]
fn a_handler_that_waits_is_cancelled_when_its_client_has_finished_sending() {
    // From the server's side it cannot be told from a client that went away.
    let (server, _release, parked) = parking(PARK);
    let app = App::start_server(server);
    let mut waiting = app.connect();
    waiting.send(GET_PARK);
    wait_until(|| parked.load(Ordering::SeqCst) == 1);
    waiting.socket().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(waiting.rest(), "");
    wait_until(|| parked.load(Ordering::SeqCst) == 0);
}

#[test]
fn idle_clients_that_stay_do_not_hold_the_stop_up() {
    let (server, _release, _parked) = parking(PARK);
    let mut app = App::start_server(server.shutdown_timeout(DEADLINE));
    // Accepted, since a later one is served.
    let mut fresh = app.connect();
    let mut idle = app.connect();
    idle.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(idle.answer().text(), "home");
    let began = Instant::now();
    app.begin_stop();
    app.ended();
    assert!(began.elapsed() < Duration::from_millis(1500), "nobody waits for them to close their side");
    assert_eq!((idle.rest(), fresh.rest()), (String::new(), String::new()));
}

#[test]
fn stopping_lets_requests_finish_and_refuses_new_connections() {
    let (server, release, parked) = parking(PARK);
    let mut app = App::start_server(server.shutdown_timeout(DEADLINE));
    let mut idle = app.connect();
    idle.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(idle.answer().text(), "home");
    let mut waiting = app.connect();
    waiting.send(GET_PARK);
    wait_until(|| parked.load(Ordering::SeqCst) == 1);
    app.begin_stop();
    assert_eq!(idle.rest(), "", "an idle connection ends at once");
    wait_until(|| TcpStream::connect(app.address).is_err());
    release.notify_one();
    let answer = waiting.answer();
    assert_eq!((answer.text(), answer.header("connection")), ("released", Some("close")));
    assert_eq!(waiting.rest(), "");
    app.ended();
}

#[test]
fn a_request_that_does_not_end_is_cut_after_the_shutdown_timeout() {
    let (server, _release, parked) = parking(PARK);
    let mut app = App::start_server(server);
    let mut waiting = app.connect();
    waiting.send(GET_PARK);
    wait_until(|| parked.load(Ordering::SeqCst) == 1);
    let began = Instant::now();
    app.begin_stop();
    app.ended();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(parked.load(Ordering::SeqCst), 0);
    assert_eq!(waiting.rest(), "");
}

#[test]
fn hooks_run_in_every_worker_and_on_ready_once() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let code = "local api = rover.server {} \
                function api.on_start() note(1) end function api.on_ready() note(100) end \
                function api.on_shutdown() note(10000) end function api.get() return 'home' end return api";
    let server = Server::from_source("app.lua", code).workers(3).function("note", move |_, n: usize| {
        count.fetch_add(n, Ordering::SeqCst);
        Ok(())
    });
    let mut app = App::start_server(server);
    wait_until(|| calls.load(Ordering::SeqCst) == 103);
    app.begin_stop();
    app.ended();
    assert_eq!(calls.load(Ordering::SeqCst), 30103);
}

/// What stops `code` from starting on so many workers.
fn refusal(code: &str, workers: usize) -> String {
    let error = Server::from_source("app.lua", code).workers(workers).port(0).bind().unwrap_err();
    assert!(error.is_app());
    error.to_string()
}

#[test]
fn a_worker_that_cannot_load_the_app_stops_the_start() {
    let code = "local api = rover.server {}\nif rover.worker.id == 2 then error('worker two is ill') end\nreturn api";
    assert_eq!(refusal(code, 3), "app.lua:2: worker two is ill");
    let code = "local api = rover.server {}\nfunction api.on_start() error('no database') end\nreturn api";
    assert!(refusal(code, 2).starts_with("on_start failed: app.lua:2: no database"));
    assert!(refusal("local api = rover.server {}\nlocal x = = 1\nreturn api", 1).starts_with("app.lua:2: "));
}

#[test]
fn routes_that_depend_on_the_worker_stop_the_start() {
    let code = "local api = rover.server {}\n\
                if rover.worker.id == 2 then\n\
                function api.extra.get() end\n\
                end\n\
                return api";
    let expected = "worker 2 declares GET /extra (app.lua:3), which worker 1 has not: routes must not depend on the worker, \
                    on time or on chance";
    assert_eq!(refusal(code, 2), expected);
}

#[test]
fn a_panic_fails_its_request_alone() {
    let code = "local api = rover.server {} function api.get() return 'home' end \
                function api.panic.any() return panics() end function api.later.any() return panics_later() end return api";
    let server = Server::from_source("app.lua", code)
        .workers(1)
        .function("panics", |_, ()| -> rover_server::mlua::Result<()> { panic!("on purpose") })
        .async_function("panics_later", |_, ()| async {
            tokio::task::yield_now().await;
            if true {
                panic!("on purpose");
            }
            Ok(())
        });
    let app = App::start_server(server);
    let mut client = app.connect();
    for path in ["panic", "later"] {
        client.send(format!("GET /{path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(client.answer().status, 500, "{path}");
        assert_eq!(app.get("/").text(), "home");
    }
    // What the framing demands holds for these answers as for others.
    for path in ["panic", "later"] {
        let mut client = app.connect();
        let head = format!("POST /{path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(head + "3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.answer().status, 500, "{path}");
        assert_eq!(client.answer().text(), "home", "{path}");
    }
}
