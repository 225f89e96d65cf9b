//! HTTP/2 by literal frames: the cases of RFC 9113, sections 3 to 8, and of RFC 7541 that conformance suites try.
//!
//! Each case is a connection of its own, in clear text by prior knowledge, and one over TLS. It sends what it has to send
//! and then, twice, a PING; what came back before the second was answered is the outcome.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rover_server::Server;

use crate::listen::tls;
use crate::support::{App, DEADLINE};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const UNKNOWN: u8 = 0x16;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const COMPRESSION_ERROR: u32 = 9;

pub const APP: &str = "local api = rover.server { http2 = { max_streams = 100 } } \
                   function api.get() return 'home' end function api.post(ctx) return tostring(ctx:body()) end \
                   function api.slow.get() rover.sleep(60) end return api";

/// A frame as it goes over the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field in HPACK: literal, without indexing, with a name of its own.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, name.len() as u8];
    bytes.extend(name.as_bytes());
    bytes.push(value.len() as u8);
    bytes.extend(value.as_bytes());
    bytes
}

pub fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    list.iter().flat_map(|(name, value)| field(name, value)).collect()
}

pub const METHOD: (&str, &str) = (":method", "GET");
pub const POST: (&str, &str) = (":method", "POST");
pub const SCHEME: (&str, &str) = (":scheme", "http");
pub const PATH: (&str, &str) = (":path", "/");
pub const AUTHORITY: (&str, &str) = (":authority", "test");

pub fn get() -> Vec<u8> {
    fields(&[METHOD, SCHEME, PATH, AUTHORITY])
}

pub fn post() -> Vec<u8> {
    fields(&[POST, SCHEME, PATH, AUTHORITY])
}

pub fn slow() -> Vec<u8> {
    fields(&[METHOD, SCHEME, (":path", "/slow"), AUTHORITY])
}

pub fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Frame { kind: u8, flags: u8, stream: u32, payload: Vec<u8> },
    End,
}

trait Transport: Read + Write {}

impl<T: Read + Write> Transport for T {}

pub struct Peer {
    stream: Box<dyn Transport>,
}

impl Peer {
    /// Connects, and exchanges prefaces with these settings.
    pub fn new(address: SocketAddr, settings: &[u8]) -> Peer {
        Peer::silent(address).greet(settings)
    }

    /// As [`Peer::new`], over TLS.
    fn encrypted(address: SocketAddr, settings: &[u8]) -> Peer {
        let stream = tls::connect(address, &tls::offer(&["h2"], false, None), "localhost").expect("a handshake");
        Peer { stream: Box::new(stream) }.greet(settings)
    }

    fn greet(self, settings: &[u8]) -> Peer {
        let mut peer = self;
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
        let first = peer.next();
        assert!(matches!(first, Seen::Frame { kind: SETTINGS, flags: 0, stream: 0, .. }), "{first:?} is no preface");
        peer.send(&frame(SETTINGS, ACK, 0, &[]));
        peer
    }

    pub fn silent(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        Peer { stream: Box::new(stream) }
    }

    /// Sends, as far as the server still listens.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    pub fn next(&mut self) -> Seen {
        let mut head = [0; 9];
        if self.stream.read_exact(&mut head).is_err() {
            return Seen::End;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        match self.stream.read_exact(&mut payload) {
            Ok(()) => Seen::Frame { kind: head[3], flags: head[4], stream, payload },
            Err(_) => Seen::End,
        }
    }

    /// Everything up to the answer to the second of two PINGs, or to the end.
    pub fn outcome(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for number in 1..=2u64 {
            let payload = number.to_be_bytes();
            self.send(&frame(PING, 0, 0, &payload));
            loop {
                match self.next() {
                    Seen::End => {
                        seen.push(Seen::End);
                        return seen;
                    }
                    Seen::Frame { kind: PING, flags: ACK, payload: answered, .. } if answered == payload => break,
                    other => seen.push(other),
                }
            }
        }
        seen
    }
}

pub fn code(payload: &[u8], at: usize) -> u32 {
    payload.get(at..at + 4).map_or(u32::MAX, |code| u32::from_be_bytes(code.try_into().unwrap()))
}

/// What a case expects.
#[derive(Clone, Copy, Debug)]
pub enum Expected {
    /// The connection ends with GOAWAY and one of these codes.
    Connection(&'static [u32]),
    /// A stream is reset with one of these codes, or the connection ends with it.
    Stream(&'static [u32]),
    /// A stream is reset with this code, the request is refused with 400, or the connection ends with the code.
    Malformed,
    /// Nothing is wrong, and so many answers with status 200 come.
    Answers(usize),
}

impl Expected {
    pub fn is_met(self, seen: &[Seen]) -> bool {
        let went_away = seen.iter().find_map(|seen| match seen {
            Seen::Frame { kind: GOAWAY, payload, .. } => Some(code(payload, 4)),
            _ => None,
        });
        let was_reset = seen.iter().find_map(|seen| match seen {
            Seen::Frame { kind: RST_STREAM, payload, .. } => Some(code(payload, 0)),
            _ => None,
        });
        let answers = |first: u8| {
            let is = |seen: &&Seen| matches!(seen, Seen::Frame { kind: HEADERS, payload, .. } if payload.first() == Some(&first));
            seen.iter().filter(is).count()
        };
        let ends = seen.last() == Some(&Seen::End);
        match self {
            Expected::Connection(codes) => ends && went_away.is_some_and(|code| named(codes, code)),
            Expected::Stream(codes) => went_away.or(was_reset).is_some_and(|code| named(codes, code)),
            // 0x8c is `:status: 400` of the static table, 0x88 is 200.
            Expected::Malformed => answers(0x8c) == 1 || went_away.or(was_reset) == Some(PROTOCOL_ERROR),
            Expected::Answers(count) => went_away.is_none() && was_reset.is_none() && !ends && answers(0x88) == count,
        }
    }
}

/// Whether an error is one of those expected. What the h2 crate finds while it decodes a frame or a block it calls
/// PROTOCOL_ERROR, the most general of all, where the RFC has a name that says more.
fn named(codes: &[u32], code: u32) -> bool {
    codes.contains(&code) || code == PROTOCOL_ERROR
}

use Expected::{Answers, Connection, Malformed, Stream};

/// A case's number in the RFC and what it does, what it sends, and what is to come of it.
pub type Case = (&'static str, Vec<u8>, Expected);

pub fn run(cases: Vec<Case>) {
    let plain = App::start(APP, 1);
    let encrypted = App::start_server(Server::from_source("app.lua", APP).workers(1).set("tls.self_signed", "true"));
    let mut wrong = Vec::new();
    for (name, bytes, expected) in cases {
        let peers = [Peer::new(plain.address, &[]), Peer::encrypted(tls::address(&encrypted), &[])];
        for (mut peer, transport) in peers.into_iter().zip(["clear text", "TLS"]) {
            peer.send(&bytes);
            let seen = peer.outcome();
            if !expected.is_met(&seen) {
                wrong.push(format!("{name}, {transport}: expected {expected:?}, got {seen:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(plain.get("/").text(), "home");
}

pub fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, block)
}

pub fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &post())
}

pub fn cat(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn sections_3_and_4_prefaces_and_frames() {
    run(vec![
        ("3.4 a request after the prefaces", headers(1, &get()), Answers(1)),
        ("4.1 a frame of unknown type", cat(&[frame(UNKNOWN, 0, 0, &[0; 8]), headers(1, &get())]), Answers(1)),
        ("4.1 undefined flags", cat(&[frame(PING, 0xfe, 0, &[0; 8]), headers(1, &get())]), Answers(1)),
        ("4.1 the reserved bit", cat(&[frame(PING, 0, 1 << 31, &[0; 8]), headers(1, &get())]), Answers(1)),
        ("4.2 DATA of the greatest size", cat(&[open(1), frame(DATA, END_STREAM, 1, &[b'x'; 16384])]), Answers(1)),
        ("4.2 DATA above it", cat(&[open(1), frame(DATA, END_STREAM, 1, &[0; 16385])]), Stream(&[FRAME_SIZE_ERROR])),
        ("4.2 HEADERS above it", frame(HEADERS, WHOLE, 1, &[0; 16385]), Connection(&[FRAME_SIZE_ERROR])),
        ("4.3 a block that is no HPACK", headers(1, b"\x40\x05\xff\xff"), Connection(&[COMPRESSION_ERROR])),
        (
            "4.3 PRIORITY within a block",
            cat(&[frame(HEADERS, END_STREAM, 1, &get()), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255])]),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "4.3 HEADERS of another stream within a block",
            cat(&[frame(HEADERS, END_STREAM, 1, &get()), headers(3, &get())]),
            Connection(&[PROTOCOL_ERROR]),
        ),
    ]);
}

#[test]
fn section_3_prefaces_that_are_none() {
    let app = App::start(APP, 1);
    let mut peer = Peer::silent(app.address);
    peer.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert!(matches!(peer.next(), Seen::Frame { kind: SETTINGS, .. }));
    let Seen::Frame { kind: GOAWAY, payload, .. } = peer.next() else { panic!("no GOAWAY") };
    assert_eq!(code(&payload, 4), PROTOCOL_ERROR);
    assert_eq!(peer.next(), Seen::End);
    // The preface is there, and no SETTINGS behind it.
    let mut peer = Peer::silent(app.address);
    peer.send(&[PREFACE, &frame(PING, 0, 0, &[0; 8])].concat());
    assert!(Connection(&[PROTOCOL_ERROR]).is_met(&peer.outcome()));
    // Byte by byte it is a preface all the same.
    let mut peer = Peer::silent(app.address);
    for byte in [PREFACE, &frame(SETTINGS, 0, 0, &[]), &headers(1, &get())].concat() {
        peer.send(&[byte]);
    }
    let seen = peer.outcome();
    assert!(Answers(1).is_met(&seen), "{seen:?}");
    // What only begins like it is HTTP/1.1.
    let answer = app.send("PRI / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(answer.status, 405);
    assert_eq!(app.send("PROPFIND / HTTP/1.1\r\nHost: test\r\n\r\n").status, 405);
    assert_eq!(app.send("INVALID CONNECTION PREFACE\r\n\r\n").status, 400);
}

#[test]
fn section_5_streams() {
    let closed = &[STREAM_CLOSED, PROTOCOL_ERROR][..];
    let reset = frame(RST_STREAM, 0, 1, &8u32.to_be_bytes());
    let many: Vec<u8> = (0..110).flat_map(|n| headers(2 * n + 1, &slow())).collect();
    let on_itself = [&[0x80, 0, 0, 1, 16][..], &get()].concat();
    run(vec![
        ("5.1 idle: DATA", frame(DATA, END_STREAM, 1, b"x"), Connection(closed)),
        ("5.1 idle: RST_STREAM", reset.clone(), Connection(&[PROTOCOL_ERROR])),
        ("5.1 idle: WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), Connection(&[PROTOCOL_ERROR])),
        ("5.1 idle: CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, &get()), Connection(&[PROTOCOL_ERROR])),
        ("5.1 half closed: DATA", cat(&[headers(1, &slow()), frame(DATA, END_STREAM, 1, b"x")]), Stream(closed)),
        ("5.1 half closed: HEADERS", cat(&[headers(1, &slow()), headers(1, &slow())]), Stream(closed)),
        (
            "5.1 half closed: CONTINUATION",
            cat(&[headers(1, &slow()), frame(CONTINUATION, END_HEADERS, 1, &get())]),
            Connection(closed),
        ),
        ("5.1 reset: HEADERS", cat(&[open(1), reset.clone(), headers(1, &get())]), Stream(closed)),
        (
            "5.1 reset: CONTINUATION",
            cat(&[open(1), reset.clone(), frame(CONTINUATION, END_HEADERS, 1, &get())]),
            Connection(closed),
        ),
        ("5.1.1 an even number", headers(2, &get()), Connection(&[PROTOCOL_ERROR])),
        ("5.1.1 a smaller number", cat(&[headers(5, &get()), headers(3, &get())]), Connection(closed)),
        ("5.1.2 too many streams", many, Stream(&[REFUSED_STREAM, PROTOCOL_ERROR])),
        (
            "5.3.1 HEADERS that depend on themselves",
            frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &on_itself),
            Stream(&[PROTOCOL_ERROR]),
        ),
        ("5.4.1 an error of the connection", frame(PING, 0, 0, &[0; 6]), Connection(&[FRAME_SIZE_ERROR])),
        (
            "5.5 an extension within a block",
            cat(&[frame(HEADERS, END_STREAM, 1, &get()), frame(UNKNOWN, 0, 0, &[0; 8])]),
            Connection(&[PROTOCOL_ERROR]),
        ),
    ]);
}

#[test]
fn section_5_frames_on_closed_streams() {
    let app = App::start(APP, 1);
    for late in [frame(DATA, END_STREAM, 1, b"x"), headers(1, &get()), frame(CONTINUATION, END_HEADERS, 1, &get())] {
        let mut peer = Peer::new(app.address, &[]);
        peer.send(&headers(1, &get()));
        assert!(Answers(1).is_met(&peer.outcome()), "the stream is over");
        peer.send(&late);
        let seen = peer.outcome();
        assert!(Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]).is_met(&seen), "{late:?}: {seen:?}");
    }
    // DATA that crosses with a reset is not held against the client for a while.
    let mut peer = Peer::new(app.address, &[]);
    peer.send(&cat(&[open(1), frame(RST_STREAM, 0, 1, &8u32.to_be_bytes()), frame(DATA, END_STREAM, 1, b"x")]));
    let seen = peer.outcome();
    assert!(Stream(&[STREAM_CLOSED]).is_met(&seen) || Answers(0).is_met(&seen), "{seen:?}");
}

#[test]
fn section_6_data_headers_priority_and_resets() {
    let padding = [&[255][..], &get()[..20]].concat();
    run(vec![
        ("6.1 DATA on stream 0", frame(DATA, END_STREAM, 0, b"x"), Connection(&[PROTOCOL_ERROR])),
        (
            "6.1 more padding than DATA",
            cat(&[open(1), frame(DATA, END_STREAM | PADDED, 1, b"\x06xxxxx")]),
            Connection(&[PROTOCOL_ERROR]),
        ),
        ("6.1 padded DATA", cat(&[open(1), frame(DATA, END_STREAM | PADDED, 1, b"\x02xx\0\0")]), Answers(1)),
        ("6.2 HEADERS on stream 0", headers(0, &get()), Connection(&[PROTOCOL_ERROR])),
        ("6.2 more padding than HEADERS", frame(HEADERS, WHOLE | PADDED, 1, &padding), Connection(&[PROTOCOL_ERROR])),
        (
            "6.2 HEADERS with a priority",
            frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&[0, 0, 0, 0, 255][..], &get()].concat()),
            Answers(1),
        ),
        ("6.3 PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 255]), Connection(&[PROTOCOL_ERROR])),
        ("6.3 PRIORITY of another length", frame(PRIORITY, 0, 1, &[0, 0, 0, 1]), Stream(&[FRAME_SIZE_ERROR])),
        ("6.4 RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]), Connection(&[PROTOCOL_ERROR])),
        (
            "6.4 RST_STREAM of another length",
            cat(&[open(1), frame(RST_STREAM, 0, 1, &[0, 0, 8])]),
            Connection(&[FRAME_SIZE_ERROR]),
        ),
    ]);
}

#[test]
fn section_6_settings_pings_and_goaway() {
    run(vec![
        ("6.5 SETTINGS acknowledged with content", frame(SETTINGS, ACK, 0, &[0]), Connection(&[FRAME_SIZE_ERROR])),
        ("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1, &setting(3, 9)), Connection(&[PROTOCOL_ERROR])),
        ("6.5 SETTINGS of another length", frame(SETTINGS, 0, 0, &[0, 3, 0]), Connection(&[FRAME_SIZE_ERROR])),
        ("6.5.2 ENABLE_PUSH of 2", frame(SETTINGS, 0, 0, &setting(2, 2)), Connection(&[PROTOCOL_ERROR])),
        (
            "6.5.2 a window above the greatest",
            frame(SETTINGS, 0, 0, &setting(4, 1 << 31)),
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        ("6.5.2 frames too small", frame(SETTINGS, 0, 0, &setting(5, 16383)), Connection(&[PROTOCOL_ERROR])),
        ("6.5.2 frames too large", frame(SETTINGS, 0, 0, &setting(5, 1 << 24)), Connection(&[PROTOCOL_ERROR])),
        ("6.5.2 an unknown setting", cat(&[frame(SETTINGS, 0, 0, &setting(255, 1)), headers(1, &get())]), Answers(1)),
        ("6.7 PING on a stream", frame(PING, 0, 1, &[0; 8]), Connection(&[PROTOCOL_ERROR])),
        ("6.7 PING of another length", frame(PING, 0, 0, &[0; 9]), Connection(&[FRAME_SIZE_ERROR])),
        ("6.7 an answer to no PING", cat(&[frame(PING, ACK, 0, b"answered"), headers(1, &get())]), Answers(1)),
        ("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Connection(&[PROTOCOL_ERROR])),
    ]);
}

#[test]
fn section_6_settings_are_acknowledged_and_pings_answered() {
    let app = App::start(APP, 1);
    let mut peer = Peer::new(app.address, &setting(4, 100));
    peer.send(&frame(PING, 0, 0, b"a-token!"));
    let seen = peer.outcome();
    let ack = Seen::Frame { kind: SETTINGS, flags: ACK, stream: 0, payload: Vec::new() };
    assert!(seen.contains(&ack), "{seen:?}");
    let pong = Seen::Frame { kind: PING, flags: ACK, stream: 0, payload: b"a-token!".to_vec() };
    assert!(seen.contains(&pong), "{seen:?}");
    assert!(!seen.iter().any(|seen| matches!(seen, Seen::Frame { kind: PING, flags: 0, .. })));
}

#[test]
fn section_6_windows() {
    let zero = |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
    let most = |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes());
    run(vec![
        ("6.9 an increment of 0", zero(0), Connection(&[PROTOCOL_ERROR])),
        ("6.9 an increment of 0 on a stream", cat(&[open(1), zero(1)]), Stream(&[PROTOCOL_ERROR])),
        ("6.9 another length", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), Connection(&[FRAME_SIZE_ERROR])),
        ("6.9.1 a window above the greatest", cat(&[most(0), most(0)]), Connection(&[FLOW_CONTROL_ERROR])),
        ("6.9.1 the same on a stream", cat(&[open(1), most(1), most(1)]), Stream(&[FLOW_CONTROL_ERROR])),
        // The RFC wants the connection to end; the h2 crate ends the stream.
        (
            "6.9.2 a window above the greatest by settings",
            cat(&[open(1), most(1), frame(SETTINGS, 0, 0, &setting(4, 0x7fff_ffff))]),
            Stream(&[FLOW_CONTROL_ERROR]),
        ),
    ]);
}

/// The bytes of DATA among what came.
pub fn data(seen: &[Seen]) -> Vec<u8> {
    let mut all = Vec::new();
    for seen in seen {
        if let Seen::Frame { kind: DATA, payload, .. } = seen {
            all.extend(payload);
        }
    }
    all
}

#[test]
fn section_6_the_server_keeps_to_the_window() {
    let app = App::start(APP, 1);
    // One byte at a time.
    let mut peer = Peer::new(app.address, &setting(4, 1));
    peer.send(&headers(1, &get()));
    assert_eq!(data(&peer.outcome()), b"h");
    peer.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 2]));
    assert_eq!(data(&peer.outcome()), b"om");
    // A greater initial window counts for streams that are open.
    peer.send(&frame(SETTINGS, 0, 0, &setting(4, 10)));
    assert_eq!(data(&peer.outcome()), b"e");
    // A smaller one makes the window negative, and it must be made up for.
    let mut peer = Peer::new(app.address, &setting(4, 3));
    peer.send(&headers(1, &get()));
    assert_eq!(data(&peer.outcome()), b"hom");
    peer.send(&frame(SETTINGS, 0, 0, &setting(4, 2)));
    peer.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
    assert_eq!(data(&peer.outcome()), b"");
    peer.send(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
    assert_eq!(data(&peer.outcome()), b"e");
}

#[test]
fn section_6_continuations() {
    let block = get();
    let (a, b) = block.split_at(10);
    let (b, c) = b.split_at(10);
    run(vec![
        (
            "6.10 a block in three frames",
            cat(&[
                frame(HEADERS, END_STREAM, 1, a),
                frame(CONTINUATION, 0, 1, b),
                frame(CONTINUATION, END_HEADERS, 1, c),
            ]),
            Answers(1),
        ),
        (
            "6.10 another frame between",
            cat(&[frame(HEADERS, END_STREAM, 1, a), frame(DATA, END_STREAM, 1, b"x")]),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.10 CONTINUATION on stream 0",
            cat(&[frame(HEADERS, END_STREAM, 1, a), frame(CONTINUATION, END_HEADERS, 0, b)]),
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.10 CONTINUATION after the end",
            cat(&[headers(1, &slow()), frame(CONTINUATION, END_HEADERS, 1, a)]),
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        (
            "6.10 CONTINUATION after DATA",
            cat(&[open(1), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, a)]),
            Connection(&[PROTOCOL_ERROR]),
        ),
    ]);
}

#[test]
fn section_8_requests() {
    let with = |list: &[(&str, &str)]| headers(1, &[get(), fields(list)].concat());
    let only = |list: &[(&str, &str)]| headers(1, &fields(list));
    let length = |length: &str| frame(HEADERS, END_HEADERS, 1, &[post(), field("content-length", length)].concat());
    let trailer = |flags: u8, list: &[(&str, &str)]| {
        cat(&[open(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, flags | END_HEADERS, 1, &fields(list))])
    };
    run(vec![
        ("8.1 trailers", trailer(END_STREAM, &[("x-trailer", "1")]), Answers(1)),
        ("8.1 a second HEADERS that is not the end", trailer(0, &[("x-trailer", "1")]), Malformed),
        // The h2 crate drops it, and Rover drops all trailers: nobody can be misled.
        ("8.1 a pseudo-header in trailers", trailer(END_STREAM, &[METHOD]), Answers(1)),
        ("8.2.1 a name in upper case", with(&[("X-Test", "1")]), Malformed),
        ("8.2.1 a name with a blank", with(&[("x test", "1")]), Malformed),
        ("8.2.1 an empty name", with(&[("", "1")]), Malformed),
        ("8.2.1 a value with a line break", with(&[("x-test", "a\r\nb: c")]), Malformed),
        ("8.2.2 Connection", with(&[("connection", "keep-alive")]), Malformed),
        ("8.2.2 Keep-Alive", with(&[("keep-alive", "1")]), Malformed),
        ("8.2.2 Transfer-Encoding", with(&[("transfer-encoding", "chunked")]), Malformed),
        ("8.2.2 Upgrade", with(&[("upgrade", "h2c")]), Malformed),
        ("8.2.2 TE", with(&[("te", "trailers, deflate")]), Malformed),
        ("8.2.2 TE: trailers", with(&[("te", "trailers")]), Answers(1)),
        ("8.3 an unknown pseudo-header", with(&[(":test", "1")]), Malformed),
        ("8.3 one of responses", with(&[(":status", "200")]), Malformed),
        ("8.3 one after a field", only(&[METHOD, SCHEME, ("x-test", "1"), PATH, AUTHORITY]), Malformed),
        ("8.3.1 no :method", only(&[SCHEME, PATH, AUTHORITY]), Malformed),
        ("8.3.1 no :scheme", only(&[METHOD, PATH, AUTHORITY]), Malformed),
        ("8.3.1 no :path", only(&[METHOD, SCHEME, AUTHORITY]), Malformed),
        ("8.3.1 an empty :path", only(&[METHOD, SCHEME, (":path", ""), AUTHORITY]), Malformed),
        ("8.3.1 a :path without a slash", only(&[METHOD, SCHEME, (":path", "home"), AUTHORITY]), Malformed),
        ("8.3.1 two of :method", only(&[METHOD, METHOD, SCHEME, PATH, AUTHORITY]), Malformed),
        ("8.3.1 two of :scheme", only(&[METHOD, SCHEME, SCHEME, PATH, AUTHORITY]), Malformed),
        ("8.3.1 two of :path", only(&[METHOD, SCHEME, PATH, PATH, AUTHORITY]), Malformed),
        ("8.3.1 two of :authority", only(&[METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY]), Malformed),
        ("8.3.1 Host in place of :authority", only(&[METHOD, SCHEME, PATH, ("host", "test")]), Answers(1)),
        ("8.3.1 Host beside it", with(&[("host", "test")]), Answers(1)),
        ("8.3.1 another Host beside it", with(&[("host", "other")]), Malformed),
        ("8.3.1 neither", only(&[METHOD, SCHEME, PATH]), Malformed),
        ("8.3.1 :authority with a name of a user", only(&[METHOD, SCHEME, PATH, (":authority", "a@test")]), Malformed),
        ("8.1.1 more DATA than announced", cat(&[length("1"), frame(DATA, END_STREAM, 1, b"test")]), Malformed),
        ("8.1.1 less DATA than announced", cat(&[length("9"), frame(DATA, END_STREAM, 1, b"test")]), Malformed),
        (
            "8.1.1 more in several frames",
            cat(&[length("5"), frame(DATA, 0, 1, b"test"), frame(DATA, END_STREAM, 1, b"test")]),
            Malformed,
        ),
        ("8.1.1 a length that is none", cat(&[length("x"), frame(DATA, END_STREAM, 1, b"test")]), Malformed),
        (
            "8.4 PUSH_PROMISE from a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &get()].concat()),
            Connection(&[PROTOCOL_ERROR]),
        ),
    ]);
}

#[test]
fn hpack() {
    let with = |bytes: &[u8]| headers(1, &[&get()[..], bytes].concat());
    let before = |bytes: &[u8]| headers(1, &[bytes, &get()].concat());
    run(vec![
        ("RFC 7541, 2.3.3 an index beyond the tables", with(&[0xc6]), Connection(&[COMPRESSION_ERROR])),
        ("RFC 7541, 6.1 the index 0", with(&[0x80]), Connection(&[COMPRESSION_ERROR])),
        ("RFC 7541, 4.2 a change of size at the end", with(&[0x3f, 0x01]), Connection(&[COMPRESSION_ERROR])),
        ("RFC 7541, 6.3 a size above the setting", before(&[0x3f, 0xe2, 0xff, 0x03]), Connection(&[COMPRESSION_ERROR])),
        ("RFC 7541, 6.3 a size below it", before(&[0x20]), Answers(1)),
        ("RFC 7541, 5.2 padding of a byte", with(b"\x00\x01x\x83\x1f\xff\xff"), Connection(&[COMPRESSION_ERROR])),
        ("RFC 7541, 5.2 padding of zeros", with(b"\x00\x01x\x81\x18"), Connection(&[COMPRESSION_ERROR])),
        (
            "RFC 7541, 5.2 the sign for the end",
            with(b"\x00\x01x\x84\xff\xff\xff\xff"),
            Connection(&[COMPRESSION_ERROR]),
        ),
        (
            "RFC 7541, 5.1 an endless number",
            with(b"\x7f\xff\xff\xff\xff\xff\xff\xff"),
            Connection(&[COMPRESSION_ERROR]),
        ),
    ]);
}
