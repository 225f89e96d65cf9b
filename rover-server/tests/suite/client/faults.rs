//! Servers that misbehave towards `rover.http`: each fault has a clear error, and nothing is left behind.

use std::io::Write;

use serde_json::json;

use crate::support::upstream::{Then, Upstream, answer, never, raw, refusing, reset};
use crate::support::{App, body, each_worker_count, wait_until};

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
        "/bad-chunk" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n");
            Then::Close
        }
        "/huge-chunk" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nok\r\n");
            Then::Close
        }
        "/coded" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
            Then::Close
        }
        "/unknown-coding" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok");
            Then::Close
        }
        "/chunked-1.0" => {
            raw(stream, b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
            Then::Close
        }
        "/two-lengths" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!");
            Then::Close
        }
        "/switches" => {
            raw(stream, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
            Then::Close
        }
        "/many-fields" => answer(stream, "200 OK", &"X-Field: 1\r\n".repeat(101), b"fine"),
        _ => answer(stream, "200 OK", "", b"fine"),
    })
}

/// Answers that are right, or have to be put up with, however they look: what is sent, and the status and body that a
/// client has to understand.
const UNUSUAL: &[(&str, &str, &str)] = &[
    (
        "early-hints",
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "200 ok",
    ),
    (
        "several-interim",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "200 ok",
    ),
    (
        "trailers",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0002;a=b;c=\"d\"\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
        "200 ok",
    ),
    ("1.0-to-the-end", "HTTP/1.0 200 OK\r\n\r\nok", "200 ok"),
    ("1.0-kept", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "200 ok"),
    ("1.1-to-the-end", "HTTP/1.1 200 OK\r\n\r\nok", "200 ok"),
    ("closed", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "200 ok"),
    ("same-length-twice", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "200 ok"),
    (
        "length-and-chunks",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "200 ok",
    ),
    ("identity", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", "200 ok"),
    ("folded", "HTTP/1.1 200 OK\r\nX-Shown: a\r\n\t b\r\nContent-Length: 2\r\n\r\nok", "200 ok a b"),
    ("blank-before-colon", "HTTP/1.1 200 OK\r\nX-Shown : a\r\nContent-Length : 2\r\n\r\nok", "200 ok a"),
    ("line-feeds", "HTTP/1.1 200 OK\nX-Shown: a\nContent-Length: 2\n\nok", "200 ok a"),
    ("no-reason", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "200 ok"),
    ("other-status", "HTTP/1.1 599 Whatever\r\nContent-Length: 2\r\n\r\nok", "599 ok"),
    ("no-content-with-a-length", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "204 "),
    ("not-modified-with-a-length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n", "304 "),
    (
        "more-than-was-asked-for",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        "200 ok",
    ),
];

#[test]
fn unusual_answers_are_understood_by_client_and_proxy() {
    let upstream = Upstream::start(|asked, stream| {
        let found = UNUSUAL.iter().find(|(name, ..)| asked.target.ends_with(name));
        let Some((name, bytes, _)) = found else { return answer(stream, "200 OK", "", b"fine") };
        raw(stream, bytes.as_bytes());
        match name.ends_with("-to-the-end") || matches!(*name, "closed" | "identity") {
            true => Then::Close,
            false => Then::Keep,
        }
    });
    let code = "api.proxied.p_name.get = api.proxy(url .. '/')
        function api.asked.p_name.get(ctx)
          local res, err = rover.http.get(url .. '/' .. ctx:params().name)
          if not res then return api:error(502, err) end
          return api.text(res.body):status(res.status):header('X-Shown', res.headers['X-Shown'])
        end";
    each_worker_count(|workers| {
        let app = start(&upstream.url(), code, workers);
        for way in ["asked", "proxied"] {
            for (name, _, expected) in UNUSUAL {
                let mut client = app.connect();
                client.send(format!("GET /{way}/{name} HTTP/1.1\r\nHost: test\r\n\r\n"));
                let mut answer = client.answer();
                while answer.status < 200 {
                    answer = client.answer();
                }
                let shown = answer.header("x-shown").map_or_else(String::new, |shown| format!(" {shown}"));
                assert_eq!(format!("{} {}{shown}", answer.status, answer.text()), *expected, "{way} {name}");
                // Nothing of it is taken for the answer to the next request.
                assert_eq!(app.get(&format!("/{way}/fine")).text(), "fine", "{way} after {name}");
            }
        }
    });
}

const GET: &str = "
    function api.get(ctx)
      local q = ctx:query()
      local res, err = rover.http.get(q.url or (url .. q.path), { timeout_ms = tonumber(q.timeout), body_size_limit = q.limit })
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
            ("/bad-chunk", "malformed response"),
            ("/huge-chunk", "malformed response"),
            ("/coded", "malformed response"),
            ("/unknown-coding", "malformed response"),
            ("/chunked-1.0", "malformed response"),
            ("/two-lengths", "malformed response"),
            ("/switches", "malformed response"),
            ("/many-fields", "response header too large"),
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
        local res, err = rover.http.get('http://192.0.2.1:9/', { connect_timeout = 0.1 })
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
