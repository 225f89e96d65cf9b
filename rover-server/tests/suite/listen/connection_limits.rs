//! What one client may ask and hold: each limit is provoked.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rover_server::Server;

use crate::support::{App, Client, DEADLINE, wait_until};

const APP: &str = "local api = rover.server {} function api.get() return 'home' end \
                   function api.big.get() return ('x'):rep(30000000) end \
                   function api.piece.get() return ('x'):rep(8000) end \
                   function api.wait.p_seconds.get(ctx) rover.sleep(tonumber(ctx:params().seconds)) return 'woken' end \
                   function api.echo.post(ctx) return ctx:body():text() end return api";

const HOME: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// The app with these settings, on one worker.
fn app(settings: &[(&str, &str)]) -> App {
    let server = Server::from_source("app.lua", APP).workers(1);
    App::start_server(settings.iter().fold(server, |server, (key, value)| server.set(*key, *value)))
}

/// Sends, expects a refusal with a body, and the end.
fn refused(app: &App, bytes: &str) -> u16 {
    let mut client = app.connect();
    client.send(bytes);
    let answer = client.answer();
    assert!(answer.text().starts_with("{\"error\":\""), "{}", answer.text());
    assert_eq!((answer.header("connection"), answer.header("content-type")), (Some("close"), Some("application/json")));
    assert!(answer.header("date").is_some());
    assert_eq!(client.rest(), "");
    answer.status
}

#[test]
fn header_size_limit() {
    let app = app(&[("header_size_limit", "2KB")]);
    let with = |length: usize| format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "a".repeat(length));
    assert_eq!(app.send(with(1900)).status, 200);
    assert_eq!(refused(&app, &with(2100)), 431);
    assert_eq!(refused(&app, &format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}", "a".repeat(100_000))), 431);
}

#[test]
fn header_count_limit() {
    let fields = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let with = |count: usize| format!("GET / HTTP/1.1\r\nHost: test\r\n{}\r\n", fields(count));
    for (limit, fits, exceeds) in [("100", 99, 100), ("10", 9, 10), ("200", 199, 200)] {
        let app = app(&[("header_count_limit", limit)]);
        assert_eq!(app.send(with(fits)).status, 200, "{limit}");
        assert_eq!(refused(&app, &with(exceeds)), 431, "{limit}");
    }
}

#[test]
fn uri_size_limit() {
    let app = app(&[("uri_size_limit", "100")]);
    let with = |length: usize| format!("GET /?{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(length));
    assert_eq!(app.send(with(98)).status, 200);
    assert_eq!(refused(&app, &with(99)), 414);
    assert_eq!(refused(&app, &with(50_000)), 414);
    assert_eq!(refused(&app, &with(500_000)), 414);
}

#[test]
fn requests_that_cannot_be_read_get_words() {
    let app = app(&[]);
    for bad in ["BAD LINE\r\n\r\n", "GET / HTTP/1.1\r\nHost : test\r\n\r\n", "GET / HTTP/1.1\r\n\u{1}: x\r\n\r\n"] {
        assert_eq!(refused(&app, bad), 400, "{bad:?}");
    }
}

#[test]
fn refusals_of_head_have_no_body() {
    let app = app(&[("header_timeout", "200ms"), ("header_size_limit", "2KB")]);
    let long = format!("HEAD / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "a".repeat(3000));
    for (bytes, status, length) in [
        (long.as_str(), 431, "43"),
        ("HEAD / HTTP/1.1\r\nHost : test\r\n\r\n", 400, "23"),
        ("\r\nHEAD / HTTP/1.1\r\nHost: test\r\n", 408, "27"),
    ] {
        let mut client = app.connect();
        client.send(bytes);
        let answer = client.head_answer();
        assert_eq!((answer.status, answer.header("content-length")), (status, Some(length)), "{bytes}");
        assert_eq!(client.rest(), "", "{bytes}");
    }
}

#[test]
fn header_timeout() {
    let app = app(&[("header_timeout", "200ms"), ("idle_timeout", "1h")]);
    // One that sends a byte now and then does not gain time.
    let mut slow = app.connect();
    slow.send("GET / HTTP/1.1\r\nHost: test\r\nX: ");
    let began = Instant::now();
    let mut stream = slow.socket().try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        while stream.write_all(b"a").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let answer = slow.answer();
    assert_eq!((answer.status, answer.text()), (408, "{\"error\":\"Request Timeout\"}"));
    assert!(began.elapsed() >= Duration::from_millis(190));
    drop(slow);
    dripping.join().unwrap();
    // One that says nothing is told nothing.
    assert_eq!(app.connect().rest(), "");
    // The head of a later request has as much time, no matter how long the connection was idle.
    let mut later = app.connect();
    later.send(HOME);
    assert_eq!(later.answer().text(), "home");
    std::thread::sleep(Duration::from_millis(400));
    later.send("GET / HT");
    std::thread::sleep(Duration::from_millis(20));
    later.send("TP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(later.answer().text(), "home");
    std::thread::sleep(Duration::from_millis(100));
    later.send("GET / HT");
    assert_eq!(later.answer().status, 408);
    // So has one that began together with the end of the request before it.
    for request in [HOME, "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nhome"] {
        let mut together = app.connect();
        together.send(format!("{request}GET / HT"));
        assert_eq!(together.answer().text(), "home");
        assert_eq!(together.answer().status, 408);
        assert_eq!(together.rest(), "");
        // Ends of lines begin none.
        let mut idle = app.connect();
        idle.send(format!("{request}\r\n"));
        assert_eq!(idle.answer().text(), "home");
        std::thread::sleep(Duration::from_millis(400));
        idle.send(request);
        assert_eq!(idle.answer().text(), "home");
    }
}

#[test]
fn idle_timeout() {
    let app = app(&[("idle_timeout", "200ms")]);
    let mut idle = app.connect();
    idle.send(HOME);
    assert_eq!(idle.answer().text(), "home");
    let began = Instant::now();
    assert_eq!(idle.rest(), "");
    assert!(began.elapsed() >= Duration::from_millis(150));
    // A handler that waits is not idle, and neither is a client between requests in time.
    let mut busy = app.connect();
    for _ in 0..3 {
        busy.send("GET /wait/0.5 HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(busy.answer().text(), "woken");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn send_timeout() {
    let app = app(&[("send_timeout", "200ms"), ("max_connections", "1")]);
    let mut stuck = TcpStream::connect(app.address).unwrap();
    stuck.set_read_timeout(Some(DEADLINE)).unwrap();
    stuck.write_all(b"GET /big HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    // There is room for another one only when this one is gone.
    wait_until(|| is_let_in(&mut app.connect()));
    let mut rest = Vec::new();
    let _ = stuck.read_to_end(&mut rest);
    assert!(rest.len() < 30_000_000, "it was cut off");
    // A slow one that keeps taking gets everything.
    wait_until(|| {
        let mut slow = TcpStream::connect(app.address).unwrap();
        takes_slowly(&mut slow) > 30_000_000
    });
}

/// A client that has had its last answer, as far as the app goes, and does not take it.
#[test]
fn send_timeout_covers_the_last_bytes_of_a_connection() {
    const CLIENTS: usize = 48;
    let path = std::env::temp_dir().join(format!("rover-last-bytes-{}", std::process::id()));
    let most = CLIENTS.to_string();
    let settings = [("send_timeout", "200ms"), ("max_connections", most.as_str()), ("shutdown_timeout", "1h")];
    let server = Server::from_source("app.lua", APP).workers(1).host(format!("unix:{}", path.display()));
    let app = App::start_server(settings.iter().fold(server, |server, (key, value)| server.set(*key, *value)));
    let connect = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let stuck = |answers: usize| {
        let mut stream = connect();
        let last = "GET /piece HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        let requests = "GET /piece HTTP/1.1\r\nHost: test\r\n\r\n".repeat(answers) + last;
        // Where it has no place yet, or none any more, it takes nothing either.
        let _ = stream.write_all(requests.as_bytes());
        stream
    };
    // The answers of some fit into what the system takes for them. Some have all but the last few thousand bytes in it.
    let held: Vec<UnixStream> = (0..CLIENTS).map(stuck).collect();
    let mut let_in = Vec::new();
    wait_until(|| {
        let mut next = connect();
        let mut begin = [0; 12];
        let _ = next.write_all(HOME.as_bytes());
        if next.read_exact(&mut begin).is_ok() && &begin == b"HTTP/1.1 200" {
            let_in.push(next);
        }
        let_in.len() == CLIENTS
    });
    // Nor do they hold a server up that stops.
    drop((held, let_in));
    let _stuck: Vec<UnixStream> = (0..CLIENTS).map(stuck).collect();
    let began = Instant::now();
    drop(app);
    assert!(began.elapsed() < DEADLINE);
}

/// Reads a large answer with pauses; gives how much came.
fn takes_slowly(slow: &mut TcpStream) -> usize {
    let _ = slow.write_all(b"GET /big HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let (mut total, mut part) = (0, vec![0; 1 << 20]);
    while let Ok(n @ 1..) = slow.read(&mut part) {
        total += n;
        std::thread::sleep(Duration::from_millis(20));
    }
    total
}

#[test]
fn handler_timeout() {
    let code = "local api = rover.server { handler_timeout = 0.2 } local cleaned = 0 \
                function api.slow.get() local ok, err = pcall(rover.sleep, 60) cleaned = cleaned + 1 error(err, 0) end \
                function api.quick.get() rover.sleep(0.01) return 'quick' end \
                function api.get() return tostring(cleaned) end return api";
    let app = App::start(code, 1);
    let mut client = app.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (503, "{\"error\":\"Service Unavailable\"}"));
    client.send(HOME);
    assert_eq!(client.answer().text(), "1", "it cleaned up, and the connection goes on");
    assert_eq!(app.get("/quick").text(), "quick");
}

#[test]
fn requests_per_connection() {
    let app = app(&[("requests_per_connection", "3")]);
    let mut client = app.connect();
    client.send(HOME.repeat(2));
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n");
    for _ in 0..2 {
        assert_eq!(client.answer().header("connection"), None);
    }
    client.send(format!("hi{HOME}"));
    let last = client.answer();
    assert_eq!((last.text(), last.header("connection")), ("hi", Some("close")));
    assert_eq!(client.rest(), "");
    let mut client = app.connect();
    client.send(HOME.repeat(16));
    let all = client.rest();
    assert_eq!((all.matches("200 OK").count(), all.matches("connection: close").count()), (3, 1));
    let mut client = app.connect();
    client.send(HOME.repeat(2) + "GET /wait/0.05 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(client.rest().ends_with("woken"));
}

/// Whether a new connection gets an answer other than 503.
fn is_let_in(client: &mut Client) -> bool {
    let _ = client.socket().write_all(HOME.as_bytes());
    let mut begin = [0; 12];
    client.socket().read_exact(&mut begin).is_ok() && &begin == b"HTTP/1.1 200"
}

#[test]
fn max_connections() {
    for key in ["max_connections", "max_connections_per_ip"] {
        let app = app(&[(key, "2")]);
        let mut first = app.connect();
        let mut second = app.connect();
        assert!(is_let_in(&mut first) && is_let_in(&mut second), "{key}");
        let mut third = app.connect();
        let answer = third.answer();
        assert_eq!((answer.status, answer.text()), (503, "{\"error\":\"Too Many Connections\"}"), "{key}");
        assert_eq!((answer.header("connection"), answer.header("retry-after")), (Some("close"), Some("1")));
        drop(second);
        wait_until(|| is_let_in(&mut app.connect()));
    }
}
