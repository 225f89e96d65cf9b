//! Calls that do not come back: what else of the server goes on, and when it is better to end.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rover_server::{Level, Server};

use crate::lua::modules::Folder;
use crate::support::websocket::WebSocket;
use crate::support::{App, DEADLINE, wait_until};

/// A server whose function `block` holds its worker for longer than a test takes.
fn server(code: &str) -> Server {
    let code = format!("local api = rover.server {{}} {code} function api.get() return 'on' end return api");
    let server = Server::from_source("app.lua", code).function("block", |_, ()| {
        thread::sleep(3 * DEADLINE);
        Ok(())
    });
    server.handler_cpu_limit(Duration::ZERO).port(0).log_level(Level::Off)
}

const BLOCK: &str = "function api.block.get() block() end";

#[test]
fn the_websockets_of_a_lost_worker_are_cut() {
    let code = format!("{BLOCK} function api.chat.ws(ws) function ws.listen.text(text) ws.send_text(text) end end");
    let app = App::start_server(server(&code).workers(1).worker_stall_limit(Duration::from_millis(100)));
    let mut client = WebSocket::connect(&app, "/chat");
    client.text("hello");
    assert_eq!(client.read(), "hello");
    let mut blocked = app.connect();
    blocked.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(blocked.rest(), "");
    assert!(client.frame().is_none());
    assert_eq!(app.get("/").text(), "on");
}

#[test]
fn a_call_that_does_not_come_back_holds_no_stop_up() {
    let server =
        server(BLOCK).workers(1).worker_stall_limit(Duration::ZERO).shutdown_timeout(Duration::from_millis(100));
    let mut app = App::start_server(server);
    let mut client = app.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.answer().text(), "on");
    client.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
    let began = Instant::now();
    app.begin_stop();
    app.ended();
    assert!(began.elapsed() < DEADLINE / 2);
    assert_eq!(client.rest(), "");
}

/// A server whose only worker has been lost. Its app asks `is_lost()` for that.
fn without_its_worker(code: &str) -> App {
    let is_lost = Arc::new(AtomicBool::new(false));
    let lost = is_lost.clone();
    let server = server(code).workers(1).worker_stall_limit(Duration::from_millis(100));
    let app = App::start_server(server.function("is_lost", move |_, ()| Ok(lost.load(Ordering::SeqCst))));
    is_lost.store(true, Ordering::SeqCst);
    let mut client = app.connect();
    client.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.rest(), "");
    app
}

#[test]
fn a_worker_that_is_being_replaced_holds_no_stop_up() {
    let code = format!("{BLOCK} function api.on_start() if is_lost() then rover.sleep(1000) end end");
    let mut app = without_its_worker(&code);
    let began = Instant::now();
    app.begin_stop();
    app.ended();
    assert!(began.elapsed() < DEADLINE / 2);
}

#[test]
fn a_client_that_waits_for_a_worker_holds_no_stop_up() {
    let mut app = without_its_worker(&format!("if is_lost() then error('broken') end {BLOCK}"));
    let mut waiting = app.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let patience = Some(Duration::from_millis(300));
    waiting.socket().set_read_timeout(patience).unwrap();
    assert!(waiting.socket().read(&mut [0]).is_err(), "there is no worker to answer");
    app.begin_stop();
    wait_until(|| app.has_ended());
}

#[test]
fn a_worker_whose_on_start_waits_for_ever_is_started_again() {
    let is_lost = Arc::new(AtomicBool::new(false));
    let lost = is_lost.clone();
    let code = format!("{BLOCK} function api.on_start() if is_lost() then rover.sleep(1000) end end");
    let server = server(&code).workers(1).worker_stall_limit(Duration::from_millis(100)).set("reload_timeout", "200ms");
    let app = App::start_server(server.function("is_lost", move |_, ()| Ok(lost.swap(false, Ordering::SeqCst))));
    is_lost.store(true, Ordering::SeqCst);
    let mut client = app.connect();
    client.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.rest(), "");
    assert_eq!(app.get("/").text(), "on");
    assert!(!is_lost.load(Ordering::SeqCst));
}

/// Whatever the files are by then, and whatever a reload that failed has made of them.
#[test]
fn a_replacement_runs_the_version_that_serves() {
    let version = |name: &str, on_start: &str| {
        let code = format!(
            "local part = require 'part' local api = rover.server {{}} {BLOCK}
             function api.on_start() {on_start} end
             function api.get() return '{name} of ' .. part .. require 'late' end
             return api"
        );
        [("app.lua", code), ("part.lua", format!("return '{name}'")), ("late.lua", "return ''".to_owned())]
    };
    let folder = Folder::new("losses-version", &[]);
    let write = |version: &[(&str, String)]| {
        for (name, code) in version {
            std::fs::write(folder.0.join(name), code).unwrap();
        }
    };
    std::fs::create_dir_all(&folder.0).unwrap();
    write(&version("one", ""));
    let server = folder.server().workers(1).worker_stall_limit(Duration::from_millis(100));
    let server = server.handler_cpu_limit(Duration::ZERO).function("block", |_, ()| {
        thread::sleep(3 * DEADLINE);
        Ok(())
    });
    let app = App::start_server(server);
    let lose = || {
        let mut client = app.connect();
        client.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.rest(), "");
    };
    assert_eq!(app.get("/").text(), "one of one");
    write(&version("two", "error('rejected')"));
    app.reload().unwrap_err();
    lose();
    assert_eq!(app.get("/").text(), "one of one");
    write(&version("three", ""));
    app.reload().unwrap();
    std::fs::remove_file(folder.0.join("part.lua")).unwrap();
    std::fs::write(folder.0.join("app.lua"), "broken").unwrap();
    assert_eq!(app.get("/").text(), "three of three");
    lose();
    assert_eq!(app.get("/").text(), "three of three");
}

/// What a client gets that sends `GET path`, until the connection ends; `None` where nobody listens.
fn sent_alone(address: &str, path: &str) -> Option<String> {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    Some(answer)
}

#[test]
fn a_route_that_costs_worker_after_worker_is_closed() {
    let code = format!("{BLOCK} function api.after.note(ctx, res) res:header('X-Note', 'seen') end");
    let app = App::start_server(server(&code).workers(2).worker_stall_limit(Duration::from_millis(100)));
    let mut lost = 0;
    let ask = |path: &str| {
        let mut client = app.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        client.rest()
    };
    wait_until(|| {
        let answer = ask("/block");
        lost += usize::from(answer.is_empty());
        answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("{\"error\":\"Service Unavailable\"}")
    });
    // Two more may have been on their way.
    assert!((3..=5).contains(&lost), "{lost}");
    // A connection may still be given to a worker that is not known to be stuck yet.
    for path in ["/block", "/"] {
        let status = if path == "/" { "HTTP/1.1 200 " } else { "HTTP/1.1 503 " };
        wait_until(|| (0..6).all(|_| ask(path).starts_with(status)));
    }
}

/// A server whose workers are lost in calls that do not come back, in as many routes as it takes.
fn with_many_routes() -> Server {
    let routes: String = (0..40).map(|n| format!("function api.block{n}.get() block() end ")).collect();
    server(&routes).worker_stall_limit(Duration::from_millis(1200)).shutdown_timeout(Duration::from_millis(100))
}

#[test]
fn where_some_worker_is_well_the_server_goes_on() {
    let app = App::start_server(with_many_routes().workers(2));
    // Eight may be stuck; the place of the ninth stays empty.
    for n in 0..9 {
        let mut client = app.connect();
        client.send(format!("GET /block{n} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(client.rest(), "");
    }
    for _ in 0..10 {
        assert_eq!(app.get("/").text(), "on");
    }
    assert!(!app.has_ended());
}

#[test]
fn where_no_worker_is_left_the_server_ends_for_a_new_process() {
    let listening = with_many_routes().workers(2).bind().unwrap();
    let address = listening.addresses()[0].strip_prefix("http://").unwrap().to_owned();
    let client =
        thread::spawn(move || (0..40).take_while(|n| sent_alone(&address, &format!("/block{n}")).is_some()).count());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ended = runtime.block_on(listening.run_until(std::future::pending()));
    let message = "too many threads are in calls that do not come back: the server has to be started anew";
    assert_eq!(ended.unwrap_err().to_string(), message);
    let losses = client.join().unwrap();
    // More, where clients come while the last worker is being given up; fewer, where a busy machine holds up a worker.
    assert!(losses >= 5, "{losses} workers were lost");
}
