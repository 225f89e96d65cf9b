//! What `docs/http2.md` says of HTTP/2 beside the RFC: where the h2 crate differs, what is not spoken, what is announced.
//! When one of these fails since the crate has changed, the page has to change as well.

use crate::http2::conformance::*;
use crate::support::{App, DEADLINE};

const ENHANCE_YOUR_CALM: u32 = 11;

fn ended_with(seen: &[Seen]) -> Option<u32> {
    let last = seen.last() == Some(&Seen::End);
    seen.iter().find_map(|seen| match seen {
        Seen::Frame { kind: GOAWAY, payload, .. } if last => Some(code(payload, 4)),
        _ => None,
    })
}

fn outcome(app: &App, bytes: &[u8]) -> Vec<Seen> {
    let mut peer = Peer::new(app.address, &[]);
    peer.send(bytes);
    peer.outcome()
}

#[test]
fn errors_of_decoding_are_called_protocol_error() {
    let app = App::start(APP, 1);
    for (what, bytes) in [
        ("COMPRESSION_ERROR: an index beyond the tables", headers(1, &[&get()[..], &[0xc6]].concat())),
        ("FRAME_SIZE_ERROR: SETTINGS acknowledged with content", frame(SETTINGS, ACK, 0, &[0])),
        ("FLOW_CONTROL_ERROR: a window above the greatest", frame(SETTINGS, 0, 0, &setting(4, 1 << 31))),
    ] {
        assert_eq!(ended_with(&outcome(&app, &bytes)), Some(PROTOCOL_ERROR), "{what}");
    }
}

#[test]
fn a_field_that_cannot_be_decoded_ends_the_connection_and_other_malformed_ones_their_stream() {
    let app = App::start(APP, 1);
    let with = |name: &str, value: &str| fields(&[METHOD, SCHEME, PATH, AUTHORITY, (name, value)]);
    for (name, value) in
        [("X-Upper", "a"), ("x blank", "a"), ("x-lf", "a\nb"), ("x-nul", "a\0b"), (":unknown", "a"), ("x-cr", "\r")]
    {
        let seen = outcome(&app, &headers(1, &with(name, value)));
        assert_eq!(ended_with(&seen), Some(PROTOCOL_ERROR), "{name}: {seen:?}");
    }
    for (name, value) in [("connection", "a"), ("te", "gzip"), ("x-padded", " a"), (":path", "/again")] {
        let seen = outcome(&app, &headers(1, &with(name, value)));
        assert_eq!(ended_with(&seen), None, "{name}: {seen:?}");
        assert_ne!(seen.last(), Some(&Seen::End), "{name}: {seen:?}");
    }
}

#[test]
fn settings_that_overflow_a_window_end_the_stream_alone() {
    let app = App::start(APP, 1);
    let most = frame(8, 0, 1, &0x7fff_ffffu32.to_be_bytes());
    let seen = outcome(&app, &cat(&[open(1), most, frame(SETTINGS, 0, 0, &setting(4, 0x7fff_ffff))]));
    let reset = seen.iter().find_map(|seen| match seen {
        Seen::Frame { kind: RST_STREAM, stream: 1, payload, .. } => Some(code(payload, 0)),
        _ => None,
    });
    assert_eq!(reset, Some(FLOW_CONTROL_ERROR), "{seen:?}");
    assert_ne!(seen.last(), Some(&Seen::End));
}

#[test]
fn data_that_nobody_reads_is_held_to_the_window() {
    let app = App::start(APP, 1);
    let mut peer = Peer::new(app.address, &[]);
    peer.send(&frame(HEADERS, END_HEADERS, 1, &slow()));
    peer.send(&headers(3, &get()));
    assert!(Expected::Answers(1).is_met(&peer.outcome()));
    // 272 KB, where the window is 256 KB.
    for _ in 0..17 {
        peer.send(&frame(DATA, 0, 1, &[b'x'; 16384]));
    }
    peer.send(&headers(5, &get()));
    let seen = peer.outcome();
    assert!(seen.iter().any(|seen| matches!(seen, Seen::Frame { kind: HEADERS, stream: 5, .. })), "{seen:?}");
    let reset = seen.iter().find_map(|seen| match seen {
        Seen::Frame { kind: RST_STREAM, stream: 1, payload, .. } => Some(code(payload, 0)),
        _ => None,
    });
    assert_eq!(reset, Some(FLOW_CONTROL_ERROR), "{seen:?}");
}

#[test]
fn a_fragment_is_dropped() {
    let app = App::start(APP, 1);
    let seen = outcome(&app, &headers(1, &fields(&[METHOD, SCHEME, (":path", "/#x"), AUTHORITY])));
    assert_eq!(data(&seen), b"home", "{seen:?}");
}

#[test]
fn of_what_clients_should_have_encoded_the_crate_lets_some_in() {
    let code = "local api = rover.server { access_log = false }
                api['{*p}'].get = function(ctx) return ctx.raw_path .. '?' .. (ctx.query_string or '') end
                return api";
    let app = App::start(code, 1);
    let seen = |path: &str| outcome(&app, &headers(1, &fields(&[METHOD, SCHEME, (":path", path), AUTHORITY])));
    for (sent, answer) in [
        ("/a\"b", "/a%22b?"),
        ("/a?q=`", "/a?q=%60"),
        ("/\"?`", "/%22?%60"),
        ("/a?{|}", "/a?{|}"),
        ("/%22?%60", "/%22?%60"),
    ] {
        assert_eq!(String::from_utf8_lossy(&data(&seen(sent))), answer, "{sent}");
    }
    for path in ["/<", "/>", "/`", "/?q=\"", "/?q=<"] {
        let seen = seen(path);
        assert!(seen.iter().any(|seen| matches!(seen, Seen::Frame { kind: RST_STREAM, .. })), "{path}: {seen:?}");
    }
}

#[test]
fn a_client_that_waits_for_100_continue_waits_in_vain_and_is_answered() {
    let app = App::start(APP, 1);
    let mut peer = Peer::new(app.address, &[]);
    peer.send(&frame(HEADERS, END_HEADERS, 1, &[post(), field("expect", "100-continue")].concat()));
    let is_head = |seen: &Seen| matches!(seen, Seen::Frame { kind: HEADERS, .. });
    assert!(!peer.outcome().iter().any(is_head));
    peer.send(&frame(DATA, END_STREAM, 1, b"late"));
    let mut body = Vec::new();
    while body != b"late" {
        match peer.next() {
            Seen::Frame { kind: DATA, payload, .. } => body.extend(payload),
            Seen::Frame { .. } => {}
            Seen::End => panic!("the connection ended"),
        }
    }
}

#[test]
fn upgrade_to_h2c_is_not_spoken() {
    let app = App::start(APP, 1);
    let answer = app.send(
        "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    );
    assert_eq!((answer.status, answer.text()), (200, "home"));
}

#[test]
fn the_limit_of_heads_and_streams_is_announced() {
    let app = App::start(APP, 1);
    let mut peer = Peer::silent(app.address);
    peer.send(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat());
    let Seen::Frame { kind: SETTINGS, payload, .. } = peer.next() else { panic!("no SETTINGS") };
    let announced =
        |setting: u16| payload.chunks(6).find(|entry| entry[..2] == setting.to_be_bytes()).map(|entry| code(entry, 2));
    assert_eq!((announced(6), announced(3)), (Some(32 * 1024), Some(100)));
}

#[test]
fn mistakes_on_purpose_end_the_connection() {
    let app = App::start(APP, 1);
    let mut peer = Peer::new(app.address, &[]);
    for n in 0..300 {
        peer.send(&headers(2 * n + 1, &[get(), field("connection", "close")].concat()));
    }
    let began = std::time::Instant::now();
    let (mut resets, mut end) = (0, None);
    loop {
        assert!(began.elapsed() < DEADLINE);
        match peer.next() {
            Seen::Frame { kind: RST_STREAM, .. } => resets += 1,
            Seen::Frame { kind: GOAWAY, payload, .. } => end = Some(code(&payload, 4)),
            Seen::Frame { .. } => {}
            Seen::End => break,
        }
    }
    assert_eq!(end, Some(ENHANCE_YOUR_CALM));
    assert!(resets <= 128, "{resets}");
}
