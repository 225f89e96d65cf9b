//! HTTP/1.1 framing, RFC 9112: what is refused, what is answered, and that no request is smuggled.

use crate::support::App;

const APP: &str = r#"
local api = rover.server { body_size_limit = 1000, body_timeout = 0.2 }
function api.get(ctx) return "home" end
function api.host.get(ctx) return { host = ctx.host, path = ctx.path, query = ctx.query_string, version = ctx.version } end
function api.bodiless.any() return "no body" end
function api.echo.post(ctx) local body = ctx:body() return body and body:text() or "none" end
api.taken.any = { body = true, function(ctx) return ctx:body():text() end }
function api.headers.get(ctx) return ctx:headers() end
function api.nothing.get() return nil end
function api.same.get() return api.raw("a body"):status(304) end
function api.big.get() return ("x"):rep(200000) end
return api
"#;

const HOME: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// The status of every answer to `bytes` up to the end of the connection, which must come.
fn statuses_until_close(app: &App, bytes: &str) -> Vec<u16> {
    let mut client = app.connect();
    client.send(bytes);
    let all = client.rest();
    all.split("HTTP/1.").skip(1).filter_map(|answer| answer.get(2..5)?.parse().ok()).collect()
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    client.send((0..200).map(|n| format!("GET /host?{n} HTTP/1.1\r\nHost: test\r\n\r\n")).collect::<String>());
    for n in 0..200 {
        assert!(client.answer().text().contains(&format!("\"query\":\"{n}\"")), "{n}");
    }
}

#[test]
fn a_malformed_request_gets_its_400_after_the_answers_before_it() {
    let app = App::start(APP, 1);
    let bad = "BAD LINE\r\n\r\n";
    assert_eq!(statuses_until_close(&app, bad), [400]);
    assert_eq!(statuses_until_close(&app, &format!("{HOME}{HOME}{bad}{HOME}")), [200, 200, 400]);
    let mut client = app.connect();
    client.send(HOME);
    assert_eq!(client.answer().status, 200);
    client.send("BAD");
    client.send(" LINE\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    assert_eq!(client.rest(), "");
}

#[test]
fn what_is_too_long_is_named() {
    let app = App::start(APP, 1);
    let long = "a".repeat(70_000);
    assert_eq!(statuses_until_close(&app, &format!("GET /{long} HTTP/1.1\r\nHost: test\r\n\r\n")), [414]);
    let many: String = (0..200).map(|n| format!("X-{n}: a\r\n")).collect();
    assert_eq!(statuses_until_close(&app, &format!("GET / HTTP/1.1\r\nHost: test\r\n{many}\r\n")), [431]);
}

#[test]
fn ninety_headers_are_taken_and_named_in_lower_case() {
    let app = App::start(APP, 1);
    let many: String = (0..89).map(|n| format!("X-Header-{n}: {n}\r\n")).collect();
    let answer = app.send(format!("GET /headers HTTP/1.1\r\nHost: test\r\n{many}\r\n"));
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("\"x-header-88\":\"88\""));
}

#[test]
fn exactly_one_valid_host_is_required() {
    let app = App::start(APP, 1);
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [a]:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]80\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    ] {
        assert_eq!(statuses_until_close(&app, &format!("{head}{HOME}")), [400], "{head:?}");
    }
    let answer = app.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(answer.text(), r#"{"error":"the request has no Host header"}"#);
    assert_eq!(app.send("GET / HTTP/1.0\r\n\r\n").text(), "home");
    for target in ["http://a@b/", "http://a:b@c:1/", "http://a:x/", "http://a:1:2/", "http://[::zz]/"] {
        for version in ["1.0", "1.1"] {
            let head = format!("GET {target} HTTP/{version}\r\nHost: a\r\n\r\n");
            assert_eq!(statuses_until_close(&app, &format!("{head}{HOME}")), [400], "{head:?}");
        }
    }
    for host in ["", "a", "a:", "a:8080", "a-b.example", "127.0.0.1:80", "[::1]", "[2001:db8::1]:443", "a%20b"] {
        assert_eq!(app.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).status, 200, "{host}");
    }
}

#[test]
fn targets_of_every_form_are_understood() {
    let app = App::start(APP, 1);
    let answer = app.send("GET http://other.example:81/host?a=1 HTTP/1.1\r\nHost: test\r\n\r\n");
    let body = answer.text();
    for part in [r#""host":"other.example:81""#, r#""path":"/host""#, r#""query":"a=1""#, r#""version":"1.1""#] {
        assert!(body.contains(part), "{part} in {body}");
    }
    let answer = app.send("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!((answer.status, answer.header("allow").is_some()), (204, true));
    let answer = app.send("CONNECT test:80 HTTP/1.1\r\nHost: test:80\r\n\r\n");
    assert_eq!((answer.status, answer.header("allow").is_some()), (405, true));
}

#[test]
fn a_body_of_doubtful_length_never_becomes_a_second_request() {
    let app = App::start(APP, 1);
    for (fields, body, expected) in [
        ("Content-Length: 3\r\nContent-Length: 4", "abcd", 400),
        ("Content-Length: -3", "abc", 400),
        ("Content-Length: +3", "abc", 400),
        ("Content-Length: 3, 3", "abc", 400),
        ("Content-Length: abc", "abc", 400),
        ("Content-Length:", "abc", 400),
        ("Content-Length: 0x3", "abc", 400),
        ("Content-Length: 99999999999999999999", "abc", 400),
        ("Content-Length: 3\r\nContent-Length: 4\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n", 400),
        ("Content-Length: x\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", "3\r\nabc\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: identity", "abc", 400),
        ("Transfer-Encoding:", "abc", 400),
        ("Transfer-Encoding: chunked, chunked", "3\r\nabc\r\n0\r\n\r\n", 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n", 501),
        ("Transfer-Encoding: xchunked", "3\r\nabc\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked, gzip", "3\r\nabc\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: gzip, chunked", "3\r\nabc\r\n0\r\n\r\n", 501),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", "3\r\nabc\r\n0\r\n\r\n", 200),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n", 200),
        ("Transfer-Encoding: chunked", "zz\r\nabc\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", "3\r\nabcd\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", "-3\r\nabc\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", "0x3\r\nabc\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", " 3\r\nabc\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", "fffffffffffffffff\r\nabc", 400),
        ("Transfer-Encoding: chunked", "3\nabc\n0\n\n", 400),
        ("Transfer-Encoding: chunked", "3;a\nb\r\nabc\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\nbad trailer\r\n\r\n", 400),
        ("Content-Length: 3\r\nExpect: tea", "abc", 417),
        ("Content-Length : 3", "abc", 400),
        ("X-Folded: a\r\n b\r\nContent-Length: 3", "abc", 400),
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n{body}{HOME}");
        assert_eq!(statuses_until_close(&app, &request), [expected], "{fields:?}");
    }
    for fields in ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3"] {
        let old = format!("POST /echo HTTP/1.0\r\n{fields}\r\n\r\n3\r\nabc\r\n0\r\n\r\n{HOME}");
        assert_eq!(statuses_until_close(&app, &old), [400], "{fields:?}");
    }
}

#[test]
fn other_versions_and_protocols_are_refused() {
    let app = App::start(APP, 1);
    for line in ["GET / HTTP/1.2", "GET / HTTP/3.0", "GET / HTTPS/1.1", "\u{16}\u{3}\u{1}"] {
        assert_eq!(statuses_until_close(&app, &format!("{line}\r\nHost: test\r\n\r\n")), [400], "{line}");
    }
}

#[test]
fn persistence_follows_the_version_and_the_connection_field() {
    let app = App::start(APP, 1);
    assert_eq!(statuses_until_close(&app, "GET / HTTP/1.0\r\n\r\n"), [200]);
    let closing = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    assert_eq!(statuses_until_close(&app, &format!("{closing}{HOME}")), [200]);
    let mut client = app.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.header("connection"), Some("keep-alive"));
    client.send(HOME);
    assert_eq!(client.answer().text(), "home");
}

#[test]
fn fragments_of_one_byte_are_put_together() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    for byte in format!("\r\nPOST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello{HOME}").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.answer().text(), "hello");
    assert_eq!(client.answer().text(), "home");
}

#[test]
fn head_is_get_without_the_body() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    client.send(format!("HEAD / HTTP/1.1\r\nHost: test\r\n\r\nHEAD /missing HTTP/1.1\r\nHost: test\r\n\r\n{HOME}"));
    let answer = client.head_answer();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("4")));
    assert!(answer.header("date").is_some());
    let answer = client.head_answer();
    assert_eq!((answer.status, answer.header("content-length")), (404, Some("21")));
    assert_eq!(client.answer().text(), "home");
}

#[test]
fn no_content_has_neither_body_nor_length() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    for (path, status) in [("nothing", 204), ("same", 304)] {
        client.send(format!("GET /{path} HTTP/1.1\r\nHost: test\r\n\r\n{HOME}"));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("content-length"), answer.header("content-type")),
            (status, None, None)
        );
        assert!(answer.header("date").is_some());
        assert_eq!(client.answer().text(), "home");
    }
}

#[test]
fn methods_without_a_body_never_read_one() {
    let app = App::start(APP, 1);
    for method in ["GET", "DELETE", "OPTIONS", "PROPFIND"] {
        let head = format!("{method} /bodiless HTTP/1.1\r\nHost: test\r\n");
        // There in one piece: dropped, and the next request stands.
        for fields in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
            let mut client = app.connect();
            client.send(format!("{head}{fields}{HOME}"));
            assert_eq!(client.answer().text(), "no body", "{method} {fields:?}");
            assert_eq!(client.answer().text(), "home", "{method} {fields:?}");
        }
        // Still to come: the connection ends instead, and says so.
        for fields in ["Content-Length: 1000000\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
            for path in ["/bodiless", "/missing", "/bodiless/"] {
                let mut client = app.connect();
                client.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{fields}"));
                assert_eq!(client.answer().header("connection"), Some("close"), "{method} {path} {fields:?}");
                assert_eq!(client.rest(), "", "{method} {path} {fields:?}");
            }
        }
    }
}

#[test]
fn chunks_end_no_connection_unless_there_is_a_content_length_beside_them() {
    let app = App::start(APP, 1);
    let chunks = "3\r\nabc\r\n0\r\n\r\n";
    let post = |fields: &str| format!("POST /echo HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n{chunks}");
    let plain = post("Transfer-Encoding: chunked");
    // Pipelined, in one write and byte by byte.
    for in_one in [true, false] {
        let mut client = app.connect();
        let all = format!("{plain}{HOME}{plain}{plain}{HOME}");
        match in_one {
            true => client.send(&all),
            false => all.bytes().for_each(|byte| client.send([byte])),
        }
        for text in ["abc", "home", "abc", "abc", "home"] {
            let answer = client.answer();
            assert_eq!((answer.text(), answer.header("connection")), (text, None));
        }
        // The one that has both is answered, and nothing after it is read.
        for both in
            ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3"]
        {
            let all = format!("{plain}{}{plain}{HOME}", post(both));
            let mut client = app.connect();
            match in_one {
                true => client.send(&all),
                // The connection may have ended before the last byte.
                false => all.bytes().for_each(|byte| {
                    let _ = std::io::Write::write_all(client.socket(), &[byte]);
                }),
            }
            assert_eq!(client.answer().header("connection"), None, "{both}");
            let answer = client.answer();
            assert_eq!((answer.text(), answer.header("connection")), ("abc", Some("close")), "{both}");
            if in_one {
                assert_eq!(client.rest(), "", "{both}");
            }
        }
    }
    // An extension, and a trailer that is no length of anything.
    for chunks in ["3;a=b;c=\"d\"\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n"] {
        let mut client = app.connect();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{HOME}"));
        assert_eq!(client.answer().text(), "abc");
        assert_eq!(client.answer().text(), "home");
    }
    // Methods whose bodies are mostly none: the head comes alone, its chunks afterwards.
    let mut client = app.connect();
    for method in ["DELETE", "QUERY", "OPTIONS", "GET", "POST", "PUT"] {
        for parts in [&["3\r\nabc\r\n0\r\n\r\n"][..], &["3\r\n", "abc\r\n0", "\r\n\r\n"]] {
            client.send(format!("{method} /taken HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"));
            for part in parts {
                client.send(part);
            }
            let answer = client.answer();
            assert_eq!((answer.text(), answer.header("connection")), ("abc", None), "{method}");
        }
    }
    client.send(HOME);
    assert_eq!(client.answer().text(), "home");
    // With a Content-Length, the connection ends for all of them.
    for method in ["DELETE", "GET", "POST"] {
        for fields in
            ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 13"]
        {
            let mut client = app.connect();
            client.send(format!("{method} /taken HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n"));
            client.send(format!("3\r\nabc\r\n0\r\n\r\n{HOME}"));
            let answer = client.answer();
            assert_eq!((answer.text(), answer.header("connection")), ("abc", Some("close")), "{method} {fields}");
            assert_eq!(client.rest(), "", "{method} {fields}");
        }
    }
    // A body that nobody takes, and that is still to come.
    let mut client = app.connect();
    client.send("DELETE /bodiless HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.answer().header("connection"), Some("close"));
}

#[test]
fn a_body_that_comes_after_the_answer_is_no_request() {
    let app = App::start(APP, 1);
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let mut client = app.connect();
        client.send(format!("{method} /bodiless HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", HOME.len()));
        let answer = if method == "HEAD" { client.head_answer() } else { client.answer() };
        assert_eq!(answer.status, 200, "{method}");
        client.send(HOME);
        assert_eq!(client.rest(), "", "{method}");
    }
}

#[test]
fn a_body_held_back_by_an_expectation_ends_the_connection() {
    // The client may send the next request instead of the body; nothing tells the two apart.
    let app = App::start(APP, 1);
    for line in ["GET /bodiless", "DELETE /bodiless", "POST /missing", "POST /", "OPTIONS /echo"] {
        let head = format!("{line} HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        for after in ["", HOME, "hello"] {
            let mut client = app.connect();
            client.send(format!("{head}{after}"));
            let answer = client.answer();
            assert_ne!(answer.status, 100, "{line}");
            assert_eq!(answer.header("connection"), Some("close"), "{line}");
            assert_eq!(client.rest(), "", "{line} {after:?}");
        }
    }
}

#[test]
fn a_header_cannot_split_the_response() {
    let code = "local api = rover.server {} function api.get() return 'home' end \
                function api.value.get() return api.text('a'):header('X-A', 'a\\r\\nX-B: b') end \
                function api.name.get() return api.text('a'):header('X-A: a\\r\\nX-B', 'b') end \
                function api.cookie.get() return api.text('a'):cookie('a', 'b\\r\\nX-B: b') end \
                function api.redirect.get() return api.redirect('/\\r\\nX-B: b') end \
                function api.length.get() return api.text('a'):header('Content-Length', '9') end \
                function api.coding.get() return api.text('a'):header('Transfer-Encoding', 'chunked') end return api";
    let app = App::start(code, 1);
    let mut client = app.connect();
    for path in ["value", "name", "cookie", "redirect", "length", "coding"] {
        client.send(format!("GET /{path} HTTP/1.1\r\nHost: test\r\n\r\n{HOME}"));
        let answer = client.answer();
        assert_eq!(answer.header("x-b"), None, "{path}");
        // A cookie's value and a redirect's URL are percent-encoded instead.
        let status = match path {
            "cookie" => 200,
            "redirect" => 302,
            _ => 500,
        };
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(client.answer().text(), "home", "{path}");
    }
}

#[test]
fn wrong_methods_learn_which_are_right() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    client.send(format!("GET /echo HTTP/1.1\r\nHost: test\r\n\r\nHEAD /echo HTTP/1.1\r\nHost: test\r\n\r\n{HOME}"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST, OPTIONS")));
    let answer = client.head_answer();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST, OPTIONS")));
    assert_eq!(client.answer().text(), "home");
}

#[test]
fn a_large_response_arrives_whole_beside_small_ones() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    client.send(format!("{HOME}GET /big HTTP/1.1\r\nHost: test\r\n\r\n{HOME}"));
    assert_eq!(client.answer().text(), "home");
    assert_eq!(client.answer().body.len(), 200_000);
    assert_eq!(client.answer().text(), "home");
}

#[test]
fn a_client_that_has_finished_sending_gets_its_answer() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    client.send(HOME);
    client.socket().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.answer().text(), "home");
}
