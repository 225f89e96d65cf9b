//! Valid messages pass, however they are split; what is wrong is found at the same byte.

use proptest::prelude::*;

use super::*;

impl Framing {
    /// Looks at `bytes` in reads that end at `splits`; the place of the first wrong byte, and what is wrong.
    fn look_in_parts(&mut self, bytes: &[u8], splits: &[usize]) -> Result<(), (usize, Fault)> {
        let mut from = 0;
        for end in splits.iter().copied().filter(|end| *end < bytes.len()).chain([bytes.len()]) {
            if end > from {
                self.look(&bytes[from..end], 0).map_err(|found| (from + found.at, found.fault))?;
                from = end;
            }
        }
        Ok(())
    }

    fn is_between_messages(&self) -> bool {
        match &self.state {
            State::Start | State::Asking => true,
            State::Head(head) => !head.has_begun(),
            State::Known(_) | State::Chunks(_) => false,
        }
    }
}

fn each_byte(bytes: &[u8]) -> Vec<usize> {
    (1..bytes.len()).collect()
}

/// A valid request, with what follows its head.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let field = prop_oneof![
        Just("Host: test".to_owned()),
        "[A-Za-z-]{1,20}:[ \t]{0,2}[ -~\u{80}-\u{ff}]{0,40}[ \t]{0,2}".prop_filter(
            "says how long the body is",
            |line| {
                let name = line.split(':').next().unwrap().to_ascii_lowercase();
                name != "content-length" && name != "transfer-encoding"
            }
        ),
        "(Cookie|Connection|Content-Type|TE|Trailer|Upgrade): [a-z/=;]{0,80}",
    ];
    let line = prop_oneof![
        "(GET|HEAD|DELETE|OPTIONS|M-SEARCH) /[a-z0-9/?=%&]{0,30} HTTP/1\\.[01]",
        "(POST|PUT|PATCH) /[a-z0-9/?=%&]{0,30} HTTP/1\\.1",
    ];
    let body = prop_oneof![
        3 => Just((None, Vec::new())),
        2 => prop::collection::vec(any::<u8>(), 0..200).prop_map(|body| {
            (Some(format!("cOntent-Length:\t{} ", body.len())), body)
        }),
        2 => (prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), "(;[ -~\u{80}]{0,10})?"), 0..4),
              "(0|00)(;a)?", "(X-T[a-z]{0,3}:[ -~]{0,9}\r\n){0,2}")
            .prop_map(|(chunks, last, trailers)| {
                let mut body = Vec::new();
                for (data, extension) in chunks {
                    body.extend_from_slice(format!("{:X}{extension}\r\n", data.len()).as_bytes());
                    body.extend_from_slice(&data);
                    body.extend_from_slice(b"\r\n");
                }
                body.extend_from_slice(format!("{last}\r\n{trailers}\r\n").as_bytes());
                (Some("transfer-ENCODING: chunked".to_owned()), body)
            }),
    ];
    ("(\r\n)?", line, prop::collection::vec(field, 0..6), body, any::<prop::sample::Index>()).prop_map(
        |(before, line, mut fields, (about, body), place)| {
            if let Some(about) = about {
                fields.insert(place.index(fields.len() + 1), about);
            }
            let mut bytes = format!("{before}{line}\r\n").into_bytes();
            for field in fields {
                // One byte for each character.
                bytes.extend(field.chars().map(|letter| letter as u8));
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(&body);
            bytes
        },
    )
}

proptest! {
    #[test]
    fn valid_requests_pass(
        requests in prop::collection::vec(request(), 1..6),
        splits in prop::collection::btree_set(1_usize..900, 0..12),
    ) {
        let bytes = requests.concat();
        let splits: Vec<usize> = splits.into_iter().collect();
        let mut framing = Framing::new();
        prop_assert_eq!(framing.look_in_parts(&bytes, &each_byte(&bytes)), Ok(()));
        prop_assert!(framing.is_between_messages());
        // In larger parts, a read may hold one head alone, of which hyper has to say whether it has a body.
        let mut framing = Framing::new();
        let mut from = 0;
        let ends: Vec<usize> =
            requests.iter().scan(0, |end, request| { *end += request.len(); Some(*end) }).collect();
        for end in splits.into_iter().filter(|end| *end < bytes.len()).chain([bytes.len()]) {
            prop_assert_eq!(framing.look(&bytes[from..end], 0), Ok(()));
            if matches!(framing.state, State::Asking) {
                let number = ends.iter().position(|&message| message >= end).unwrap();
                let begin = ends[number] - requests[number].len();
                match body_of(&requests[number]) {
                    (Length::None, _) => {}
                    (Length::Chunked, _) => framing.declare(None, 0),
                    (Length::Known(0), _) => {}
                    (Length::Known(length), _) => framing.declare(Some(length), 0),
                }
                prop_assert_eq!(end - begin, body_of(&requests[number]).1);
            }
            from = end;
        }
        prop_assert!(framing.is_between_messages());
    }

    /// The pass over many bytes at once sees what the closer look sees.
    #[test]
    fn both_looks_agree(bytes in "GET /[ab#]{0,20}( HTTP/1.1)?(\r\n|\n|\r\nT|\r\nC|\r\n\r\n|\r\n\r|[a-z]{0,9}){0,9}(\r\n\r\n)?") {
        let bytes = bytes.as_bytes();
        let (mut quick, mut close) = (Framing::new(), Framing::new());
        prop_assert_eq!(quick.look(bytes, 0), close.look_closely(bytes, 0));
        prop_assert_eq!(quick.is_between_messages(), close.is_between_messages());
    }
}

proptest! {
    /// So does the pass over a head with its body.
    #[test]
    fn both_looks_at_bodies_agree(
        line in "POST (/[a-z:#]{0,20}|/[a-z]{0,40}) HTTP/1.1\r\n|P\nST\r\n|P#|PU\r\n\r\n",
        fields in prop::collection::vec(prop_oneof![
            3 => "(Content-Length|content-length|Content-Lengtx): ?[0-9]{1,2}\r\n",
            1 => "Content-Length:(\t5|5 | a|  5||1[0-9]{18,20})\r\n",
            1 => "(Transfer-Encoding|transfer-encoding|Transferxencoding|xfer-enc-oding-aa): chunked\r\n",
            4 => "(A|Host|Sec-Fetch-Mode|X-Content-Length|XX-Content-Length|Cookie): ?[a-z :#\r]{0,30}\r\n",
            4 => "(A|Host|Sec-Fetch-Mode|If-Modified-Since|Cookie): ?[a-z:]{0,30}\r\n",
            1 => "[A-Z]: [a-z]{0,9}\n",
        ], 0..5),
        length in 0_usize..40,
        body in "[0-9a-f]\r\n[a-z\r\n:#]{0,40}",
        more in "(POST|GET)?",
    ) {
        for fields in [fields.concat(), format!("Host: a\r\nContent-Length: {length}\r\n"), format!("{}content-length:{length}\r\n", fields.concat())] {
            let bytes = format!("{line}{fields}\r\n{body}{more}");
            let (mut quick, mut close) = (Framing::new(), Framing::new());
            prop_assert_eq!(quick.look(bytes.as_bytes(), 0), close.look_closely(bytes.as_bytes(), 0), "{}", bytes);
            let left = |framing: &Framing| match framing.state { State::Known(left) => Some(left), _ => None };
            prop_assert_eq!(left(&quick), left(&close), "{}", bytes);
            prop_assert_eq!(quick.is_between_messages(), close.is_between_messages(), "{}", bytes);
            prop_assert_eq!(quick.begin(), close.begin());
        }
    }
}

/// What the head says of its body, and the length of the head.
fn body_of(request: &[u8]) -> (Length, usize) {
    let mut head = Head::default();
    match head.take(request) {
        Ok((length, Step::Ended(body))) => (body, length),
        _ => panic!("a whole head"),
    }
}

/// Marks the first wrong byte.
const MARK: &str = "▲";

#[test]
fn what_is_wrong_is_found_however_it_is_split() {
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases = [
        ("GET / HTTP/1.1▲\nHost: a\r\n\r\n", Fault::BareLf),
        ("GET / HTTP/1.1\r\nHost: a▲\n\r\n", Fault::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\n▲\n", Fault::BareLf),
        ("▲\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::BareLf),
        ("\r\n▲\n", Fault::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1▲\n\n", Fault::BareLf),
        ("GET /a▲#b HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Fragment),
        ("GET http://a/?b▲#c HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Fragment),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\ncontent-length: 4\r▲\n\r\nabcd", Fault::Length),
        ("POST / HTTP/1.1\r\nContent-Length: +3\r▲\n\r\nabc", Fault::Length),
        ("POST / HTTP/1.1\r\nContent-Length:\r▲\n\r\nabc", Fault::Length),
        ("C3▲\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("C3▲ \r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("C3▲ ;a\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("C3▲\t\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("C3▲\u{b}\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("C▲\r\nabc\r\n0\r\n\r\n", Fault::ChunkSize),
        ("C▲-1\r\n", Fault::ChunkSize),
        ("C1000000000000000▲0\r\n", Fault::ChunkSize),
        ("C3\r▲x", Fault::ChunkSize),
        ("C3;a▲\nabc\r\n0\r\n\r\n", Fault::ChunkExtension),
        ("C3;a▲\0\r\nabc\r\n0\r\n\r\n", Fault::ChunkExtension),
        ("C3\r\nabc▲\n0\r\n\r\n", Fault::ChunkEnd),
        ("C3\r\nabc▲d\r\n0\r\n\r\n", Fault::ChunkEnd),
        ("C3\r\nabc\r▲\r0\r\n\r\n", Fault::ChunkEnd),
        ("C0\r\n▲\nGET / HTTP/1.1\r\n\r\n", Fault::TrailerEnd),
        ("C0▲\n\r\n", Fault::ChunkSize),
        ("C0\r\nA: b▲\n\r\n", Fault::TrailerEnd),
        ("C0\r\nA: b\r▲c\r\n\r\n", Fault::TrailerEnd),
        ("C0\r\n\r▲\r\n", Fault::TrailerEnd),
    ];
    for (text, fault) in cases {
        let text = match text.strip_prefix('C').filter(|_| text.contains(MARK)) {
            Some(body) => format!("{chunked}{body}"),
            None => text.to_owned(),
        };
        let place = text.find(MARK).unwrap();
        let bytes = text.replacen(MARK, "", 1).into_bytes();
        let all = each_byte(&bytes);
        for splits in std::iter::once(&[][..]).chain(all.windows(1)).chain([&all[..]]) {
            let found = Framing::new().look_in_parts(&bytes, splits);
            assert_eq!(found, Err((place, fault)), "{text:?} in parts {splits:?}");
        }
    }
}

#[test]
fn only_the_two_fields_tell_of_a_body() {
    for name in
        ["transferxencoding", "transfer-encodinG2", "content-lengthy", "contentxlength", "Content-Language", "Trailer"]
    {
        let head = format!("POST / HTTP/1.1\r\n{name}: 5\r\n\r\n");
        assert_eq!(body_of(head.as_bytes()).0, Length::None, "{name}");
    }
    for (line, length) in [
        ("CONTENT-LENGTH:5", Length::Known(5)),
        ("content-length: \t18446744073709551615 ", Length::Known(u64::MAX)),
        ("TRANSFER-encoding: chunked", Length::Chunked),
    ] {
        assert_eq!(body_of(format!("POST / HTTP/1.1\r\n{line}\r\n\r\n").as_bytes()).0, length, "{line}");
    }
    let too_long = b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n";
    assert_eq!(Framing::new().look(too_long, 0).map_err(|found| found.fault), Err(Fault::Length));
}

#[test]
fn a_length_that_cannot_be_kept_is_refused() {
    let line = format!("Content-Length:{}3\r\n\r\nabc", " ".repeat(200));
    let whole = format!("POST / HTTP/1.1\r\n{line}");
    assert_eq!(Framing::new().look_in_parts(whole.as_bytes(), &[]), Ok(()));
    let found = Framing::new().look_in_parts(whole.as_bytes(), &[150]);
    assert_eq!(found.map_err(|(_, fault)| fault), Err(Fault::Length));
    // Other fields may be as long as they like.
    let long = format!("GET / HTTP/1.1\r\nContent-Language: {}\r\n\r\n", "a".repeat(200));
    assert_eq!(Framing::new().look_in_parts(long.as_bytes(), &each_byte(long.as_bytes())), Ok(()));
}

#[test]
fn wrong_bodies_are_told_from_wrong_heads() {
    let get = "GET / HTTP/1.1\r\n\r\n";
    let broken = format!("{get}{get}POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx");
    let found = Framing::new().look(broken.as_bytes(), 0).unwrap_err();
    assert_eq!((found.heads, found.in_body, found.at), (3, true, broken.len() - 1));
    let found = Framing::new().look(format!("{get}GET / HTTP/1.1\n").as_bytes(), 0).unwrap_err();
    assert_eq!((found.heads, found.in_body), (1, false));
}

#[test]
fn a_request_with_two_lengths_is_known_by_its_number() {
    let plain = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for fields in [
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "content-length: 3\r\nX: y\r\nTRANSFER-ENCODING: chunked",
        "Content-Length:\t03\r\nContent-Length: 3\r\nTransfer-Encoding:chunked",
    ] {
        let both = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\n");
        let length = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        let bytes = [plain, length, &both, plain, &both, plain].concat();
        // In one read, the first of those that hyper has yet to begin.
        let mut framing = Framing::new();
        framing.look(bytes.as_bytes(), 7).unwrap();
        assert!(framing.is_doubtful(10), "{fields}");
        assert!((8..=13).all(|request| request == 10 || !framing.is_doubtful(request)), "{fields}");
        // Each byte on its own, while hyper keeps up.
        let (mut framing, mut begun) = (Framing::new(), 0);
        let mut doubtful = Vec::new();
        for message in [plain, length, &both, plain] {
            for byte in message.as_bytes() {
                framing.look(&[*byte], begun).unwrap();
            }
            begun += 1;
            doubtful.push(framing.is_doubtful(begun));
        }
        assert_eq!(doubtful, [false, false, true, false], "{fields}");
    }
    // A head of which nobody has looked at the fields.
    let mut framing = Framing::new();
    framing.look(b"DELETE / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 0).unwrap();
    framing.declare(None, 1);
    assert!(framing.is_doubtful(1));
}

#[test]
fn the_beginning_of_the_last_head_is_remembered() {
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100));
    for (parts, begin) in [
        (&["GET /some/longer/path HTTP/1.1\r\nHost: a\r\n\r\n"][..], "GET /some/longer/path HTTP/1.1\r\n"),
        (&[&long], &long[..64]),
        (&["GET", " / HTTP/1.1\r\n\r\n"], "GET / HTTP/1.1\r\n\r\n"),
        (&["GET / HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\n"], "POST /b HTTP/1.1\r\n"),
    ] {
        let mut framing = Framing::new();
        for part in parts {
            framing.look(part.as_bytes(), 0).unwrap();
        }
        assert_eq!(std::str::from_utf8(framing.begin()).unwrap(), begin);
    }
}
