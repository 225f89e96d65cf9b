//! `rover.http`: what it sends, and what it gives back.

use std::io::{Read, Write};

use serde_json::json;

use crate::support::upstream::{Asked, Then, Upstream, answer, raw};
use crate::support::{App, DEADLINE, body, each_worker_count};

/// An app whose handlers know the upstream as `url`.
fn start(upstream: &Upstream, code: &str, workers: usize) -> App {
    let url = upstream.url();
    App::start(&format!("local api = rover.server {{}} local url = '{url}'\n{code}\nreturn api"), workers)
}

/// Tells in JSON what it was asked.
fn mirror() -> Upstream {
    Upstream::start(|asked, stream| {
        let Asked { method, target, headers, .. } = asked;
        let headers: serde_json::Map<_, _> = headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let told = json!({ "method": method, "target": target, "headers": headers, "body": asked.text() });
        answer(stream, "200 OK", "Content-Type: application/json\r\n", told.to_string().as_bytes())
    })
}

#[test]
fn every_method_and_what_it_gives() {
    let code = "
        local http = rover.http
        function api.all.get()
          local out = {}
          for i, res in ipairs {
            http.get(url .. '/a'), http.options(url .. '/a'), http.delete(url .. '/a'),
            http.post(url .. '/a', { x = 1 }), http.put(url .. '/a', 'text'), http.patch(url .. '/a'),
            http.request { url = url .. '/a', method = 'propfind', body = 7 },
          } do
            local seen = res.data
            out[i] = { seen.method, seen.target, seen.body, seen.headers['content-type'] or '', res.status, res.ok }
          end
          return out
        end
        function api.head.get()
          local res = http.head(url .. '/a')
          return { res.status, res.body, res.data == nil, res.url, res.headers['Content-Type'], res.headers['content-type'] }
        end";
    each_worker_count(|workers| {
        let upstream = mirror();
        let app = start(&upstream, code, workers);
        let json_type = "application/json";
        assert_eq!(
            body(&app, "/all"),
            json!([
                ["GET", "/a", "", "", 200, true],
                ["OPTIONS", "/a", "", "", 200, true],
                ["DELETE", "/a", "", "", 200, true],
                ["POST", "/a", "{\"x\":1}", json_type, 200, true],
                ["PUT", "/a", "text", "", 200, true],
                ["PATCH", "/a", "", "", 200, true],
                ["PROPFIND", "/a", "7", "", 200, true],
            ])
        );
        // A connection comes back to the pool a moment after its answer, so the next request may just miss it.
        assert!(upstream.accepted() < 7, "{} connections", upstream.accepted());
    });
}

#[test]
fn head_has_no_body() {
    let upstream = Upstream::start(|_, stream| {
        raw(stream, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n")
    });
    let code = "function api.get()
          local res = rover.http.head(url .. '/a')
          return { res.status, res.body, res.data == nil, res.headers['Content-Length'], res.headers['content-type'] }
        end";
    let app = start(&upstream, code, 1);
    assert_eq!(body(&app, "/"), json!([200, "", true, "5", "application/json"]));
}

#[test]
fn params_headers_and_bodies() {
    let code = r#"
        local http = rover.http
        function api.params.get()
          return http.get(url .. '/s?z=0#part', { params = { q = 'a b&c', list = { 1, 2 ^ 53, 0.5 }, on = true } }).data.target
        end
        function api.headers.get()
          local res = http.get(url, { headers = { ['X-One'] = 1, accept = { 'text/a', 'text/b' }, ['User-Agent'] = 'me' } })
          local h = res.data.headers
          return { h['x-one'], h.accept, h['user-agent'], h.host == url:sub(8), h['accept-encoding'] }
        end
        function api.plain.get() return http.get(url).data.headers['user-agent'] end
        function api.form.get()
          local seen = http.post(url, nil, { form = { name = 'Ada L', tags = { 'x', 'y&z' } } }).data
          return { seen.headers['content-type'], seen.body }
        end
        function api.json.get()
          local seen = http.request { url = url, method = 'POST', json = rover.array {}, headers = { ['content-type'] = 'application/x+json' } }
          return { seen.data.headers['content-type'], seen.data.body }
        end
        function api.multipart.get()
          local seen = http.post(url, nil, { multipart = {
            note = 'hello', upload = { filename = 'a"b.txt', content = 'line', content_type = 'text/plain' } } }).data
          local boundary = seen.headers['content-type']:match('^multipart/form%-data; boundary=(.+)$')
          return (seen.body:gsub(boundary:gsub('%-', '%%-'), 'B'))
        end
        function api.body.post(ctx) return http.put(url, ctx:body()).data.body end
        function api.producer.get()
          local n = 0
          local seen = http.post(url, function()
            n = n + 1
            rover.sleep(0.001)
            if n == 3 then return '' end
            return n <= 5 and ('chunk' .. n .. ' ') or nil
          end).data
          return { seen.body, seen.headers['transfer-encoding'] }
        end"#;
    each_worker_count(|workers| {
        let upstream = mirror();
        let app = start(&upstream, code, workers);
        assert_eq!(app.get("/params").text(), "/s?z=0&list=1&list=9007199254740992&list=0.5&on=true&q=a%20b%26c");
        let headers = body(&app, "/headers");
        assert_eq!(headers, json!(["1", "text/b", "me", true, "gzip, br, zstd"]));
        assert_eq!(app.get("/plain").text(), concat!("rover/", env!("CARGO_PKG_VERSION")));
        assert_eq!(body(&app, "/form"), json!(["application/x-www-form-urlencoded", "name=Ada+L&tags=x&tags=y%26z"]));
        assert_eq!(body(&app, "/json"), json!(["application/x+json", "[]"]));
        assert_eq!(
            app.get("/multipart").text(),
            "--B\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n\
             --B\r\nContent-Disposition: form-data; name=\"upload\"; filename=\"a%22b.txt\"\r\n\
             Content-Type: text/plain\r\n\r\nline\r\n--B--\r\n"
        );
        assert_eq!(app.post("/body", "[1]").text(), "[1]");
        assert_eq!(body(&app, "/producer"), json!(["chunk1 chunk2 chunk4 chunk5 ", "chunked"]));
    });
}

#[test]
fn answers_of_all_kinds() {
    let upstream = Upstream::start(|asked, stream| match asked.target.as_str() {
        "/json" => answer(stream, "201 Created", "Content-Type: application/problem+json\r\n", b"[1,2]"),
        "/broken" => answer(stream, "200 OK", "Content-Type: application/json\r\n", b"{"),
        "/twice" => answer(stream, "404 Not Found", "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n", b"no"),
        "/chunked" => raw(
            stream,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nTrailer: x\r\n\r\n",
        ),
        "/old" => {
            raw(stream, b"HTTP/1.0 200 OK\r\n\r\nup to the end");
            Then::Close
        }
        _ => raw(stream, b"HTTP/1.1 204 No Content\r\n\r\n"),
    });
    let code = "
        local function tell(target)
          local res = rover.http.get(url .. target)
          return { res.status, res.ok, res.body, res.data ~= nil and res.data or 'none', res.headers['SET-COOKIE'] or '' }
        end
        function api.get() return { tell '/json', tell '/broken', tell '/twice', tell '/chunked', tell '/old', tell '/' } end";
    let app = start(&upstream, code, 1);
    assert_eq!(
        body(&app, "/"),
        json!([
            [201, true, "[1,2]", [1, 2], ""],
            [200, true, "{", "none", ""],
            [404, false, "no", "none", ["a=1", "b=2"]],
            [200, true, "onetwo", "none", ""],
            [200, true, "up to the end", "none", ""],
            [204, true, "", "none", ""],
        ])
    );
}

const TEXT: &[u8] = b"hello hello hello hello hello";

/// Bytes in a content coding.
fn encoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(bytes).expect("memory takes all");
            encoder.finish().expect("memory takes all")
        }
        "br" => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
            encoder.write_all(bytes).expect("memory takes all");
            encoder.into_inner()
        }
        _ => zstd::encode_all(bytes, 3).expect("memory takes all"),
    }
}

#[test]
fn content_codings_are_undone() {
    let upstream = Upstream::start(|asked, stream| {
        let coding = asked.target.trim_start_matches('/').trim_end_matches("-cut");
        let body = match coding {
            "odd" => b"odd".to_vec(),
            "not-br" => return answer(stream, "200 OK", "Content-Encoding: br\r\n", b"not brotli at all"),
            _ => encoded(coding, TEXT),
        };
        let body = if asked.target.ends_with("-cut") { &body[..body.len() / 2] } else { &body[..] };
        answer(stream, "200 OK", &format!("Content-Encoding: {coding}\r\n"), body)
    });
    let code = "
        local function tell(target, cfg)
          local res, err = rover.http.get(url .. target, cfg)
          if not res then return err end
          return { res.body, res.headers['content-encoding'] or '', res.headers['content-length'] or '' }
        end
        function api.get()
          return { tell '/gzip', tell '/br', tell '/zstd', tell '/odd', tell '/gzip-cut', tell '/not-br',
            tell('/gzip', { headers = { ['Accept-Encoding'] = 'gzip' } })[2],
            tell('/gzip', { headers = { Range = 'bytes=0-9' } })[2],
            tell('/gzip', { body_size_limit = 28 }), tell('/gzip', { body_size_limit = '29B' })[1] }
        end
        function api.stream.get()
          local all = {}
          for piece in rover.http.get(url .. '/br', { stream = true }).body do all[#all + 1] = piece end
          return table.concat(all)
        end";
    let app = start(&upstream, code, 1);
    let text = std::str::from_utf8(TEXT).expect("text");
    let whole = json!([text, "", ""]);
    let cannot = "response body cannot be decoded";
    assert_eq!(
        body(&app, "/"),
        json!([
            whole,
            whole,
            whole,
            ["odd", "odd", "3"],
            cannot,
            cannot,
            "gzip",
            "gzip",
            "response body too large",
            text
        ])
    );
    assert_eq!(app.get("/stream").text(), text);
    // A part of a coded body could not be undone, so none is asked for.
    let is_partial = |asked: &&Asked| asked.header("range").is_some();
    let asked = upstream.asked();
    assert_eq!(asked.iter().find(is_partial).map(|asked| asked.header("accept-encoding")), Some(None));
}

/// What is small on its way may be any size: the limit is one of what comes out, and who reads piece by piece stops when
/// he likes. Pieces that a server flushes are there before the next ones come.
#[test]
fn coded_bodies_are_decoded_as_they_come() {
    let (next, waits) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let upstream = Upstream::start(move |asked, stream| {
        let (kind, coding) = asked.target.trim_start_matches('/').split_once('/').expect("two words");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut bodies = match kind {
            "bomb" => vec![encoded(coding, &vec![0; 80 << 20])],
            "empty" => vec![],
            // Two members, or frames, of which the second comes when the first has been seen. It is larger than a piece.
            _ => vec![encoded(coding, &[b'a'; 100_000]), encoded(coding, b"end")],
        }
        .into_iter();
        stream.write_all(head.as_bytes()).expect("open");
        if let Some(body) = bodies.next() {
            for bytes in body.chunks(7000) {
                let _ = write!(stream, "{:x}\r\n", bytes.len());
                let _ = stream.write_all(bytes).and_then(|()| stream.write_all(b"\r\n"));
            }
        }
        for body in bodies {
            waits.lock().expect("no panic").recv_timeout(DEADLINE).expect("the first has been seen");
            let _ = write!(stream, "{:x}\r\n", body.len());
            let _ = stream.write_all(&body).and_then(|()| stream.write_all(b"\r\n"));
        }
        if stream.write_all(b"0\r\n\r\n").is_ok() { Then::Keep } else { Then::Close }
    });
    let code = "
        api['{*path}'].get = function(ctx)
          local res, err = rover.http.get(url .. ctx.path, { body_size_limit = '1MB' })
          return res and { #res.body } or err
        end
        api.stream['{*path}'].get = function(ctx)
          local res = rover.http.get(url .. ctx.path:sub(8), { stream = true })
          local n = 0
          return api.stream(200, 'text/plain', function()
            local piece = res.body:read()
            local before = n
            n = n + #(piece or '')
            return piece and (before < 100000 and n >= 100000 and 'first ' or n > 100000 and 'second' or ' ')
          end)
        end";
    let app = start(&upstream, code, 1);
    for coding in ["gzip", "br", "zstd"] {
        assert_eq!(app.get(&format!("/bomb/{coding}")).text(), "response body too large");
        assert_eq!(body(&app, &format!("/empty/{coding}")), json!([0]));
    }
    for coding in ["gzip", "zstd"] {
        let mut client = app.connect();
        client.send(format!("GET /stream/two/{coding} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"));
        let mut seen = String::new();
        while !seen.contains("first") {
            let mut bytes = [0; 4096];
            let n = client.socket().read(&mut bytes).expect("more");
            assert!(n > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
        next.send(()).expect("somebody waits");
        assert!(client.rest().contains("second"));
    }
}

#[test]
fn redirects() {
    let other = mirror();
    let away = other.url();
    let upstream = Upstream::start(move |asked, stream| {
        let to = |status: &str, location: &str, stream: &mut _| {
            answer(stream, status, &format!("Location: {location}\r\n"), b"moved")
        };
        match asked.target.as_str() {
            "/301" => to("301 Moved Permanently", "/end", stream),
            "/303" => to("303 See Other", "end?x", stream),
            "/307" => to("307 Temporary Redirect", "/end", stream),
            "/away" => to("302 Found", &format!("{away}/far"), stream),
            "/loop" => to("302 Found", "/loop", stream),
            "/bad" => to("302 Found", "ftp://a.test/", stream),
            _ => {
                let seen = format!("{} {} {}", asked.method, asked.target, asked.text());
                answer(stream, "200 OK", "", seen.as_bytes())
            }
        }
    });
    let code = "
        local http = rover.http
        function api.followed.get()
          return { http.get(url .. '/301').body, http.post(url .. '/301', 'data').body, http.put(url .. '/301', 'data').body,
            http.put(url .. '/303', 'data').body, http.post(url .. '/307', 'data').body }
        end
        function api.away.get()
          local res = http.get(url .. '/away', { headers = { Authorization = 'secret', Cookie = 'a=1', ['X-Keep'] = 'kept' } })
          local h = res.data.headers
          return { h.authorization or 'gone', h.cookie or 'gone', h['x-keep'], res.url:match('/far$') }
        end
        function api.limits.get()
          return { select(2, http.get(url .. '/loop')), http.get(url .. '/loop', { redirects = false }).status,
            select(2, http.get(url .. '/bad')), http.post(url .. '/307', function() end).status }
        end";
    each_worker_count(|workers| {
        let app = start(&upstream, code, workers);
        assert_eq!(
            body(&app, "/followed"),
            json!(["GET /end ", "GET /end ", "PUT /end data", "GET /end?x ", "POST /end data"])
        );
        assert_eq!(body(&app, "/away"), json!(["gone", "gone", "kept", "/far"]));
        let only = "invalid URL: only http and https can be requested";
        assert_eq!(body(&app, "/limits"), json!(["too many redirects", 302, only, 307]));
    });
}

#[test]
fn bodies_are_read_piece_by_piece() {
    let upstream = Upstream::start(|asked, stream| match asked.target.as_str() {
        "/pieces" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for _ in 0..100 {
                raw(stream, b"5\r\npiece\r\n");
            }
            raw(stream, b"0\r\n\r\n")
        }
        "/cut" => {
            raw(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            Then::Close
        }
        _ => answer(stream, "200 OK", "", b""),
    });
    let code = "
        local http = rover.http
        function api.read.get()
          local res = http.get(url .. '/pieces', { stream = true })
          local size = 0
          while true do
            local piece, err = res.body:read()
            if not piece then return { size, err == nil, res.data == nil, (res.body:read()) == nil } end
            size = size + #piece
          end
        end
        function api.loop.get()
          local size = 0
          for piece in http.get(url .. '/pieces', { stream = true }).body do size = size + #piece end
          return { size }
        end
        function api.cut.get()
          local res = http.get(url .. '/cut', { stream = true })
          local first, second, err = res.body:read(), res.body:read()
          local again = http.get(url .. '/cut', { stream = true })
          return { first, second == nil, err, select(2, res.body:read()),
            select(2, pcall(function() for _ in again.body do end end)) }
        end
        function api.close.get()
          local res = http.get(url .. '/pieces', { stream = true })
          res.body:read()
          res.body:close()
          return { res.body:read() == nil }
        end
        function api.empty.get() return { http.get(url .. '/', { stream = true }).body:read() == nil } end";
    each_worker_count(|workers| {
        let app = start(&upstream, code, workers);
        assert_eq!(body(&app, "/read"), json!([500, true, true, true]));
        assert_eq!(body(&app, "/loop"), json!([500]));
        let broke = "app.lua:23: the response body broke off: connection closed";
        assert_eq!(body(&app, "/cut"), json!(["half", true, "connection closed", "connection closed", broke]));
        assert_eq!(body(&app, "/close"), json!([true]));
        assert_eq!(body(&app, "/empty"), json!([true]));
    });
}

#[test]
fn clients_with_defaults() {
    let upstream = mirror();
    let code = "
        local client = rover.http.create { name = 'mine', base_url = url .. '/v1/', headers = { ['X-Key'] = 'k', ['X-Two'] = 'default' },
          params = { lang = 'en' }, timeout = 5 }
        function api.get()
          local seen = client.get('/items', { headers = { ['x-two'] = 'own' }, params = { q = 1 } }).data
          local colon = client:post('items', { a = 1 }).data
          local whole = client.get(url .. '/else', { params = { lang = 'de' } }).data
          local query = client.get('?a').data
          return { seen.target, seen.headers['x-key'], seen.headers['x-two'], colon.method, colon.target, whole.target, query.target }
        end
        function api.stats.get() return { client.stats()[url].requests, rover.http.stats().mine[url].open >= 1 } end";
    let app = start(&upstream, code, 1);
    let expected =
        json!(["/v1/items?lang=en&q=1", "k", "own", "POST", "/v1/items?lang=en", "/else?lang=de", "/v1/?a&lang=en"]);
    assert_eq!(body(&app, "/"), expected);
    assert_eq!(body(&app, "/stats"), json!([4, true]));
}

#[test]
fn mistakes_name_the_line_of_the_app() {
    let upstream = mirror();
    let code = "
        local function try(f, ...) return select(2, pcall(f, ...)) end
        local http = rover.http
        function api.get()
          return {
            try(function() local r = http.get() end),
            try(function() local r = http.get(url, 5) end),
            try(function() local r = http.get(url, { time = 5 }) end),
            try(function() local r = http.get(url, { timeout = '5' }) end),
            try(function() local r = http.get(url, { headers = { ['a b'] = 'x' } }) end),
            try(function() local r = http.get(url, { headers = { a = 'x\\ny' } }) end),
            try(function() local r = http.get(url, { headers = { ['Content-Length'] = 3 } }) end),
            try(function() local r = http.post(url, 'a', { json = 1 }) end),
            try(function() local r = http.post(url, { f = print }) end),
            try(function() local r = http.request { url = url, method = 'A B' } end),
            try(function() local r = http.create { breaker = { failure = 1 } } end),
            try(function() local r = http.post(url, function() return {} end) end),
            try(function() local r = http.post(url, function() error('mine', 0) end) end),
          }
        end
        function api.urls.get()
          return { select(2, http.get('')), select(2, http.get('ftp://x')), select(2, http.get('http://')),
            select(2, http.get('http://no-such-name.invalid/')) }
        end";
    let app = start(&upstream, code, 1);
    let keys = "body, body_size_limit, connect_timeout, connect_timeout_ms, form, headers, json, \
                multipart, params, redirects, retry, stream, timeout, timeout_ms";
    assert_eq!(
        body(&app, "/"),
        json!([
            "app.lua:7: rover.http.get needs a URL as a string, not nil",
            "app.lua:8: the config of rover.http.get is a table, not 5",
            format!("app.lua:9: unknown key \"time\" in the config of rover.http.get; the keys are {keys}"),
            "app.lua:10: timeout is a number of seconds above 0 (timeout_ms: milliseconds), or false for no limit, not \"5\"",
            "app.lua:11: \"a b\" is not a header name",
            "app.lua:12: the value of the header a has a control character in it",
            "app.lua:13: the header content-length is set by Rover and cannot be changed",
            "app.lua:14: rover.http.post has more than one body: give the data, json, body, form or multipart",
            "app.lua:15: f is a function, which JSON cannot hold",
            "app.lua:16: \"A B\" is not a method",
            "app.lua:17: unknown key \"failure\" in breaker; the keys are failures, open_ms, trials, window_ms",
            "app.lua:18: the function of a request's body returned a table, not a string or nil",
            "mine",
        ])
    );
    assert_eq!(
        body(&app, "/urls"),
        json!([
            "invalid URL: it must begin with http:// or https://",
            "invalid URL: only http and https can be requested",
            "invalid URL: it cannot be understood",
            "name not found",
        ])
    );
}
