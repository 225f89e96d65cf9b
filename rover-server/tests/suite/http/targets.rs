//! Request targets with bytes that clients should have encoded: taken as if they had, or refused with the reason.

use crate::support::App;

const APP: &str = r#"
local api = rover.server { access_log = false, uri_size_limit = "4KB" }
function api.get(ctx) return "home" end
api.seen["{*path}"].any = function(ctx)
  return ctx.path .. " " .. ctx.raw_path .. " " .. ctx:params().path .. " " .. (ctx.query_string or "-") .. " "
    .. (ctx:query().q or "-") .. " " .. tostring(ctx:header("x-quoted"))
end
api.echo.post = function(ctx) return ctx.query_string .. " " .. ctx:body():text() end
function api.chat.ws(ws)
  function ws.join() return {} end
  function ws.listen.text(text) return ws.send_text("got " .. text) end
end
return api
"#;

const HOME: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// What is sent, and what a client that encodes sends.
const PAIRS: [(&str, &str); 8] = [
    ("/seen/a<b", "/seen/a%3Cb"),
    ("/seen/<>`\"", "/seen/%3C%3E%60%22"),
    ("/seen/x?q=<b>`\"", "/seen/x?q=%3Cb%3E%60%22"),
    ("/seen/<?q=\"", "/seen/%3C?q=%22"),
    ("/seen/x?<", "/seen/x?%3C"),
    ("http://test/seen/a>b?q=`", "http://test/seen/a%3Eb?q=%60"),
    ("/seen/a/../<x>/%3cy", "/seen/a/../%3Cx%3E/%3cy"),
    ("/seen/x?q={\"a\":[1]}&r=<", "/seen/x?q={%22a%22:[1]}&r=%3C"),
];

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\nX-Quoted: \"<`>\"\r\n\r\n")
}

#[test]
fn what_clients_should_have_encoded_is_seen_encoded() {
    let app = App::start(APP, 1);
    for (sent, encoded) in PAIRS {
        let expected = app.send(get(encoded));
        assert_eq!(expected.status, 200, "{encoded}");
        assert!(expected.text().ends_with(" \"<`>\""), "{}", expected.text());
        let answer = app.send(get(sent));
        assert_eq!((answer.status, answer.text()), (200, expected.text()), "{sent}");
        // One byte for each write.
        let mut client = app.connect();
        for byte in get(sent).bytes() {
            client.send([byte]);
        }
        assert_eq!(client.answer().text(), expected.text(), "{sent} byte by byte");
        client.send(HOME);
        assert_eq!(client.answer().text(), "home");
    }
}

#[test]
fn pipelined_targets_are_encoded_each_for_itself() {
    let app = App::start(APP, 1);
    let post = "POST /echo?a=<\" HTTP/1.1\r\nHost: test\r\nContent-Length: 13\r\n\r\nGET /< `\"\r\n\r\n";
    let chunked = "POST /echo?b=` HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n<\"`\r\n0\r\n\r\n";
    let mut all = String::new();
    let mut expected = Vec::new();
    for (sent, encoded) in PAIRS {
        for part in [&get(sent), HOME, post, chunked] {
            all.push_str(part);
        }
        let own = app.send(get(encoded)).text().to_owned();
        expected.extend([own, "home".into(), "a=%3C%22 GET /< `\"\r\n\r\n".into(), "b=%60 <\"`".into()]);
    }
    for size in [all.len(), 1, 2, 17, 100, 1000] {
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
fn heads_that_outgrow_their_buffer_arrive_whole() {
    let app = App::start(APP, 1);
    // Each of them is three times as long once it is encoded: together more than any read had room for.
    let target = |n: usize| format!("/seen/{n}?q={}", "<".repeat(1000));
    let all: String = (0..60).map(|n| get(&target(n))).collect();
    let mut client = app.connect();
    client.send(&all);
    client.send(HOME);
    for n in 0..60 {
        let answer = client.answer();
        let expected = format!("/seen/{n} /seen/{n} {n} q={} {} \"<`>\"", "%3C".repeat(1000), "<".repeat(1000));
        assert_eq!(answer.text(), expected);
    }
    assert_eq!(client.answer().text(), "home");
    // What counts is the length of what the app would see.
    for (length, status) in [(1300, 200), (1400, 414)] {
        assert_eq!(app.send(get(&format!("/seen/x?q={}", "<".repeat(length)))).status, status, "{length}");
    }
}

#[test]
fn what_follows_is_not_lost_where_the_connection_leaves_http() {
    let app = App::start(APP, 1);
    let query = "<".repeat(1300);
    let fields = "Host: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut client = app.connect();
    let mut bytes: Vec<u8> = (0..8).flat_map(|_| get(&format!("/seen/x?{query}")).into_bytes()).collect();
    bytes.extend(format!("GET /chat?{query} HTTP/1.1\r\n{fields}").as_bytes());
    // A text frame under the mask 0.
    bytes.extend(b"\x81\x84\0\0\0\0a\n\nb");
    client.send(&bytes);
    for _ in 0..8 {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(client.answer().status, 101);
    client.until(b"got a\n\nb");
    client.send(b"\x88\x80\0\0\0\0");
    client.rest();
}

#[test]
fn other_bytes_that_no_url_can_hold_are_taken_as_they_are() {
    let app = App::start(APP, 1);
    for raw in ["{", "}", "|", "^", "[", "]", "\\", "'", "é", "日本"] {
        let answer = app.send(get(&format!("/seen/a{raw}b?q=a{raw}b")));
        assert_eq!(answer.status, 200, "{raw}");
        let text = answer.text();
        let words: Vec<&str> = text.split(' ').collect();
        let value = format!("a{raw}b");
        assert_eq!((words[2], words[4]), (value.as_str(), value.as_str()), "{raw}: {text}");
    }
}

#[test]
fn a_target_that_is_refused_names_what_it_holds() {
    let app = App::start(APP, 1);
    for (target, reason) in [
        (&b"/seen/a b"[..], "the request target holds a blank, which is sent as %20"),
        (b"/seen/x?q=a b c", "the request target holds a blank, which is sent as %20"),
        (b"/seen/\x7f", "the request target holds the byte 0x7F, which is sent as %7F"),
        (b"/seen/a?\x01", "the request target holds the byte 0x01, which is sent as %01"),
        (b"/seen/\tx", "the request target holds the byte 0x09, which is sent as %09"),
        (b"/seen/caf\xe9", "the request target is not UTF-8: it holds the byte 0xE9, which is sent as %E9"),
        (b"/seen/<?q=\xff", "the request target is not UTF-8: it holds the byte 0xFF, which is sent as %FF"),
        (b"http://a<b/", "the request target does not name a host with an optional port"),
        (b"seen/<", "the request target is neither a path nor a URL"),
        // The line is wrong elsewhere.
        (b" /seen", "Bad Request"),
        (b"/seen ", "Bad Request"),
    ] {
        let shown = String::from_utf8_lossy(target).into_owned();
        let request = [b"GET ", target, b" HTTP/1.1\r\nHost: test\r\n\r\n"].concat();
        let answer = app.send(&request);
        assert_eq!((answer.status, answer.text()), (400, format!("{{\"error\":\"{reason}\"}}").as_str()), "{shown}");
        // Behind another request, and a long one in two reads.
        let mut client = app.connect();
        client.send([HOME.as_bytes(), &request].concat());
        assert_eq!(client.answer().text(), "home");
        assert_eq!(client.answer().status, 400, "{shown}");
        let fields = format!(" HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "x".repeat(200));
        let mut client = app.connect();
        client.send([b"GET ", target].concat());
        client.send(fields);
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (400, format!("{{\"error\":\"{reason}\"}}").as_str()), "{shown}");
    }
}
