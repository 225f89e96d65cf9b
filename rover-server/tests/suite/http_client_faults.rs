//! Servers that misbehave towards `rover.http`: each fault has a clear error, and nothing is left behind.

use std::io::Write;

use serde_json::json;

use crate::support::{App, body, each_worker_count, wait_until};
use crate::upstream::{Then, Upstream, answer, never, raw, refusing, reset};

fn start(url: &str, code: &str, workers: usize) -> App {
    App::start(&format!("local api = rover.server {{}} local url = '{url}'\n{code}\nreturn api"), workers)
}

fn misbehaving() -> Upstream {
    Upstream::start(|asked, stream| match asked.target.as_str() {
        "/reset" => reset(stream),
        "/close" => Then::Close,
        "/garbage" => {
            raw(stream, b"\x16\x03\x01garbage\r\n\r\n");
            Then::Close
        }
        "/half-head" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nContent-");
            Then::Close
        }
        "/never" => never(stream),
        "/stuck" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            never(stream)
        }
        "/cut" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            Then::Close
        }
        "/reset-body" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
            reset(stream)
        }
        "/big" => answer(stream, "200 OK", "", &[b'x'; 3000]),
        "/endless" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
            while stream.write_all(&chunk).is_ok() {}
            Then::Close
        }
        "/endless-head" => {
            raw(stream, b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(b"X-Filler: 0123456789012345678901234567890123456789\r\n").is_ok() {}
            Then::Close
        }
        _ => answer(stream, "200 OK", "", b"fine"),
    })
}

const GET: &str = "
    function api.get(ctx)
      local q = ctx:query()
      local res, err = rover.http.get(q.url or (url .. q.path), { timeout = tonumber(q.timeout), body_size_limit = q.limit })
      return { res and res.body or 'nil', err }
    end
    function api.active.get() return rover.http.stats().http or {} end";

#[test]
fn each_fault_has_a_short_clear_error() {
    each_worker_count(|workers| {
        let upstream = misbehaving();
        let app = start(&upstream.url(), GET, workers);
        for (path, error) in [
            ("/reset", "connection reset"),
            ("/close", "connection closed"),
            ("/garbage", "malformed response"),
            ("/half-head", "connection closed"),
            ("/never&timeout=50", "timeout"),
            ("/stuck&timeout=50", "timeout"),
            ("/cut", "connection closed"),
            ("/reset-body", "connection reset"),
            ("/big&limit=2999", "response body too large"),
            ("/endless&limit=1MB", "response body too large"),
            ("/endless", "response body too large"),
            ("/endless-head", "response header too large"),
        ] {
            assert_eq!(body(&app, &format!("/?path={path}")), json!(["nil", error]), "{path}");
        }
        assert_eq!(body(&app, "/?path=/big&limit=3000")[0].as_str().map(str::len), Some(3000));
        assert_eq!(body(&app, &format!("/?url={}", refusing())), json!(["nil", "connection refused"]));
        // Only connections that can be used again are left.
        wait_until(|| upstream.open() <= workers);
        assert_eq!(body(&app, "/?path=/fine"), json!(["fine"]));
    });
}

#[test]
fn tls_to_a_server_without() {
    let upstream = misbehaving();
    let app = start("", GET, 1);
    let url = upstream.url().replace("http://", "https://");
    let problem = body(&app, &format!("/?url={url}/close"));
    assert!(problem[1].as_str().expect("an error").starts_with("TLS: "), "{problem}");
}

/// Not routed anywhere: RFC 5737. Where the system says so at once, that is an answer too.
#[test]
fn connecting_takes_no_longer_than_its_timeout() {
    let code = "function api.get()
        local t0 = rover.now()
        local res, err = rover.http.get('http://192.0.2.1:9/', { connect_timeout = 100 })
        return { res == nil, err, rover.now() - t0 < 10 }
      end";
    let app = start("", code, 1);
    let found = body(&app, "/");
    assert_eq!((&found[0], &found[2]), (&json!(true), &json!(true)));
    let known = ["connect timeout", "network unreachable", "host unreachable", "connection refused"];
    assert!(known.contains(&found[1].as_str().expect("an error")), "{found}");
}

#[test]
fn a_client_that_goes_away_drops_the_connection_of_its_handler() {
    let code = "
        function api.wait.get() return rover.http.get(url .. '/never').body end
        function api.stuck.get() return rover.http.get(url .. '/stuck').body end
        function api.fed.get() return rover.http.post(url .. '/never', function() rover.sleep(60) end).body end
        function api.stats.get() return rover.http.stats().http[url] end";
    each_worker_count(|workers| {
        let upstream = misbehaving();
        let app = start(&upstream.url(), code, workers);
        for target in ["/wait", "/stuck", "/fed"] {
            let before = upstream.accepted();
            let mut client = app.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            wait_until(|| upstream.accepted() > before);
            drop(client);
            wait_until(|| upstream.open() == 0);
        }
        if workers == 1 {
            let stats = body(&app, "/stats");
            for name in ["open", "active", "idle", "queued"] {
                assert_eq!(stats[name], json!(0), "{name} in {stats}");
            }
        }
    });
}

#[test]
fn a_server_that_answers_before_the_body_has_come() {
    let upstream = Upstream::start(|_, stream| {
        answer(stream, "413 Content Too Large", "Connection: close\r\n", b"no");
        Then::Close
    });
    let code = "
        function api.get()
          local n = 0
          local res, err = rover.http.post(url .. '/early', function()
            n = n + 1
            if n > 1 then rover.sleep(60) end
            return 'x'
          end)
          return { res and res.status, res and res.body, err }
        end";
    let app = start(&upstream.url(), code, 1);
    assert_eq!(body(&app, "/"), json!([413, "no"]));
}
