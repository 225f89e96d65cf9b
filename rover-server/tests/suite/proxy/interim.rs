//! Interim answers (1xx): what of them reaches a client of the proxy, and how many are put up with.

use std::io::{Read, Write};
use std::sync::{Mutex, mpsc};

use serde_json::json;

use crate::support::upstream::{Then, Upstream, answer, raw};
use crate::support::{App, body};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n";

fn start(url: &str, code: &str) -> App {
    App::start(&format!("local api = rover.server {{}} local url = '{url}' {code} return api"), 1)
}

#[test]
fn early_hints_reach_the_client_before_the_answer() {
    let (seen, is_seen) = mpsc::channel::<()>();
    let is_seen = Mutex::new(is_seen);
    let upstream = Upstream::start(move |asked, stream| {
        raw(stream, b"HTTP/1.1 100 Continue\r\n\r\n");
        raw(stream, HINTS.as_bytes());
        if asked.target.ends_with("/wait") {
            let _ = is_seen.lock().expect("no panic").recv();
        }
        answer(stream, "200 OK", "", b"fine")
    });
    let app = start(
        &upstream.url(),
        "api['{*path}'].any = api.proxy(url)
         function api.handler.wait.get(ctx) return ctx:proxy(url) end
         function api.beside.wait.get(ctx) return (rover.all { function() return ctx:proxy(url) end }) end",
    );
    for target in ["/wait", "/handler/wait", "/beside/wait"] {
        let mut client = app.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let hints = client.answer();
        assert_eq!(
            (hints.status_line.as_str(), hints.header("link")),
            ("HTTP/1.1 103 Early Hints", Some("</a.css>; rel=preload"))
        );
        assert_eq!(hints.headers.len(), 1, "{hints:?}");
        seen.send(()).expect("the upstream waits");
        assert_eq!(client.answer().text(), "fine");
        // The connection goes on.
        client.send("GET /now HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.answer().status, 103);
        assert_eq!(client.answer().text(), "fine");
    }
    // Where requests are sent in one go, each interim answer stands before its own answer.
    let mut client = app.connect();
    client.send("GET /now HTTP/1.1\r\nHost: test\r\n\r\n".repeat(3));
    let found: Vec<_> = (0..6).map(|_| client.answer().status).collect();
    assert_eq!(found, [103, 200, 103, 200, 103, 200]);
    // HTTP/1.0 has none.
    assert_eq!(app.send("GET /now HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn nothing_is_said_in_the_middle_of_an_answer() {
    let (begun, has_begun) = mpsc::channel::<()>();
    let has_begun = Mutex::new(has_begun);
    let upstream = Upstream::start(move |_, stream| {
        let _ = has_begun.lock().expect("no panic").recv();
        raw(stream, HINTS.as_bytes());
        answer(stream, "200 OK", "", b"late")
    });
    let app = start(
        &upstream.url(),
        "function api.get(ctx)
           local late
           local task = rover.spawn(function() late = ctx:proxy(url) end)
           rover.sleep(0)
           local n = 0
           return api.stream(200, 'text/plain', function()
             n = n + 1
             if n == 1 then return 'first' end
             if n == 2 then task:join() return late and 'second' end
           end)
         end",
    );
    let mut client = app.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut found = [0; 4096];
    let mut text = String::new();
    while !text.contains("first") {
        let n = client.socket().read(&mut found).expect("bytes");
        text.push_str(&String::from_utf8_lossy(&found[..n]));
    }
    begun.send(()).expect("the upstream waits");
    while !text.ends_with("0\r\n\r\n") {
        let n = client.socket().read(&mut found).expect("bytes");
        text.push_str(&String::from_utf8_lossy(&found[..n]));
    }
    assert!(!text.contains("103") && text.contains("second"), "{text}");
}

#[test]
fn interim_answers_without_end_are_an_error() {
    let upstream = Upstream::start(|asked, stream| {
        let (interim, count) = match asked.target.trim_start_matches("/proxied") {
            "/few" => ("HTTP/1.1 102 Processing\r\n\r\n".to_owned(), 900),
            "/large" => (format!("HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\n", "x".repeat(8000)), 1000),
            _ => ("HTTP/1.1 100 Continue\r\n\r\n".to_owned(), usize::MAX),
        };
        for _ in 0..count {
            if stream.write_all(interim.as_bytes()).is_err() {
                return Then::Close;
            }
        }
        answer(stream, "200 OK", "", b"fine")
    });
    let app = start(
        &upstream.url(),
        "function api.p_kind.get(ctx)
           local res, err = rover.http.get(url .. '/' .. ctx:params().kind)
           return { res and res.body or err }
         end
         api.proxied['{*path}'].get = api.proxy(url)
         function api.many.get()
           local calls = {}
           for n = 1, 8 do calls[n] = function() return select(2, rover.http.get(url .. '/endless')) end end
           return { rover.all(calls) }
         end",
    );
    assert_eq!(body(&app, "/few"), json!(["fine"]));
    for path in ["/endless", "/large"] {
        assert_eq!(body(&app, path), json!(["too many interim responses"]), "{path}");
        let answer = app.get(&format!("/proxied{path}"));
        assert_eq!(answer.status / 100, if path == "/large" { 1 } else { 5 }, "{path}");
    }
    assert_eq!(body(&app, "/proxied/endless")["reason"], "too many interim responses");
    assert_eq!(body(&app, "/many"), json!(vec!["too many interim responses"; 8]));
}
