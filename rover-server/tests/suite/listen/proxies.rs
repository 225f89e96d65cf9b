//! What proxies in front of the server tell of the client, in headers and before the first byte.

use std::io::{Read, Write};

use rover_server::Server;

use crate::support::{App, Client, each_worker_count};

fn code(config: &str) -> String {
    format!(
        r#"local api = rover.server {{ {config} }}
function api.get(ctx)
  return api.text(("%s %s %s %s %s"):format(ctx.ip, ctx.scheme, ctx.host,
    ctx:header("forwarded") or "-", ctx:header("x-forwarded-for") or "-"))
end
return api
"#
    )
}

fn seen(app: &App, lines: &str) -> String {
    app.send(format!("GET / HTTP/1.1\r\nHost: own.test\r\n{lines}\r\n")).text().to_owned()
}

/// What comes until the server closes the connection, or resets it because it has not read everything.
fn read_until_closed(client: &mut Client) -> String {
    let mut rest = Vec::new();
    let _ = client.socket().read_to_end(&mut rest);
    String::from_utf8_lossy(&rest).into_owned()
}

#[test]
fn trusted_proxies_are_believed() {
    each_worker_count(|workers| {
        let app = App::start(&code(r#"trusted_proxies = { "loopback", "10.0.0.0/8" }"#), workers);
        for (lines, expected) in [
            ("", "127.0.0.1 http own.test - -"),
            ("Forwarded: for=192.0.2.7;proto=https;host=shop.test\r\n", "192.0.2.7 https shop.test"),
            (
                "X-Forwarded-For: 6.6.6.6, 192.0.2.8, 10.1.1.1\r\nX-Forwarded-Proto: https\r\n",
                "192.0.2.8 https own.test",
            ),
            ("Forwarded: for=192.0.2.7\r\nX-Forwarded-For: 192.0.2.8\r\n", "192.0.2.7 http own.test"),
            ("X-Forwarded-Host: shop.test:8443\r\n", "127.0.0.1 http shop.test:8443"),
            ("Forwarded: for=\"[2001:db8::7]:1234\"\r\n", "2001:db8::7 http own.test"),
            // What a client made up cannot hide what the proxy wrote behind it.
            ("X-Forwarded-For: \u{e9}, 192.0.2.8\r\n", "192.0.2.8 http own.test"),
            ("X-Forwarded-For: 6.6.6.6, \u{e9}\r\n", "127.0.0.1 http own.test"),
            ("Forwarded: for=\u{e9};host=\"\u{e9}, for=192.0.2.7;proto=https\r\n", "192.0.2.7 https own.test"),
        ] {
            let told = seen(&app, lines);
            assert!(told.starts_with(expected), "{lines}: {told}");
        }
    });
}

#[test]
fn mapped_addresses_are_those_of_ipv4() {
    for trusted in ["::ffff:127.0.0.0/104", "::ffff:127.0.0.1"] {
        let app = App::start(&code(&format!(r#"trusted_proxies = {{ "{trusted}" }}"#)), 1);
        assert!(seen(&app, "X-Forwarded-For: 192.0.2.8\r\n").starts_with("192.0.2.8"), "{trusted}");
    }
    let app = App::start(&code(r#"trusted_proxies = { "::ffff:10.0.0.0/104" }"#), 1);
    assert!(seen(&app, "X-Forwarded-For: 192.0.2.8\r\n").starts_with("127.0.0.1"));
}

#[test]
fn nobody_else_is_believed_and_what_they_say_is_dropped() {
    let lines = "Forwarded: for=192.0.2.7;proto=https\r\nX-Forwarded-For: 192.0.2.8\r\n";
    let app = App::start(&code(r#"trusted_proxies = { "10.0.0.0/8" }"#), 1);
    assert_eq!(seen(&app, lines), "127.0.0.1 http own.test - -");
    let app = App::start(&code("trusted_proxies = {}"), 1);
    assert_eq!(seen(&app, lines), "127.0.0.1 http own.test - -");
    let app = App::start(&code(r#"trusted_proxies = "loopback", proxy_headers = "x-forwarded""#), 1);
    assert_eq!(seen(&app, lines), "192.0.2.8 http own.test - 192.0.2.8");
    // Where nothing is configured, the headers are a client's like others, and mean nothing.
    let app = App::start(&code(""), 1);
    assert_eq!(seen(&app, lines), "127.0.0.1 http own.test for=192.0.2.7;proto=https 192.0.2.8");
}

#[test]
fn a_connection_behind_the_proxy_protocol() {
    each_worker_count(|workers| {
        let app = App::start(&code("proxy_protocol = true"), workers);
        let get = "GET / HTTP/1.1\r\nHost: own.test\r\n\r\n";
        let answer = |client: &mut Client| client.answer().text().to_owned();
        let mut client = app.connect();
        client.send(format!("PROXY TCP4 192.0.2.7 192.0.2.9 56324 443\r\n{get}{get}"));
        assert_eq!(answer(&mut client), "192.0.2.7 http own.test - -");
        assert_eq!(answer(&mut client), "192.0.2.7 http own.test - -", "for the whole connection");
        // Version 2 with a value that says that the client speaks TLS.
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14".to_vec();
        header.extend([192, 0, 2, 8, 192, 0, 2, 9, 1, 2, 1, 187, 0x20, 0, 5, 1, 0, 0, 0, 0]);
        let mut client = app.connect();
        for byte in &header {
            client.socket().write_all(&[*byte]).unwrap();
        }
        client.send(get);
        assert_eq!(answer(&mut client), "192.0.2.8 https own.test - -");
        let mut client = app.connect();
        client.send(format!("PROXY UNKNOWN\r\n{get}"));
        assert_eq!(answer(&mut client), "127.0.0.1 http own.test - -");
        let mut client = app.connect();
        client.send([b"PROXY UNKNOWN \xff\xfe more\r\n", get.as_bytes()].concat());
        assert_eq!(answer(&mut client), "127.0.0.1 http own.test - -", "what follows is ignored");
        let mut client = app.connect();
        client.send(get);
        assert_eq!(read_until_closed(&mut client), "", "a connection without the header is closed");
    });
}

#[test]
fn the_proxy_protocol_is_spoken_by_trusted_peers_only() {
    let app = App::start(&code(r#"proxy_protocol = true, trusted_proxies = "10.0.0.0/8""#), 1);
    let mut client = app.connect();
    let _ = client.socket().write_all(b"PROXY TCP4 192.0.2.7 192.0.2.9 56324 443\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(read_until_closed(&mut client), "");
}

#[test]
fn wrong_settings_are_mistakes_with_their_cure() {
    let report =
        |config: &str| Server::from_source("app.lua", code(config)).check().expect_err("a mistake").to_string();
    for (config, expected) in [
        (r#"trusted_proxies = "example.com""#, "; an entry is none of these"),
        (r#"trusted_proxies = "10.0.0.1/8""#, "write 10.0.0.0/8"),
        ("trusted_proxies = true", "app.lua:1: trusted_proxies must be a list of addresses"),
        (r#"proxy_headers = "xff""#, "proxy_headers must be \"both\", \"forwarded\" or \"x-forwarded\""),
        (r#"proxy_protocol = "v2""#, "proxy_protocol must be true or false"),
    ] {
        let text = report(config);
        assert!(text.contains(expected), "{config}: {text}");
    }
}
