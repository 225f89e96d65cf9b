//! The usual read, told in one pass: whole heads, and nothing else.
//!
//! Comes in: the bytes of a read that begins where a head does. Goes out: whether they are heads alone, with their lines
//! ended by CRLF. Sixteen bytes at a time, in a form that the compiler turns into vector instructions.

/// What a read holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heads {
    /// One head. Whether a body follows is not known.
    One,
    /// Several, none of which has a body.
    WithoutBodies,
    /// Something else, or something that is wrong.
    Unsure,
}

const END: &[u8; 4] = b"\r\n\r\n";

/// Bytes that are looked at together.
const LANES: usize = 16;

/// How many bytes before each one are looked at with it.
const BEFORE: usize = 2;

/// Looks at a read.
#[inline]
pub(super) fn heads(bytes: &[u8]) -> Heads {
    let (&[first, second, ..], true) = (bytes, bytes.len() > BEFORE + LANES) else { return Heads::Unsure };
    // POST, PUT and PATCH mostly have a body: closer looks are for them. What ends a line is no first letter.
    if first < b'A' || first == b'P' || second == b'\n' || !bytes.ends_with(END) {
        return Heads::Unsure;
    }
    let bytes = &bytes[..bytes.len() - 1];
    // Where a line ends, but not one that is neither empty nor without its CR; and where there may be a fragment.
    let is_special = some(bytes, |byte, before, two_before| {
        mask(byte == b'\n') & !(mask(before == b'\r') & !mask(two_before == b'\n')) | mask(byte == b'#')
    });
    if is_special { several(bytes) } else { Heads::One }
}

/// Looks again: several heads are right when their lines are, and none begins with a letter that a field about bodies
/// begins with.
#[inline(never)]
fn several(bytes: &[u8]) -> Heads {
    let is_unsure = some(bytes, |byte, before, _| {
        let letter = byte | 0x20;
        let is_field = mask(before == b'\n') & (mask(letter == b'c') | mask(letter == b't'));
        mask(byte == b'\n') & !mask(before == b'\r') | mask(byte == b'#') | is_field
    });
    if is_unsure { Heads::Unsure } else { Heads::WithoutBodies }
}

/// Whether `look` finds a bit in some byte but the first two, which it gets with the two bytes before it. The last group
/// overlaps the one before.
#[inline(always)]
fn some(bytes: &[u8], look: impl Fn(u8, u8, u8) -> u8) -> bool {
    let Some((_, last)) = bytes.split_last_chunk::<{ BEFORE + LANES }>() else { return true };
    let mut found: [u8; LANES] = std::array::from_fn(|n| look(last[n + 2], last[n + 1], last[n]));
    let shown = bytes.len() - BEFORE;
    let groups = |from| bytes[from..from + shown].as_chunks::<LANES>().0;
    for ((two_before, before), group) in groups(0).iter().zip(groups(1)).zip(groups(2)) {
        for n in 0..LANES {
            found[n] |= look(group[n], before[n], two_before[n]);
        }
    }
    u128::from_ne_bytes(found) != 0
}

#[inline(always)]
fn mask(is: bool) -> u8 {
    if is { 0xff } else { 0 }
}
