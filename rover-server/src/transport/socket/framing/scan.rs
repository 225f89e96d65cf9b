//! The usual reads, told in one pass: whole heads and nothing else, or one head with its body.
//!
//! Comes in: the bytes of a read that begins where a head does. Goes out: whether they are heads alone, with their lines
//! ended by CRLF, or how long the body is. Sixteen bytes at a time, in a form that the compiler turns into vector
//! instructions.

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
    some(&bytes[..LONG / 2], special)
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
    let shown = bytes.len() - BEFORE;
    let groups = |from| bytes[from..from + shown].as_chunks::<LANES>().0;
    for ((two_before, before), group) in groups(0).iter().zip(groups(1)).zip(groups(2)) {
        for n in 0..LANES {
            found[n] |= look(group[n], before[n], two_before[n]);
        }
    }
    u128::from_ne_bytes(found) != 0
}

/// How far before a byte the line of a field begins that it may be the colon of: `Content-Length`, `Transfer-Encoding`.
const BEFORE_COLON: [usize; 2] = [15, 18];

/// How many bytes before each one are looked at for these.
const LINE: usize = 18;

/// Looks at a read that begins with the head of a request that mostly has a body. Gives how many bytes of that body are
/// still to come, where the read holds nothing behind it, and the head tells its length in the usual way.
#[inline]
pub(super) fn with_body(bytes: &[u8]) -> Option<u64> {
    let [b'P', b'A'..=b'Z', begin @ ..] = bytes else { return None };
    if begin.len() < LANES + LANES {
        return None;
    }
    // No field begins early enough to have a name of that length here.
    let begin: [u8; LANES] =
        std::array::from_fn(|n| special(bytes[n + BEFORE], bytes[n + BEFORE - 1], bytes[n + BEFORE - 2]));
    if u128::from_ne_bytes(begin) != 0 {
        return None;
    }
    let groups = |from| bytes[from..from + bytes.len() - LINE].as_chunks::<LANES>().0;
    let before = |distance| groups(LINE - distance).iter();
    let mut length = None;
    let lines = before(1).zip(before(2)).zip(before(BEFORE_COLON[0]).zip(before(BEFORE_COLON[1])));
    for (number, (group, lines)) in groups(LINE).iter().zip(lines).enumerate() {
        if let Some(end) = look_for_end(bytes, LINE + number * LANES, specials(group, lines), &mut length)? {
            return left(bytes, end, length?);
        }
    }
    // The last group overlaps the one before.
    let (from, last) = (bytes.len() - LANES, bytes.last_chunk::<{ LINE + LANES }>()?);
    let part = |distance: usize| last[LINE - distance..].first_chunk::<LANES>();
    let lines = ((part(1)?, part(2)?), (part(BEFORE_COLON[0])?, part(BEFORE_COLON[1])?));
    let seen = LANES - (bytes.len() - LINE) % LANES;
    let new = specials(part(0)?, lines).checked_shr(seen as u32 * 8)?;
    let end = look_for_end(bytes, from + seen, new, &mut length)??;
    left(bytes, end, length?)
}

type Lines<'a> = ((&'a [u8; LANES], &'a [u8; LANES]), (&'a [u8; LANES], &'a [u8; LANES]));

/// The bytes of a group that need a look of their own, each as eight bits: what may be the colon of a field that tells of
/// the body, and an end of line that is empty or without its CR.
#[inline(always)]
fn specials(group: &[u8; LANES], ((before, two_before), (length, encoding)): Lines<'_>) -> u128 {
    u128::from_le_bytes(std::array::from_fn(|n| {
        let begins = mask(length[n] == b'\n') | mask(encoding[n] == b'\n');
        special(group[n], before[n], two_before[n]) | mask(group[n] == b':') & begins
    }))
}

/// Looks at `specials` of the group at `from`: the end of the head if it is there, and the place of its length. Nothing
/// where the head asks for a closer look.
#[inline(always)]
fn look_for_end(bytes: &[u8], from: usize, mut specials: u128, length: &mut Option<usize>) -> Option<Option<usize>> {
    while specials != 0 {
        let lane = specials.trailing_zeros() / 8;
        let at = from + lane as usize;
        specials &= !(0xff << (lane * 8));
        match bytes[at] {
            b'\n' => return bytes[..at].ends_with(b"\n\r").then_some(Some(at + 1)),
            b':' => {
                let [is_length, is_encoding] = [(0, b'c'), (1, b't')].map(|(which, letter)| {
                    let line = at - BEFORE_COLON[which];
                    bytes[line] == b'\n' && bytes[line + 1] | 0x20 == letter
                });
                if is_encoding {
                    return None;
                }
                let is_length = is_length && is_content_length(&bytes[at - BEFORE_COLON[0] + 1..at]);
                if is_length && length.replace(at + 1).is_some() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some(None)
}

/// How much of the body is not in the read whose head ends at `end` and tells the length at `place`: a number that one
/// blank, at most, stands before. Nothing where the read holds more.
#[inline(always)]
fn left(bytes: &[u8], end: usize, place: usize) -> Option<u64> {
    let value = &bytes[place..end];
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
    number.checked_sub((bytes.len() - end) as u64)
}

#[inline(always)]
fn mask(is: bool) -> u8 {
    if is { 0xff } else { 0 }
}
