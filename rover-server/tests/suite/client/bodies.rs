//! Bodies of `rover.http` that come or go slowly, and who gives up on them.

use std::io::Read;

use serde_json::json;

use crate::support::upstream::{Then, Upstream, answer, never, raw};
use crate::support::{App, body};

fn start(upstream: &Upstream, code: &str) -> App {
    App::start(&format!("local api = rover.server {{}} local url = '{}'\n{code}\nreturn api", upstream.url()), 1)
}

#[test]
fn a_reading_that_is_cancelled_loses_no_piece() {
    let upstream = Upstream::start({
        // A piece is sent when it is asked for, so that a reading before waits for sure.
        let held = std::sync::Mutex::new(None::<std::net::TcpStream>);
        move |asked, stream| {
            let mut held = held.lock().expect("no panic");
            if asked.target == "/body" {
                raw(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na");
                *held = Some(stream.try_clone().expect("a socket"));
                return Then::Keep;
            }
            if let Some(body) = &mut *held {
                raw(body, &asked.target.as_bytes()[1..]);
            }
            answer(stream, "204 No Content", "", b"")
        }
    });
    let code = "
        function api.get()
          local reader = rover.http.get(url .. '/body', { stream = true }).body
          local seen = { reader:read() }
          for _, next in ipairs { 'b', 'c' } do
            local piece, err = rover.timeout(0.05, function() return reader:read() end)
            seen[#seen + 1] = tostring(piece) .. ' ' .. err
            rover.http.get(url .. '/' .. next)
            seen[#seen + 1] = reader:read()
          end
          seen[#seen + 1] = tostring(reader:read())
          return seen
        end";
    let app = start(&upstream, code);
    assert_eq!(body(&app, "/"), json!(["a", "nil timeout", "b", "nil timeout", "c", "nil"]));
}

#[test]
fn a_body_that_nobody_wants_is_not_waited_for() {
    let upstream = Upstream::start(|asked, stream| match asked.target.as_str() {
        "/moved" => {
            raw(stream, b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 5\r\n\r\n");
            never(stream)
        }
        "/busy" => {
            raw(stream, b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\n");
            never(stream)
        }
        _ => answer(stream, "200 OK", "", b"there"),
    });
    let code = "
        function api.moved.get() return rover.http.get(url .. '/moved', { timeout = false }).body end
        function api.busy.get()
          local res, err = rover.http.get(url .. '/busy', { timeout = false, retry = { attempts = 3, backoff_ms = 1 }, stream = true })
          return res and res.status or err
        end";
    let app = start(&upstream, code);
    assert_eq!(app.get("/moved").text(), "there");
    assert_eq!(app.get("/busy").text(), "503");
    assert_eq!(upstream.asked().iter().filter(|asked| asked.target == "/busy").count(), 3);
}

#[test]
fn a_server_that_answers_and_stops_reading_holds_no_call_up() {
    let upstream = Upstream::start(|_, stream| {
        raw(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
        let mut rest = [0; 1];
        let _ = stream.read(&mut rest);
        let (_held, forever) = std::sync::mpsc::channel::<()>();
        let _ = forever.recv_timeout(crate::support::DEADLINE);
        Then::Close
    });
    let code = "
        function api.get()
          local function chunk() return ('x'):rep(1048576) end
          return select(2, rover.http.post(url .. '/early', chunk, { stream = true, timeout = 0.2 }))
        end";
    assert_eq!(start(&upstream, code).get("/").text(), "timeout");
}
