//! Strings as JSON: bytes in, a quoted and escaped text out.
//!
//! Most strings need no care, which [`is_plain`] finds out eight bytes at a time; they are copied as they are.

/// The same byte in each place of a word.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The sign bit of each byte.
const HIGH: u64 = each(0x80);

/// Appends `bytes` as a JSON string. What is not UTF-8 becomes U+FFFD, as in [`String::from_utf8_lossy`].
#[inline]
pub fn write(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    if is_plain(bytes) {
        copy(bytes, out);
    } else {
        write_carefully(bytes, out);
    }
    out.push(b'"');
}

/// Appends `bytes`. Copies of constant length are single instructions, where one of any length is a call; so the usual
/// short strings are copied as two such parts, of which the second overwrites the end of the first.
#[inline]
fn copy(bytes: &[u8], out: &mut Vec<u8>) {
    let end = out.len() + bytes.len();
    match bytes.len() {
        17..=32 => copy_parts::<16>(bytes, end, out),
        9..=16 => copy_parts::<8>(bytes, end, out),
        5..=8 => copy_parts::<4>(bytes, end, out),
        _ => out.extend_from_slice(bytes),
    }
}

#[inline]
fn copy_parts<const N: usize>(bytes: &[u8], end: usize, out: &mut Vec<u8>) {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) {
        out.extend_from_slice(first);
        out.truncate(end - N);
        out.extend_from_slice(last);
    }
}

fn write_carefully(bytes: &[u8], out: &mut Vec<u8>) {
    if simdutf8::basic::from_utf8(bytes).is_ok() {
        return escape(bytes, out);
    }
    for chunk in bytes.utf8_chunks() {
        escape(chunk.valid().as_bytes(), out);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

/// The bytes of `word` that must be escaped have their sign bit set. Only the lowest bit set is exact, for borrows
/// travel upward.
#[inline]
fn escapes(word: u64) -> u64 {
    let control = word.wrapping_sub(each(0x20));
    let quote = (word ^ each(b'"')).wrapping_sub(each(1));
    let backslash = (word ^ each(b'\\')).wrapping_sub(each(1));
    // None of the three is at 0x80 or above, so `!word` rids all of them of false hits there.
    (control | quote | backslash) & !word & HIGH
}

/// All bytes of `word` are ASCII that stands for itself.
#[inline]
fn is_plain_word(word: u64) -> bool {
    escapes(word) | (word & HIGH) == 0
}

#[inline]
fn is_plain_byte(byte: u8) -> bool {
    matches!(byte, 0x20..0x80) && byte != b'"' && byte != b'\\'
}

/// All bytes are ASCII that stands for itself.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk::<8>() {
        // The last word overlaps the one before it instead of leaving a remainder.
        let (words, _) = bytes.as_chunks::<8>();
        return words.iter().all(|word| is_plain_word(u64::from_le_bytes(*word)))
            && is_plain_word(u64::from_le_bytes(*last));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let low = u64::from(u32::from_le_bytes(*first));
        let high = u64::from(u32::from_le_bytes(*last));
        return is_plain_word(low | (high << 32));
    }
    bytes.iter().all(|&byte| is_plain_byte(byte))
}

/// Appends UTF-8 with its quotes, backslashes and control characters escaped.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(at) = first_escape(rest) {
        out.extend_from_slice(&rest[..at]);
        escape_byte(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Where the first byte stands that must be escaped.
#[inline]
fn first_escape(bytes: &[u8]) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let hits = escapes(u64::from_le_bytes(*word));
        if hits != 0 {
            return Some(n * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    let at = tail.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')?;
    Some(words.len() * 8 + at)
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0C => b'f',
        _ => {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(bytes, &mut out);
        out
    }

    #[test]
    fn every_byte_at_every_place_reads_back() {
        for len in 1..=20 {
            for at in 0..len {
                for byte in 0..=255 {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    let read: String = serde_json::from_slice(&written(&bytes)).unwrap();
                    assert_eq!(read, String::from_utf8_lossy(&bytes));
                }
            }
        }
    }

    #[test]
    fn only_what_must_be_escaped_is() {
        assert_eq!(written(b"\"\\\n\r\t\x08\x0c\x01\x1f\x7f/"), b"\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\\u001f\x7f/\"");
        assert_eq!(written("grüße\u{2028}".as_bytes()), "\"grüße\u{2028}\"".as_bytes());
    }

    #[test]
    fn invalid_utf8_becomes_the_replacement_character() {
        for bytes in [&b"\xff"[..], b"a\xf0\x9f\x98b", b"\xed\xa0\x80", b"ok\x80\n\xc3", b"\xe2\x82"] {
            let read: String = serde_json::from_slice(&written(bytes)).unwrap();
            assert_eq!(read, String::from_utf8_lossy(bytes));
        }
    }
}
