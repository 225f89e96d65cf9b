//! What a Rust program can do with the library's public names.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use rover_server::{Level, LocalApp, Server, mlua};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::support::{App, DEADLINE, each_worker_count};

const EMPTY: &str = "local api = rover.server {} function api.get() end return api";

fn app(code: &str) -> Server {
    Server::from_source("app.lua", format!("local api = rover.server {{}}\n{code}\nreturn api"))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn get(app: &LocalApp, target: &str) -> Response<Bytes> {
    block_on(app.request(Request::get(target).body("").expect("a request")))
}

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).expect("a body in UTF-8")
}

/// A folder with these files, as a test of its own name.
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    for (file, content) in files {
        std::fs::write(folder.join(file), content).expect("a file");
    }
    folder
}

#[test]
fn every_worker_sees_the_functions_and_what_they_share() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let server = app("function api.get() return { worker = rover.worker.id, n = next_number(10) } end")
        .workers(3)
        .function("next_number", move |_, more: usize| Ok(count.fetch_add(1, Ordering::Relaxed) + more));
    let app = App::start_server(server);
    let (mut workers, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..3 {
        let answer: Value = serde_json::from_str(app.get("/").text()).expect("JSON");
        workers.insert(answer["worker"].as_u64());
        numbers.insert(answer["n"].as_u64());
    }
    assert_eq!(workers, BTreeSet::from([Some(1), Some(2), Some(3)]));
    assert_eq!(numbers, BTreeSet::from([Some(10), Some(11), Some(12)]));
}

#[test]
fn an_async_function_lets_its_worker_serve_others() {
    let barrier = Arc::new(Barrier::new(2));
    let server = app("function api.get() return meet() and 'the second' or 'the first' end").workers(1).async_function(
        "meet",
        move |_, (): ()| {
            let barrier = barrier.clone();
            async move { Ok(barrier.wait().await.is_leader()) }
        },
    );
    let app = App::start_server(server);
    // Neither is answered before both wait at the barrier.
    let (mut one, mut other) = (app.connect(), app.connect());
    one.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    other.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let answers = BTreeSet::from([one.answer().text().to_owned(), other.answer().text().to_owned()]);
    assert_eq!(answers, BTreeSet::from(["the first".to_owned(), "the second".to_owned()]));
}

#[test]
fn async_results_arguments_and_waits_one_after_the_other() {
    each_worker_count(|workers| {
        let server = app("function api.get() local a, b = swap(1, 'x') local c = swap(a, b) return a .. b .. c end")
            .workers(workers)
            .async_function("swap", |_, (a, b): (mlua::Value, mlua::Value)| async move {
                tokio::task::yield_now().await;
                Ok((b, a))
            });
        let app = App::start_server(server);
        let mut client = app.connect();
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
            assert_eq!(client.answer().text(), "x11");
        }
    });
}

#[test]
fn a_client_that_goes_away_drops_what_its_handler_waits_for() {
    struct Dropped(mpsc::Sender<&'static str>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    let (sender, events) = mpsc::channel();
    let server = app("function api.get() forever() end").workers(1).async_function("forever", move |_, (): ()| {
        let guard = Dropped(sender.clone());
        async move {
            let _ = guard.0.send("waits");
            pending::<()>().await;
            drop(guard);
            Ok(())
        }
    });
    let app = App::start_server(server);
    let mut client = app.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(events.recv_timeout(DEADLINE), Ok("waits"));
    drop(client);
    assert_eq!(events.recv_timeout(DEADLINE), Ok("dropped"));
}

#[test]
fn errors_of_functions_are_plain_words_with_the_callers_line() {
    let code = "
        function api.sync.get() fail() end
        function api.async.get() fail_later() end
        function api.wrong.get() double('many') end
        function api.wrong_later.get() double_later('many') end
        function api.caught.get()
          local _, one = pcall(fail)
          local _, two = pcall(double, {})
          local _, three = pcall(function() double_later({}) end)
          return ('%s: %s; %s: %s; %s: %s'):format(type(one), one, type(two), two, type(three), three)
        end";
    let app = app(code)
        .debug(true)
        .log_level(Level::Off)
        .function("fail", |_, (): ()| -> mlua::Result<()> { Err(mlua::Error::external("the disk is full")) })
        .async_function("fail_later", |_, (): ()| async move {
            tokio::task::yield_now().await;
            Err::<(), _>(mlua::Error::runtime("the disk is full"))
        })
        .function("double", |_, n: i64| Ok(2 * n))
        .async_function("double_later", |_, n: i64| async move { Ok(2 * n) })
        .load()
        .expect("the app loads");
    let message = |target: &str| {
        let answer = get(&app, target);
        assert_eq!(answer.status(), 500, "{target}");
        let body: Value = serde_json::from_slice(answer.body()).expect("JSON");
        body["message"].as_str().expect("a message").to_owned()
    };
    assert_eq!(message("/sync"), "app.lua:3: the disk is full");
    assert_eq!(message("/async"), "app.lua:4: the disk is full");
    assert_eq!(message("/wrong"), "app.lua:5: bad argument #1: expected number, got string");
    assert_eq!(message("/wrong_later"), "app.lua:6: bad argument #1: expected number, got string");
    assert_eq!(
        text(&get(&app, "/caught")),
        "string: app.lua:8: the disk is full; string: app.lua:9: bad argument #1: expected number, got table; \
         string: app.lua:10: bad argument #1: expected number, got table"
    );
}

#[test]
fn modules_are_made_once_for_each_worker() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let code = "assert(require 'units' == require 'units') function api.get() return require('units').dozen end";
    let server = app(code).workers(2).module("units", move |lua| {
        count.fetch_add(1, Ordering::Relaxed);
        let units = lua.create_table()?;
        units.set("dozen", 12)?;
        Ok(units)
    });
    let app = App::start_server(server);
    assert_eq!(app.get("/").text(), "12");
    assert_eq!(made.load(Ordering::Relaxed), 2);
}

#[test]
fn setup_runs_before_the_app_and_can_stop_the_start() {
    let app = app("local name = greeting function api.get() return name end")
        .setup(|lua| lua.globals().set("greeting", "hi"))
        .load()
        .expect("the app loads");
    assert_eq!(text(&get(&app, "/")), "hi");

    let server = Server::from_source("app.lua", EMPTY).setup(|_| Err(mlua::Error::runtime("no licence")));
    let error = server.check().expect_err("a failed setup");
    assert!(error.is_app() && !error.is_io());
    assert_eq!(error.to_string(), "no licence");
}

#[test]
fn an_app_in_a_file_requires_what_lies_beside_it() {
    let files = [
        ("app.lua", "local api = rover.server {} function api.get() return require('part').name end return api"),
        ("part.lua", "return { name = ... }"),
    ];
    let file = folder("beside", &files).join("app.lua");
    let app = Server::from_file(&file).load().expect("the app loads");
    assert_eq!(text(&get(&app, "/")), "part");
    let info = Server::from_file(&file).check().expect("the app loads");
    let route = &info.routes()[0];
    assert_eq!((route.method.as_str(), route.path.as_str(), route.line), ("GET", "/", 1));
    assert_eq!(route.file, file.display().to_string());
}

#[test]
fn check_tells_every_mistake() {
    let error =
        app("function api.users.gett() end\nfunction api.users.p_id.get() end\nfunction api.users.p_uid.get() end")
            .check()
            .expect_err("mistakes");
    assert!(error.is_app() && !error.is_io());
    let message = error.to_string();
    assert!(message.contains("app.lua:2: ") && message.contains("did you mean 'get'?"), "{message}");
    assert!(message.contains("app.lua:4: "), "{message}");

    let error = Server::from_file("nowhere/app.lua").check().expect_err("no such file");
    assert_eq!(error.to_string(), "cannot read nowhere/app.lua: no such file");
    assert!(error.is_app());
}

#[test]
fn an_address_in_use_is_an_error_of_the_system() {
    let app = App::start(EMPTY, 1);
    let server = Server::from_source("app.lua", EMPTY).port(app.address.port()).workers(1).log_level(Level::Off);
    let error = server.bind().expect_err("the port is taken");
    assert!(error.is_io() && !error.is_app());
    assert!(error.to_string().contains(&app.address.to_string()), "{error}");
}

#[test]
fn what_rust_sets_wins_over_the_app() {
    let code = "local api = rover.server { body_size_limit = 100, debug = true }
        function api.post(ctx) return #ctx:body() end
        function api.get() error('secret') end
        return api";
    let app = App::start_server(Server::from_source("app.lua", code).workers(1).body_size_limit(4).debug(false));
    assert_eq!(app.post("/", "1234").text(), "4");
    assert_eq!(app.post("/", "12345").status, 413);
    assert!(!app.get("/").text().contains("secret"));
}

#[test]
fn a_loaded_app_answers_without_a_socket() {
    let code = "
        function api.before.id(ctx) ctx:request_id() end
        function api.echo.p_name.post(ctx)
          return { name = ctx:params().name, body = ctx:json(), ip = ctx.ip, host = ctx.host, path = ctx.path }
        end
        function api.wait.get() return later('done') end";
    let app = app(code)
        .async_function("later", |_, text: String| async move {
            tokio::task::yield_now().await;
            Ok(text)
        })
        .load()
        .expect("the app loads");
    let request =
        Request::post("/echo/a%20b?q=1").header("Content-Type", "application/json").body("[1,{}]").expect("a request");
    let answer = block_on(app.request(request));
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("x-request-id"));
    let body: Value = serde_json::from_slice(answer.body()).expect("JSON");
    let expected =
        json!({"name": "a b", "body": [1, {}], "ip": "127.0.0.1", "host": "localhost", "path": "/echo/a%20b"});
    assert_eq!(body, expected);
    assert_eq!(text(&get(&app, "/wait")), "done");
    assert_eq!(get(&app, "/nowhere").status(), 404);
}

#[test]
fn hooks_run_in_the_order_of_a_servers_life() {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let book = notes.clone();
    let code = "
        function api.on_start() note('start') end
        function api.on_ready() note('ready') end
        function api.on_shutdown() note('shutdown') end
        function api.get() note('request') end";
    let server = app(code).workers(2).function("note", move |_, text: String| {
        book.lock().map_err(|_| mlua::Error::runtime("poisoned"))?.push(text);
        Ok(())
    });
    let app = App::start_server(server);
    assert_eq!(app.get("/").status, 204);
    drop(app);
    let notes = notes.lock().expect("notes");
    let mut middle = notes[2..4].to_vec();
    middle.sort();
    assert_eq!(notes[..2], ["start", "start"]);
    assert_eq!(middle, ["ready", "request"]);
    assert_eq!(notes[4..], ["shutdown", "shutdown"]);
}

#[test]
fn a_dropped_server_gives_its_port_back() {
    let server = Server::from_source("app.lua", EMPTY).port(0).workers(1).log_level(Level::Off);
    let listening = server.clone().bind().expect("a free port");
    let port: u16 = listening.addresses()[0].rsplit(':').next().expect("a port").parse().expect("a number");
    assert_eq!(listening.app().routes().len(), 1);
    drop(listening);
    server.port(port).bind().expect("the same port");
}

#[test]
fn a_panic_in_a_function_fails_its_request_alone() {
    let code = "function api.get() return 'fine' end function api.sync.get() crash() end function api.async.get() crash_later() end";
    let server = app(code)
        .workers(1)
        // The backtrace of a panic takes its time, the more under a sanitizer.
        .handler_cpu_limit(Duration::ZERO)
        .function("crash", |_, (): ()| -> mlua::Result<()> { panic!("a bug in the program") })
        .async_function("crash_later", |_, (): ()| async move {
            tokio::task::yield_now().await;
            if true {
                panic!("another bug in the program");
            }
            Ok(())
        });
    let app = App::start_server(server);
    for target in ["/sync", "/async", "/sync"] {
        assert_eq!(app.get(target).status, 500, "{target}");
        assert_eq!(app.get("/").text(), "fine", "{target}");
    }
}
