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
}
