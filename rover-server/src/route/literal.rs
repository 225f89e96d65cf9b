//! Literal text as a client sends it.
//!
//! In: the bytes of a Lua field name. Out: a path segment in the spelling of RFC 3986.
//! Must not know: parameters.

/// Spells a literal as a client has to send it: what is no `pchar` (RFC 3986, section 3.3) is percent-encoded with
/// upper-case digits; an encoded byte stays one.
pub(super) fn encode_literal(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, byte) in text.iter().enumerate() {
        let in_encoded = |back: usize| i >= back && is_encoded_byte(&text[i - back..]);
        match byte {
            b'%' if in_encoded(0) => out.push('%'),
            _ if in_encoded(1) || in_encoded(2) => out.push(char::from(byte.to_ascii_uppercase())),
            _ if is_pchar(*byte) => out.push(char::from(*byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Other spellings of a literal that [`encode_literal`] has spelled, as clients send them: with lower-case digits, and
/// with those bytes as they are that RFC 3986 wants encoded but that end neither a segment nor a path. Both stand for the
/// same bytes (section 6.2.2), so nothing else is found by them.
pub(super) fn other_spellings(literal: &str) -> [String; 2] {
    let mut lower = String::with_capacity(literal.len());
    let mut raw = Vec::with_capacity(literal.len());
    let mut rest = literal;
    while let Some((text, encoded)) = rest.split_once('%') {
        let (digits, after) = encoded.split_at_checked(2).unwrap_or((encoded, ""));
        lower.extend([text, "%", &digits.to_ascii_lowercase()]);
        raw.extend_from_slice(text.as_bytes());
        match u8::from_str_radix(digits, 16) {
            Ok(byte) if byte >= 0x80 || b"\"<>[\\]^`{|}".contains(&byte) => raw.push(byte),
            _ => raw.extend([b"%", digits.as_bytes()].concat()),
        }
        rest = after;
    }
    lower.push_str(rest);
    raw.extend_from_slice(rest.as_bytes());
    // A request target is text, as the router takes it.
    [lower, String::from_utf8(raw).unwrap_or_else(|_| literal.to_owned())]
}

fn is_encoded_byte(text: &[u8]) -> bool {
    matches!(text, [b'%', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
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
            ("%%41", "%25%41"),
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
        for (literal, lower, raw) in [
            ("plain", "plain", "plain"),
            ("a%7Cb", "a%7cb", "a|b"),
            ("%5B1%5D", "%5b1%5d", "[1]"),
            ("%C3%A9", "%c3%a9", "é"),
            ("a%20b%2Fc%3F%23%25%00%7F", "a%20b%2fc%3f%23%25%00%7f", "a%20b%2Fc%3F%23%25%00%7F"),
            ("%FF%7C", "%ff%7c", "%FF%7C"),
        ] {
            assert_eq!(other_spellings(literal), [lower, raw], "{literal}");
        }
    }
}
