//! Request bodies: collected up to the limit for POST, PUT and PATCH.

use std::io::Write;
use std::time::Duration;

use crate::support::{App, Client};

const APP: &str = r#"
local api = rover.server { body_size_limit = 1000, body_timeout = 0.2 }
local runs = 0
local function echo(ctx)
  runs = runs + 1
  local body = ctx:body()
  return body and body:text() or "none"
end
api.echo.post, api.echo.put, api.echo.patch = echo, echo, echo
function api.runs.get() return runs end
return api
"#;

fn head(fields: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n")
}

/// Reads one answer, after which the connection ends.
fn last_answer(client: &mut Client) -> (u16, String) {
    let answer = client.answer();
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(client.rest(), "");
    (answer.status, answer.text().to_owned())
}

#[test]
fn bodies_up_to_the_limit_are_collected() {
    let app = App::start(APP, 1);
    for method in ["POST", "PUT", "PATCH"] {
        for size in [1, 999, 1000] {
            let body = "x".repeat(size);
            let answer =
                app.send(format!("{method} /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {size}\r\n\r\n{body}"));
            assert_eq!(answer.text(), body, "{method} {size}");
        }
        assert_eq!(
            app.send(format!("{method} /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")).text(),
            "none"
        );
        assert_eq!(app.send(format!("{method} /echo HTTP/1.1\r\nHost: test\r\n\r\n")).text(), "none");
    }
}

#[test]
fn chunked_bodies_are_put_together() {
    let app = App::start(APP, 1);
    let chunks = "3;name=value\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n";
    for method in ["POST", "PUT", "PATCH"] {
        let head = format!("{method} /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(app.send(format!("{head}{chunks}")).text(), "abc0123456789", "{method}");
        assert_eq!(app.send(format!("{head}0\r\n\r\n")).text(), "none", "{method}");
        let full = format!("1f4\r\n{}\r\n", "x".repeat(500)).repeat(2);
        assert_eq!(app.send(format!("{head}{full}0\r\n\r\n")).text(), "x".repeat(1000), "{method}");
        assert_eq!(app.send(format!("{head}{full}1\r\nx\r\n0\r\n\r\n")).status, 413, "{method}");
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_it_is_read() {
    let app = App::start(APP, 1);
    let refused = (413, r#"{"error":"Payload Too Large"}"#.to_owned());
    for fields in ["Content-Length: 1001", "Content-Length: 5000000\r\nExpect: 100-continue"] {
        let mut client = app.connect();
        client.send(head(fields));
        assert_eq!(last_answer(&mut client), refused, "{fields}");
    }
    assert_eq!(app.get("/runs").text(), "0");
}

#[test]
fn a_refused_client_that_keeps_sending_still_gets_the_answer() {
    let app = App::start(APP, 1);
    // The server reads on and drops, so that its answer is not lost in a reset.
    let chunk = format!("fa0\r\n{}\r\n", "x".repeat(4000));
    for (fields, body) in [
        ("Content-Length: 5000000", "x".repeat(5_000_000)),
        ("Transfer-Encoding: chunked", chunk.repeat(1250) + "0\r\n\r\n"),
    ] {
        let mut client = app.connect();
        client.send(head(fields));
        client.socket().write_all(body.as_bytes()).unwrap();
        assert_eq!(last_answer(&mut client).0, 413, "{fields}");
    }
    assert_eq!(app.get("/runs").text(), "0");
}

#[test]
fn chunks_beyond_the_limit_are_refused() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    client.send(head("Transfer-Encoding: chunked") + &chunk.repeat(3));
    assert_eq!(last_answer(&mut client).0, 413);
    assert_eq!(app.get("/runs").text(), "0");
}

#[test]
fn a_client_that_stops_sending_is_told_so() {
    let app = App::start(APP, 1);
    for fields in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let mut client = app.connect();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\n{fields}"));
        assert_eq!(last_answer(&mut client), (408, r#"{"error":"Request Timeout"}"#.to_owned()));
    }
    assert_eq!(app.get("/runs").text(), "0");
}

#[test]
fn a_body_that_trickles_is_given_up_and_a_slow_one_is_not() {
    let code = APP.replace("body_timeout = 0.2", "body_timeout = 0.4, body_min_rate = 100");
    let app = App::start(&code, 1);
    let send = |client: &mut Client, piece: &'static str, count: usize| {
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", count * piece.len()));
        let mut socket = client.socket().try_clone().expect("a socket");
        std::thread::spawn(move || {
            for _ in 0..count {
                if socket.write_all(piece.as_bytes()).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(40));
            }
        })
    };
    // 25 bytes a second, none of them late.
    let mut client = app.connect();
    let sender = send(&mut client, "x", 900);
    assert_eq!(last_answer(&mut client), (408, r#"{"error":"Request Timeout"}"#.to_owned()));
    drop(client);
    sender.join().expect("it ends");
    assert_eq!(app.get("/runs").text(), "0");
    // Longer than the timeout, but steadily.
    let mut client = app.connect();
    let sender = send(&mut client, "0123456789012345678901234567890123456789", 20);
    assert_eq!(client.answer().status, 200);
    sender.join().expect("it ends");
}

#[test]
fn a_body_that_breaks_off_never_reaches_the_handler() {
    let app = App::start(APP, 1);
    for body in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let mut client = app.connect();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\n{body}"));
        client.socket().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.answer().status, 400, "{body:?}");
        let mut client = app.connect();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: test\r\n{body}"));
        drop(client);
    }
    assert_eq!(app.get("/runs").text(), "0");
}

#[test]
fn expect_continue_is_answered_before_the_body() {
    let app = App::start(APP, 1);
    let mut client = app.connect();
    client.send(head("Content-Length: 3\r\nExpect: 100-continue"));
    assert_eq!(client.answer().status, 100);
    client.send("abc");
    assert_eq!(client.answer().text(), "abc");
}
