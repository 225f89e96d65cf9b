//! The usual reads, told in one pass: whole heads and nothing else, or one head with its body.
//!
//! Comes in: the bytes of a read that begins where a head does. Goes out: whether they are heads alone, with their lines
//! ended by CRLF, or how long the body is. Heads alone are looked at sixteen bytes at a time, in a form that the compiler
//! turns into vector instructions; one with its body by lines.

use memchr::memchr;

use super::heads::is_content_length;
use super::target::is_odd;

const END: &[u8; 4] = b"\r\n\r\n";

/// Bytes that are looked at together.
const LANES: usize = 16;

/// How many bytes before each one are looked at with it.
const BEFORE: usize = 2;

/// Whether a read holds one head and nothing else. Whether a body follows is not known.
#[inline(always)]
pub(super) fn is_head(bytes: &[u8]) -> bool {
    usual(bytes).is_some_and(|bytes| {
        let holds_several = bytes.len() > LONG && begins_with_head(bytes);
        !holds_several && !some(bytes, special)
    })
}

/// From how many bytes on a read mostly holds several heads.
const LONG: usize = 512;

/// Whether the first of several heads is over soon: no need to look at them all.
#[inline(never)]
fn begins_with_head(bytes: &[u8]) -> bool {
    some(&bytes[..LONG / 4], special)
}

/// A read that may hold nothing but heads without a body, but for its last byte. POST, PUT and PATCH mostly have a body:
/// closer looks are for them. What ends a line is no first letter.
#[inline(always)]
fn usual(bytes: &[u8]) -> Option<&[u8]> {
    let &[first, second, ..] = bytes else { return None };
    let is_usual =
        bytes.len() > BEFORE + LANES && first >= b'A' && first != b'P' && second != b'\n' && bytes.ends_with(END);
    if is_usual { bytes.split_last().map(|(_, bytes)| bytes) } else { None }
}

/// Whether a byte ends a line that is empty or without its CR.
#[inline(always)]
fn special(byte: u8, before: u8, two_before: u8) -> u8 {
    mask(byte == b'\n') & !(mask(before == b'\r') & !mask(two_before == b'\n'))
}

/// Whether a read holds heads without a body and nothing else: their lines are right, none holds what a request line must
/// not be searched for, and none begins with a letter that a field about bodies begins with.
#[inline(never)]
pub(super) fn are_heads(bytes: &[u8]) -> bool {
    let is_unsure = |byte, before, _| {
        let letter = byte | 0x20;
        let is_field = mask(before == b'\n') & (mask(letter == b'c') | mask(letter == b't'));
        mask(byte == b'\n') & !mask(before == b'\r') | mask(is_odd(byte)) | is_field
    };
    usual(bytes).is_some_and(|bytes| !some(bytes, is_unsure))
}

/// Whether `look` finds a bit in some byte but the first two, which it gets with the two bytes before it. The last group
/// overlaps the one before.
#[inline(always)]
fn some(bytes: &[u8], look: impl Fn(u8, u8, u8) -> u8) -> bool {
    let Some((_, last)) = bytes.split_last_chunk::<{ BEFORE + LANES }>() else { return true };
    let mut found = [0; LANES];
    for n in 0..LANES {
        found[n] = look(last[n + 2], last[n + 1], last[n]);
    }
    let [two_before, before, groups] = [0, 1, 2].map(|from| groups(bytes, from));
    for ((two_before, before), group) in two_before.iter().zip(before).zip(groups) {
        for n in 0..LANES {
            found[n] |= look(group[n], before[n], two_before[n]);
        }
    }
    // A sum of this kind stays in one vector. As one number of 16 bytes, it would be put together byte by byte.
    found.iter().fold(0, |all, one| all | one) != 0
}

/// The groups from a byte on, as many as there are from [`BEFORE`] on.
#[inline(always)]
fn groups(bytes: &[u8], from: usize) -> &[[u8; LANES]] {
    bytes[from..from + bytes.len() - BEFORE].as_chunks::<LANES>().0
}

/// Looks at a read that begins with the head of a request that mostly has a body. Gives how many bytes of that body are
/// still to come, where the read holds nothing behind it, and the head tells its length in the usual way.
#[inline]
pub(super) fn with_body(bytes: &[u8]) -> Option<u64> {
    let [b'P', b'A'..=b'Z', ..] = bytes else { return None };
    let mut rest = behind_line(bytes, memchr(b'\n', bytes)?)?;
    let mut length = None;
    loop {
        match rest {
            [b'\r', b'\n', body @ ..] => return left(length?, body),
            // The place of the colon tells nearly all other fields apart.
            [b'c' | b'C', ..] if rest.get(14) == Some(&b':') && is_content_length(&rest[..14]) => match length {
                None => length = Some(&rest[15..]),
                Some(_) => return None,
            },
            [b't' | b'T', ..] if rest.get(17) == Some(&b':') => return None,
            _ => {}
        }
        rest = behind_line(rest, memchr(b'\n', rest)?)?;
    }
}

/// What follows the line of which CRLF ends at `end`; nothing where that is no such end.
#[inline(always)]
fn behind_line(text: &[u8], end: usize) -> Option<&[u8]> {
    match text.get(end.checked_sub(1)?..)? {
        [b'\r', b'\n', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// How much of the body is not in the read, which holds `body`: the head tells the length in `value`, a number that one
/// blank, at most, stands before. Nothing where the read holds more.
#[inline(always)]
fn left(value: &[u8], body: &[u8]) -> Option<u64> {
    let value = value.strip_prefix(b" ").unwrap_or(value);
    let (mut number, mut digits) = (0_u64, 0);
    while let Some(digit @ b'0'..=b'9') = value.get(digits) {
        number = number * 10 + u64::from(digit - b'0');
        digits += 1;
        if digits > 18 {
            return None;
        }
    }
    if digits == 0 || value.get(digits) != Some(&b'\r') || value.get(digits + 1) != Some(&b'\n') {
        return None;
    }
    number.checked_sub(body.len() as u64)
}

#[inline(always)]
fn mask(is: bool) -> u8 {
    if is { 0xff } else { 0 }
}
