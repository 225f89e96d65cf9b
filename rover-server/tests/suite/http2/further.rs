//! HTTP/2 by literal frames, further: what a server has to put up with, all the ways to write a header block, and requests
//! that are malformed in ways less common. Cases as in `conformance`.

use crate::http2::conformance::Expected::{Answers, Connection, Malformed, Stream};
use crate::http2::conformance::*;
use crate::support::App;

/// A whole request on a stream.
fn ask(stream: u32) -> Vec<u8> {
    headers(stream, &get())
}

/// A reset by the client: CANCEL.
fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

fn priority(stream: u32, on: u32, weight: u8) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[weight]].concat())
}

fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

#[test]
fn states_of_streams_that_allow_a_frame() {
    const EXCLUSIVE: u32 = 1 << 31;
    let waits = || headers(3, &slow());
    let depends = [&[0x80, 0, 0, 0, 0][..], &get()].concat();
    run(vec![
        ("5.1 idle: PRIORITY, then a request", cat(&[priority(1, 0, 15), ask(1)]), Answers(1)),
        ("5.1 idle: PRIORITY of several", cat(&[priority(3, 0, 0), priority(5, 3, 255), ask(1)]), Answers(1)),
        ("5.1 half closed: WINDOW_UPDATE", cat(&[waits(), update(3, 100), ask(5)]), Answers(1)),
        ("5.1 half closed: PRIORITY", cat(&[waits(), priority(3, 0, 0), ask(5)]), Answers(1)),
        ("5.1 half closed: RST_STREAM", cat(&[waits(), reset(3), ask(5)]), Answers(1)),
        ("5.1 reset: WINDOW_UPDATE", cat(&[open(3), reset(3), update(3, 100), ask(5)]), Answers(1)),
        ("5.1 reset: PRIORITY", cat(&[open(3), reset(3), priority(3, 0, 0), ask(5)]), Answers(1)),
        ("5.1 reset: RST_STREAM", cat(&[open(3), reset(3), reset(3), ask(5)]), Answers(1)),
        ("5.1.1 numbers left out", cat(&[ask(1), ask(101)]), Answers(2)),
        ("5.3 PRIORITY, exclusive", cat(&[priority(3, EXCLUSIVE, 0), ask(5)]), Answers(1)),
        ("5.3 HEADERS, exclusive", frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &depends), Answers(1)),
        ("5.3.1 PRIORITY that depends on itself", cat(&[open(1), priority(1, 1, 0)]), Stream(&[PROTOCOL_ERROR])),
    ]);
}

#[test]
fn frames_on_streams_that_are_over() {
    let app = App::start(APP, 1);
    for late in [update(1, 100), priority(1, 0, 9), reset(1)] {
        let mut peer = Peer::new(app.address, &[]);
        peer.send(&ask(1));
        assert!(Answers(1).is_met(&peer.outcome()), "the stream is over");
        peer.send(&cat(&[late.clone(), ask(3)]));
        let seen = peer.outcome();
        assert!(Answers(1).is_met(&seen), "{late:?}: {seen:?}");
    }
}

#[test]
fn frames_that_are_unusual_and_right() {
    let block = get();
    let padded = [&[3][..], &block, &[0; 3]].concat();
    let padded_with_priority = [&[3, 0, 0, 0, 0, 9][..], &block, &[0; 3]].concat();
    let greatest = cat(&[setting(4, 0x7fff_ffff), setting(5, 0xff_ffff), setting(6, u32::MAX)]);
    let unknown = |stream| frame(UNKNOWN, 255, stream, b"x");
    run(vec![
        ("5.5 unknown frames on any stream", cat(&[unknown(9), ask(1), unknown(1)]), Answers(1)),
        ("6.1 padding alone", cat(&[open(1), frame(DATA, END_STREAM | PADDED, 1, b"\x05\0\0\0\0\0")]), Answers(1)),
        (
            "6.1 DATA without content",
            cat(&[open(1), frame(DATA, 0, 1, b""), frame(DATA, END_STREAM, 1, b"")]),
            Answers(1),
        ),
        ("6.2 padded HEADERS", frame(HEADERS, WHOLE | PADDED, 1, &padded), Answers(1)),
        (
            "6.2 padded HEADERS with a priority",
            frame(HEADERS, WHOLE | PADDED | WITH_PRIORITY, 1, &padded_with_priority),
            Answers(1),
        ),
        ("6.5 SETTINGS without content", cat(&[frame(SETTINGS, 0, 0, &[]), ask(1)]), Answers(1)),
        ("6.5.3 SETTINGS acknowledged that nobody sent", frame(SETTINGS, ACK, 0, &[]), Connection(&[PROTOCOL_ERROR])),
        ("6.5.2 the greatest values", cat(&[frame(SETTINGS, 0, 0, &greatest), ask(1)]), Answers(1)),
        (
            "7 RST_STREAM with an unknown code",
            cat(&[headers(3, &slow()), frame(RST_STREAM, 0, 3, &[0, 0, 0, 255]), ask(5)]),
            Answers(1),
        ),
        (
            "6.10 frames without content in a block",
            cat(&[
                frame(HEADERS, END_STREAM, 1, &[]),
                frame(CONTINUATION, 0, 1, &block),
                frame(CONTINUATION, END_HEADERS, 1, &[]),
            ]),
            Answers(1),
        ),
    ]);
}

#[test]
fn the_last_of_several_values_in_one_frame_of_settings_counts() {
    let app = App::start(APP, 1);
    let mut peer = Peer::new(app.address, &cat(&[setting(4, 100), setting(4, 1)]));
    peer.send(&ask(1));
    assert_eq!(data(&peer.outcome()), b"h");
}

#[test]
fn the_client_s_table_of_size_0_is_kept_to() {
    let app = App::start(APP, 1);
    let mut peer = Peer::new(app.address, &setting(1, 0));
    peer.send(&cat(&[ask(1), ask(3)]));
    let mut blocks = Vec::new();
    for seen in peer.outcome() {
        if let Seen::Frame { kind: HEADERS, payload, .. } = seen {
            blocks.push(payload);
        }
    }
    // A size update to 0 and `:status: 200`; the second is as long but for that update, for nothing is in the table.
    assert_eq!((blocks.len(), &blocks[0][..2]), (2, &[0x20, 0x88][..]), "{blocks:?}");
    assert_eq!(blocks[1].len() + 1, blocks[0].len(), "{blocks:?}");
}

#[test]
fn goaway_names_the_last_stream_that_was_answered() {
    let app = App::start(APP, 1);
    let mut peer = Peer::new(app.address, &[]);
    peer.send(&cat(&[ask(1), ask(7)]));
    assert!(Answers(2).is_met(&peer.outcome()));
    peer.send(&frame(DATA, 0, 0, b"x"));
    let seen = peer.outcome();
    let last = seen.iter().find_map(|seen| match seen {
        Seen::Frame { kind: GOAWAY, payload, .. } => Some(code(payload, 0)),
        _ => None,
    });
    assert_eq!(last, Some(7), "{seen:?}");
}

#[test]
fn a_client_that_goes_away_in_good_order_is_answered() {
    let app = App::start(APP, 1);
    // NO_ERROR, and a code that nobody has defined (section 7).
    for reason in [0u32, 255] {
        let mut peer = Peer::new(app.address, &[]);
        peer.send(&cat(&[ask(1), frame(GOAWAY, 0, 0, &[0u32.to_be_bytes(), reason.to_be_bytes()].concat())]));
        let seen = peer.outcome();
        assert_eq!(data(&seen), b"home", "{seen:?}");
    }
}

#[test]
fn header_blocks_in_all_representations() {
    let block = |bytes: &[u8]| [bytes, &field(":authority", "test")].concat();
    let plain = || block(&[0x82, 0x86, 0x84]);
    let with = |bytes: &[u8]| headers(1, &[&plain(), bytes].concat());
    // `GET`, `http`, `/` and `:authority: test`, which goes into the table; the next request has it from there.
    let indexed = cat(&[headers(1, b"\x82\x86\x84\x41\x04test"), headers(3, b"\x82\x86\x84\xbe")]);
    // "test" in Huffman's code: 01001 00101 01000 01001, and ones to the end of the byte.
    let huffman = [0x82, 0x86, 0x84, 0x41, 0x83, 0x49, 0x50, 0x9f];
    let large = [&b"\x40\x01x\x7f\xa1\x1e"[..], &[b'y'; 4000], b"\x40\x01z\x7f\x4a", &[b'y'; 201]].concat();
    let too_large = [&b"\x40\x01x\x7f\x89\x26"[..], &[b'y'; 5000]].concat();
    run(vec![
        ("RFC 7541, 6.1 indexed", headers(1, &plain()), Answers(1)),
        ("RFC 7541, 6.2.1 from the dynamic table", indexed, Answers(2)),
        ("RFC 7541, 6.2.2 without indexing, an indexed name", with(b"\x0f\x2b\x01x"), Answers(1)),
        ("RFC 7541, 6.2.3 never indexed", with(b"\x10\x01x\x01y"), Answers(1)),
        ("RFC 7541, 6.2.3 never indexed, an indexed name", with(b"\x1f\x2b\x01x"), Answers(1)),
        ("RFC 7541, 5.2 Huffman's code", headers(1, &huffman), Answers(1)),
        ("RFC 7541, 5.2 an empty string in it", with(b"\x00\x01x\x80"), Answers(1)),
        (
            "RFC 7541, 4.3 two changes of the size",
            headers(1, &[&[0x20, 0x3f, 0xe1, 0x1f][..], &plain()].concat()),
            Answers(1),
        ),
        ("RFC 7541, 4.4 an entry pushes another out", cat(&[with(&large), headers(3, &plain())]), Answers(2)),
        ("RFC 7541, 4.4 an entry larger than the table", cat(&[with(&too_large), headers(3, &plain())]), Answers(2)),
        (
            "RFC 7541, 4.4 what such an entry emptied",
            cat(&[
                headers(1, b"\x82\x86\x84\x41\x04test"),
                headers(3, &[&too_large[..], &[0x82, 0x86, 0x84, 0xbe]].concat()),
            ]),
            Connection(&[COMPRESSION_ERROR]),
        ),
        (
            "RFC 7541, 4.3 what a change of the size emptied",
            cat(&[headers(1, b"\x82\x86\x84\x41\x04test"), headers(3, b"\x20\x82\x86\x84\xbe")]),
            Connection(&[COMPRESSION_ERROR]),
        ),
        ("RFC 7541, 2.3.3 a name beyond the tables", with(b"\x7f\x00\x01x"), Connection(&[COMPRESSION_ERROR])),
        ("RFC 7541, 2.3.3 the same without indexing", with(b"\x0f\x70\x01x"), Connection(&[COMPRESSION_ERROR])),
        ("RFC 7541, 5.1 a number without its end", with(b"\x7f"), Connection(&[COMPRESSION_ERROR])),
        ("RFC 7541, 5.2 a string without its end", with(b"\x00\x01x\x09y"), Connection(&[COMPRESSION_ERROR])),
        ("RFC 7541, 5.2 a name without a value", with(b"\x00\x01x"), Connection(&[COMPRESSION_ERROR])),
        ("a block without content", headers(1, &[]), Malformed),
        ("a block of a size alone", headers(1, &[0x20]), Malformed),
    ]);
}

#[test]
fn section_8_requests_that_are_less_commonly_wrong() {
    let with = |list: &[(&str, &str)]| headers(1, &[get(), fields(list)].concat());
    let only = |list: &[(&str, &str)]| headers(1, &fields(list));
    let path = |path: &str| headers(1, &fields(&[METHOD, SCHEME, (":path", path), AUTHORITY]));
    let sized = |list: &[(&str, &str)]| {
        cat(&[frame(HEADERS, END_HEADERS, 1, &[post(), fields(list)].concat()), frame(DATA, END_STREAM, 1, b"test")])
    };
    let trailers =
        |list: &[(&str, &str)]| cat(&[open(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, WHOLE, 1, &fields(list))]);
    run(vec![
        ("8.1 HEAD", only(&[(":method", "HEAD"), SCHEME, PATH, AUTHORITY]), Answers(1)),
        (
            "8.1 DATA behind trailers",
            cat(&[trailers(&[("x", "1")]), frame(DATA, END_STREAM, 1, b"x")]),
            Stream(&[STREAM_CLOSED]),
        ),
        ("8.1.1 a length and no DATA", headers(1, &[post(), field("content-length", "5")].concat()), Malformed),
        ("8.1.1 the length 0 and no DATA", headers(1, &[post(), field("content-length", "0")].concat()), Answers(1)),
        ("8.1.1 two lengths", sized(&[("content-length", "4"), ("content-length", "5")]), Malformed),
        ("8.1.1 a length with a sign", sized(&[("content-length", "+4")]), Malformed),
        (
            "8.1.1 a length that is too large for any number",
            sized(&[("content-length", "18446744073709551620")]),
            Malformed,
        ),
        ("8.1.1 an empty length", sized(&[("content-length", "")]), Malformed),
        ("8.2.1 a name with a colon", with(&[("a:b", "1")]), Malformed),
        ("8.2.1 a name beyond ASCII", with(&[("x\u{e9}", "1")]), Malformed),
        ("8.2.1 a name with a NUL", with(&[("x\0", "1")]), Malformed),
        ("8.2.1 a value with a NUL", with(&[("x", "a\0b")]), Malformed),
        ("8.2.1 a value with a CR", with(&[("x", "a\rb")]), Malformed),
        ("8.2.1 a value with a blank before", with(&[("x", " a")]), Malformed),
        ("8.2.1 a value with a blank behind", with(&[("x", "a ")]), Malformed),
        ("8.2.1 a value with a tab before", with(&[("x", "\ta")]), Malformed),
        ("8.2.2 Proxy-Connection", with(&[("proxy-connection", "keep-alive")]), Malformed),
        ("8.2.2 Connection in trailers", trailers(&[("connection", "close")]), Malformed),
        ("8.2.3 cookies in pieces", with(&[("cookie", "a=1"), ("cookie", "b=2")]), Answers(1)),
        ("8.3 one in upper case", only(&[METHOD, SCHEME, PATH, AUTHORITY, (":Path", "/")]), Malformed),
        ("8.3.1 an empty :method", only(&[(":method", ""), SCHEME, PATH, AUTHORITY]), Malformed),
        ("8.3.1 a :method with a blank", only(&[(":method", "GE T"), SCHEME, PATH, AUTHORITY]), Malformed),
        ("8.3.1 an empty :scheme", only(&[METHOD, (":scheme", ""), PATH, AUTHORITY]), Malformed),
        ("8.3.1 a :scheme that is none", only(&[METHOD, (":scheme", "ht tp"), PATH, AUTHORITY]), Malformed),
        ("8.3.1 an empty :authority", only(&[METHOD, SCHEME, PATH, (":authority", "")]), Malformed),
        ("8.3.1 a :authority with a path", only(&[METHOD, SCHEME, PATH, (":authority", "test/x")]), Malformed),
        ("8.3.1 a :path with a blank", path("/ x"), Malformed),
        ("8.3.1 a :path that is a whole address", path("http://test/"), Malformed),
        ("8.3.1 a :path with a host", path("test:80"), Malformed),
        ("8.3.1 a :path of a question mark", path("?a=b"), Malformed),
        ("8.3.1 two of Host", only(&[METHOD, SCHEME, PATH, ("host", "test"), ("host", "test")]), Malformed),
        ("8.5 CONNECT without :authority", only(&[(":method", "CONNECT")]), Malformed),
        ("8.5 CONNECT with a :path", only(&[(":method", "CONNECT"), SCHEME, PATH, AUTHORITY]), Malformed),
        (
            "RFC 8441, 4 :protocol, which was not offered",
            only(&[(":method", "CONNECT"), (":protocol", "websocket"), SCHEME, PATH, AUTHORITY]),
            Malformed,
        ),
        ("RFC 8441, 4 :protocol of another method", with(&[(":protocol", "websocket")]), Malformed),
    ]);
}
