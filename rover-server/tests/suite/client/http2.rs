//! Servers that speak HTTP/2 to `rover.http`, by literal frames: which requests are sent again, and what is put up with.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::client::tls::identity;
use crate::http2::conformance::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, WHOLE, cat, frame,
};
use crate::support::{App, DEADLINE, body};

/// A server of frames; dropped, it takes no more connections.
struct Frames {
    address: SocketAddr,
    ca: PathBuf,
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = std::fs::remove_file(&self.ca);
    }
}

impl Frames {
    /// `reply` gives what is sent once a request is complete, by the number of the connection, from 1, and the streams of the
    /// requests that have come over it.
    fn start(name: &str, reply: impl Fn(usize, &[u32]) -> Vec<u8> + Send + Sync + 'static) -> Frames {
        Frames::start_early(name, |_| Vec::new(), reply)
    }

    /// The same, where `early` gives what is sent once the head of a request with a body is there.
    fn start_early(
        name: &str,
        early: fn(u32) -> Vec<u8>,
        reply: impl Fn(usize, &[u32]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Frames {
        let (config, ca) = identity(name, &["h2"]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (accepted, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let frames = Frames { address, ca, accepted: accepted.clone(), stop: stop.clone() };
        let (config, reply) = (Arc::new(config), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = accepted.fetch_add(1, Ordering::SeqCst) + 1;
                let (config, reply) = (config.clone(), reply.clone());
                std::thread::spawn(move || serve(stream, config, early, |streams| reply(number, streams)));
            }
        });
        frames
    }

    /// An app with a client of this server in `client`.
    fn app(&self, code: &str) -> App {
        App::start(
            &format!(
                "local api = rover.server {{}}
                 local client = rover.http.create {{ base_url = 'https://localhost:{}', tls = {{ ca = '{}' }} }}
                 local function told(res, err) return res and res.status .. ' ' .. res.body or err end
                 {code}
                 return api",
                self.address.port(),
                self.ca.display()
            ),
            1,
        )
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// One connection, up to its end.
fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    early: fn(u32) -> Vec<u8>,
    reply: impl Fn(&[u32]) -> Vec<u8>,
) -> Option<()> {
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let mut stream = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
    stream.read_exact(&mut [0; 24]).ok()?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).ok()?;
    let mut complete = Vec::new();
    loop {
        stream.flush().ok()?;
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).ok()?;
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], head[4]) {
            (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, ACK, 0, &[])).ok()?,
            (HEADERS | DATA, flags) if flags & END_STREAM != 0 => {
                complete.push(number);
                stream.write_all(&reply(&complete)).ok()?;
            }
            (HEADERS, _) => stream.write_all(&early(number)).ok()?,
            _ => {}
        }
    }
}

/// `:status: 200`, and a body.
fn fine(stream: u32) -> Vec<u8> {
    cat(&[frame(HEADERS, END_HEADERS, stream, &[0x88]), frame(DATA, END_STREAM, stream, b"fine")])
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &cat(&[last.to_be_bytes().to_vec(), code.to_be_bytes().to_vec()]))
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

#[test]
fn requests_that_the_end_of_a_connection_leaves_out_are_sent_again() {
    // The first connection takes four requests, and ends with the second.
    let server = Frames::start("client-goaway", |connection, streams| match (connection, streams) {
        (1, [_]) => fine(1),
        (1, [_, second, _, _]) => cat(&[goaway(*second, 0), fine(*second)]),
        (1, _) => Vec::new(),
        (_, streams) => fine(streams[streams.len() - 1]),
    });
    let app = server.app(
        "function api.get()
           local first = told(client.get('/'))
           local function post() return told(client.post('/', { a = 1 })) end
           return { first, rover.all { post, post, post } }
         end
         function api.stats.get() return rover.http.stats() end",
    );
    // None of them is idempotent: what counts is that the server did nothing for them.
    assert_eq!(body(&app, "/"), json!(["200 fine", "200 fine", "200 fine", "200 fine"]));
    assert_eq!(server.accepted(), 2, "those that are sent again share a connection");
    let stats = body(&app, "/stats")["client-1"].as_object().and_then(|all| all.values().next().cloned());
    assert_eq!(stats.expect("figures")["failures"], 0, "nothing has failed");
}

#[test]
fn a_stream_that_was_refused_is_asked_for_again_and_another_reset_is_not() {
    const INTERNAL_ERROR: u32 = 2;
    const REFUSED_STREAM: u32 = 7;
    for (name, code, expected) in
        [("client-refused", REFUSED_STREAM, "200 fine"), ("client-internal", INTERNAL_ERROR, "connection reset")]
    {
        let server = Frames::start(name, move |connection, streams| match (connection, streams) {
            (1, [stream]) => reset(*stream, code),
            (_, streams) => fine(streams[streams.len() - 1]),
        });
        let app = server.app("function api.get() return { told(client.post('/', 'x')) } end");
        assert_eq!(body(&app, "/"), json!([expected]));
    }
}

#[test]
fn a_server_that_never_takes_a_request_is_given_up() {
    let server = Frames::start("client-never", |_, streams| match streams {
        [_] => goaway(0, 0),
        _ => Vec::new(),
    });
    let app = server.app("function api.get() return { told(client.get('/')) } end");
    assert_eq!(body(&app, "/"), json!(["connection closed"]));
    assert_eq!(server.accepted(), 3);
}

#[test]
fn early_hints_trailers_and_errors_have_their_places() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let server = Frames::start("client-places", |_, streams| {
        let stream = streams[streams.len() - 1];
        match streams.len() {
            // `:status: 103`, then `:status: 200` with DATA, then a field.
            1 => cat(&[
                frame(HEADERS, END_HEADERS, stream, b"\x08\x03103"),
                frame(HEADERS, END_HEADERS, stream, &[0x88]),
                frame(DATA, 0, stream, b"fine"),
                frame(HEADERS, WHOLE, stream, b"\x00\x01x\x011"),
            ]),
            2 => frame(HEADERS, WHOLE, stream, b"\x00\x01x\x011"),
            3 => goaway(0, ENHANCE_YOUR_CALM),
            _ => Vec::new(),
        }
    });
    let app = server.app("function api.get() return { told(client.post('/', 'x')) } end");
    assert_eq!(body(&app, "/"), json!(["200 fine"]));
    assert_eq!(body(&app, "/"), json!(["malformed response"]), "a head without a status");
    assert_eq!(body(&app, "/"), json!(["connection closed"]));
}

#[test]
fn interim_answers_without_end_are_an_error() {
    let server = Frames::start("client-interim", |connection, streams| {
        let stream = streams[streams.len() - 1];
        let hints = frame(HEADERS, END_HEADERS, stream, b"\x08\x03103");
        cat(&[hints.repeat(if connection == 1 { 900 } else { 100_000 }), fine(stream), goaway(stream, 0)])
    });
    let app = server.app("function api.get() return { told(client.post('/', 'x')) } end");
    assert_eq!(body(&app, "/"), json!(["200 fine"]));
    assert_eq!(body(&app, "/"), json!(["too many interim responses"]));
}

#[test]
fn an_early_answer_is_the_answer_although_the_stream_is_reset() {
    // `:status: 400`, a body, and RST_STREAM with NO_ERROR (RFC 9113, section 8.1), while the request's body is on its way.
    let early = |stream| {
        cat(&[frame(HEADERS, END_HEADERS, stream, &[0x8c]), frame(DATA, END_STREAM, stream, b"no"), reset(stream, 0)])
    };
    let server = Frames::start_early("client-early", early, |_, _| Vec::new());
    let app = server
        .app("function api.get() return { told(client.post('/', ('x'):rep(8 * 1024 * 1024))), client.stats() } end");
    for _ in 0..5 {
        assert_eq!(body(&app, "/")[0], json!("400 no"));
    }
}
