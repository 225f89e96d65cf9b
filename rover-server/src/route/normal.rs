//! Normalises a path for everything that uses it (RFC 3986, section 6.2.2).
//!
//! In: a path as sent. Out: the same with unreserved characters decoded, hexadecimal digits in upper case, what no URL
//! can hold encoded, and dot segments resolved. Must not know: which paths there are.

/// The path as the client sent it, kept among a request's extensions if it was spelled differently.
#[derive(Clone, Debug)]
pub struct SentPath(pub Box<str>);

/// Bytes of a path that may ask for another spelling: all but a `pchar` (section 3.3), among these `%`, and `.`, which may
/// begin a dot segment.
const STANDS_OUT: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = !is_pchar(byte as u8) && byte as u8 != b'/' || byte as u8 == b'.';
        byte += 1;
    }
    table
};

/// Says whether a byte stands for itself in a segment (RFC 3986, section 3.3).
pub(super) const fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte) || is_delimiter(byte)
}

/// Says whether encoding the byte changes nothing (section 2.3).
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Says whether the byte may stand in a segment as it is, and yet mean something else than its encoded form (section 2.2).
pub(super) const fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

/// Says whether a path is in the normal spelling already.
///
/// For nearly all paths this is a few instructions for each eight bytes.
#[must_use]
#[inline]
pub fn is_normal(path: &str) -> bool {
    is_plain(path.as_bytes()) || is_normal_with_signs(path)
}

/// The same byte eight times.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Whether a path holds letters, digits and slashes alone, and at least four of them.
#[inline(always)]
fn is_plain(path: &[u8]) -> bool {
    // One bit for each byte that is one of these. No sum goes beyond its byte, but next to a byte that is none of them.
    let plain = |bytes: u64| {
        let lower = bytes | each(0x20);
        let letters = lower.wrapping_add(each(0x80 - b'a')) & !lower.wrapping_add(each(0x7f - b'z'));
        let digits = bytes.wrapping_add(each(0x80 - b'/')) & !bytes.wrapping_add(each(0x7f - b'9'));
        (letters | digits) & !bytes & each(0x80) == each(0x80)
    };
    match (path.last_chunk::<8>(), path.first_chunk::<4>(), path.last_chunk::<4>()) {
        (Some(last), ..) => {
            let (eights, _) = path.as_chunks::<8>();
            plain(u64::from_ne_bytes(*last)) && eights.iter().all(|eight| plain(u64::from_ne_bytes(*eight)))
        }
        (None, Some(&[a, b, c, d]), Some(&[e, f, g, h])) => plain(u64::from_ne_bytes([a, b, c, d, e, f, g, h])),
        _ => false,
    }
}

/// As [`is_normal`], for paths that hold something else as well: one look at each byte, eight of them between two branches.
#[inline(never)]
fn is_normal_with_signs(path: &str) -> bool {
    let (eights, rest) = path.as_bytes().as_chunks::<8>();
    let stands_out = |bytes: &[u8]| bytes.iter().fold(false, |found, byte| found | STANDS_OUT[usize::from(*byte)]);
    if eights.iter().any(|eight| stands_out(eight)) || stands_out(rest) {
        return is_normal_after_all(path);
    }
    true
}

/// Dots within a name are usual, and encoded bytes may be in the normal form already.
#[cold]
fn is_normal_after_all(path: &str) -> bool {
    !path.starts_with('/') || normalise(path, usize::MAX) == path
}

/// Returns the normal spelling of a path that begins with a slash. If it would become longer than `most`, bytes that no
/// URL can hold stay as sent; nothing else makes a path longer.
///
/// Empty segments stay: RFC 3986 knows no two spellings there. A `%` without two digits stays as well.
#[must_use]
pub fn normalise(path: &str, most: usize) -> String {
    let spelled = respell(path, true);
    let spelled = if spelled.len() > most.max(path.len()) { respell(path, false) } else { spelled };
    if spelled.contains("/.") { without_dots(&spelled) } else { spelled }
}

/// Decodes unreserved characters, and writes the digits of other encoded bytes in upper case.
fn respell(path: &str, encodes: bool) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    // How many digits would still make an encoded byte of a `%` that begins none: decoded ones must not.
    let mut wanting = 0_u8;
    while let Some(byte) = rest.as_bytes().first().copied() {
        let encoded = encoded_byte(rest);
        let completes = wanting > 0 && encoded.is_some_and(|byte| byte.is_ascii_hexdigit());
        wanting = if byte == b'%' && encoded.is_none() { 2 } else { wanting.saturating_sub(1) };
        let taken = match encoded {
            Some(byte) if is_unreserved(byte) && !completes => {
                out.push(char::from(byte));
                3
            }
            Some(byte) => {
                push_encoded(&mut out, byte);
                3
            }
            None => {
                let next = rest.chars().next().unwrap_or_default();
                let stays = is_pchar(byte) || matches!(byte, b'/' | b'%') || !encodes;
                match stays {
                    true => out.push(next),
                    false => next.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_encoded(&mut out, byte)),
                }
                next.len_utf8()
            }
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    out
}

/// The byte that `text` begins with in its encoded form, if it does.
pub(super) fn encoded_byte(text: &str) -> Option<u8> {
    let digits = text.as_bytes().strip_prefix(b"%")?.get(..2)?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
}

fn push_encoded(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    out.extend(['%', digit(byte >> 4), digit(byte)]);
}

/// Resolves the segments "." and ".." (section 5.2.4). What leads above the root stays there.
fn without_dots(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            name => {
                out.push('/');
                out.push_str(name);
                continue;
            }
        }
        // A dot segment at the end names the folder.
        if is_last {
            out.push('/');
        }
    }
    out
}

/// A path in which delimiters that need not be encoded are not: the form in which literals are looked for, for
/// `/%40me` names what `/@me` names to whoever declares that. `None` where it is the path itself.
///
/// What is forwarded keeps the difference, for an upstream may know one.
#[cold]
pub(super) fn with_plain_delimiters(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((text, _)) = rest.split_once('%') {
        out.push_str(text);
        rest = rest.get(text.len()..).unwrap_or_default();
        let (taken, byte) = match encoded_byte(rest) {
            Some(byte) if is_delimiter(byte) => (3, byte),
            _ => (1, b'%'),
        };
        out.push(char::from(byte));
        rest = rest.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    (out.len() != path.len()).then_some(out)
}

/// Where the byte at `at` of [`with_plain_delimiters`] stands in the path that it was made of.
#[cold]
pub(super) fn place_in(path: &str, at: usize) -> usize {
    let mut place = 0;
    for _ in 0..at {
        let rest = path.get(place..).unwrap_or_default();
        place += if encoded_byte(rest).is_some_and(is_delimiter) { 3 } else { 1 };
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_all() {
        for (sent, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/%7Eu/%2D%2e%5f%30", "/~u/-._0"),
            ("/a%2fb%3ac%40", "/a%2Fb%3Ac%40"),
            ("/public/../admin/x", "/admin/x"),
            ("/%2e%2e/admin", "/admin"),
            ("/./admin", "/admin"),
            ("/.%2E/%2e/admin/", "/admin/"),
            ("/admin/.", "/admin/"),
            ("/admin/x/..", "/admin/"),
            ("/..", "/"),
            ("/../..", "/"),
            ("/a/../..", "/"),
            ("//a", "//a"),
            ("/a//b/", "/a//b/"),
            ("/a//../b", "/a/b"),
            ("/.hidden/..x/x../...", "/.hidden/..x/x../..."),
            ("/a..b", "/a..b"),
            ("/%zz/%4/%", "/%zz/%4/%"),
            ("/%%41", "/%%41"),
            ("/%%34%31", "/%%34%31"),
            ("/%4%31", "/%4%31"),
            ("/%z%31", "/%z%31"),
            ("/%25%32%66", "/%252f"),
            ("/a|b[1]\"^`{}\\<>", "/a%7Cb%5B1%5D%22%5E%60%7B%7D%5C%3C%3E"),
            ("/é/%c3%a9", "/%C3%A9/%C3%A9"),
            ("/..%2fadmin", "/..%2Fadmin"),
            ("/a/..;/b", "/a/..;/b"),
        ] {
            assert_eq!(normalise(sent, usize::MAX), normal, "{sent}");
            assert_eq!(is_normal(sent), sent == normal, "{sent}");
            assert!(is_normal(normal), "{normal}");
        }
        assert!(is_normal("*"));
        for byte in 0..=127_u8 {
            for text in ["/abcdef", "/0123456789/ABCdefzZ", "/az", "/"] {
                for at in 1..text.len() {
                    let path = format!("{}{}{}", &text[..at], char::from(byte), &text[at..]);
                    assert_eq!(is_normal(&path), normalise(&path, usize::MAX) == path, "{path:?}");
                }
            }
        }
        assert!(!is_normal("/abcdefgh\u{e9}/abc"));
    }

    #[test]
    fn what_would_be_too_long_is_not_encoded() {
        assert_eq!(normalise("/||/../%61", 6), "/a");
        assert_eq!(normalise("/||/%61", 6), "/||/a");
        assert_eq!(normalise("/||/%61", 9), "/%7C%7C/a");
    }

    #[test]
    fn places_are_found_again() {
        assert_eq!(with_plain_delimiters("/%41%2F"), None);
        let path = "/%40me/a%2Fb/%3A1";
        let plain = with_plain_delimiters(path).unwrap_or_default();
        assert_eq!(plain, "/@me/a%2Fb/:1");
        for (at, place) in [(0, 0), (1, 1), (2, 4), (5, 7), (10, 12), (11, 13), (12, 16), (13, 17)] {
            assert_eq!(place_in(path, at), place, "{at}");
        }
    }
}
