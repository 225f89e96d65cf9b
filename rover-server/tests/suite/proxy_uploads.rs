//! Bodies that a proxy passes on, to upstreams that answer before they have read them.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rover_server::Server;

use crate::support::{App, DEADLINE, wait_until};
use crate::upstream::{Then, Upstream, answer};

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
