//! Bodies that a proxy passes on, to upstreams that answer before they have read them.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rover_server::Server;

use crate::support::upstream::{Then, Upstream, answer};
use crate::support::{App, DEADLINE, wait_until};

/// What is uploaded to an upstream that answers before it has read, in bytes.
const UPLOAD: usize = 40 * 100;

#[test]
fn an_upload_outlasts_its_answer() {
    let received = Arc::new(AtomicUsize::new(0));
    let seen = received.clone();
    let upstream = Upstream::start(move |_, stream| {
        answer(stream, "200 OK", "", b"early");
        let mut part = [0; 1000];
        while seen.load(Ordering::SeqCst) < UPLOAD {
            match stream.read(&mut part) {
                Ok(n @ 1..) => seen.fetch_add(n, Ordering::SeqCst),
                _ => return Then::Close,
            };
        }
        Then::Close
    });
    let code =
        "local api = rover.server {} api.early.put = api.proxy(url) function api.get() return 'home' end return api";
    let server = Server::from_source("app.lua", format!("local url = '{}' {code}", upstream.url())).workers(1);
    let app = App::start_server(
        server.set("header_timeout", "100ms").set("idle_timeout", "100ms").set("body_timeout", "10s"),
    );
    let mut client = app.connect();
    client.send(format!("PUT /early HTTP/1.1\r\nHost: test\r\nContent-Length: {UPLOAD}\r\n\r\n"));
    assert_eq!(client.answer().text(), "early");
    // Slowly, and for longer than a head may take.
    let piece = "x".repeat(100);
    for _ in 1..UPLOAD / 100 {
        client.send(&piece);
        thread::sleep(Duration::from_millis(10));
    }
    // The connection goes on.
    client.send(piece + "GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.answer().text(), "home");
    wait_until(|| received.load(Ordering::SeqCst) == UPLOAD);
}

#[test]
fn an_upload_that_stands_still_after_its_answer_ends() {
    let (done, is_done) = mpsc::channel::<()>();
    let is_done = Mutex::new(is_done);
    // It reads nothing more.
    let upstream = Upstream::start(move |_, stream| {
        answer(stream, "200 OK", "", b"early");
        let _ = is_done.lock().expect("no panic").recv();
        Then::Close
    });
    let code = "local api = rover.server {} api.early.put = api.proxy(url) return api";
    let server = Server::from_source("app.lua", format!("local url = '{}' {code}", upstream.url())).workers(1);
    let app = App::start_server(server.set("body_timeout", "200ms"));
    // One client stops sending, one is not read from.
    for sends in [false, true] {
        let mut client = app.connect();
        client.send("PUT /early HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000000\r\n\r\nfirst");
        assert_eq!(client.answer().text(), "early");
        let began = Instant::now();
        if sends {
            let piece = vec![0; 1 << 20];
            while client.socket().write_all(&piece).is_ok() {}
        } else {
            client.rest();
        }
        assert!(began.elapsed() < DEADLINE);
        let _ = done.send(());
    }
}

/// Larger than what the system takes of a connection that nobody reads from.
const LARGE: usize = 8 << 20;

#[test]
fn an_early_answer_is_the_answer_although_the_upstream_takes_no_more() {
    // It closes with unread bytes, which resets the connection while the body is being sent.
    let upstream = Upstream::start(|_, stream| {
        let mut some = [0; 1000];
        let _ = stream.read(&mut some);
        answer(stream, "413 Content Too Large", "Connection: close\r\n", b"no");
        Then::Close
    });
    let code = format!(
        "local api = rover.server {{}}
         local url = '{}'
         api.early.any = api.proxy(url, {{ fails = 1 }})
         function api.http.get()
           local res, err = rover.http.post(url .. '/early', ('x'):rep({LARGE}))
           return {{ res and res.status, res and res.body, err }}
         end
         function api.stats.get() return rover.http.stats().proxy end
         return api",
        upstream.url()
    );
    let app = App::start(&code, 1);
    let part = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        let mut client = app.connect();
        client.send(format!("PUT /early HTTP/1.1\r\nHost: test\r\nContent-Length: {LARGE}\r\n\r\n"));
        for _ in 0..LARGE / part.len() {
            if client.socket().write_all(&part).is_err() {
                break;
            }
        }
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (413, "no"));
        assert_eq!(crate::support::body(&app, "/http"), serde_json::json!([413, "no"]));
    }
    let stats = crate::support::body(&app, "/stats");
    let figures = stats.as_object().and_then(|all| all.values().next()).expect("figures");
    assert_eq!((&figures["requests"], &figures["breaker"]), (&20.into(), &"closed".into()));
}

#[test]
fn a_client_that_cuts_its_upload_is_nobody_s_failure() {
    let upstream = Upstream::start(|_, stream| answer(stream, "200 OK", "", b"whole"));
    let code = format!(
        "local api = rover.server {{}}
         api.up.any = api.proxy('{}', {{ fails = 1 }})
         function api.after.note(ctx, res) rover.shared.seen:incr(tostring(res:status()), 1, 0) end
         function api.seen.get() return {{ cut = rover.shared.seen:get('499') }} end
         function api.stats.get() return rover.http.stats().proxy end
         return api",
        upstream.url()
    );
    let app = App::start(&code, 1);
    for _ in 0..3 {
        let mut client = app.connect();
        client.send("PUT /up HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\npart");
        drop(client);
        let broken =
            app.send("PUT /up HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n");
        assert_eq!(broken.status, 400, "{}", broken.text());
    }
    wait_until(|| crate::support::body(&app, "/seen") == serde_json::json!({ "cut": 3 }));
    assert_eq!(app.send("PUT /up HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx").text(), "whole");
    let stats = crate::support::body(&app, "/stats");
    let figures = stats.as_object().and_then(|all| all.values().next()).expect("figures");
    assert_eq!(figures["failures"], 0);
}

#[test]
fn an_answer_whose_body_is_broken_from_the_beginning_is_none() {
    let upstream = Upstream::start(|asked, stream| {
        let answer = match asked.target.as_str() {
            "/chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "/short" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "/later" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n",
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
        };
        crate::support::upstream::raw(stream, answer.as_bytes());
        Then::Close
    });
    let code =
        format!("local api = rover.server {{}} api['{{*path}}'].any = api.proxy('{}') return api", upstream.url());
    let app = App::start(&code, 1);
    assert_eq!(app.get("/chunk").status, 502);
    assert_eq!(crate::support::body(&app, "/chunk")["reason"], "malformed response");
    // The end of the connection comes with the head, or a little later.
    let mut client = app.connect();
    client.send("GET /short HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let rest = client.rest();
    let is_refused = rest.starts_with("HTTP/1.1 502 ") && rest.contains("connection closed");
    assert!(is_refused || rest.starts_with("HTTP/1.1 200 OK") && rest.ends_with("\r\n\r\n"), "{rest}");
    assert_eq!(app.get("/fine").text(), "fine");
    let mut client = app.connect();
    client.send("HEAD /head HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head_answer().header("content-length"), Some("5"));
    // What had begun breaks off.
    let mut client = app.connect();
    client.send("GET /later HTTP/1.1\r\nHost: test\r\n\r\n");
    let rest = client.rest();
    assert!(rest.starts_with("HTTP/1.1 200 OK") && rest.ends_with("1\r\nx\r\n"), "{rest}");
}
