//! Memory that Lua's collector cannot see: bodies, answers that wait, connections that nobody uses.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::Request;
use rover_server::Server;
use tokio::net::TcpStream as AsyncStream;

use crate::http2::conformance::*;
use crate::support::upstream::{Then, Upstream};
use crate::support::{App, DEADLINE, each_worker_count, message, wait_until};

#[test]
fn a_body_goes_with_its_request() {
    let code = r#"
local api = rover.server { debug = true }
local kept, told
function api.keep.post(ctx) kept = ctx:body() return #kept end
function api.text.get() local s = kept:text() return s end
function api.length.get() local n = #kept return n end
function api.string.get() local s = tostring(kept) return s end
function api.decoded.get() local v = kept:json() return v end
function api.back.get() return kept end
function api.within.get() return { kept = kept } end
function api.encoded.get() local s = rover.json.encode({ kept }) return s end
function api.built.get() local r = api.text(kept) return r end
function api.file.get() local ok = rover.fs.write("/dev/null", kept) return ok end
function api.during.post(ctx)
  local body = ctx:body()
  local task = rover.spawn(function() rover.sleep(0.001) return body:text() end)
  return task:join()
end
function api.spawned.post(ctx)
  local body = ctx:body()
  rover.spawn(function() rover.sleep(0.001) told = select(2, pcall(body.text, body)) end)
  return "sent"
end
function api.told.get() return told or "" end
return api"#;
    each_worker_count(|workers| {
        let gone = "the body of a request that is over: keep body:text() where the content is needed longer";
        let app = App::start(code, 1.min(workers));
        assert_eq!(app.post("/keep", "[1]").text(), "3");
        for (target, line, words) in [
            ("/text", 5, format!("this is {gone}")),
            ("/length", 6, format!("this is {gone}")),
            ("/string", 7, format!("this is {gone}")),
            ("/decoded", 8, format!("this is {gone}")),
            ("/back", 9, format!("the returned value cannot be sent: it is {gone}")),
            ("/within", 10, format!("the returned value cannot be sent: kept is {gone}")),
            ("/encoded", 11, format!("[1] is {gone}")),
            ("/built", 12, format!("this is {gone}")),
            ("/file", 13, format!("rover.fs.write: the content is {gone}")),
        ] {
            assert_eq!(message(&app, target), format!("app.lua:{line}: {words}"), "{target}");
        }
        assert_eq!(app.post("/during", "while").text(), "while");
        assert_eq!(app.post("/spawned", "later").text(), "sent");
        wait_until(|| app.get("/told").text().contains(gone));
    });
}

/// Lua's collector does not know what a connection costs, and comes late.
#[test]
fn an_upstream_s_answer_that_is_not_sent_ends_with_its_request() {
    let upstream = Upstream::start(|_, stream| {
        use std::io::Write;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun");
        Then::Keep
    });
    let code = format!(
        "local api = rover.server {{ debug = true }} local kept
         function api.other.get(ctx) kept = ctx:proxy('http://{}') return 'status ' .. kept:status() end
         function api.kept.get(ctx) return kept end
         return api",
        upstream.address
    );
    let app = App::start(&code, 1);
    for _ in 0..5 {
        assert_eq!(app.get("/other").text(), "status 200");
    }
    wait_until(|| upstream.open.load(std::sync::atomic::Ordering::SeqCst) == 0);
    assert!(message(&app, "/kept").contains("only by its request"));
}

/// The same with clients: each keeps a connection, and an app that makes one for every request makes many.
#[test]
fn clients_that_nobody_holds_are_collected() {
    use std::sync::atomic::Ordering;
    let upstream = Upstream::start(|_, stream| crate::support::upstream::answer(stream, "200 OK", "", b"x"));
    let code = format!(
        "local api = rover.server {{}}
         function api.get(ctx)
           local client = rover.http.create {{ name = 'one' }}
           local res, err = client:get('http://{}')
           return res and res.status or err
         end
         return api",
        upstream.address
    );
    let app = App::start(&code, 1);
    let mut most = 0;
    for _ in 0..300 {
        assert_eq!(app.get("/").text(), "200");
        most = most.max(upstream.open.load(Ordering::SeqCst));
    }
    assert!(most < 100, "{most} connections of 300 clients stood at once");
}

const LARGE: &str = "
local api = rover.server {}
local large = ('x'):rep(2 ^ 20)
function api.large.get() return large end
function api.late.get() rover.sleep(0.001) return { large } end
function api.raised.get() error { status = 422, large } end
function api.get() return 'small' end
return api";

fn start(all: &str, connection: &str) -> App {
    start_with(LARGE, all, connection)
}

fn start_with(code: &str, all: &str, connection: &str) -> App {
    let server = Server::from_source("app.lua", code).workers(1);
    App::start_server(
        server.set("management.port", "0").set("buffer_limit", all).set("buffer_limit_per_connection", connection),
    )
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, work).await.expect("in time") });
}

/// A connection of a client that takes nothing of any answer's body.
async fn stalled(address: SocketAddr) -> (SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let stream = AsyncStream::connect(address).await.unwrap();
    let (client, connection) = Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
    (client, tokio::spawn(async move { drop(connection.await) }))
}

/// The statuses of so many requests at once, whose answers are kept unread.
async fn statuses(client: &SendRequest<Bytes>, target: &str, n: usize, kept: &mut Vec<h2::RecvStream>) -> Vec<u16> {
    let mut found = Vec::new();
    for _ in 0..n {
        let request = Request::get(format!("http://test{target}")).body(()).unwrap();
        let (response, _) = client.clone().ready().await.unwrap().send_request(request, true).unwrap();
        let (head, body) = response.await.unwrap().into_parts();
        kept.push(body);
        found.push(head.status.as_u16());
    }
    found
}

fn held(app: &App, kind: &str) -> u64 {
    let metrics = app.told("/metrics");
    let line = format!("rover_buffered_bytes{{kind=\"{kind}\"}} ");
    let found = metrics.text().lines().find_map(|text| text.strip_prefix(line.as_str()).map(str::to_owned));
    found.expect("the figure").parse().unwrap()
}

#[test]
fn answers_that_wait_have_a_bound_on_each_connection() {
    let app = start("64MB", "3MB");
    for target in ["/large", "/late", "/raised"] {
        block_on(async {
            let (client, connection) = stalled(app.address).await;
            let mut kept = Vec::new();
            let found = statuses(&client, target, 6, &mut kept).await;
            let (sent, refused): (Vec<u16>, Vec<u16>) = found.iter().partition(|status| **status != 503);
            assert!(
                sent.len() >= 2 && !refused.is_empty() && found[0] != 503 && found[5] == 503,
                "{target}: {found:?}"
            );
            // What is small has room, and others have all of theirs.
            assert_eq!(statuses(&client, "/", 1, &mut kept).await, [200]);
            assert_eq!(app.get("/large").status, 200);
            assert!(held(&app, "answer") >= 2 << 20);
            connection.abort();
        });
        wait_until(|| held(&app, "answer") == 0);
    }
    assert!(app.told("/metrics").text().lines().any(|line| line.starts_with("rover_buffers_refused_total ")));
}

#[test]
fn answers_that_wait_have_a_bound_in_all() {
    let app = start("3MB", "0");
    block_on(async {
        let (mut kept, mut found, mut connections) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..6 {
            let (client, connection) = stalled(app.address).await;
            found.extend(statuses(&client, "/large", 1, &mut kept).await);
            assert_eq!(app.get("/").text(), "small");
            connections.push((client, connection));
        }
        assert_eq!(found, [200, 200, 200, 503, 503, 503]);
        let refused = app.get("/large");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        connections.iter().for_each(|(_, connection)| connection.abort());
    });
    wait_until(|| app.get("/large").status == 200);
}

/// One answer alone may be larger than any limit: its app has decided so.
#[test]
fn a_single_answer_always_has_room() {
    let app = start("100KB", "100KB");
    for _ in 0..3 {
        assert_eq!(app.get("/large").body.len(), 1 << 20);
    }
}

const BODIES: &str = "
local api = rover.server { body_size_limit = '2MB' }
function api.post(ctx) return #ctx:body() end
function api.back.post(ctx) return ctx:body() end
function api.get() return 'small' end
return api";

fn refused(app: &App) -> u64 {
    let metrics = app.told("/metrics");
    let found = metrics.text().lines().find_map(|line| line.strip_prefix("rover_buffers_refused_total "));
    found.expect("the figure").parse().unwrap()
}

#[test]
fn unfinished_bodies_have_a_bound_in_all() {
    use std::io::Write;
    let app = start_with(BODIES, "3MB", "0");
    let mut clients: Vec<_> = (0..8).map(|_| app.connect()).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
        // One that is refused may be gone already.
        let _ = client.socket().write_all(&[b'x'; 900_000]);
    }
    wait_until(|| refused(&app) >= 3);
    let most = held(&app, "request");
    assert!((900_000..=3 << 20).contains(&most), "{most}");
    assert_eq!(app.get("/").text(), "small");
    let mut statuses: Vec<u16> = Vec::new();
    for client in &mut clients {
        let _ = client.socket().write_all(&[b'x'; 100_000]);
        let answer = client.answer();
        if answer.status == 503 {
            assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
        } else {
            assert_eq!(answer.text(), "1000000");
        }
        statuses.push(answer.status);
    }
    assert!(statuses.contains(&200) && statuses.iter().filter(|status| **status == 503).count() >= 3, "{statuses:?}");
    wait_until(|| held(&app, "request") == 0);
    assert_eq!(app.post("/", &"y".repeat(1_000_000)).text(), "1000000");
}

#[test]
fn unfinished_bodies_have_a_bound_on_each_connection() {
    let app = start_with(BODIES, "64MB", "3MB");
    block_on(async {
        let stream = AsyncStream::connect(app.address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        let mut streams = Vec::new();
        for _ in 0..8 {
            let request = Request::post("http://test/").body(()).unwrap();
            let (response, mut stream) = client.clone().ready().await.unwrap().send_request(request, false).unwrap();
            stream.send_data(Bytes::from(vec![b'x'; 900_000]), false).unwrap();
            streams.push((response, stream));
        }
        while refused(&app) < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(held(&app, "request") <= 3 << 20);
        let mut statuses = Vec::new();
        for (response, mut stream) in streams {
            let _ = stream.send_data(Bytes::new(), true);
            statuses.push(response.await.unwrap().status().as_u16());
        }
        assert!(
            statuses.contains(&200) && statuses.iter().filter(|status| **status == 503).count() >= 3,
            "{statuses:?}"
        );
        connection.abort();
    });
    wait_until(|| held(&app, "request") == 0);
}

#[test]
fn a_body_that_is_sent_back_is_held_until_it_is_sent() {
    let app = start_with(BODIES, "64MB", "64MB");
    for length in [0, 1, 20_000, 1_500_000] {
        let body = "z".repeat(length);
        assert_eq!(app.post("/back", &body).body.len(), length);
    }
    wait_until(|| held(&app, "request") + held(&app, "answer") == 0);
}

const NO_ROOM: &str = "
local api = rover.server { body_size_limit = '2MB' }
function api.post(ctx) return #ctx:body() end
function api.hooks.before.first(ctx) end
function api.hooks.post(ctx) return #ctx:body() end
return api";

/// What comes on the streams of one connection: `(kind, stream, payload)`, up to the end or to what is asked for.
fn frames(peer: &mut Peer, mut is_enough: impl FnMut(&[Seen]) -> bool) -> Vec<Seen> {
    let mut seen = Vec::new();
    let end = std::time::Instant::now() + DEADLINE;
    while !is_enough(&seen) && seen.last() != Some(&Seen::End) && std::time::Instant::now() < end {
        seen.push(peer.next());
    }
    seen
}

fn of_stream(seen: &[Seen], stream: u32) -> Vec<(u8, Vec<u8>)> {
    let of = |seen: &Seen| match seen {
        Seen::Frame { kind, stream: own, payload, .. } if *own == stream => Some((*kind, payload.clone())),
        _ => None,
    };
    seen.iter().filter_map(of).collect()
}

/// A body for which there is no room is answered, and its stream is reset with NO_ERROR, so that the client keeps the answer
/// (RFC 9113, section 8.1). A client that goes on regardless is told ENHANCE_YOUR_CALM: by its streams, then by the connection.
#[test]
fn a_client_that_goes_on_regardless_is_told_to_be_calm() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let server = Server::from_source("app.lua", NO_ROOM).workers(1);
    let settings = [("management.port", "0"), ("buffer_limit_per_connection", "100KB"), ("http2.max_streams", "2")];
    let app = App::start_server(settings.into_iter().fold(server, |server, (name, value)| server.set(name, value)));
    for (path, is_late) in [("/", false), ("/hooks", true)] {
        let mut peer = Peer::new(app.address, &[]);
        let post = fields(&[(":method", "POST"), SCHEME, (":path", path), AUTHORITY]);
        let piece = frame(DATA, 0, 1, &[b'x'; 16384]);
        let begin = |stream: u32| {
            let mut bytes = frame(HEADERS, END_HEADERS, stream, &post);
            for _ in 0..4 {
                bytes.extend_from_slice(&piece);
                let at = bytes.len() - piece.len();
                bytes[at + 5..at + 9].copy_from_slice(&stream.to_be_bytes());
            }
            bytes
        };
        // One is held, and has no end yet.
        peer.send(&begin(1));
        wait_until(|| held(&app, "request") > 0);
        let mut told = Vec::new();
        for n in 1..40 {
            let stream = 1 + 2 * n;
            peer.send(&begin(stream));
            let is_over = |seen: &[Seen]| {
                of_stream(seen, stream).iter().any(|(kind, _)| *kind == RST_STREAM)
                    || of_stream(seen, 0).iter().any(|(kind, _)| *kind == GOAWAY)
            };
            let seen = frames(&mut peer, is_over);
            if let Some((_, payload)) = of_stream(&seen, 0).into_iter().find(|(kind, _)| *kind == GOAWAY) {
                told.push(("connection", false, code(&payload, 4)));
                break;
            }
            let own = of_stream(&seen, stream);
            let is_answered = own.first().is_some_and(|(kind, _)| *kind == HEADERS);
            let reset = own.iter().find(|(kind, _)| *kind == RST_STREAM).expect("a reset");
            told.push(("stream", is_answered, code(&reset.1, 0)));
        }
        let answered = ("stream", true, 0);
        let reset = ("stream", false, ENHANCE_YOUR_CALM);
        assert_eq!(told[..2], [answered, answered], "{path}: {told:?}");
        assert!(told[2..16].iter().all(|told| *told == if is_late { answered } else { reset }), "{path}: {told:?}");
        assert_eq!(told.last(), Some(&("connection", false, ENHANCE_YOUR_CALM)), "{path}: {told:?}");
        assert!((16..=18).contains(&told.len()), "{path}: {told:?}");
        wait_until(|| held(&app, "request") == 0);
    }
}
