//! Spells literal text as a client sends it.
//!
//! In: the bytes of a Lua field name. Out: a path segment in the spelling of RFC 3986.
//! Must not know: parameters.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::normal::{encoded_byte, is_delimiter, is_pchar};

/// Spells a literal as the router stores it: bytes other than `pchar` (RFC 3986, section 3.3) are percent-encoded with
/// upper-case digits; an encoded byte stays encoded, unless it is a `pchar`.
pub(super) fn encode_literal(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.first() {
        let encoded = rest.get(..3).and_then(|three| encoded_byte(std::str::from_utf8(three).ok()?));
        match encoded.unwrap_or(*first) {
            byte if is_pchar(byte) => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
        rest = &rest[if encoded.is_some() { 3 } else { 1 }..];
    }
    out
}

/// Says whether clients may encode bytes of a literal that need not be, and mean the same.
pub(super) fn has_delimiters(literal: &str) -> bool {
    literal.bytes().any(is_delimiter)
}

/// Says whether a segment of a path matches a literal, in any spelling of either.
pub(super) fn names(segment: &str, literal: &str) -> bool {
    segment == literal || segment.contains('%') && decoded(segment) == decoded(literal)
}

/// Returns the part of a path below a path of literals: empty, or a slash and what follows.
#[must_use]
pub fn below<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    if let Some(rest) = path.strip_prefix(prefix) {
        return (rest.is_empty() || rest.starts_with('/')).then_some(rest);
    }
    path.contains('%').then(|| below_respelled(prefix, path)).flatten()
}

#[cold]
fn below_respelled<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    let mut rest = path;
    for literal in prefix.split('/').skip(1) {
        rest = rest.strip_prefix('/')?;
        let segment = rest.split('/').next()?;
        if !names(segment, literal) {
            return None;
        }
        rest = rest.get(segment.len()..)?;
    }
    Some(rest)
}

fn decoded(text: &str) -> Cow<'_, [u8]> {
    percent_decode_str(text).into()
}

/// How many other spellings of a literal clients have.
pub(super) const OTHER_SPELLINGS: usize = 3;

/// Another spelling of a literal that [`encode_literal`] has spelled, as clients send it: 0 with lower-case digits; 1 as
/// browsers do, which leave some bytes as they are that RFC 3986 wants encoded; 2 with all those as they are that end
/// neither a segment nor a path. All stand for the same bytes (section 6.2.2), so nothing else is found by them.
pub(super) fn other_spelling(literal: &str, number: usize) -> String {
    let mut out = Vec::with_capacity(literal.len());
    let mut rest = literal;
    while let Some((text, encoded)) = rest.split_once('%') {
        let (digits, after) = encoded.split_at_checked(2).unwrap_or((encoded, ""));
        out.extend_from_slice(text.as_bytes());
        let byte = u8::from_str_radix(digits, 16).ok();
        match (number, byte) {
            // The path percent-encode set of the WHATWG's URL standard lacks these.
            (1, Some(byte @ (b'[' | b']' | b'|'))) => out.push(byte),
            (2, Some(byte)) if byte >= 0x80 || b"\"<>[\\]^`{|}".contains(&byte) => out.push(byte),
            (0, _) => out.extend([b"%", digits.to_ascii_lowercase().as_bytes()].concat()),
            _ => out.extend([b"%", digits.as_bytes()].concat()),
        }
        rest = after;
    }
    out.extend_from_slice(rest.as_bytes());
    // A request target is text, as the router takes it.
    String::from_utf8(out).unwrap_or_else(|_| literal.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_literals_as_clients_send_them() {
        for (text, sent) in [
            ("a b", "a%20b"),
            ("a%2fb", "a%2Fb"),
            ("100%", "100%25"),
            ("%4", "%254"),
            ("%%41", "%25A"),
            ("%7Eu%2dx%40y", "~u-x@y"),
            ("a{b", "a%7Bb"),
            ("é", "%C3%A9"),
            ("a?b#c", "a%3Fb%23c"),
            ("@me:x!$&'()*+,;=~", "@me:x!$&'()*+,;=~"),
        ] {
            assert_eq!(encode_literal(text.as_bytes()), sent);
        }
        assert_eq!(encode_literal(b"\xff"), "%FF");
    }

    #[test]
    fn spells_literals_as_other_clients_send_them() {
        for (literal, others) in [
            ("plain", ["plain", "plain", "plain"]),
            ("a%7Cb", ["a%7cb", "a|b", "a|b"]),
            ("%5B1%5D", ["%5b1%5d", "[1]", "[1]"]),
            ("%C3%A9%5B%5E", ["%c3%a9%5b%5e", "%C3%A9[%5E", "é[^"]),
            ("a%20%2F%3F%25%00", ["a%20%2f%3f%25%00", "a%20%2F%3F%25%00", "a%20%2F%3F%25%00"]),
            ("%FF%7C", ["%ff%7c", "%FF|", "%FF%7C"]),
        ] {
            for (number, other) in others.into_iter().enumerate() {
                assert_eq!(other_spelling(literal, number), other, "{literal}");
            }
        }
    }
}
