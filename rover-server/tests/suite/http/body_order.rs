//! The order of a request: `before` hooks decide before the body is read; what is not read never becomes a request.

use std::io::Write;

use crate::support::{App, Client, each_worker_count, wait_until};

const APP: &str = r#"
local api = rover.server { body_size_limit = 1000, body_timeout = 0.3 }
local runs = 0
function api.runs.get() return runs end
function api.get() return "home" end

function api.guarded.before.auth(ctx)
  runs = runs + 1
  if not ctx:header("Authorization") then return api:error(401, "log in") end
end
function api.guarded.after.mark(ctx, res) res:header("X-After", "ran") end
local function echo(ctx)
  local body = ctx:body()
  return body and body:text() or "none"
end
api.guarded.post, api.guarded.put, api.guarded.delete, api.guarded.any = echo, echo, echo, echo

function api.asking.before.sign(ctx)
  if ctx:query().json then ctx:set("seen", ctx:json().a) else ctx:set("seen", #(ctx:body() or "")) end
end
function api.asking.post(ctx) return { seen = ctx:get("seen"), text = ctx:body(), same = ctx:body() == ctx:body() } end

function api.both.before.twice(ctx)
  local a = rover.spawn(function() return ctx:body():text() end)
  local b = rover.spawn(function() return ctx:body():text() end)
  local gave_up = rover.timeout(0.001, function() return ctx:body() end)
  ctx:set("seen", tostring(a:join()) .. " " .. tostring(b:join()))
end
function api.both.post(ctx) return ctx:get("seen") .. " " .. ctx:body():text() end

function api.caught.before.it(ctx)
  local ok, err = pcall(ctx.body, ctx)
  ctx:set("ok", ok)
end
function api.caught.post(ctx) return "never" end

function api.slow.before.wait(ctx) rover.sleep(0.5) end
function api.slow.post(ctx) return ctx:body():text() end
return api
"#;

const HOME: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn head(path: &str, fields: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n")
}

/// Reads one answer, after which the connection ends.
fn last_answer(client: &mut Client) -> (u16, String) {
    let answer = client.answer();
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert_eq!(client.rest(), "");
    (answer.status, answer.text().to_owned())
}

#[test]
fn a_hook_refuses_before_the_body_is_asked_for() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        for (fields, status) in [
            // Longer than the limit: who may not send at all is told so first.
            ("Content-Length: 5000000", 401),
            ("Content-Length: 500", 401),
            ("Transfer-Encoding: chunked", 401),
            ("Content-Length: 500\r\nExpect: 100-continue", 401),
            ("Content-Length: 500\r\nContent-Encoding: nonsense", 401),
            ("Content-Length: 5000000\r\nAuthorization: me", 413),
            ("Content-Length: 500\r\nContent-Encoding: nonsense\r\nAuthorization: me", 415),
        ] {
            let mut client = app.connect();
            client.send(head("/guarded", fields));
            let answer = client.answer();
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{fields}");
            assert_eq!(answer.header("x-after"), Some("ran"), "{fields}");
            assert_eq!(answer.header("accept-encoding").is_some(), status == 415, "{fields}");
            assert_eq!(client.rest(), "", "{fields}");
        }
    });
}

#[test]
fn a_refused_client_that_keeps_sending_gets_the_answer() {
    let app = App::start(APP, 1);
    let chunk = format!("fa0\r\n{}\r\n", "x".repeat(4000));
    for (fields, body) in [
        ("Content-Length: 5000000", "x".repeat(5_000_000)),
        ("Transfer-Encoding: chunked", chunk.repeat(1250) + "0\r\n\r\n"),
    ] {
        let mut client = app.connect();
        client.send(head("/guarded", fields));
        client.socket().write_all(body.as_bytes()).expect("it is read");
        assert_eq!(last_answer(&mut client), (401, r#"{"error":"log in"}"#.to_owned()), "{fields}");
    }
}

#[test]
fn a_small_body_that_came_along_keeps_the_connection() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        let mut client = app.connect();
        for method in ["POST", "PUT", "DELETE", "GET"] {
            for fields in
                ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
            {
                client.send(format!("{method} /guarded HTTP/1.1\r\nHost: test\r\n{fields}{HOME}"));
                let answer = client.answer();
                assert_eq!((answer.status, answer.header("connection")), (401, None), "{method} {fields:?}");
                assert_eq!(client.answer().text(), "home", "{method} {fields:?}");
            }
        }
        let chunked = "Transfer-Encoding: chunked\r\nAuthorization: me\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        client.send(format!("POST /guarded HTTP/1.1\r\nHost: test\r\n{chunked}{HOME}"));
        assert_eq!(client.answer().text(), "hello");
        assert_eq!(client.answer().text(), "home");
    });
}

#[test]
fn a_body_that_comes_later_reaches_the_handler() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        let mut client = app.connect();
        for (fields, body) in [
            ("Content-Length: 5", "hello"),
            ("Content-Length: 5\r\nExpect: 100-continue", "hello"),
            ("Transfer-Encoding: chunked", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        ] {
            client.send(head("/guarded", &format!("Authorization: me\r\n{fields}")));
            if fields.contains("Expect") {
                assert_eq!(client.answer().status, 100);
            }
            for byte in body.bytes() {
                client.send([byte]);
            }
            let answer = client.answer();
            assert_eq!((answer.text(), answer.header("x-after")), ("hello", Some("ran")), "{fields}");
        }
        let long = "x".repeat(1000);
        client.send(head("/guarded", "Authorization: me\r\nContent-Length: 1000") + &long[..600]);
        client.send(&long[600..]);
        assert_eq!(client.answer().text(), long);
        client.send(HOME);
        assert_eq!(client.answer().text(), "home");
    });
}

#[test]
fn what_cannot_be_collected_is_refused_after_the_hooks() {
    let app = App::start(APP, 1);
    let chunks = format!("1f4\r\n{}\r\n", "x".repeat(500)).repeat(3);
    for (fields, status) in [
        ("Content-Length: 10\r\n\r\nabc".to_owned(), 408),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".to_owned(), 408),
        (format!("Transfer-Encoding: chunked\r\n\r\n{chunks}"), 413),
        ("Content-Length: 3\r\nContent-Encoding: gzip\r\n\r\nabc".to_owned(), 400),
    ] {
        for (path, runs) in [("/guarded", true), ("/caught", false), ("/asking", false)] {
            let mut client = app.connect();
            client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: me\r\n{fields}"));
            let answer = client.answer();
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{path} {fields:?}");
            assert_eq!(answer.header("x-after").is_some(), runs, "{path}");
            assert!(answer.text().starts_with(r#"{"error":"#), "{}", answer.text());
            assert_eq!(client.rest(), "");
        }
    }
}

#[test]
fn a_hook_that_asks_for_the_body_waits_for_it() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        let mut client = app.connect();
        for fields in ["Content-Length: 7", "Content-Length: 7\r\nExpect: 100-continue"] {
            for (target, seen) in [("/asking", "7"), ("/asking?json", "1")] {
                client.send(head(target, fields));
                if fields.contains("Expect") {
                    assert_eq!(client.answer().status, 100);
                }
                client.send(r#"{"a""#);
                client.send(":1}");
                let expected = format!(r#"{{"seen":{seen},"text":"{{\"a\":1}}","same":true}}"#);
                let answer: serde_json::Value = serde_json::from_slice(&client.answer().body).expect("JSON");
                assert_eq!(answer, serde_json::from_str::<serde_json::Value>(&expected).expect("JSON"));
            }
        }
        client.send(head("/asking?json", "Content-Length: 7\r\nContent-Type: text/plain"));
        assert_eq!(client.answer().status, 415);
    });
}

#[test]
fn several_coroutines_may_wait_for_one_body() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    client.send(head("/both", "Content-Length: 3") + "a");
    std::thread::sleep(std::time::Duration::from_millis(20));
    client.send("bc");
    assert_eq!(client.answer().text(), "abc abc abc");
}

#[test]
fn a_hook_that_takes_its_time_does_not_count_against_the_client() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    client.send(head("/slow", "Content-Length: 5\r\nExpect: 100-continue"));
    assert_eq!(client.answer().status, 100);
    client.send("hello");
    assert_eq!(client.answer().text(), "hello");
}

const ENDPOINTS: &str = r#"
local api = rover.server { body_size_limit = 10, body_timeout = 0.5, handler_timeout = 5 }
function api.get() return "home" end

local function echo(ctx) return ctx:body() and ctx:body():text() or "none" end
api.wide.post = { body_size_limit = "1KB", echo }
api.narrow.post = { body_size_limit = 3, echo }
api.erase.delete = { body = true, echo }
api.whatever.any = { body = true, body_size_limit = 20, echo }
api.erase.p_id.before.check = function(ctx) if ctx:params().id == "no" then return api:error(403) end end
api.erase.p_id.delete = { body = true, function(ctx) return ctx:json() end }
api.hurried.get = { timeout = 0.05, function() rover.sleep(5) end }
api.hurried.post = { timeout = 0.2, function(ctx) return ctx:body():text() end }
api.hurried.before.nothing = function() end

api.upload.before.auth = function(ctx) if not ctx:header("Authorization") then return api:error(401) end end
api.upload.post = {
  stream_body = true, body_size_limit = "3MB", timeout = 0.3,
  function(ctx)
    local length, pieces = 0, 0
    for piece in ctx:reader() do length, pieces = length + #piece, pieces + 1 end
    return length .. " " .. tostring(pieces > 1)
  end,
}
api.upload.first.put = {
  stream_body = true, body_size_limit = "3MB",
  function(ctx)
    local reader = ctx:reader()
    local piece = reader:read()
    return piece and #piece or "none"
  end,
}
api.upload.told.post = {
  stream_body = true, body_size_limit = 5,
  function(ctx)
    local reader, text = ctx:reader(), ""
    while true do
      local piece, err = reader:read()
      if not piece then return text .. ": " .. tostring(err) end
      text = text .. piece
    end
  end,
}
api.upload.wrong.post = { stream_body = true, body_size_limit = 5, function(ctx) return ctx:body() end }
api.upload.plain.post = function(ctx) return ctx:reader() end
return api
"#;

#[test]
fn limits_and_methods_are_the_endpoints_own() {
    each_worker_count(|workers| {
        let app = App::start(ENDPOINTS, workers);
        let send = |line: &str, body: &str| {
            app.send(format!("{line} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
        };
        let long = "x".repeat(1024);
        for (line, body, expected) in [
            ("POST /wide", long.as_str(), (200, long.as_str())),
            ("POST /wide", &format!("{long}x"), (413, r#"{"error":"Payload Too Large"}"#)),
            ("POST /narrow", "abc", (200, "abc")),
            ("POST /narrow", "abcd", (413, r#"{"error":"Payload Too Large"}"#)),
            ("DELETE /erase", "abc", (200, "abc")),
            ("DELETE /erase", "", (200, "none")),
            ("DELETE /erase", "01234567890", (413, r#"{"error":"Payload Too Large"}"#)),
            ("GET /whatever", "abc", (200, "abc")),
            ("QUERY /whatever", "01234567890123456789", (200, "01234567890123456789")),
            ("DELETE /erase/1", r#"{"a":1}"#, (200, r#"{"a":1}"#)),
            ("DELETE /erase/no", r#"{"a":1}"#, (403, r#"{"error":"Forbidden"}"#)),
        ] {
            let answer = send(line, body);
            assert_eq!((answer.status, answer.text()), expected, "{line}");
        }
        assert_eq!(app.get("/hurried").status, 503);
    });
}

#[test]
fn the_time_of_a_handler_does_not_run_while_its_client_sends() {
    let app = App::start(ENDPOINTS, 1);
    let mut client = app.connect();
    client.send(head("/hurried", "Content-Length: 3") + "a");
    for piece in ["b", "c"] {
        std::thread::sleep(std::time::Duration::from_millis(250));
        client.send(piece);
    }
    assert_eq!(client.answer().text(), "abc");
    client.send(head("/upload", "Authorization: me\r\nContent-Length: 3") + "a");
    for piece in ["b", "c"] {
        std::thread::sleep(std::time::Duration::from_millis(250));
        client.send(piece);
    }
    assert_eq!(client.answer().text(), "3 true");
}

#[test]
fn a_body_is_read_in_pieces() {
    each_worker_count(|workers| {
        let app = App::start(ENDPOINTS, workers);
        let mut client = app.connect();
        for (size, several) in [(0, false), (5, false), (2_000_000, true), (3 * 1024 * 1024, true)] {
            let text = "x".repeat(size);
            client.send(head("/upload", &format!("Authorization: me\r\nContent-Length: {size}")) + &text);
            let answer = client.answer();
            assert_eq!(answer.text(), format!("{size} {several}"), "{size}");
            client.send(HOME);
            assert_eq!(client.answer().text(), "home");
        }
        for (fields, status) in [
            ("Content-Length: 3145729", 401),
            ("Content-Length: 3145729\r\nAuthorization: me", 413),
            ("Content-Length: 10\r\nAuthorization: me", 408),
            ("Transfer-Encoding: chunked\r\nAuthorization: me\r\n\r\nzz", 400),
        ] {
            let mut client = app.connect();
            client.send(head("/upload", fields));
            assert_eq!(last_answer(&mut client).0, status, "{fields}");
        }
        // What the handler leaves is drained where it has arrived; otherwise the connection ends.
        let line = "PUT /upload/first HTTP/1.1\r\nHost: test\r\nAuthorization: me\r\n";
        let mut client = app.connect();
        client.send(format!("{line}Content-Length: 5\r\n\r\nhello{HOME}"));
        assert_eq!(client.answer().text(), "5");
        assert_eq!(client.answer().text(), "home");
        client.send(format!("{line}Content-Length: 1000000\r\n\r\nhello"));
        assert_eq!(last_answer(&mut client).0, 200);
    });
}

#[test]
fn a_reader_says_what_went_wrong() {
    let app = App::start(ENDPOINTS, 1);
    let send = |path: &str, fields: &str| {
        let mut client = app.connect();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nAuthorization: me\r\n{fields}"));
        client.answer()
    };
    let answer = send("/upload/told", "Content-Length: 6\r\n\r\n");
    assert_eq!(answer.text(), ": the request body is too large");
    let answer = send("/upload/told", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\nabc\r\n0\r\n");
    assert_eq!(answer.text(), "abc: the request body is too large");
    let answer = send("/upload/told", "Content-Length: 5\r\n\r\nabc");
    assert_eq!(answer.text(), "abc: the client stopped sending");
    assert_eq!(send("/upload/wrong", "Content-Length: 3\r\n\r\nabc").status, 500);
    assert_eq!(send("/upload/plain", "Content-Length: 3\r\n\r\nabc").status, 500);
}

/// hyper reads nothing more while nobody asks for the body: the end of the connection lies behind it, or where nobody looks.
#[test]
fn a_client_that_leaves_while_a_hook_waits_cancels_it() {
    let code = "
local api = rover.server { header_timeout = '100ms' }
local begun, left = 0, 0
function api.wait.before.hook(ctx)
  begun = begun + 1
  local ok, err = pcall(rover.sleep, 60)
  left = left + 1
  error(err, 0)
end
function api.wait.post(ctx) return #ctx:body() end
function api.soon.before.hook(ctx) rover.sleep(0.3) end
function api.soon.post(ctx) return #ctx:body() end
function api.begun.get() return begun end
function api.left.get() return left end
return api";
    let app = App::start(code, 1);
    for (n, (head, body)) in [
        ("Content-Length: 5", 0),
        ("Content-Length: 100000", 0),
        ("Content-Length: 100000", 20_000),
        ("Content-Length: 20000", 20_000),
        ("Transfer-Encoding: chunked", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = app.connect();
        client.send(format!("POST /wait HTTP/1.1\r\nHost: test\r\n{head}\r\n\r\n"));
        client.send("x".repeat(body));
        wait_until(|| app.get("/begun").text() == format!("{}", n + 1));
        drop(client);
        wait_until(|| app.get("/left").text() == format!("{}", n + 1));
    }
    // One that stays is waited for.
    let mut client = app.connect();
    client.send("POST /soon HTTP/1.1\r\nHost: test\r\nContent-Length: 20000\r\n\r\n");
    client.send("x".repeat(20_000));
    assert_eq!(client.answer().text(), "20000");
}
