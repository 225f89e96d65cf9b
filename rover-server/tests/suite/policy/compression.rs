//! Content codings: of responses, where the client takes them, and of request bodies.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::upstream::{Upstream, answer, raw};
use crate::support::{Answer, App, DEADLINE, each_worker_count};

/// The paths of the app: text of any length, and responses that must not be touched.
const CODE: &str = r#"
    local api = rover.server { compression = { enabled = true }, body_size_limit = "256KB" }
    local line = "All work and no play makes Jack a dull boy. "
    local function text(n) return line:rep(math.ceil(n / #line)):sub(1, n) end
    function api.text.p_n.get(ctx) return text(tonumber(ctx:params().n)) end
    function api.json.get() return { text = text(2000) } end
    function api.html.get() return api.html(text(2000)) end
    function api.kind.get(ctx) return api.raw(text(2000)):header("Content-Type", ctx:query().is) end
    function api.untyped.get() return api.raw(text(2000)) end
    function api.random.get()
      local bytes = {}
      for n = 1, 5000 do bytes[n] = string.char(math.random(0, 255)) end
      return table.concat(bytes)
    end
    function api.tagged.get(ctx) return api.text(text(2000)):header("ETag", ctx:query().tag or '"a"') end
    function api.fixed.get() return api.text(text(2000)):header("Cache-Control", "max-age=5, No-Transform") end
    function api.coded.get() return api.text(text(2000)):header("Content-Encoding", "rot13") end
    function api.part.get() return api.text:status(206, text(2000)):header("Content-Range", "bytes 0-1999/9000") end
    function api.varied.get() return api.text(text(2000)):header("Vary", "Origin, ACCEPT-ENCODING") end
    function api.origin.get() return api.text(text(2000)):header("Vary", "Origin") end
    function api.same.get() return api.no_content():status(304) end
    function api.fails.get() return api:error(422, text(2000)) end
    function api.echo.post(ctx)
      return { text = ctx:body() and ctx:body():text() or "none", coding = ctx:header("content-encoding") or "none",
               length = ctx:header("content-length") or "none" }
    end
    function api.size.post(ctx) return #ctx:body() end
    return api
"#;

fn get(app: &App, target: &str, accepts: &str) -> Answer {
    app.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: {accepts}\r\n\r\n"))
}

fn decoded(answer: &Answer) -> Vec<u8> {
    let mut out = Vec::new();
    let body = answer.body.as_slice();
    match answer.header("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut out),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut out),
        Some("zstd") => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut out),
        None => return answer.body.clone(),
        other => panic!("{other:?}"),
    }
    .expect("a body in its coding");
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn br(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 9, 22);
    encoder.write_all(bytes).unwrap();
    encoder.into_inner()
}

fn post(app: &App, target: &str, coding: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: test\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    app.send([head.as_bytes(), body].concat())
}

#[test]
fn the_coding_that_the_client_likes_best() {
    each_worker_count(|workers| {
        let app = App::start(CODE, workers);
        let plain = get(&app, "/text/5000", "identity").body;
        for (accepts, coding) in [
            ("gzip", Some("gzip")),
            ("br", Some("br")),
            ("zstd", Some("zstd")),
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip, br", Some("br")),
            ("gzip;q=0.9, br;q=0.8", Some("gzip")),
            ("*", Some("zstd")),
            ("*;q=0.5, zstd;q=0", Some("br")),
            ("identity;q=0, gzip;q=0.1", Some("gzip")),
            ("", None),
            ("identity", None),
            ("gzip;q=0", None),
            ("*;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("deflate", None),
        ] {
            let answer = get(&app, "/text/5000", accepts);
            assert_eq!((answer.status, answer.header("content-encoding")), (200, coding), "{accepts}");
            assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{accepts}");
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
            assert!(coding.is_none() || answer.body.len() < 200, "{accepts}: {}", answer.body.len());
            assert!(decoded(&answer) == plain, "{accepts}");
        }
        let answer = app.get("/text/5000");
        assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, Some("Accept-Encoding")));
    });
}

#[test]
fn small_bodies_and_other_types_stay_as_they_are() {
    let app = App::start(CODE, 1);
    for (target, is_coded) in [
        ("/text/1023", false),
        ("/text/1024", true),
        ("/json", true),
        ("/html", true),
        ("/untyped", false),
        ("/kind?is=image/png", false),
        ("/kind?is=image/svg%2bxml", true),
        ("/kind?is=Application/Problem%2bJSON;charset=utf-8", true),
        ("/kind?is=application/jsonp", false),
        ("/random", false),
        ("/fails", true),
    ] {
        let answer = get(&app, target, "gzip");
        assert_eq!(answer.header("content-encoding"), is_coded.then_some("gzip"), "{target}");
        let is_subject = is_coded || target == "/random";
        assert_eq!(answer.header("vary"), is_subject.then_some("Accept-Encoding"), "{target}");
    }
    let small = get(&app, "/text/10", "identity;q=0, gzip");
    assert_eq!((small.header("content-encoding"), decoded(&small)), (Some("gzip"), b"All work a".to_vec()));
    assert_eq!(get(&app, "/text/10", "identity;q=0").header("content-encoding"), None, "better than nothing");
}

#[test]
fn responses_that_must_not_be_touched() {
    let app = App::start(CODE, 1);
    for target in ["/fixed", "/part"] {
        let answer = get(&app, target, "gzip");
        assert_eq!((answer.header("content-encoding"), answer.body.len()), (None, 2000), "{target}");
    }
    assert_eq!(get(&app, "/coded", "gzip").header("content-encoding"), Some("rot13"));
    let same = get(&app, "/same", "gzip");
    assert_eq!(
        (same.status, same.header("vary"), same.header("content-encoding")),
        (304, Some("Accept-Encoding"), None)
    );

    let tag = |target: &str| get(&app, target, "gzip").header("etag").map(str::to_owned);
    assert_eq!(tag("/tagged").as_deref(), Some("W/\"a\""), "other bytes under the same strong tag");
    assert_eq!(tag("/tagged?tag=W/%22a%22").as_deref(), Some("W/\"a\""));
    assert_eq!(app.get("/tagged").header("etag"), Some("\"a\""));
    assert_eq!(get(&app, "/varied", "gzip").all("vary"), ["Origin, ACCEPT-ENCODING"]);
    assert_eq!(get(&app, "/origin", "gzip").all("vary"), ["Origin", "Accept-Encoding"]);
}

#[test]
fn head_tells_what_get_would() {
    let app = App::start(CODE, 1);
    let mut client = app.connect();
    client.send("HEAD /text/5000 HTTP/1.1\r\nHost: test\r\nAccept-Encoding: br\r\n\r\n");
    let head = client.head_answer();
    let whole = get(&app, "/text/5000", "br");
    assert_eq!(head.header("content-encoding"), Some("br"));
    assert_eq!(head.header("content-length"), whole.header("content-length"));
    client.send("HEAD /text/100000 HTTP/1.1\r\nHost: test\r\nAccept-Encoding: br\r\n\r\n");
    assert_eq!(client.head_answer().header("content-encoding"), Some("br"));
    client.send("GET /text/1 HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.answer().text(), "A", "the connection is framed as it was");
}

#[test]
fn large_bodies_are_compressed_while_they_are_sent() {
    let app = App::start(CODE, 1);
    let plain = get(&app, "/text/3000000", "").body;
    for coding in ["gzip", "br", "zstd"] {
        let answer = get(&app, "/text/3000000", coding);
        assert_eq!(answer.header("content-encoding"), Some(coding));
        assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (None, Some("chunked")));
        assert!(answer.body.len() < 60_000, "{coding}: {}", answer.body.len());
        assert!(decoded(&answer) == plain, "{coding}");
    }
    // To a client of HTTP/1.0, the end of the connection is the end of the body.
    let mut stream = TcpStream::connect(app.address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /text/100000 HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n").unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&all[end..]).read_to_end(&mut out).unwrap();
    assert!(out == plain[..100_000]);
}

#[test]
fn files_are_compressed_like_everything_else() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("compressed-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let text = "a { color: black }\n".repeat(20_000);
    std::fs::write(dir.join("large.css"), &text).unwrap();
    std::fs::write(dir.join("small.css"), &text[..4000]).unwrap();
    std::fs::write(dir.join("tiny.css"), &text[..100]).unwrap();
    std::fs::write(dir.join("image.png"), &text).unwrap();
    let code = format!(
        "local api = rover.server {{ compression = {{ enabled = true }} }} api.static {{ dir = {:?} }} return api",
        dir.display().to_string()
    );
    let app = App::start(&code, 1);
    for (target, length) in [("/large.css", text.len()), ("/small.css", 4000)] {
        let plain = app.get(target);
        let answer = get(&app, target, "br");
        assert!(decoded(&answer) == text.as_bytes()[..length], "{target}");
        assert_eq!((answer.header("content-encoding"), answer.header("accept-ranges")), (Some("br"), None));
        let tag = answer.header("etag").unwrap();
        assert_eq!(tag, format!("W/{}", plain.header("etag").unwrap()));
        let lines = format!("Accept-Encoding: br\r\nIf-None-Match: {tag}\r\n");
        let again = app.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n"));
        assert_eq!((again.status, again.header("vary")), (304, Some("Accept-Encoding")));
        assert_eq!(again.header("etag"), Some(tag), "that of the 200 in whose place it is");
        let lines = "Accept-Encoding: br\r\nRange: bytes=0-9\r\n";
        let part = app.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n"));
        assert_eq!((part.status, part.header("content-encoding"), part.text()), (206, None, &text[..10]));
        assert_eq!(part.header("vary"), Some("Accept-Encoding"), "as the whole has it");
        let parts = app.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nRange: bytes=0-9,20-29\r\n\r\n"));
        assert_eq!((parts.status, parts.header("vary")), (206, Some("Accept-Encoding")));
    }
    for target in ["/tiny.css", "/image.png"] {
        let part = app.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\nRange: bytes=0-9\r\n\r\n"));
        assert_eq!((part.status, part.header("vary")), (206, None), "{target} is never compressed");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn nothing_is_compressed_unless_asked_for() {
    let app = App::start("local api = rover.server {} function api.get() return ('x'):rep(5000) end return api", 1);
    let answer = get(&app, "/", "gzip, br, zstd");
    assert_eq!((answer.header("content-encoding"), answer.header("vary"), answer.body.len()), (None, None, 5000));
}

#[test]
fn short_bodies_that_pass_through_stay_as_they_are() {
    let upstream = Upstream::start(|asked, stream| {
        let length: usize = asked.target[1..].parse().expect("a length");
        let length_told = if asked.method == "HEAD" { length } else { 0 };
        let body = "b".repeat(if asked.method == "HEAD" { 0 } else { length });
        match length_told {
            0 => answer(stream, "200 OK", "Content-Type: text/plain\r\n", body.as_bytes()),
            n => raw(
                stream,
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {n}\r\n\r\n").as_bytes(),
            ),
        }
    });
    let code = format!(
        "local api = rover.server {{ compression = {{ enabled = true }} }} api['{{*path}}'].any = api.proxy('{}') return api",
        upstream.url()
    );
    let app = App::start(&code, 1);
    for (length, is_coded) in [(0, false), (2, false), (1023, false), (1024, true)] {
        let whole = get(&app, &format!("/{length}"), "gzip");
        assert_eq!(whole.header("content-encoding"), is_coded.then_some("gzip"), "{length}");
        if !is_coded {
            assert_eq!((whole.header("content-length"), whole.body.len()), (Some(&*length.to_string()), length));
        }
        let mut client = app.connect();
        client.send(format!("HEAD /{length} HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\n\r\n"));
        assert_eq!(client.head_answer().header("content-encoding"), whole.header("content-encoding"), "HEAD {length}");
    }
}

#[test]
fn the_rules_are_the_config_s() {
    let code = "local api = rover.server { compression = { enabled = true, min_size = 10, types = { 'text/html' }, codings = { 'gzip', 'br' } } } \
                function api.get() return api.html(('x'):rep(40)) end function api.text.get() return ('x'):rep(5000) end return api";
    let app = App::start(code, 1);
    assert_eq!(get(&app, "/", "zstd, br, gzip").header("content-encoding"), Some("gzip"));
    assert_eq!(get(&app, "/", "zstd").header("content-encoding"), None);
    assert_eq!(get(&app, "/text", "gzip").header("content-encoding"), None);
}

#[test]
fn request_bodies_arrive_decoded() {
    each_worker_count(|workers| {
        let app = App::start(CODE, workers);
        let text = "{\"a\":1}";
        let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        deflate.write_all(text.as_bytes()).unwrap();
        for (coding, body) in [
            ("gzip", gzip(text.as_bytes())),
            ("X-GZIP", gzip(text.as_bytes())),
            ("br", br(text.as_bytes())),
            ("zstd", zstd::encode_all(text.as_bytes(), 3).unwrap()),
            ("deflate", deflate.finish().unwrap()),
        ] {
            let answer = post(&app, "/echo", coding, &body);
            let echoed: serde_json::Value = serde_json::from_str(answer.text()).unwrap();
            let expected = serde_json::json!({"text": text, "coding": "none", "length": "none"});
            assert_eq!(echoed, expected, "{coding}");
        }
        let plain = post(&app, "/echo", "identity", text.as_bytes());
        assert!(plain.text().contains("\"coding\":\"identity\""), "{}", plain.text());
        let empty: serde_json::Value = serde_json::from_str(post(&app, "/echo", "gzip", &gzip(b"")).text()).unwrap();
        assert_eq!(empty["text"], "none");
    });
}

#[test]
fn a_coded_body_that_comes_in_pieces() {
    let app = App::start(CODE, 1);
    let text = "0123456789abcdef".repeat(16 * 1024);
    let body = gzip(text.as_bytes());
    let mut client = app.connect();
    client.send("POST /size HTTP/1.1\r\nHost: test\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.chunks(100) {
        client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.answer().text(), "262144");
}

#[test]
fn a_bomb_is_413() {
    let app = App::start(CODE, 1);
    let zeros = vec![0; 50 << 20];
    for (coding, bomb) in
        [("gzip", gzip(&zeros)), ("br", br(&zeros)), ("zstd", zstd::encode_all(&zeros[..], 3).unwrap())]
    {
        assert!(bomb.len() < 256 * 1024, "{coding}");
        let answer = post(&app, "/size", coding, &bomb);
        assert_eq!((answer.status, answer.text()), (413, "{\"error\":\"Payload Too Large\"}"), "{coding}");
    }
    let one_above = vec![b'x'; 256 * 1024 + 1];
    assert_eq!(post(&app, "/size", "gzip", &gzip(&one_above)).status, 413);
    assert_eq!(post(&app, "/size", "gzip", &gzip(&one_above[1..])).text(), "262144");
}

#[test]
fn codings_that_are_unknown_or_wrong() {
    let app = App::start(CODE, 1);
    for coding in ["compress", "gzip, br", "rot13"] {
        let answer = post(&app, "/echo", coding, b"x");
        assert_eq!(
            (answer.status, answer.header("accept-encoding")),
            (415, Some("gzip, br, zstd, deflate")),
            "{coding}"
        );
    }
    for coding in ["gzip", "br", "zstd", "deflate"] {
        assert_eq!(post(&app, "/echo", coding, b"this is not it").status, 400, "{coding}");
        let whole = if coding == "br" { br(&[7; 9999]) } else { gzip(&[7; 9999]) };
        assert_eq!(post(&app, "/echo", coding, &whole[..whole.len() - 1]).status, 400, "{coding}, cut off");
    }
}

#[test]
fn an_event_stream_is_compressed_without_being_held_back() {
    let code = "local api = rover.server { compression = { enabled = true } }
        local may_go = false
        function api.go.get() may_go = true end
        function api.wait.get() may_go = false end
        function api.events.get()
          local n = 0
          return api.sse(function()
            n = n + 1
            while n > 1 and not may_go do rover.sleep(0.01) end
            if n <= 3 then return 'event ' .. n end
          end)
        end
        return api";
    let app = App::start(code, 1);
    for coding in ["gzip", "br", "zstd"] {
        app.get("/wait");
        let mut client = app.connect();
        client.send(format!("GET /events HTTP/1.1\r\nHost: test\r\nAccept-Encoding: {coding}\r\n\r\n"));
        let head = client.head_answer();
        assert_eq!((head.header("content-encoding"), head.header("vary")), (Some(coding), Some("Accept-Encoding")));
        let mut body = Vec::new();
        let mut text = String::new();
        while !text.contains("event 1") {
            body.extend(client.chunk().expect("a chunk"));
            text = decoded_so_far(coding, &body);
        }
        assert!(!text.contains("event 2"));
        assert_eq!(app.get("/go").status, 204);
        while let Some(chunk) = client.chunk() {
            body.extend(chunk);
        }
        assert_eq!(decoded_so_far(coding, &body), "data: event 1\n\ndata: event 2\n\ndata: event 3\n\n");
    }
}

/// What a client can read of a stream that has not ended.
fn decoded_so_far(coding: &str, body: &[u8]) -> String {
    let mut decoder: Box<dyn Read> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(body)),
        "br" => Box::new(brotli::Decompressor::new(body, 4096)),
        _ => Box::new(zstd::stream::read::Decoder::new(body).unwrap()),
    };
    let mut text = vec![0; 4096];
    let mut length = 0;
    while let Ok(more @ 1..) = decoder.read(&mut text[length..]) {
        length += more;
    }
    String::from_utf8(text[..length].to_vec()).unwrap()
}
