//! HTTP/2 as a client sees it: the same handlers, limits against abuse, and the end of connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use rover_server::Server;
use tokio::net::TcpStream as AsyncStream;

use crate::support::{App, DEADLINE, each_worker_count, wait_until};

const APP: &str = r#"
local api = rover.server { body_size_limit = "100KB" }
function api.get(ctx)
  return { version = ctx.version, host = ctx.host, scheme = ctx.scheme, named = ctx:header("host"), ip = ctx.ip }
end
function api.echo.post(ctx) return ctx:body():text() end
function api.cookies.get(ctx) return ctx:cookies() end
function api.big.get() return ("x"):rep(300000) end
function api.hop.get()
  return api.text("hop"):header("Connection", "close, X-Hop"):header("Keep-Alive", "timeout=5")
    :header("X-Hop", "1"):header("Upgrade", "h2c"):header("X-Kept", "1")
end
function api.wait.p_seconds.get(ctx) rover.sleep(tonumber(ctx:params().seconds)) return "woken" end
function api.boom.get() error("boom") end
return api
"#;

/// Runs `test` on one thread, with a connection to the server.
fn with_client<F: Future<Output = ()>>(address: SocketAddr, test: impl FnOnce(SendRequest<Bytes>) -> F) {
    block_on(async {
        let stream = AsyncStream::connect(address).await.unwrap();
        let (client, connection) = handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        test(client).await;
        connection.abort();
    });
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, work).await.expect("in time") });
}

async fn whole(response: Response<RecvStream>) -> (u16, HeaderMap, Vec<u8>) {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        bytes.extend(part);
    }
    (head.status.as_u16(), head.headers, bytes)
}

async fn send(client: &SendRequest<Bytes>, request: Request<Bytes>) -> (u16, HeaderMap, Vec<u8>) {
    let mut client = client.clone().ready().await.unwrap();
    let (head, body) = request.into_parts();
    let (response, mut stream) = client.send_request(Request::from_parts(head, ()), body.is_empty()).unwrap();
    if !body.is_empty() {
        stream.send_data(body, true).unwrap();
    }
    whole(response.await.unwrap()).await
}

fn get(path: &str) -> Request<Bytes> {
    Request::get(format!("http://test:81{path}")).body(Bytes::new()).unwrap()
}

#[test]
fn the_same_handlers_answer() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        with_client(app.address, async |client| {
            let (status, headers, body) = send(&client, get("/")).await;
            let body = String::from_utf8(body).unwrap();
            assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/json"));
            assert!(headers.contains_key("date"));
            assert_eq!(headers["content-length"], body.len().to_string());
            for part in [r#""version":"2""#, r#""host":"test:81""#, r#""scheme":"http""#, r#""named":"test:81""#] {
                assert!(body.contains(part), "{part} in {body}");
            }
            let post = Request::post("http://test/echo").body(Bytes::from("y".repeat(90_000))).unwrap();
            assert_eq!(send(&client, post).await.2.len(), 90_000);
            assert_eq!(send(&client, get("/big")).await.2.len(), 300_000);
            assert_eq!(send(&client, get("/nowhere")).await.0, 404);
            assert_eq!(send(&client, get("/echo")).await.0, 405);
            assert_eq!(send(&client, get("/boom")).await.0, 500);
            let crumbs = Request::get("http://test/cookies").header("cookie", "a=1").header("cookie", "b=2");
            let (_, _, body) = send(&client, crumbs.body(Bytes::new()).unwrap()).await;
            let body = String::from_utf8(body).unwrap();
            assert!(body.contains(r#""a":"1""#) && body.contains(r#""b":"2""#), "{body}");
        });
    });
}

#[test]
fn head_has_the_length_and_no_body() {
    let app = App::start(APP, 1);
    with_client(app.address, async |client| {
        let head = Request::head("http://test/big").body(Bytes::new()).unwrap();
        let (status, headers, body) = send(&client, head).await;
        assert_eq!((status, headers["content-length"].to_str().unwrap(), body.len()), (200, "300000", 0));
    });
}

#[test]
fn what_belongs_to_a_connection_stays_out_of_answers() {
    let app = App::start(APP, 1);
    with_client(app.address, async |client| {
        let (_, headers, _) = send(&client, get("/hop")).await;
        assert_eq!(headers["x-kept"], "1");
        let post = Request::post("http://test/echo").body(Bytes::from("y".repeat(200_000))).unwrap();
        let (status, refused, _) = send(&client, post).await;
        assert_eq!(status, 413);
        for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"] {
            assert!(!headers.contains_key(name) && !refused.contains_key(name), "{name}");
        }
        assert!(!headers.contains_key("x-hop"), "named by Connection");
        assert_eq!(send(&client, get("/")).await.0, 200, "the connection goes on");
    });
}

#[test]
fn there_is_no_way_out_of_http2() {
    let code = "local api = rover.server {} function api.chat.ws(ws) end return api";
    let app = App::start(code, 1);
    with_client(app.address, async |client| {
        let plain = get("/chat");
        // Extended CONNECT (RFC 8441) is not announced, so this is all that a client may try.
        let asking = Request::get("http://test/chat")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        for request in [plain, asking.body(Bytes::new()).unwrap()] {
            let (status, headers, _) = send(&client, request).await;
            assert_eq!((status, headers["x-content-type-options"].to_str().unwrap()), (426, "nosniff"));
        }
    });
}

#[test]
fn streams_run_side_by_side() {
    let app = App::start(APP, 1);
    with_client(app.address, async |client| {
        let slow = tokio::spawn({
            let client = client.clone();
            async move { send(&client, get("/wait/0.3")).await }
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(50) {
            assert_eq!(send(&client, get("/")).await.0, 200);
        }
        assert!(!slow.is_finished());
        assert_eq!(slow.await.unwrap().2, b"woken");
    });
}

#[test]
fn too_long_a_list_of_headers_is_431_and_too_long_a_path_414() {
    let app = App::start(APP, 1);
    with_client(app.address, async |client| {
        let long = get(&format!("/{}", "a".repeat(9000)));
        assert_eq!(send(&client, long).await.0, 414);
        let fields =
            (0..50).fold(Request::get("http://test/"), |request, n| request.header(format!("x-{n}"), "y".repeat(900)));
        assert_eq!(send(&client, fields.body(Bytes::new()).unwrap()).await.0, 431);
        assert_eq!(send(&client, get("/")).await.0, 200, "the connection goes on");
    });
}

#[test]
fn header_count_limit() {
    let app = App::start_server(rover_server::Server::from_source("app.lua", APP).set("header_count_limit", "10"));
    with_client(app.address, async |client| {
        // The host counts, as in HTTP/1.1.
        let with = |count| {
            let request = Request::get("http://test/");
            (0..count).fold(request, |request, n| request.header(format!("x-{n}"), "1")).body(Bytes::new()).unwrap()
        };
        assert_eq!(send(&client, with(9)).await.0, 200);
        assert_eq!(send(&client, with(10)).await.0, 431);
        let lines = (0..10).fold(Request::get("http://test/"), |request, _| request.header("x-same", "1"));
        assert_eq!(send(&client, lines.body(Bytes::new()).unwrap()).await.0, 431);
        assert_eq!(send(&client, get("/")).await.0, 200, "the connection goes on");
    });
}

#[test]
fn a_reset_cancels_the_handler() {
    let code = "local api = rover.server {} local cancelled = 0 \
                function api.wait.get() local ok = pcall(rover.sleep, 60) if not ok then cancelled = cancelled + 1 end end \
                function api.get() return tostring(cancelled) end return api";
    let app = App::start(code, 1);
    with_client(app.address, async |client| {
        let mut ready = client.clone().ready().await.unwrap();
        let (_, mut stream) = ready.send_request(get("/wait").map(|_| ()), true).unwrap();
        assert_eq!(send(&client, get("/")).await.2, b"0");
        stream.send_reset(Reason::CANCEL);
        while send(&client, get("/")).await.2 != b"1" {}
    });
}

/// A client of literal frames.
struct Raw(TcpStream);

impl Raw {
    fn new(address: SocketAddr, settings: &[u8]) -> Raw {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut raw = Raw(stream);
        raw.send(4, 0, 0, settings);
        raw
    }

    /// Sends a frame; false when the server has closed.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).is_ok()
    }

    /// The next frame's kind, stream and payload; `None` at the end.
    fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// The code of the GOAWAY with which the connection ends; `None` where it ends without.
    fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some((kind, _, payload)) = self.next() {
            if kind == 7 {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        code
    }
}

/// `GET` of a path on `test`, in HPACK.
fn request(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    block.extend(b"\x01\x04test");
    block
}

const ENHANCE_YOUR_CALM: u32 = 11;

#[test]
fn rapid_resets_end_the_connection() {
    let app = App::start(APP, 1);
    let mut raw = Raw::new(app.address, &[]);
    let mut bytes = Vec::new();
    for n in 0..2000u32 {
        let stream = (2 * n + 1).to_be_bytes();
        let block = request("/wait/60");
        bytes.extend([&[0, 0, block.len() as u8, 1, 5][..], &stream, &block].concat());
        bytes.extend([&[0, 0, 4, 3, 0][..], &stream, &[0, 0, 0, 8]].concat());
    }
    let _ = raw.0.write_all(&bytes);
    assert_eq!(raw.goaway(), Some(ENHANCE_YOUR_CALM));
    assert_eq!(app.get("/").status, 200);
}

#[test]
fn floods_of_continuations_and_empty_data_end_the_connection() {
    let app = App::start(APP, 1);
    let mut raw = Raw::new(app.address, &[]);
    raw.send(1, 1, 1, &request("/"));
    let endless = [&b"\x00\x01x\x7f\x81\x07"[..], &[b'y'; 1000]].concat();
    let ended = (0..100_000).any(|_| !raw.send(9, 0, 1, &endless));
    assert!(ended || raw.goaway().is_some(), "CONTINUATION without end");
    let mut raw = Raw::new(app.address, &[]);
    let mut post = vec![0x83, 0x86, 0x04, 5];
    post.extend(b"/echo\x01\x04test");
    raw.send(1, 4, 1, &post);
    let ended = (0..200_000).any(|_| !raw.send(0, 0, 1, &[]));
    assert!(ended || raw.goaway().is_some(), "empty DATA without end");
    assert_eq!(app.get("/").status, 200);
}

#[test]
fn a_client_that_floods_and_does_not_read_is_not_read_either() {
    let app = App::start(APP, 1);
    for kind in [4, 6] {
        let mut raw = Raw::new(app.address, &[]);
        raw.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let payload: &[u8] = if kind == 6 { &[0; 8] } else { &[] };
        // The answers fill the socket's buffers; then the server stops to read, and the client can send no more.
        let sent = (0..3_000_000).take_while(|_| raw.send(kind, 0, 0, payload)).count();
        assert!(sent < 3_000_000, "{kind}");
        assert_eq!(app.get("/").status, 200);
    }
}

#[test]
fn a_stream_whose_client_takes_nothing_is_reset() {
    let app = App::start_server(Server::from_source("app.lua", APP).workers(1).set("send_timeout", "200ms"));
    // An initial window of 10 bytes, and never more.
    let mut raw = Raw::new(app.address, &[0, 4, 0, 0, 0, 10]);
    raw.send(1, 5, 1, &request("/big"));
    loop {
        let (kind, stream, payload) = raw.next().expect("the connection goes on");
        if kind == 3 {
            assert_eq!((stream, payload), (1, vec![0, 0, 0, 8]), "CANCEL");
            break;
        }
    }
    raw.send(6, 0, 0, b"are you?");
    while raw.next().expect("the connection goes on").0 != 6 {}
}

#[test]
fn an_idle_connection_ends_with_goaway_and_a_busy_one_goes_on() {
    let app = App::start_server(Server::from_source("app.lua", APP).workers(1).set("idle_timeout", "200ms"));
    let mut idle = Raw::new(app.address, &[]);
    assert_eq!(idle.goaway(), Some(0));
    with_client(app.address, async |client| {
        assert_eq!(send(&client, get("/wait/0.8")).await.2, b"woken");
    });
}

#[test]
fn a_client_that_does_not_answer_pings_is_given_up() {
    let server = Server::from_source("app.lua", APP)
        .workers(1)
        .set("http2.ping_interval", "100ms")
        .set("http2.ping_timeout", "100ms");
    let app = App::start_server(server);
    let mut raw = Raw::new(app.address, &[]);
    raw.send(1, 5, 1, &request("/wait/60"));
    raw.goaway();
}

#[test]
fn the_last_request_of_a_connection_is_announced() {
    let server = Server::from_source("app.lua", APP).workers(1).set("requests_per_connection", "3");
    let app = App::start_server(server);
    let mut raw = Raw::new(app.address, &[]);
    for n in 0..3 {
        raw.send(1, 5, 2 * n + 1, &request("/"));
    }
    let (mut answers, mut goaways) = (0, 0);
    while let Some((kind, _, payload)) = raw.next() {
        answers += u32::from(kind == 1 && payload[0] == 0x88);
        goaways += u32::from(kind == 7);
        if kind == 6 {
            raw.send(6, 1, 0, &payload);
        }
    }
    assert_eq!(answers, 3);
    assert!(goaways >= 1);
}

#[test]
fn stopping_sends_goaway_and_lets_streams_finish() {
    let server = Server::from_source("app.lua", APP).workers(1).shutdown_timeout(DEADLINE);
    let mut app = App::start_server(server);
    let address = app.address;
    let mut raw = Raw::new(address, &[]);
    raw.send(1, 5, 1, &request("/wait/0.5"));
    raw.send(6, 0, 0, b"in order");
    while raw.next().expect("the server answers").0 != 6 {}
    app.begin_stop();
    let (mut went_away, mut body) = (false, Vec::new());
    while let Some((kind, _, payload)) = raw.next() {
        match kind {
            0 => body.extend(payload),
            6 => drop(raw.send(6, 1, 0, &payload)),
            7 => {
                assert_eq!(payload[4..8], [0; 4], "NO_ERROR");
                went_away = true;
            }
            _ => {}
        }
    }
    assert!(went_away);
    assert_eq!(body, b"woken");
    app.ended();
}

#[test]
fn http2_can_be_turned_off() {
    let app = App::start_server(Server::from_source("app.lua", APP).workers(1).set("http2.enabled", "false"));
    let mut raw = Raw::new(app.address, &[]);
    let mut rest = Vec::new();
    let _ = raw.0.read_to_end(&mut rest);
    assert!(rest.starts_with(b"HTTP/1.1 400") || rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    wait_until(|| app.get("/").status == 200);
}
