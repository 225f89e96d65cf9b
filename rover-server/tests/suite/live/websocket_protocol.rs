//! The WebSocket protocol in literal bytes: the handshake, frames, pings, closes, and what breaks the rules.

use std::io::Write;
use std::time::Duration;

use crate::support::websocket::{BINARY, CLOSE, KEY, PING, PONG, TEXT, WebSocket, frame, handshake, refused};
use crate::support::{App, each_worker_count};

const ECHO: &str = "
    function api.ws(ws)
      function ws.listen.text(text) ws.send_text(text) end
      function ws.listen.binary(bytes) ws.send_binary(bytes) end
    end
    function api.ok.get() return 'ok' end";

fn start(config: &str, workers: usize) -> App {
    App::start(&format!("local api = rover.server {{ {config} }}\n{ECHO}\nreturn api"), workers)
}

#[test]
fn the_handshake_is_that_of_the_rfc() {
    each_worker_count(|workers| {
        let app = start("", workers);
        let answer = refused(&app, &handshake("/", ""));
        assert_eq!(answer.status_line, "HTTP/1.1 101 Switching Protocols");
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(answer.header("connection"), Some("Upgrade"));
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("content-length"), None);
        // Names and tokens in any case, and a first frame in the same packet.
        let mut client = WebSocket::connect(&app, "/");
        client.text("x");
        assert_eq!(client.read(), "x");
        let odd = format!(
            "GET / HTTP/1.1\r\nHOST: test\r\nCONNECTION: UPGRADE\r\nUPGRADE: WebSocket\r\nSEC-WEBSOCKET-VERSION: 13\r\n\
             SEC-WEBSOCKET-KEY: {KEY}\r\nOrigin: http://test\r\n\r\n"
        );
        let mut client = WebSocket::open(&app, [odd.into_bytes(), frame(0x81, b"early")].concat());
        assert_eq!(client.read(), "early");
    });
}

#[test]
fn wrong_handshakes_are_refused() {
    each_worker_count(|workers| {
        let app = start("", workers);
        let good = handshake("/", "");
        let without = |line: &str| {
            assert!(good.contains(line), "{line}");
            good.replace(line, "")
        };
        let version = "Sec-WebSocket-Version: 13\r\n";
        let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
        let cases = [
            (426, "GET / HTTP/1.1\r\nHost: test\r\n\r\n".to_owned()),
            (426, good.replace("HTTP/1.1", "HTTP/1.0")),
            (426, good.replace("Upgrade: websocket", "Upgrade: h2c")),
            (400, without("Connection: keep-alive, Upgrade\r\n")),
            (426, without(version)),
            (426, good.replace("Version: 13", "Version: 8")),
            (400, without(&key)),
            (400, good.replace(KEY, "c2hvcnQ=")),
            (400, good.replace(&key, &format!("{key}{key}"))),
            (400, handshake("/", "Content-Length: 1\r\n") + "x"),
            (403, handshake("/", "Origin: http://evil.example\r\n")),
            (403, handshake("/", "Origin: null\r\n")),
            (405, good.replace("GET", "POST")),
            (404, handshake("/none", "")),
        ];
        for (status, request) in cases {
            let answer = refused(&app, &request);
            assert_eq!(answer.status, status, "{request}");
            let shown = answer.header("sec-websocket-version");
            assert_eq!(
                shown.is_some(),
                request.contains("Version: 8") || !request.contains(version) && request.contains(KEY)
            );
            assert_eq!(answer.header("upgrade"), (status == 426).then_some("websocket"), "{request}");
        }
        // The connection speaks HTTP on.
        let mut client = app.connect();
        client.send(without(&key));
        assert_eq!(client.answer().status, 400);
        client.send("GET /ok HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.answer().text(), "ok");
    });
}

#[test]
fn origins_can_be_named() {
    let app = start("websocket = { origins = { 'same', 'https://a.example' } }", 1);
    for (origin, status) in [("https://a.example", 101), ("http://test", 101), ("https://b.example", 403)] {
        assert_eq!(refused(&app, &handshake("/", &format!("Origin: {origin}\r\n"))).status, status, "{origin}");
    }
    let app = start("websocket = { origins = '*' }", 1);
    assert_eq!(refused(&app, &handshake("/", "Origin: https://b.example\r\n")).status, 101);
}

#[test]
fn messages_come_in_fragments_of_any_size() {
    each_worker_count(|workers| {
        let app = start("", workers);
        let mut client = WebSocket::connect(&app, "/");
        for size in [0, 1, 125, 126, 65535, 65536, 300_000] {
            let payload = vec![b'x'; size];
            client.send(BINARY, &payload);
            assert_eq!(client.frame(), Some((BINARY, payload)));
        }
        // A character cut in two, a ping between.
        client.raw(frame(TEXT, b"caf\xc3"));
        client.raw(frame(0x80 | PING, b"are you there"));
        client.raw(frame(0, b"\xa9 "));
        client.raw(frame(0x80, b"!"));
        assert_eq!(client.frame(), Some((PONG, b"are you there".to_vec())));
        assert_eq!(client.read(), "café !");
        // One byte at a time.
        for byte in frame(0x80 | TEXT, b"slow") {
            client.raw([byte]);
        }
        assert_eq!(client.read(), "slow");
        // Many in one packet.
        client.raw(frame(0x80 | TEXT, b"many").repeat(1000));
        for _ in 0..1000 {
            assert_eq!(client.read(), "many");
        }
        client.close();
    });
}

#[test]
fn closes_are_answered_with_their_code() {
    let app = start("", 1);
    for (sent, got) in [(&b"\x03\xe8"[..], &b"\x03\xe8"[..]), (b"\x0f\xa0why", b"\x0f\xa0why"), (b"", b"")] {
        let mut client = WebSocket::connect(&app, "/");
        client.send(CLOSE, sent);
        assert_eq!(client.frame(), Some((CLOSE, got.to_vec())));
        assert_eq!(client.frame(), None);
    }
}

#[test]
fn broken_rules_close_the_connection_with_their_code() {
    each_worker_count(|workers| {
        let app = start("websocket = { max_message = 1000 }", workers);
        let mut unmasked = frame(0x80 | TEXT, b"x");
        unmasked[1] &= 0x7f;
        let huge = [vec![0x82, 0xff], u64::MAX.to_be_bytes().to_vec(), vec![0; 4]].concat();
        let cases = [
            (1007, frame(0x80 | TEXT, b"\xff\xfe")),
            (1007, [frame(TEXT, b"caf\xc3"), frame(0x80, b"x")].concat()),
            (1009, frame(0x80 | BINARY, &[0; 1001])),
            (1009, [frame(BINARY, &[0; 600]), frame(0x80, &[0; 600])].concat()),
            (1009, huge),
            (1002, unmasked),
            (1002, frame(0xc0 | TEXT, b"x")),
            (1002, frame(0x80 | 3, b"x")),
            (1002, frame(0x80, b"x")),
            (1002, [frame(TEXT, b"x"), frame(0x80 | TEXT, b"x")].concat()),
            (1002, frame(PING, b"x")),
            (1002, frame(0x80 | PING, &[0; 126])),
            (1002, frame(0x80 | CLOSE, b"\x03")),
        ];
        for (code, bytes) in cases {
            let mut client = WebSocket::connect(&app, "/");
            client.raw(&bytes);
            assert_eq!(client.closed().0, code, "{bytes:x?}");
            assert_eq!(client.frame(), None);
        }
        // What came before is answered.
        let mut client = WebSocket::connect(&app, "/");
        client.raw([frame(0x80 | TEXT, b"first"), frame(0x80 | TEXT, b"\xff")].concat());
        assert_eq!(client.read(), "first");
        assert_eq!(client.closed().0, 1007);
    });
}

#[test]
fn silent_clients_are_asked_for_a_sign_and_cut_without_one() {
    let app = start("websocket = { ping_interval = 0.05, ping_timeout = 0.2 }", 1);
    let mut client = WebSocket::connect(&app, "/");
    for _ in 0..3 {
        assert_eq!(client.frame(), Some((PING, Vec::new())));
        client.send(PONG, "");
    }
    // Any frame is a sign.
    assert_eq!(client.frame(), Some((PING, Vec::new())));
    client.text("here");
    assert_eq!(client.read(), "here");
    assert_eq!(client.frame(), Some((PING, Vec::new())));
    assert_eq!(client.frame(), None);
}

#[test]
fn a_part_of_a_message_is_a_sign() {
    let app = start("websocket = { ping_interval = 0.05, ping_timeout = 0.5 }", 1);
    let mut client = WebSocket::connect(&app, "/");
    let mut message = frame(0x80 | TEXT, b"abcd");
    let rest = message.split_off(5);
    client.raw(message);
    for byte in rest {
        assert_eq!(client.frame(), Some((PING, Vec::new())));
        client.raw([byte]);
    }
    loop {
        match client.frame().expect("the message") {
            (PING, _) => {}
            other => return assert_eq!(other, (TEXT, b"abcd".to_vec())),
        }
    }
}

#[test]
fn who_does_not_read_its_pongs_is_not_read_from() {
    // More than the kernel's buffers hold.
    const MOST: usize = 256 * 1024 * 1024;
    let app = start("", 1);
    let mut client = WebSocket::connect(&app, "/");
    let mut stream = client.stream();
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let ping = frame(0x80 | PING, &[b'p'; 125]);
    let many = ping.repeat(1000);
    let mut sent = 0;
    while let Ok(n) = stream.write(&many[sent % many.len()..]) {
        sent += n;
        assert!(sent < MOST, "all was read");
    }
    // Each is answered once the client reads.
    stream.set_write_timeout(None).expect("no timeout");
    let pings = sent.div_ceil(ping.len());
    let rest = (pings * ping.len() - sent) % ping.len();
    let end = [&ping[ping.len() - rest..], &frame(0x80 | TEXT, b"end")].concat();
    let writer = std::thread::spawn(move || stream.write_all(&end).expect("the server reads on"));
    for _ in 0..pings {
        assert_eq!(client.frame(), Some((PONG, vec![b'p'; 125])));
    }
    assert_eq!(client.read(), "end");
    writer.join().expect("all is written");
}

#[test]
fn a_subprotocol_is_chosen_by_the_server_s_order() {
    const APP: &str = "
        function api.any.ws(ws)
          ws.protocols = { 'v2.chat', 'v1' }
          function ws.join(ctx) ws.send.welcome { protocol = ctx:protocol() or 'none' } end
        end
        function api.must.ws(ws)
          ws.protocols = { 'v2.chat', 'v1', required = true }
        end
        function api.must.get(ctx) return ctx:protocol() or 'plain' end
        function api.none.ws(ws) end";
    each_worker_count(|workers| {
        let app = App::start(&format!("local api = rover.server {{}}\n{APP}\nreturn api"), workers);
        for (offered, chosen) in [
            ("v1, v2.chat", Some("v2.chat")),
            ("v1,v0", Some("v1")),
            ("v0\r\nSec-WebSocket-Protocol: v1", Some("v1")),
            ("V1", None),
            ("required", None),
            ("1", None),
        ] {
            let fields = format!("Sec-WebSocket-Protocol: {offered}\r\n");
            let answer = refused(&app, &handshake("/any", &fields));
            assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, chosen), "{offered}");
            let mut client = WebSocket::open(&app, handshake("/any", &fields));
            assert_eq!(client.json()["protocol"], chosen.unwrap_or("none"), "{offered}");
            let answer = refused(&app, &handshake("/must", &fields));
            assert_eq!(answer.status, if chosen.is_some() { 101 } else { 400 }, "{offered}");
        }
        assert_eq!(refused(&app, &handshake("/any", "")).header("sec-websocket-protocol"), None);
        let answer = refused(&app, &handshake("/must", ""));
        assert_eq!(
            (answer.status, answer.text()),
            (400, r#"{"error":"the client offers no subprotocol that this path speaks"}"#)
        );
        assert_eq!(app.get("/must").text(), "plain");
        // A path that declares none speaks none.
        let answer = refused(&app, &handshake("/none", "Sec-WebSocket-Protocol: v1\r\n"));
        assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, None));
    });
}

#[test]
fn wrong_subprotocols_are_mistakes() {
    for (value, problem) in [
        ("'v1'", "ws.protocols is a list of names, such as { \"v2\", \"v1\" }, not a string"),
        ("{}", "ws.protocols is empty"),
        ("{ 'a b' }", "ws.protocols[1] is no name: use letters, digits and signs such as . and -"),
        ("{ 'a', 'a' }", "ws.protocols names 'a' twice"),
        ("{ 'a', require = true }", "ws.protocols has no option 'require'; it has names, and required"),
        ("{ 'a', required = 1 }", "required is true or false, not a number"),
    ] {
        let code =
            format!("local api = rover.server {{}}\nfunction api.ws(ws)\n ws.protocols = {value}\nend\nreturn api");
        let server = rover_server::Server::from_source("app.lua", &code).port(0).log_level(rover_server::Level::Off);
        let Err(error) = server.bind() else { panic!("{value}") };
        assert!(error.to_string().contains(&format!("app.lua:3: {problem}")), "{error}");
    }
}
