//! Waits that are ready at once: whoever goes on from one to the next without end gives way to others, and is stopped.

use std::thread;
use std::time::{Duration, Instant};

use rover_server::Server;

use crate::support::upstream::Upstream;
use crate::support::websocket::WebSocket;
use crate::support::{App, Client, wait_until};

const LIMIT: Duration = Duration::from_millis(200);

/// Loops that wait without ever having to. `url` and `dead` are servers; nobody listens at the second.
const WAITS: [&str; 5] = [
    "while true do pcall(rover.timeout, 1, function() end) end",
    "while true do pcall(rover.all, {}) end",
    "while true do rover.cache.c:get_or('k', 1, function() end) end",
    "while true do broken.get(dead) end",
    "while true do rover.http.post(url, function() return '' end) end",
];

fn server(waits: &str, code: &str, upstream: &Upstream) -> Server {
    let url = upstream.url();
    let code = format!(
        "local api = rover.server {{}}
         local url, dead = '{url}', 'http://127.0.0.1:1'
         local broken = rover.http.create {{ breaker = {{ failures = 1, open_ms = 60000 }} }}
         local function forever() {waits} end
         function api.light.get() return 'light' end
         {code}
         return api"
    );
    Server::from_source("app.lua", code).workers(1)
}

fn start(waits: &str, code: &str, upstream: &Upstream) -> App {
    App::start_server(server(waits, code, upstream).handler_cpu_limit(LIMIT))
}

fn ask(client: &mut Client, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
}

/// Asks for what is light until `is_over`, which is not before a few have been answered.
fn serves_until(app: &App, mut is_over: impl FnMut() -> bool) {
    let mut light = app.connect();
    let began = Instant::now();
    let mut served = 0;
    while !is_over() || served < 5 {
        ask(&mut light, "/light");
        assert_eq!(light.answer().text(), "light");
        served += 1;
        assert!(began.elapsed() < crate::support::DEADLINE, "it goes on for ever");
    }
}

/// Reads one answer on a thread of its own.
fn answers(mut client: Client) -> thread::JoinHandle<(u16, String)> {
    thread::spawn(move || {
        let answer = client.answer();
        (answer.status, answer.text().to_owned())
    })
}

#[test]
fn a_handler_is_stopped_and_others_are_served_meanwhile() {
    let upstream = Upstream::says("x");
    for waits in WAITS {
        let app = start(waits, "function api.busy.get() forever() end", &upstream);
        for _ in 0..2 {
            let mut busy = app.connect();
            ask(&mut busy, "/busy");
            let busy = answers(busy);
            serves_until(&app, || busy.is_finished());
            let (status, text) = busy.join().expect("an answer");
            // A body that never comes to a piece is the mistake of its function, and caught by nobody here.
            assert!(status == 503 || status == 500 && waits.contains("post"), "{waits}: {status} {text}");
        }
    }
}

#[test]
fn a_handler_has_its_time_also_where_it_never_has_to_wait() {
    let upstream = Upstream::says("x");
    for waits in WAITS {
        let server = server(waits, "function api.busy.get() forever() end", &upstream);
        let server = server.handler_cpu_limit(Duration::ZERO).set("handler_timeout", "200ms");
        let app = App::start_server(server);
        let mut busy = app.connect();
        ask(&mut busy, "/busy");
        let busy = answers(busy);
        serves_until(&app, || busy.is_finished());
        assert_eq!(busy.join().expect("an answer").0, 503, "{waits}");
    }
}

#[test]
fn a_client_that_goes_away_cancels_a_handler_that_never_has_to_wait() {
    let upstream = Upstream::says("x");
    let code = "
        local ended = 'no'
        function api.busy.get() local ok, err = pcall(function() while true do rover.timeout(1, function() end) end end)
          ended = err error(err, 0) end
        function api.ended.get() return ended end";
    let app = App::start_server(server("", code, &upstream).handler_cpu_limit(Duration::ZERO));
    let mut busy = app.connect();
    ask(&mut busy, "/busy");
    serves_until(&app, || true);
    drop(busy);
    wait_until(|| app.get("/ended").text() == "cancelled");
}

#[test]
fn a_server_stops_whatever_never_has_to_wait() {
    let upstream = Upstream::says("x");
    for code in [
        "function api.busy.get() forever() end",
        "function api.busy.get() rover.spawn(forever) return api.stream(200, 'text/plain', function() forever() end) end",
        "function api.busy.get() local function again() rover.spawn(again) end again() rover.sleep(1000) end",
        "function api.busy.get() for _ = 1, 20 do rover.spawn(forever) end forever() end",
    ] {
        let server = server(WAITS[0], code, &upstream).handler_cpu_limit(Duration::ZERO);
        let mut app = App::start_server(server.set("shutdown_timeout", "200ms"));
        let mut busy = app.connect();
        ask(&mut busy, "/busy");
        serves_until(&app, || true);
        let began = Instant::now();
        app.begin_stop();
        app.ended();
        assert!(began.elapsed() < Duration::from_secs(10), "{code}");
    }
}

#[test]
fn tasks_are_stopped_and_take_turns() {
    let upstream = Upstream::says("x");
    let code = "
        function api.busy.get()
          local tasks = {}
          for i = 1, 5 do tasks[i] = rover.spawn(forever) end
          local problems = {}
          for i = 1, 5 do problems[i] = tostring(select(2, tasks[i]:join())) end
          return table.concat(problems, '\\n')
        end
        local counts, stop = { 0, 0, 0 }, false
        function api.fair.get()
          local tasks = {}
          for i = 1, 3 do
            tasks[i] = rover.spawn(function()
              while not stop do rover.timeout(1, function() end) counts[i] = counts[i] + 1 end
            end)
          end
          rover.sleep(0.1)
          stop = true
          for i = 1, 3 do tasks[i]:join() end
          return counts
        end";
    for waits in WAITS {
        let app = start(waits, code, &upstream);
        let mut busy = app.connect();
        ask(&mut busy, "/busy");
        let busy = answers(busy);
        serves_until(&app, || busy.is_finished());
        let (status, text) = busy.join().expect("an answer");
        assert_eq!((status, text.lines().count()), (200, 5), "{text}");
        let is_stopped = |line: &str| line.contains("0.2 s of CPU time without a");
        assert!(text.lines().all(is_stopped), "{waits}: {text}");
    }
    let app = App::start_server(server("", code, &upstream).handler_cpu_limit(Duration::from_secs(5)));
    let counts: Vec<u64> = serde_json::from_str(app.get("/fair").text()).expect("three numbers");
    let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
    assert!(*least > 0 && *most < least * 4, "{counts:?}");
}

#[test]
fn producers_are_stopped() {
    let upstream = Upstream::says("x");
    for producer in ["function() return '' end", "forever"] {
        for waits in [WAITS[0], WAITS[4]] {
            let code = format!("function api.busy.get() return api.stream(200, 'text/plain', {producer}) end");
            let app = start(waits, &code, &upstream);
            let mut busy = app.connect();
            ask(&mut busy, "/busy");
            let busy = thread::spawn(move || busy.rest());
            serves_until(&app, || busy.is_finished());
            let rest = busy.join().expect("the end");
            assert!(rest.starts_with("HTTP/1.1 200") && !rest.ends_with("0\r\n\r\n"), "{producer}: {rest}");
        }
    }
    let app = start(WAITS[0], "function api.busy.get() return api.sse(forever) end", &upstream);
    let mut busy = app.connect();
    ask(&mut busy, "/busy");
    let busy = thread::spawn(move || busy.rest());
    serves_until(&app, || busy.is_finished());
    assert!(!busy.join().expect("the end").ends_with("0\r\n\r\n"));
}

#[test]
fn a_producer_that_sends_something_goes_on() {
    let upstream = Upstream::says("x");
    let code = "
        function api.busy.get()
          local pieces = 0
          return api.stream(200, 'text/plain', function()
            if pieces == 100000 then return nil end
            pieces = pieces + 1
            return pieces % 2 == 0 and 'x' or ''
          end)
        end";
    let app = App::start_server(server("", code, &upstream).handler_cpu_limit(Duration::from_millis(20)));
    assert_eq!(app.get("/busy").body.len(), 50_000);
}

#[test]
fn handlers_of_websockets_are_stopped() {
    let upstream = Upstream::says("x");
    let code = "function api.chat.ws(ws) function ws.listen.text(text) forever() end end";
    for waits in [WAITS[0], WAITS[1]] {
        let app = start(waits, code, &upstream);
        let mut client = WebSocket::connect(&app, "/chat");
        client.text("go");
        let ended = thread::spawn(move || client.frame());
        serves_until(&app, || ended.is_finished());
        let (kind, bytes) = ended.join().expect("the thread ends").expect("a good-bye");
        assert_eq!((kind, &bytes[..2]), (crate::support::websocket::CLOSE, &1011_u16.to_be_bytes()[..]));
    }
}

#[test]
fn an_on_start_that_never_has_to_wait_ends_its_version_alone() {
    let upstream = Upstream::says("x");
    for waits in WAITS {
        let server = server(waits, "function api.on_start() if is_bad() then forever() end end", &upstream);
        let is_bad = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let bad = is_bad.clone();
        let server = server
            .handler_cpu_limit(Duration::from_millis(20))
            .function("is_bad", move |_, ()| Ok(bad.load(std::sync::atomic::Ordering::SeqCst)));
        let app = App::start_server(server);
        is_bad.store(true, std::sync::atomic::Ordering::SeqCst);
        let control = app.control.clone();
        let reload = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(control.reload())
        });
        serves_until(&app, || reload.is_finished());
        let problem = reload.join().expect("the thread ends").unwrap_err().to_string();
        assert!(problem.contains("0.2 s of CPU time without a"), "{waits}: {problem}");
        is_bad.store(false, std::sync::atomic::Ordering::SeqCst);
        app.reload().expect("the next one starts");
    }
}
