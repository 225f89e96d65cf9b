//! `ctx:proxy` and `api.proxy`: what goes on, what comes back, and what happens when nothing does.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::upstream::{Asked, Then, Upstream, answer, never, raw, refusing, reset};
use crate::support::{App, DEADLINE, each_worker_count, wait_until};

fn start(url: &str, code: &str, workers: usize) -> App {
    App::start(
        &format!("local api = rover.server {{ body_size_limit = 10 }} local url = '{url}'\n{code}\nreturn api"),
        workers,
    )
}

/// Tells in JSON what it was asked.
fn mirror() -> Upstream {
    Upstream::start(|asked, stream| {
        let Asked { method, target, headers, .. } = asked;
        let headers: serde_json::Map<_, _> = headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let told = json!({ "method": method, "target": target, "headers": headers, "body": asked.text() });
        let lines = "Content-Type: application/json\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Up: yes\r\n\
                     Connection: X-Hop\r\nX-Hop: secret\r\nKeep-Alive: timeout=9\r\n";
        answer(stream, "200 OK", lines, told.to_string().as_bytes())
    })
}

const ALL: &str = "
    api.whole['{*path}'].any = api.proxy(url)
    api.below['{*path}'].any = api.proxy(url .. '/base/')
    api.exact['{*path}'].any = api.proxy(url .. '/one?own=1')
    function api.user.p_id.get(ctx) return ctx:proxy(url .. '/people/') end
    function api.plain.get(ctx) return ctx:proxy(url) end
    function api.plain.post(ctx) return ctx:proxy(url) end
    function api.changed.get(ctx)
      local res = ctx:proxy(url, { headers = { ['X-Add'] = 'more', Accept = false }, host = 'preserve', via = true, forwarded = 'append' })
      return res:status(203):header('X-Up', nil):header('X-New', res:status()):cookie('c', '3')
    end
    function api.bare.get(ctx) return ctx:proxy(url, { forwarded = false }) end";

fn told(answer: &crate::support::Answer) -> Value {
    assert_eq!(answer.status / 100, 2, "{}", answer.text());
    serde_json::from_str(answer.text()).expect("JSON")
}

#[test]
fn a_request_goes_on_and_its_answer_comes_back() {
    each_worker_count(|workers| {
        let upstream = mirror();
        let app = start(&upstream.url(), ALL, workers);
        let answer = app.send(
            "GET /whole/a%2Fb?x=1&y HTTP/1.1\r\nHost: front.test:80\r\nX-One: 1\r\nTE: trailers\r\nConnection: keep-alive, X-Mine\r\n\
             X-Mine: hop\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
        );
        let seen = told(&answer);
        assert_eq!((&seen["method"], &seen["target"]), (&json!("GET"), &json!("/whole/a%2Fb?x=1&y")));
        let expected = json!({
            "host": upstream.address.to_string(),
            "x-one": "1",
            "x-forwarded-for": "127.0.0.1",
            "x-forwarded-proto": "http",
            "x-forwarded-host": "front.test:80",
            "forwarded": "for=127.0.0.1;proto=http;host=\"front.test:80\"",
        });
        assert_eq!(seen["headers"], expected);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
        assert_eq!(answer.header("x-up"), Some("yes"));
        for hop in ["connection", "x-hop", "keep-alive", "transfer-encoding"] {
            assert_eq!(answer.header(hop), None, "{hop}");
        }
        // The connection to the upstream is used again.
        told(&app.get("/plain"));
        assert!(upstream.accepted() <= workers);
    });
}

#[test]
fn the_response_and_the_request_can_be_changed() {
    let upstream = mirror();
    let app = start(&upstream.url(), ALL, 1);
    let answer = app.send(
        "GET /changed HTTP/1.1\r\nHost: front.test\r\nAccept: x\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
         Forwarded: for=6.6.6.6\r\n\r\n",
    );
    assert_eq!((answer.status, answer.header("x-up"), answer.header("x-new")), (203, None, Some("203")));
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2", "c=3"]);
    assert_eq!(answer.header("via"), Some("1.1 rover"));
    let expected = json!({
        "host": "front.test",
        "x-add": "more",
        "via": "1.1 rover",
        "x-forwarded-for": "6.6.6.6, 127.0.0.1",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "front.test",
        "forwarded": "for=6.6.6.6, for=127.0.0.1;proto=http;host=front.test",
    });
    assert_eq!(told(&answer)["headers"], expected);
    assert_eq!(told(&app.get("/bare"))["headers"], json!({ "host": upstream.address.to_string() }));
}

#[test]
fn where_a_request_goes() {
    let upstream = mirror();
    let app = start(&upstream.url(), ALL, 1);
    for (path, target) in [
        ("/whole/x/y?q=1", "/whole/x/y?q=1"),
        ("/below/x/y?q=1", "/base/x/y?q=1"),
        ("/below/%41/%2f//b", "/base/A/%2F//b"),
        ("/exact/x?q=1", "/one?own=1"),
        ("/user/42?q=1", "/people/42?q=1"),
        ("/plain?", "/plain?"),
    ] {
        assert_eq!(told(&app.get(path))["target"], json!(target), "{path}");
    }
}

#[test]
fn request_bodies_go_on() {
    each_worker_count(|workers| {
        let upstream = mirror();
        let app = start(&upstream.url(), ALL, workers);
        assert_eq!(told(&app.post("/plain", "[1]"))["body"], json!("[1]"));
        assert_eq!(app.post("/plain", "more than ten").status, 413);
        for target in ["/plain", "/whole/up"] {
            let headers = &told(&app.post(target, ""))["headers"];
            assert_eq!((&headers["content-length"], &headers["transfer-encoding"]), (&json!("0"), &Value::Null));
        }
        // A route that only passes bodies on knows no limit.
        let long = "x".repeat(300_000);
        let seen = told(&app.post("/whole/up", &long));
        assert_eq!(seen["body"], json!(long));
        assert_eq!(
            (&seen["headers"]["content-length"], &seen["headers"]["transfer-encoding"]),
            (&json!("300000"), &Value::Null)
        );
        let mut client = app.connect();
        client.send("DELETE /whole/up HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        client.send("3\r\ndef\r\n0\r\n\r\n");
        let seen = told(&client.answer());
        assert_eq!((&seen["method"], &seen["body"]), (&json!("DELETE"), &json!("abcdef")));
        assert_eq!(seen["headers"]["transfer-encoding"], json!("chunked"));
    });
}

#[test]
fn an_upload_is_not_collected() {
    let upstream = Upstream::start(|_, stream| answer(stream, "200 OK", "", b"early"));
    let code = "api['{*path}'].any = api.proxy(url)";
    let app = start(&upstream.url(), code, 1);
    let mut client = app.connect();
    client.send("PUT /early HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\nonly a part");
    // The upstream has the request, and answers, long before its body is there.
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (200, "early"));
}

#[test]
fn an_expectation_is_met_when_the_upstream_wants_the_body() {
    let upstream = mirror();
    let app = start(&upstream.url(), ALL, 1);
    let mut client = app.connect();
    client.send("POST /whole/up HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.head_answer().status, 100);
    client.send("body");
    let seen = told(&client.answer());
    assert_eq!((&seen["body"], &seen["headers"]["expect"]), (&json!("body"), &Value::Null));
}

#[test]
fn pieces_of_an_answer_are_not_held_back() {
    each_worker_count(|workers| {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let upstream = Upstream::start(move |_, stream| {
            raw(stream, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
            raw(stream, b"d\r\ndata: first\n\n\r\n");
            let _ = wait.lock().expect("no panic").recv_timeout(DEADLINE);
            raw(stream, b"c\r\ndata: last\n\n\r\n0\r\n\r\n")
        });
        let app = start(&upstream.url(), "function api.get(ctx) return ctx:proxy(url) end", workers);
        let mut client = app.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let mut seen = Vec::new();
        while !seen.ends_with(b"data: first\n\n\r\n") {
            let mut byte = [0];
            client.socket().read_exact(&mut byte).expect("the first event");
            seen.push(byte[0]);
        }
        go.send(()).expect("the upstream waits");
        assert!(client.rest().ends_with("data: last\n\n\r\n0\r\n\r\n"));
    });
}

#[test]
fn answers_without_a_body() {
    let upstream = Upstream::start(|asked, stream| match (asked.method.as_str(), asked.target.as_str()) {
        ("HEAD", _) => raw(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n"),
        (_, "/304") => raw(stream, b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
        (_, "/empty") => answer(stream, "200 OK", "", b""),
        _ => raw(stream, b"HTTP/1.1 204 No Content\r\n\r\n"),
    });
    let app = start(&upstream.url(), "api['{*path}'].any = api.proxy(url)", 1);
    let mut client = app.connect();
    client.send("HEAD /x HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.head_answer();
    assert_eq!((head.status, head.header("content-length"), head.header("etag")), (200, Some("1234"), Some("\"x\"")));
    for (path, status) in [("/304", 304), ("/204", 204), ("/empty", 200)] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (status, ""), "{path}");
    }
}

#[test]
fn upstreams_that_fail_are_told_of_in_json() {
    let code = "
        api['{*path}'].any = api.proxy(url, { timeout = 0.06 })
        function api.refused.get(ctx) return ctx:proxy(ctx:query().url) end";
    each_worker_count(|workers| {
        let upstream = Upstream::start(|asked, stream| match asked.target.as_str() {
            "/reset" => reset(stream),
            "/close" => Then::Close,
            "/garbage" => {
                raw(stream, b"nonsense\r\n\r\n");
                Then::Close
            }
            _ => never(stream),
        });
        let app = start(&upstream.url(), code, workers);
        for (path, status, body) in [
            ("/reset", 502, json!({ "error": "Bad Gateway", "reason": "connection reset" })),
            ("/close", 502, json!({ "error": "Bad Gateway", "reason": "connection closed" })),
            ("/garbage", 502, json!({ "error": "Bad Gateway", "reason": "malformed response" })),
            ("/never", 504, json!({ "error": "Gateway Timeout", "reason": "timeout" })),
        ] {
            let answer = app.get(path);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let found: Value = serde_json::from_str(answer.text()).expect("JSON");
            assert_eq!((answer.status, found), (status, body), "{path}");
        }
        let answer = app.get(&format!("/refused?url={}", refusing()));
        assert_eq!((answer.status, answer.text().contains("connection refused")), (502, true));
        wait_until(|| upstream.open() == 0);
    });
}

#[test]
fn an_answer_that_breaks_off_breaks_the_connection_off() {
    let upstream = Upstream::start(|_, stream| {
        raw(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        Then::Close
    });
    let app = start(&upstream.url(), "function api.get(ctx) return ctx:proxy(url) end", 1);
    let mut client = app.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut seen = Vec::new();
    let _ = client.socket().read_to_end(&mut seen);
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("content-length: 100") && seen.ends_with("half"), "{seen}");
}

#[test]
fn a_client_that_goes_away_ends_the_request_at_the_upstream() {
    let code = "api['{*path}'].any = api.proxy(url)
        function api.stats.get() return rover.http.stats().proxy[url] end";
    each_worker_count(|workers| {
        let upstream = Upstream::start(|asked, stream| {
            if asked.target == "/body" {
                raw(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            }
            never(stream)
        });
        let app = start(&upstream.url(), code, workers);
        for target in ["/head", "/body"] {
            let before = upstream.accepted();
            let mut client = app.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            wait_until(|| upstream.accepted() > before);
            drop(client);
            wait_until(|| upstream.open() == 0);
        }
        let mut client = app.connect();
        client.send("POST /early HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf");
        wait_until(|| upstream.asked().last().is_some_and(|asked| asked.target == "/early"));
        drop(client);
        wait_until(|| upstream.open() == 0);
        if workers == 1 {
            let stats: Value = serde_json::from_str(app.get("/stats").text()).expect("JSON");
            assert_eq!((&stats["active"], &stats["open"]), (&json!(0), &json!(0)), "{stats}");
        }
    });
}

#[test]
fn requests_are_shared_out_among_upstreams() {
    let (a, b) = (Upstream::says("a"), Upstream::says("b"));
    let code = format!(
        "local three = {{ '{}', '{}', '{}' }}
         api.turns.get = api.proxy(three, {{ fails = 2, fail_timeout = 60 }})
         function api.same.get(ctx) return ctx:proxy {{ '{0}', '{1}' }} end
         api.load.get = api.proxy({{ '{0}', '{1}' }}, {{ balance = 'least_connections' }})",
        a.url(),
        b.url(),
        refusing()
    );
    let app = start("", &code, 1);
    // The third refuses every time; whoever would have come to it is served by the next.
    let seen: String = (0..8).map(|_| app.get("/turns").text().to_owned()).collect();
    assert!(seen.contains('a') && seen.contains('b') && seen.len() == 8, "{seen}");
    let seen: String = (0..4).map(|_| app.get("/same").text().to_owned()).collect();
    assert_eq!(seen, "abab");
    assert_eq!(app.get("/load").status, 200);
}

#[test]
fn the_upstream_with_the_fewest_requests_gets_the_next() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let busy = Upstream::start(move |_, stream| {
        let _ = wait.lock().expect("no panic").recv_timeout(DEADLINE);
        answer(stream, "200 OK", "", b"busy")
    });
    let idle = Upstream::says("idle");
    let code =
        format!("api.get = api.proxy({{ '{}', '{}' }}, {{ balance = 'least_connections' }})", busy.url(), idle.url());
    let app = start("", &code, 1);
    let mut first = app.connect();
    first.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until(|| !busy.asked().is_empty());
    for _ in 0..5 {
        assert_eq!(app.get("/").text(), "idle");
    }
    go.send(()).expect("the upstream waits");
    assert_eq!(first.answer().text(), "busy");
}

#[test]
fn an_upstream_that_fails_is_left_alone_for_a_while() {
    for resets in [false, true] {
        let bad = Upstream::start(move |_, stream| if resets { reset(stream) } else { Then::Close });
        let good = Upstream::says("good");
        let code =
            format!("api.get = api.proxy({{ '{}', '{}' }}, {{ fails = 2, fail_timeout = 60 }})", bad.url(), good.url());
        let app = start("", &code, 1);
        let statuses: Vec<u16> = (0..12).map(|_| app.get("/").status).collect();
        // What was sent may have been done, so it is not sent to another.
        assert_eq!(statuses, [502, 200, 502, 200, 200, 200, 200, 200, 200, 200, 200, 200]);
        assert_eq!(bad.asked().len(), 2);
    }
}

#[test]
fn an_upstream_may_fail_as_often_as_it_likes() {
    let (bad, good) = (Upstream::start(|_, _| Then::Close), mirror());
    let code = format!("api.get = api.proxy({{ url, '{}' }}, {{ fails = false, timeout = 1 }})", good.url());
    let app = start(&bad.url(), &code, 1);
    let statuses: Vec<u16> = (0..8).map(|_| app.get("/").status).collect();
    assert_eq!(statuses, [502, 200, 502, 200, 502, 200, 502, 200]);
}

/// Closes each connection at its second request, as a server does whose patience with an idle one has just ended.
fn impatient() -> Upstream {
    let seen = Mutex::new(Vec::new());
    Upstream::start(move |asked, stream| {
        let port = stream.peer_addr().expect("open").port();
        let mut seen = seen.lock().expect("no panic");
        if seen.contains(&port) {
            return Then::Close;
        }
        seen.push(port);
        answer(stream, "200 OK", "", asked.method.as_bytes())
    })
}

#[test]
fn a_request_that_crosses_with_the_end_of_an_idle_connection_is_sent_anew() {
    let code = "
        api.any = api.proxy(url)
        function api.http.get(ctx)
          local res, err = rover.http.get(url)
          return res and res.body or err
        end
        function api.http.post(ctx) return select(2, rover.http.post(url, 'once')) end
        function api.put.put(ctx) return ctx:proxy(url) end
        function api.http.put(ctx) return rover.http.put(url, 'twice').body end
        function api.http.delete(ctx) return rover.http.delete(url).body end";
    for (method, target, body) in [
        ("PUT", "/put", "Content-Length: 5\r\n\r\ntwice"),
        ("DELETE", "/", "\r\n"),
        ("PUT", "/http", "Content-Length: 0\r\n\r\n"),
        ("DELETE", "/http", "\r\n"),
    ] {
        let upstream = impatient();
        let app = start(&upstream.url(), code, 1);
        for _ in 0..3 {
            let answer = app.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{body}"));
            assert_eq!((answer.status, answer.text()), (200, method), "{method} {target}");
        }
        assert_eq!((upstream.asked().len(), upstream.accepted()), (5, 3), "{method} {target}");
    }
    for target in ["/", "/http"] {
        let upstream = impatient();
        let app = start(&upstream.url(), code, 1);
        for _ in 0..3 {
            assert_eq!(app.get(target).text(), "GET");
        }
        assert_eq!((upstream.asked().len(), upstream.accepted()), (5, 3));
        // What may have had its effect is not repeated.
        assert!(app.post(target, "").text().contains("connection closed"));
        assert_eq!(upstream.asked().len(), 6);
        wait_until(|| upstream.open() == 0);
    }
}

#[test]
fn a_client_that_holds_its_body_back_puts_no_upstream_out_of_order() {
    let (one, other) = (mirror(), mirror());
    let code = format!("api.any = api.proxy({{ url, '{}' }}, {{ fails = 1, timeout = 1 }})", other.url());
    let app = start(&one.url(), &code, 1);
    let mut client = app.connect();
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nabc");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().contains("request body broke off")), (408, true));
    for _ in 0..4 {
        told(&app.get("/"));
    }
    assert_eq!((one.asked().len(), other.asked().len()), (2, 2));
    wait_until(|| one.open() <= 1);
}

#[test]
fn a_connection_that_switches_protocols_is_passed_through() {
    let upstream = Upstream::start(|asked, stream| {
        let asks = asked.header("upgrade").is_some_and(|protocols| protocols.split(", ").any(|one| one == "echo"));
        if !asks || asked.header("connection") != Some("upgrade") {
            return answer(stream, "400 Bad Request", "", b"no upgrade");
        }
        if asked.target == "/other" {
            return raw(stream, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n");
        }
        raw(
            stream,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\nX-Key: k\r\n\r\nhello ",
        );
        let mut bytes = [0; 64];
        loop {
            match stream.read(&mut bytes) {
                Ok(n) if n > 0 => drop(stream.write_all(&bytes[..n])),
                _ => return Then::Close,
            }
        }
    });
    each_worker_count(|workers| {
        let app = start(&upstream.url(), "api['{*path}'].get = api.proxy(url) api.get = api.proxy(url)", workers);
        let mut client = app.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: odd, echo\r\n\r\n");
        let head = client.head_answer();
        assert_eq!((head.status, head.header("upgrade"), head.header("x-key")), (101, Some("echo"), Some("k")));
        assert!(head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
        client.send("and back");
        client.socket().shutdown(std::net::Shutdown::Write).expect("open");
        assert_eq!(client.rest(), "hello and back");
        wait_until(|| upstream.open() == 0);
        assert_eq!(app.get("/").text(), "no upgrade");
        // With HTTP/2 inside, requests would pass by the app.
        let asks = |target: &str, protocols: &str| {
            app.send(format!(
                "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocols}\r\n\
                 HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            ))
        };
        assert_eq!(asks("/", "H2C, echo").text(), "no upgrade");
        let answer = asks("/other", "echo");
        assert_eq!((answer.status, answer.text().contains("malformed response")), (502, true));
        wait_until(|| upstream.open() <= workers);
        drop(app);
        wait_until(|| upstream.open() == 0);
    });
}

#[test]
fn a_tunnel_in_which_nothing_passes_ends() {
    let upstream = Upstream::start(|_, stream| {
        raw(stream, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        never(stream)
    });
    each_worker_count(|workers| {
        let app = start(&upstream.url(), "api.get = api.proxy(url, { tunnel_timeout = 0.1 })", workers);
        let mut client = app.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(client.head_answer().status, 101);
        // What passes keeps it open, in either direction.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(500) {
            client.send("on");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(upstream.open(), 1);
        assert_eq!(client.rest(), "");
        wait_until(|| upstream.open() == 0);
    });
}

#[test]
fn mistakes_name_the_line_of_the_app() {
    let code = "
        local function try(f, ...) return select(2, pcall(f, ...)) end
        local early = try(function() local p = api.proxy('nowhere') end)
        function api.get(ctx)
          return {
            early,
            try(function() local r = ctx:proxy() end),
            try(function() local r = ctx:proxy({}) end),
            try(function() local r = ctx:proxy('ftp://x') end),
            try(function() local r = ctx:proxy(url, { hosts = 1 }) end),
            try(function() local r = ctx:proxy(url, { host = 'mine' }) end),
            try(function() local r = ctx:proxy(url, { headers = { ['a b'] = 'x' } }) end),
            try(function() local r = ctx:proxy(url, { headers = { ['Content-Length'] = 3 } }) end),
            try(function() local r = ctx:proxy(url, { tls = { key = 'client.key' } }) end),
            try(function() local r = ctx:proxy(url, { tls = { ca = true } }) end),
            try(function() local r = ctx:proxy(url, { tls = { trust = 'ca.pem' } }) end),
            try(function() local r = ctx:proxy(url, { keep_headers = 'X-Real-IP' }) end),
            try(function() local r = ctx:proxy(url, { keep_headers = { 'x-forwarded-for' } }) end),
            try(function() local r = ctx:proxy(url, { keep_headers = { 'a b' } }) end),
          }
        end";
    let app = start("http://127.0.0.1:9", code, 1);
    let found: Value = serde_json::from_str(app.get("/").text()).expect("JSON");
    let keys = "balance, connect_timeout, connect_timeout_ms, fail_timeout, fail_timeout_ms, fails, forwarded, headers, \
                host, idle_timeout, idle_timeout_ms, keep_headers, timeout, timeout_ms, tls, tunnel_timeout, tunnel_timeout_ms, via";
    assert_eq!(
        found,
        json!([
            "app.lua:4: nowhere: invalid URL: it must begin with http:// or https://",
            "app.lua:8: ctx:proxy needs a URL, or an array of them, not nil",
            "app.lua:9: ctx:proxy needs a URL, or an array of them, not an empty table",
            "app.lua:10: ftp://x: invalid URL: only http and https can be requested",
            format!("app.lua:11: unknown key \"hosts\" in the config of ctx:proxy; the keys are {keys}"),
            "app.lua:12: host is \"upstream\" or \"preserve\", not \"mine\"",
            "app.lua:13: \"a b\" is not a header name",
            "app.lua:14: the header content-length is set by Rover and cannot be changed",
            "app.lua:15: tls needs both cert and key, or neither",
            "app.lua:16: tls.ca is the path of a file in PEM, not true",
            "app.lua:17: unknown key \"trust\" in tls; the keys are ca, cert, insecure, key",
            "app.lua:18: keep_headers is an array of names, not \"X-Real-IP\"",
            "app.lua:19: keep_headers cannot keep x-forwarded-for: forwarded = \"append\" does",
            "app.lua:20: \"a b\" is not a header name",
        ])
    );
}
