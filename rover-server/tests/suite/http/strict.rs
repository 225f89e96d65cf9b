//! HTTP/1 that other servers may read differently: refused with 400 where it is wrong, in any split, and never before the
//! answers to what came before it.

use std::fmt::Write as _;

use crate::support::App;

const APP: &str = r#"
local api = rover.server { body_timeout = 5, access_log = false }
function api.get(ctx) return "home" end
function api.echo.any(ctx) local body = ctx:body() return body and body:text() or "none" end
function api.wait.get() rover.sleep(0.05) return "waited" end
function api.wait.done.delete() rover.sleep(0.05) return api:error(409, "busy") end
function api.wait.stream.get() rover.sleep(0.05) return api.stream(200, "text/plain", function() return nil end) end
local function read(ctx)
  local reader = ctx:reader()
  repeat local piece = reader:read() until not piece
  return "read"
end
api.read.any = { stream_body = true, body_size_limit = "1MB", read }
api.caught.any = { body = true, function(ctx) pcall(ctx.body, ctx) return "caught" end }
function api.stream.get() local n = 0 return api.stream(200, "text/plain", function() n = n + 1 if n < 3 then return "x" end end) end
function api.chat.ws(ws)
  function ws.join() return {} end
  function ws.listen.text(text) return ws.send_text("got " .. text) end
end
return api
"#;

const HOME: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const CHUNKED: &str = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";

fn statuses(all: &str) -> Vec<u16> {
    all.split("HTTP/1.").skip(1).filter_map(|answer| answer.get(2..5)?.parse().ok()).collect()
}

/// The statuses that answer `bytes`, sent in these parts, up to the end of the connection.
fn statuses_of(app: &App, parts: &[&[u8]]) -> Vec<u16> {
    let mut client = app.connect();
    for part in parts {
        client.send(part);
    }
    statuses(&client.rest())
}

#[test]
fn what_servers_read_differently_is_refused() {
    let app = App::start(APP, 1);
    for (request, fault) in [
        ("GET / HTTP/1.1\nHost: test\r\n\r\n", "a line ends in LF without CR"),
        ("GET / HTTP/1.1\nHost: test\n\n", "a line ends in LF without CR"),
        ("GET / HTTP/1.1\r\nHost: test\n\r\n", "a line ends in LF without CR"),
        ("GET / HTTP/1.1\r\nHost: test\r\n\n", "a line ends in LF without CR"),
        ("\nGET / HTTP/1.1\r\nHost: test\r\n\r\n", "a line ends in LF without CR"),
        ("GET /a#frag HTTP/1.1\r\nHost: test\r\n\r\n", "the request target holds a fragment"),
        ("GET /#?q HTTP/1.1\r\nHost: test\r\n\r\n", "the request target holds a fragment"),
        (
            "GET ftp://test/ HTTP/1.1\r\nHost: test\r\n\r\n",
            "the request target is a URL of another scheme than http and https",
        ),
        ("GET test HTTP/1.1\r\nHost: test\r\n\r\n", "the request target is neither a path nor a URL"),
        (
            "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "the Content-Length is not one number",
        ),
    ] {
        let bytes = format!("{HOME}{request}{HOME}");
        let mut client = app.connect();
        client.send(&bytes);
        assert_eq!(client.answer().text(), "home");
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (400, format!("{{\"error\":\"{fault}\"}}").as_str()), "{request:?}");
        assert_eq!(client.rest(), "", "{request:?}");
        for split in [1, 5, request.len() - 1] {
            let (before, behind) = request.as_bytes().split_at(split);
            assert_eq!(statuses_of(&app, &[HOME.as_bytes(), before, behind]), [200, 400], "{request:?} at {split}");
        }
        let bytes: Vec<&[u8]> = request.as_bytes().chunks(1).collect();
        assert_eq!(statuses_of(&app, &bytes), [400], "{request:?} byte by byte");
    }
}

#[test]
fn wrong_chunks_are_refused_for_every_method() {
    let app = App::start(APP, 1);
    for body in [
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\t\r\nabc\r\n0\r\n\r\n",
        "3 ;a=b\r\nabc\r\n0\r\n\r\n",
        "3\u{b}\r\nabc\r\n0\r\n\r\n",
        "3;a\u{1}\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabc\r\n0\r\n\n",
        "3\r\nabc\r\n0\n\r\n",
        "3\r\nabc\r\n0\r\nA: b\n\r\n",
        "zz\r\n",
    ] {
        for method in ["POST", "PUT", "GET", "DELETE"] {
            let request = format!("{method} /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            assert_eq!(statuses_of(&app, &[format!("{HOME}{request}{HOME}").as_bytes()]), [200, 400], "{request:?}");
        }
        // Behind the head, those that wait for their body learn of it.
        assert_eq!(statuses_of(&app, &[CHUNKED.as_bytes(), body.as_bytes(), HOME.as_bytes()]), [400], "{body:?}");
        let bytes = format!("{CHUNKED}{body}");
        let bytes: Vec<&[u8]> = bytes.as_bytes().chunks(1).collect();
        assert_eq!(statuses_of(&app, &bytes), [400], "{body:?} byte by byte");
    }
}

const WRONG_SIZE: &str = r#"{"error":"the size of a chunk is not hexadecimal digits alone"}"#;

#[test]
fn a_wrong_body_is_refused_as_long_as_no_answer_has_begun() {
    let app = App::start(APP, 1);
    let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for line in
        ["GET /wait", "DELETE /wait/done", "POST /echo", "GET /read", "POST /read", "GET /caught", "GET /wait/stream"]
    {
        for (good, broken) in [("", "zz\r\n"), ("3\r\nabc\r\n", "3 \r\nabc\r\n"), ("3\r\nabc\r\n0\r\n", "\n")] {
            let mut client = app.connect();
            client.send(head(line));
            client.send(good);
            client.send(format!("{broken}{HOME}"));
            let answer = client.answer();
            let reason = if broken == "\n" { r#"{"error":"a trailer does not end in CRLF"}"# } else { WRONG_SIZE };
            assert_eq!((answer.status, answer.text()), (400, reason), "{line} {broken:?}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{line} {broken:?}");
            assert_eq!(client.rest(), "", "{line} {broken:?}");
        }
    }
    // The answer is out: nothing behind it is read as a request.
    let mut client = app.connect();
    client.send(head("GET /"));
    assert_eq!(client.answer().header("connection"), Some("close"));
    client.send(format!("zz\r\n{HOME}"));
    assert_eq!(client.rest(), "");
}

#[test]
fn what_follows_a_last_chunk_with_a_bare_lf_is_no_trailer() {
    // The connection stays open on the client's side: the answer must not wait for an end of trailers.
    let app = App::start(APP, 1);
    let mut client = app.connect();
    client.send(format!("{CHUNKED}3\r\nabc\r\n0\r\n\n{HOME}"));
    assert_eq!(client.answer().status, 400);
    assert_eq!(client.rest(), "");
}

#[test]
fn a_reason_is_that_of_its_own_head() {
    let app = App::start(APP, 1);
    let text = |bytes: &[u8]| app.send(bytes).text().to_owned();
    // hyper refuses this head by itself, before it gets to the end of the line.
    let wrong = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: \u{b}3\r\n\r\nabc";
    for behind in ["", HOME] {
        assert_eq!(text(format!("{wrong}{behind}").as_bytes()), r#"{"error":"the Content-Length is not one number"}"#);
    }
    let fragment = "GET /a#b HTTP/1.1\r\nHost: test\r\n\r\n";
    assert_eq!(
        text(format!("GET / HTTP/1.1\r\nHost : test\r\n\r\n{fragment}").as_bytes()),
        r#"{"error":"Bad Request"}"#
    );
}

#[test]
fn valid_requests_of_every_kind_pass_in_any_split() {
    let app = App::start(APP, 1);
    let mut all = String::new();
    let mut expected = Vec::new();
    for n in 0..4 {
        all.push_str(HOME);
        expected.push("home".to_owned());
        write!(all, "\r\nPOST /echo HTTP/1.1\r\nhost: test\r\ncontent-length:{}\r\n\r\nGET /\n\n0\n\n\n", 11 + n)
            .unwrap();
        all.push_str(&"y".repeat(n));
        expected.push(format!("GET /\n\n0\n\n\n{}", "y".repeat(n)));
        write!(all, "GET /stream HTTP/1.1\r\nHost: test\r\nX: a#b\r\nUpgrade: h2c\r\n\r\n").unwrap();
        expected.push("xx".to_owned());
        write!(all, "PUT /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n#\n").unwrap();
        expected.push("#\n".to_owned());
    }
    for size in [1, 2, 3, 7, 19, 50, 333, all.len()] {
        let mut client = app.connect();
        for part in all.as_bytes().chunks(size) {
            client.send(part);
        }
        for expected in &expected {
            assert_eq!(client.answer().text(), expected, "parts of {size}");
        }
    }
}

#[test]
fn lenient_takes_what_it_took() {
    let app = App::start(&APP.replace("access_log", "http1 = { lenient = true }, access_log"), 1);
    for request in [
        "GET / HTTP/1.1\nHost: test\n\n",
        "GET /#frag HTTP/1.1\r\nHost: test\r\n\r\n",
        "GET ftp://test/ HTTP/1.1\r\nHost: test\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3 ;a\u{1}\r\nabc\r\n0\r\n\r\n",
    ] {
        assert_eq!(app.send(request).status, 200, "{request:?}");
    }
}

#[test]
fn bytes_behind_an_upgrade_need_not_be_http() {
    let app = App::start(APP, 1);
    let upgrade = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // A text frame under the mask 0, whose text holds ends of lines.
    let frame = b"\x81\x84\0\0\0\0a\n\nb";
    for parts in [vec![[upgrade.as_bytes(), frame].concat()], vec![upgrade.into(), frame.to_vec()]] {
        let mut client = app.connect();
        for part in &parts {
            client.send(part);
        }
        assert_eq!(client.answer().status, 101);
        assert_eq!(client.exactly(10), b"\x81\x08got a\n\nb");
        client.send(b"\x88\x80\0\0\0\0");
        client.rest();
    }
    // Where the answer is no switch, what follows is a request like any other.
    let asks = "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(statuses_of(&app, &[format!("{asks}GET / HTTP/1.1\nHost: test\n\n").as_bytes()]), [200, 400]);
    assert_eq!(statuses_of(&app, &[format!("{asks}{HOME}{asks}BAD\n\n").as_bytes()]), [200, 200, 200, 400]);
}

#[test]
fn refusals_of_head_have_no_body() {
    let app = App::start(APP, 1);
    for (line, fields) in [
        ("HEAD /echo HTTP/1.1", "Host: test\r\nContent-Length: 3\r\nContent-Length: 4"),
        ("HEAD /echo HTTP/1.0", "Host: test\r\nTransfer-Encoding: chunked"),
        ("HEAD /echo HTTP/1.1", "Host: test\r\nTransfer-Encoding: gzip"),
        ("HEAD /echo HTTP/1.1", "Host: test\r\nContent-Length: x"),
        ("HEAD /echo HTTP/1.1", "Host : test"),
    ] {
        for before in ["", HOME] {
            let mut client = app.connect();
            client.send(format!("{before}{line}\r\n{fields}\r\n\r\n"));
            if !before.is_empty() {
                assert_eq!(client.answer().text(), "home");
            }
            let answer = client.head_answer();
            assert_eq!(answer.status, 400, "{line} {fields}");
            assert_ne!(answer.header("content-length"), Some("0"));
            assert_eq!(client.rest(), "", "{line} {fields}");
        }
    }
}
