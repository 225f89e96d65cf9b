//! Several requests at once on one connection: no answer is lost, whatever follows it.

use std::fs;
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{App, DEADLINE, read_all, wait_until};

const APP: &str = r#"
local api = rover.server { body_size_limit = 1000, access_log = false }
function api.get(ctx) return "home" end
function api.big.get(ctx) return ("~"):rep(8000000) end
return api
"#;

const HOME: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// The statuses in all that came on a connection.
fn statuses(all: &str) -> Vec<u16> {
    all.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}

#[test]
fn errors_of_the_protocol_come_after_the_answers_before_them() {
    let app = App::start(APP, 1);
    let long = "a".repeat(70_000);
    let endless = "a".repeat(1_000_000);
    let many: String = (0..1000).map(|n| format!("X-{n}: a\r\n")).collect();
    for (bad, status) in [
        ("BAD LINE\r\n\r\n".to_owned(), 400),
        (format!("GET /{long} HTTP/1.1\r\nHost: test\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: test\r\nX: {endless}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: test\r\n{many}\r\n"), 431),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: x\r\n\r\n".to_owned(), 400),
    ] {
        for good in [0, 1, 16, 200] {
            let mut client = app.connect();
            client.send(HOME.repeat(good) + &bad + HOME);
            let all = client.rest();
            let mut expected = vec![200; good];
            expected.push(status);
            assert_eq!(statuses(&all), expected, "{:?} after {good}", &bad[..20.min(bad.len())]);
            let last = &all[all.rfind("HTTP/1.1").unwrap()..];
            assert!(last.contains("\r\nconnection: close\r\n") && last.contains("\r\ndate: "), "{last}");
        }
    }
}

#[test]
fn an_app_s_own_refusal_is_not_taken_for_the_server_s() {
    let code = "local api = rover.server {} function api.get() return 'home' end \
                function api.plain.get() return api.text(''):status(404) end \
                function api.own.get() return api.text(''):status(404):header('X-Mine', 'yes') end return api";
    let app = App::start(code, 1);
    let ask = |target: &str, version: &str| {
        let lines = if version == "1.0" { "Connection: keep-alive\r\n" } else { "" };
        format!("GET {target} HTTP/{version}\r\nHost: test\r\n{lines}\r\n")
    };
    for (begin, expected) in [
        (ask("/plain", "1.1"), vec![404]),
        (ask("/own", "1.1"), vec![404]),
        (ask("/own", "1.0"), vec![404]),
        (ask("/plain", "1.1") + &ask("/plain", "1.0"), vec![404, 404]),
        (ask("/", "1.0"), vec![200]),
    ] {
        for bad in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "BAD LINE\r\n\r\n"] {
            let mut client = app.connect();
            client.send(format!("{begin}{bad}"));
            for status in &expected {
                let answer = client.answer();
                assert_eq!(answer.status, *status, "{begin}{bad}");
                assert_eq!(answer.header("x-mine").is_some(), begin.contains("/own"));
            }
            let refusal = client.answer();
            assert_eq!((refusal.status, refusal.text()), (400, "{\"error\":\"Bad Request\"}"), "{begin}{bad}");
            assert_eq!(client.rest(), "");
        }
    }
}

#[test]
fn a_target_beyond_the_limit_for_a_head_is_told_from_headers() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    client.send(format!("{HOME}GET /{}", "a".repeat(1_000_000)));
    assert_eq!(statuses(&client.rest()), [200, 414]);
}

#[test]
fn a_malformed_request_in_fragments_gets_its_400_too() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    for byte in format!("{HOME}{HOME}BAD LINE\r\n\r\n").bytes() {
        client.send([byte]);
    }
    assert_eq!(statuses(&client.rest()), [200, 200, 400]);
}

#[test]
fn all_requests_before_the_end_of_the_client_are_answered() {
    let app = App::start(APP, 1);
    for count in [1, 16, 200, 2000] {
        let mut client = app.connect();
        client.send(HOME.repeat(count));
        client.socket().shutdown(Shutdown::Write).unwrap();
        assert_eq!(statuses(&client.rest()), vec![200; count]);
    }
    let mut client = app.connect();
    client.send("BAD LINE\r\n\r\n");
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert_eq!(statuses(&client.rest()), [400]);
}

/// A client whose system takes in very little before it reads.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&SockAddr::from(address)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.into()
}

#[test]
fn a_slow_reader_that_has_finished_sending_gets_the_whole_answer() {
    let app = App::start(APP, 1);
    for requests in [1, 3] {
        let mut client = narrow(app.address);
        std::io::Write::write_all(&mut client, "GET /big HTTP/1.1\r\nHost: test\r\n\r\n".repeat(requests).as_bytes())
            .unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        // The server has begun to answer, cannot go on, and has had every chance to see the end of the client.
        let mut first = [0];
        client.read_exact(&mut first).unwrap();
        for _ in 0..20 {
            assert_eq!(app.get("/").text(), "home");
        }
        let rest = read_all(&mut client);
        assert_eq!(rest.matches('~').count(), requests * 8_000_000);
    }
}

#[test]
fn answers_larger_than_the_client_takes_in_stay_in_order_and_whole() {
    let app = App::start(APP, 1);
    let mut client = narrow(app.address);
    let requests = format!("{HOME}GET /big HTTP/1.1\r\nHost: test\r\n\r\n{HOME}BAD LINE\r\n\r\n");
    std::io::Write::write_all(&mut client, requests.as_bytes()).unwrap();
    let all = read_all(&mut client);
    assert_eq!(statuses(&all), [200, 200, 200, 400]);
    assert_eq!(all.matches('~').count(), 8_000_000);
}

/// The body that a client gets whose last word is this request.
fn last_word(app: &App, target: &str, accepts: &str) -> Vec<u8> {
    let mut client = app.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: {accepts}\r\n\r\n"));
    client.socket().shutdown(Shutdown::Write).unwrap();
    client.answer().body
}

#[test]
fn what_rover_makes_by_itself_is_sent_whole_to_a_client_that_has_finished_sending() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("half-closed-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let bytes: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(dir.join("large.bin"), &bytes).unwrap();
    // The encoder has nothing to give for many turns.
    fs::write(dir.join("same.css"), vec![b' '; 8_000_000]).unwrap();
    let code = format!(
        "local api = rover.server {{ compression = {{ enabled = true }} }} \
         local numbers = {{}} for n = 1, 300000 do numbers[n] = n * 7919 % 100003 end \
         local numbers = table.concat(numbers, ' ') \
         function api.numbers.get() return numbers end \
         function api.same.get() return ('x'):rep(8000000) end \
         api.f.static {{ dir = {:?} }} return api",
        dir.display().to_string()
    );
    let app = App::start(&code, 1);
    let gunzip = |body: &[u8]| {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap();
        out
    };
    assert!(gunzip(&last_word(&app, "/numbers", "gzip")) == app.get("/numbers").body);
    assert_eq!(gunzip(&last_word(&app, "/same", "gzip")).len(), 8_000_000);
    assert_eq!(gunzip(&last_word(&app, "/f/same.css", "gzip")).len(), 8_000_000);
    assert!(last_word(&app, "/f/large.bin", "identity") == bytes);
    // Once more from the disk, where the file system lets go of what it has in memory.
    let file = fs::File::open(dir.join("large.bin")).unwrap();
    file.sync_all().unwrap();
    for _ in 0..3 {
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert!(last_word(&app, "/f/large.bin", "identity") == bytes);
    }
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_handler_that_waits_is_cancelled_when_its_client_has_finished_sending() {
    let code = "local api = rover.server {} local waits, cancelled = 0, 0 \
                function api.wait.get() waits = waits + 1 local ok, err = pcall(rover.sleep, 3600) \
                  cancelled = cancelled + 1 error(err, 0) end \
                function api.flow.get() local is_begun \
                  return api.stream(200, 'text/plain', function() \
                    if not is_begun then is_begun = true return ('x'):rep(100000) end \
                    waits = waits + 1 local ok, err = pcall(rover.sleep, 3600) \
                    cancelled = cancelled + 1 error(err, 0) end) end \
                function api.get() return waits .. ' ' .. cancelled end return api";
    let app = App::start(code, 1);
    for (target, expected) in [("/wait", "1 1"), ("/flow", "2 2")] {
        let mut client = app.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.socket().shutdown(Shutdown::Write).unwrap();
        client.rest();
        wait_until(|| app.get("/").text() == expected);
    }
}
