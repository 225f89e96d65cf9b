//! Valid messages pass, however they are split; what is wrong is found at the same byte.

use proptest::prelude::*;

use super::*;

impl Framing {
    /// Looks at `bytes` in reads that end at `splits`; the place of the first wrong byte, and what is wrong.
    fn look_in_parts(&mut self, bytes: &[u8], splits: &[usize]) -> Result<(), (usize, Fault)> {
        let mut from = 0;
        for end in splits.iter().copied().filter(|end| *end < bytes.len()).chain([bytes.len()]) {
            if end > from {
                self.found(&bytes[from..end]).map_err(|found| (from + found.at, found.fault))?;
                from = end;
            }
        }
        Ok(())
    }

    /// As [`Framing::look`], for what is wrong alone.
    fn found(&mut self, bytes: &[u8]) -> Result<(), Found> {
        self.look(bytes).map_or_else(|remarks| remarks.wrong.map_or(Ok(()), Err), Ok)
    }

    /// What hyper gets of `bytes` in reads that end at `splits`.
    fn passed_on(&mut self, bytes: &[u8], splits: &[usize]) -> Vec<u8> {
        let mut from = 0;
        let mut all = Vec::new();
        for end in splits.iter().copied().filter(|end| *end < bytes.len()).chain([bytes.len()]) {
            if end > from {
                let remarks = self.look(&bytes[from..end]).err().unwrap_or_default();
                assert_eq!(remarks.wrong, None);
                all.extend(target::encoded(&bytes[from..end], &remarks.raw));
                from = end;
            }
        }
        all
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
            prop_assert_eq!(framing.look(&bytes[from..end]), Ok(()));
            if matches!(framing.state, State::Asking) {
                let number = ends.iter().position(|&message| message >= end).unwrap();
                let begin = ends[number] - requests[number].len();
                match body_of(&requests[number]) {
                    (Length::None, _) => {}
                    (Length::Chunked, _) => framing.declare(None),
                    (Length::Known(0), _) => {}
                    (Length::Known(length), _) => framing.declare(Some(length)),
                }
                prop_assert_eq!(end - begin, body_of(&requests[number]).1);
            }
            from = end;
        }
        prop_assert!(framing.is_between_messages());
    }

    /// The pass over many bytes at once sees what the closer look sees.
    #[test]
    fn both_looks_agree(bytes in "GET /[ab#<>`\"]{0,2}[ab]{0,40}[ab#<>`\"]{0,1}( HTTP/1.1)?(\r\n|\n|\r\nT|\r\nC|\r\n\r\n|\r\n\r|[a-z]{0,9}){0,9}(\r\n\r\n)?") {
        let bytes = bytes.as_bytes();
        let (mut quick, mut close) = (Framing::new(), Framing::new());
        prop_assert_eq!(quick.look(bytes), close.look_closely(bytes));
        prop_assert_eq!(quick.is_between_messages(), close.is_between_messages());
    }
}

proptest! {
    /// So does the pass over a head with its body.
    #[test]
    fn both_looks_at_bodies_agree(
        line in "POST (/[a-z:#`]{0,20}|/[a-z]{0,40}[<\"]?|/[a-z]{0,90}) HTTP/1.1\r\n|P\nST\r\n|P#|PU\r\n\r\n",
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
            prop_assert_eq!(quick.look(bytes.as_bytes()), close.look_closely(bytes.as_bytes()), "{}", bytes);
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
    match head.take(request, |_| {}) {
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
    assert_eq!(Framing::new().found(too_long).map_err(|found| found.fault), Err(Fault::Length));
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
    let found = Framing::new().found(broken.as_bytes()).unwrap_err();
    assert_eq!((found.heads, found.in_body, found.at), (3, true, broken.len() - 1));
    let found = Framing::new().found(format!("{get}GET / HTTP/1.1\n").as_bytes()).unwrap_err();
    assert_eq!((found.heads, found.in_body), (1, false));
}

#[test]
fn what_clients_should_have_encoded_is_encoded_in_targets_alone() {
    let fields = "Sec-CH-UA: \"a\";v=\"1\"\r\nX: <`>\r\n\r\n";
    let cases = [
        ("GET /a<b>`\"?q=<\"`> HTTP/1.1", "GET /a%3Cb%3E%60%22?q=%3C%22%60%3E HTTP/1.1"),
        ("GET http://a/`?<> HTTP/1.1", "GET http://a/%60?%3C%3E HTTP/1.1"),
        ("\r\n\r\nGET /< HTTP/1.1", "\r\n\r\nGET /%3C HTTP/1.1"),
        // A backtick may stand in the name of a method. What is no target is left to hyper.
        ("G`T /` HTTP/1.1", "G`T /%60 HTTP/1.1"),
        ("GET /a<b\" HTTP/`.\"", "GET /a%3Cb%22 HTTP/`.\""),
        ("GET /< /< HTTP/1.1", "GET /%3C /< HTTP/1.1"),
        ("GET  /< HTTP/1.1", "GET  /< HTTP/1.1"),
    ];
    let mut all = (String::new(), String::new());
    for (sent, passed) in cases {
        let [sent, passed] = [sent, passed].map(|line| format!("{line}\r\n{fields}"));
        let places = each_byte(sent.as_bytes());
        for splits in std::iter::once(&[][..]).chain(places.windows(1)).chain([&places[..]]) {
            let got = Framing::new().passed_on(sent.as_bytes(), splits);
            assert_eq!(String::from_utf8_lossy(&got), passed, "{sent:?} in parts {splits:?}");
        }
        let body = "POST /<?> HTTP/1.1\r\nContent-Length: 3\r\n\r\n<`>";
        all.0.extend([sent.as_str(), body]);
        all.1.extend([passed.as_str(), &body.replacen("<?>", "%3C?%3E", 1)]);
    }
    let (sent, passed) = all;
    for size in [1, 2, 3, 7, 16, 17, 64, 100, sent.len()] {
        let splits: Vec<usize> = (1..sent.len()).filter(|at| at % size == 0).collect();
        let got = Framing::new().passed_on(sent.as_bytes(), &splits);
        assert_eq!(String::from_utf8_lossy(&got), passed, "reads of {size}");
    }
}

#[test]
fn a_remark_holds_what_comes_before_the_wrong_byte() {
    let remarks = Framing::new().look(b"GET /< HTTP/1.1\r\n\r\nGET /`# HTTP/1.1\r\n\r\n").unwrap_err();
    assert_eq!(remarks.raw, [5, 24]);
    assert_eq!(remarks.wrong.map(|found| (found.at, found.fault)), Some((25, Fault::Fragment)));
}

#[test]
fn the_request_line_of_the_last_head_is_remembered() {
    let line = |length: usize| format!("GET /{} HTTP/1.1\r\n", "a".repeat(length));
    let medium = format!("{}\r\n", line(25));
    let long = format!("{}Host: test\r\n\r\n", line(300));
    let longest = format!("{}Host: test\r\n\r\n", line(20_000));
    let (start, end) = long.split_at(100);
    let (near, far) = medium.split_at(40);
    for (parts, begin) in [
        (
            &["GET /some/longer/path HTTP/1.1\r\nHost: a\r\n\r\n"][..],
            "GET /some/longer/path HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (&[&medium], &medium),
        (&[near, far], &medium),
        (&[&long], long.split_once('\n').unwrap().0),
        (&[start, end], long.split_once('\n').unwrap().0),
        (&[&long, "GET / HTTP/1.1\r\n\r\n"], "GET / HTTP/1.1\r\n\r\n"),
        (&[&longest], &longest[..REMEMBERED + REMEMBERED_MORE]),
        (&[&longest[..5], &longest[5..10_000], &longest[10_000..]], &longest[..REMEMBERED + REMEMBERED_MORE]),
        (&["GET", " / HTTP/1.1\r\n\r\n"], "GET / HTTP/1.1\r\n\r\n"),
        (&["GET / HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\n"], "POST /b HTTP/1.1\r\n"),
    ] {
        let mut framing = Framing::new();
        for part in parts {
            framing.look(part.as_bytes()).unwrap();
        }
        let known = String::from_utf8(framing.begin()).unwrap();
        assert_eq!(known.trim_end_matches('\r'), begin.trim_end_matches('\r'), "{parts:?}");
    }
}
