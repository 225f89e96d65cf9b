//! `api.stream` and `api.sse`: what goes over the wire, and when producers are called.

use std::io::Read;
use std::net::TcpStream;

use rover_server::Server;

use crate::support::{App, DEADLINE, each_worker_count, wait_until};

fn start(code: &str, workers: usize) -> App {
    App::start(&format!("local api = rover.server {{ sse = {{ keep_alive = 30 }} }}\n{code}\nreturn api"), workers)
}

/// Reads until the text read so far ends with `end`.
fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(end.as_bytes()) {
        let n = socket.read(&mut byte).unwrap_or(0);
        assert_ne!(n, 0, "the connection ended within {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&byte);
    }
    String::from_utf8(seen).expect("text")
}

const COUNT: &str = "
    local function count(to, nap)
      local n = 0
      return function()
        if nap then rover.sleep(nap) end
        n = n + 1
        if n <= to then return n .. '\\n' end
      end
    end
";

#[test]
fn a_producer_makes_the_body_piece_by_piece() {
    let code = format!(
        "{COUNT}
        function api.plain.get(ctx) return api.stream(200, 'text/csv', count(3)) end
        function api.waits.get(ctx) return api:stream(206, 'text/csv', count(3, 0.001)) end
        function api.headers.get(ctx)
          return api.stream_with_headers(200, 'text/csv', {{ ['X-A'] = 1, ['X-B'] = 'two' }}, count(1)):header('X-C', 'three')
        end
        function api.none.get(ctx) return api.stream(200, 'text/plain', function() end) end
        function api.empty.get(ctx)
          local n = 0
          return api.stream(200, 'text/plain', function() n = n + 1 return n < 1000 and '' or n == 1000 and 'x' or nil end)
        end"
    );
    each_worker_count(|workers| {
        let app = start(&code, workers);
        let answer = app.get("/plain");
        assert_eq!((answer.status, answer.text()), (200, "1\n2\n3\n"));
        assert_eq!(answer.header("content-type"), Some("text/csv"));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        let answer = app.get("/waits");
        assert_eq!((answer.status, answer.text()), (206, "1\n2\n3\n"));
        let answer = app.get("/headers");
        assert_eq!(["x-a", "x-b", "x-c"].map(|name| answer.header(name)), [Some("1"), Some("two"), Some("three")]);
        assert_eq!(app.get("/none").text(), "");
        assert_eq!(app.get("/empty").text(), "x");
        // The connection goes on after a stream.
        let mut client = app.connect();
        for _ in 0..2 {
            client.send("GET /waits HTTP/1.1\r\nHost: test\r\n\r\n");
            assert_eq!(client.answer().text(), "1\n2\n3\n");
        }
    });
}

#[test]
fn http_1_0_gets_a_body_that_ends_with_the_connection() {
    let app =
        start(&format!("{COUNT} function api.get() return api.stream(200, 'text/plain', count(3, 0.001)) end"), 1);
    let mut client = app.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let answer = client.rest();
    assert!(answer.ends_with("\r\n\r\n1\n2\n3\n"), "{answer}");
    assert!(!answer.contains("chunked"), "{answer}");
}

#[test]
fn head_does_not_run_the_producer() {
    let code = "
        local ran = 0
        function api.get() return api.stream(200, 'text/csv', function() ran = ran + 1 end) end
        function api.sse.get() return api.sse(function() ran = ran + 1 end) end
        function api.ran.get() return ran end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        let mut client = app.connect();
        for (path, kind) in [("/", "text/csv"), ("/sse", "text/event-stream")] {
            client.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
            let answer = client.head_answer();
            assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)));
        }
        client.send("GET /ran HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.answer().text(), "0");
    });
}

#[test]
fn a_producer_that_fails_never_ends_its_stream_cleanly() {
    let code = "
        local function first_then(rest)
          local n = 0
          return api.stream(200, 'text/plain', function() n = n + 1 if n == 1 then return 'first' end return rest() end)
        end
        function api.raises.get() return first_then(function() error('boom') end) end
        function api.waits.get() return first_then(function() rover.sleep(0.001) error({ 1 }) end) end
        function api.fails.get() return first_then(function() return nil, 'disk full' end) end
        function api.wrong.get() return first_then(function() return {} end) end
        function api.event.get() return api.sse(function() return { id = 'a\\nb' } end) end
        function api.empty_event.get() return api.sse(function() return {} end) end
        function api.ok.get() return 'ok' end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        for path in ["/raises", "/waits", "/fails", "/wrong", "/event", "/empty_event"] {
            let mut client = app.connect();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
            let answer = client.rest();
            // Where the producer has not waited, the head is still on its way to the socket, and breaks off as well.
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
            assert!(path != "/waits" || answer.ends_with("\r\n\r\n5\r\nfirst\r\n"), "{path}: {answer}");
            assert!(!answer.ends_with("0\r\n\r\n"), "{path}: {answer}");
            let mut client = app.connect();
            client.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
            client.rest();
        }
        assert_eq!(app.get("/ok").text(), "ok");
    });
}

#[test]
fn a_client_that_goes_away_cancels_the_producer() {
    let code = "
        local began, cleaned = 0, 0
        local function forever()
          began = began + 1
          local ok, err = pcall(rover.sleep, 1000)
          cleaned = cleaned + 1
          error(err, 0)
        end
        function api.stream.get() return api.stream(200, 'text/plain', forever) end
        function api.sse.get() return api.sse(forever) end
        function api.state.get() return began .. ' ' .. cleaned end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        for path in ["/stream", "/sse"] {
            for _ in 0..workers {
                let mut client = app.connect();
                client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
                read_until(client.socket(), "\r\n\r\n");
            }
        }
        wait_until(|| (0..workers).all(|_| app.get("/state").text() == "2 2"));
    });
}

/// What a client does not read is not made.
#[test]
fn a_slow_client_holds_its_producer_back() {
    let code = "
        local made = 0
        local piece = ('x'):rep(65536)
        function api.get() return api.stream(200, 'text/plain', function() made = made + 1 if made <= 1600 then return piece end end) end
        function api.made.get() return made end";
    let app = start(code, 1);
    let mut client = app.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    read_until(client.socket(), "\r\n\r\n");
    let made = || app.get("/made").text().parse::<usize>().expect("a number");
    // Another request is answered only between two pieces, so a producer that could go on would have.
    let mut before = 0;
    wait_until(|| {
        let now = made();
        let stands = now == before && now > 0;
        before = now;
        std::thread::sleep(std::time::Duration::from_millis(50));
        stands
    });
    // 100 MB in all; the kernel's buffers take a few.
    assert!(before < 400, "{before} pieces were made");
    let mut rest = Vec::new();
    let socket = client.socket();
    let mut space = vec![0; 1 << 20];
    while !rest.ends_with(b"0\r\n\r\n") {
        let n = socket.read(&mut space).expect("the rest");
        assert_ne!(n, 0);
        rest.extend_from_slice(&space[..n]);
    }
    assert!(rest.len() > 1600 * 65536);
}

#[test]
fn a_producer_that_never_waits_lets_others_run() {
    let code = "
        local stop = false
        function api.get() return api.stream(200, 'text/plain', function() if not stop then return 'x' end end) end
        function api.idle.get() return api.stream(200, 'text/plain', function() if not stop then return '' end end) end
        function api.stop.get() stop = true return 'stopped' end";
    let app = start(code, 1);
    let readers: Vec<_> = ["/", "/idle"]
        .map(|path| {
            let mut client = app.connect();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
            std::thread::spawn(move || client.answer().text().len())
        })
        .into();
    assert_eq!(app.get("/stop").text(), "stopped");
    for reader in readers {
        reader.join().expect("a whole body");
    }
}

#[test]
fn events_have_the_form_of_the_standard() {
    let code = r#"
        local function each(events)
          local n = 0
          return function() n = n + 1 return events[n] end
        end
        function api.get(ctx)
          local last = ctx:header("last-event-id")
          return api.sse(each {
            "plain", "two\nlines", "a\r\nb\rc\n", "", 7,
            { event = "tick", id = 12, data = "x" }, { data = { n = 1 } }, { retry = 250 }, { id = "", data = last },
          }, 1500)
        end
        function api.status.get() return api.sse:status(201, each { "x" }) end
        function api.bytes.get() return api.sse(each { { event = "e", data = true } }):header("X-A", "b") end"#;
    each_worker_count(|workers| {
        let app = start(code, workers);
        let answer = app.send("GET / HTTP/1.1\r\nHost: test\r\nLast-Event-ID: 41\r\n\r\n");
        assert_eq!(
            answer.text(),
            "retry: 1500\n\ndata: plain\n\ndata: two\ndata: lines\n\ndata: a\ndata: b\ndata: c\ndata: \n\ndata: \n\n\
             data: 7\n\nevent: tick\nid: 12\ndata: x\n\ndata: {\"n\":1}\n\nretry: 250\n\nid: \ndata: 41\n\n"
        );
        let expected =
            [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")];
        for (name, value) in expected {
            assert_eq!(answer.all(name), [value]);
        }
        let answer = app.get("/status");
        assert_eq!((answer.status, answer.text()), (201, "data: x\n\n"));
        let answer = app.get("/bytes");
        assert_eq!((answer.header("x-a"), answer.text()), (Some("b"), "event: e\ndata: true\n\n"));
    });
}

#[test]
fn a_silent_stream_of_events_sends_comments() {
    let code = "
        local api = rover.server { sse = { keep_alive = 0.01 } }
        function api.get() return api.sse(function() rover.sleep(1000) end) end
        return api";
    each_worker_count(|workers| {
        let app = App::start(code, workers);
        let mut client = app.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        for _ in 0..3 {
            read_until(client.socket(), "3\r\n:\n\n\r\n");
        }
    });
}

/// A stream of events ends when the server stops, for it would never end by itself; another one is finished.
#[test]
fn streams_when_the_server_stops() {
    let code = "
        local stopping = false
        function api.events.get() return api.sse(function() rover.sleep(1000) end) end
        function api.file.get()
          local n = 0
          return api.stream(200, 'text/plain', function()
            n = n + 1
            if n == 1 then return 'first ' end
            if n == 2 then rover.sleep(0.3) return 'last' end
          end)
        end";
    each_worker_count(|workers| {
        let mut app = start(code, workers);
        let mut events = app.connect();
        events.send("GET /events HTTP/1.1\r\nHost: test\r\n\r\n");
        read_until(events.socket(), "\r\n\r\n");
        let mut file = app.connect();
        file.send("GET /file HTTP/1.1\r\nHost: test\r\n\r\n");
        read_until(file.socket(), "first \r\n");
        let began = std::time::Instant::now();
        app.begin_stop();
        assert_eq!(events.rest(), "0\r\n\r\n");
        assert_eq!(file.rest(), "4\r\nlast\r\n0\r\n\r\n");
        app.ended();
        assert!(began.elapsed() < DEADLINE / 2);
    });
}

#[test]
fn one_that_is_never_sent_does_not_keep_the_version_before_a_reload() {
    let code = "
        local ends = rover.shared.ends
        function api.on_shutdown() ends:incr('shutdown', 1, 0) end
        function api.ends.get() return ends:get('shutdown') or 0 end
        local kept
        function api.unsent.get()
          kept = { api.stream(200, 'text/plain', function() end), api.sse(function() end) }
          return 'other'
        end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        for _ in 0..workers * 2 {
            assert_eq!(app.get("/unsent").text(), "other");
        }
        app.reload().expect("it loads again");
        wait_until(|| app.get("/ends").text() == workers.to_string());
    });
}

#[test]
fn mistakes_raise_where_the_app_made_them() {
    let code = "
        local function wrong(fn, ...) return select(2, pcall(fn, ...)) end
        function api.get()
          local f = function() end
          local out = {
            wrong(api.stream, 200, 'text/plain'), wrong(api.stream, 99, 'text/plain', f), wrong(api.stream, 200, nil, f),
            wrong(api.stream, 200, 'a\\nb', f), wrong(api.stream_with_headers, 200, 'text/plain', f),
            wrong(api.stream_with_headers, 200, 'text/plain', { ['Content-Length'] = -1 }, f), wrong(api.sse), wrong(api.sse, f, 0.5),
          }
          return out
        end
        local kept
        function api.twice.get()
          kept = kept or api.stream(200, 'text/plain', function() end)
          return kept
        end
        function api.late.get(ctx)
          local n = 0
          return api.stream(200, 'text/plain', function()
            n = n + 1
            if n == 1 then return (select(2, pcall(ctx.header, ctx, 'host'))) end
          end)
        end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        let answer = app.get("/");
        let messages: Vec<String> = serde_json::from_str(answer.text()).expect("JSON");
        let expected = [
            "a producer is a function, not nil",
            "a status is a whole number from 200 to 599, not 99",
            "a content type is a string, not nil",
            "the value of the header content-type has a control character in it",
            "the headers of a stream are a table, not a function",
            "the Content-Length of a stream is a whole number of bytes, below 10^15",
            "a producer is a function, not nil",
            "retry is a whole number of milliseconds, not 0.5",
        ];
        for (message, expected) in messages.iter().zip(expected) {
            assert!(message.ends_with(expected), "{message}");
        }
        assert_eq!(messages.len(), expected.len());
        let mut client = app.connect();
        for status in [200, 500] {
            client.send("GET /twice HTTP/1.1\r\nHost: test\r\n\r\n");
            assert_eq!(client.answer().status, status);
        }
        assert!(app.get("/late").text().contains("this request is over"));
    });
}

#[test]
fn without_a_socket_a_stream_is_read_to_its_end() {
    let code = format!(
        "local api = rover.server {{}} {COUNT} function api.get() return api.stream(200, 'text/csv', count(2)) end return api"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let app = Server::from_source("app.lua", code).load().expect("the app loads");
    let response = runtime.block_on(app.request(http::Request::get("/").body("").expect("a request")));
    assert_eq!(response.body(), "1\n2\n");
    let response = runtime.block_on(app.request(http::Request::head("/").body("").expect("a request")));
    assert_eq!(response.body(), "");
}
