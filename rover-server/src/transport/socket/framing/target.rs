//! The bytes of a request target that clients send as they are, and hyper's `Uri` refuses.
//!
//! Comes in: a request line. Goes out: whether and where such bytes stand in it, and the same bytes percent-encoded, as
//! the URL standard has browsers send them. `#` is found with them: no target has a fragment (RFC 9112, section 3.2).

/// Bytes that one instruction looks at.
const LANES: usize = 16;

/// Bytes that are looked at together: mostly a whole request line.
const GROUP: usize = 2 * LANES;

/// Whether a byte is `"`, `<`, `>` or a backtick: sent as it is by clients that do not encode their targets.
#[inline(always)]
pub(super) fn is_raw(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`')
}

/// Whether a byte is [raw](is_raw), or `#`.
#[inline(always)]
pub(super) fn is_odd(byte: u8) -> bool {
    from_odd(byte) == 0
}

/// How far a byte is from one that [is odd](is_odd); two pairs of those differ in one bit. As a number, which vectors have
/// instructions for: a choice of five bytes would be made byte by byte.
#[inline(always)]
fn from_odd(byte: u8) -> u8 {
    (byte & !1 ^ b'"').min(byte & !2 ^ b'<').min(byte ^ b'`')
}

/// Finds the end of the line that a head begins with, where no byte of it [is odd](is_odd): gives the place of the group
/// of bytes that it is in. Mostly that is the first. Nothing where a closer look is needed.
#[inline(always)]
pub(super) fn plain_line(head: &[u8]) -> Option<usize> {
    for (number, group) in head.as_chunks::<GROUP>().0.iter().enumerate() {
        let (is_odd, has_end) = look_at(group);
        if is_odd {
            return None;
        }
        if has_end {
            return Some(number * GROUP);
        }
    }
    end_of_short(head)
}

/// As [`plain_line`], for a line that ends in the last, unfinished group.
#[cold]
fn end_of_short(head: &[u8]) -> Option<usize> {
    let rest = head.as_chunks::<GROUP>().1;
    // What fills it up is neither.
    let mut group = [0; GROUP];
    group[..rest.len()].copy_from_slice(rest);
    let (is_odd, has_end) = look_at(&group);
    (has_end && !is_odd).then(|| head.len() - rest.len())
}

/// Whether a byte of a group is odd, and whether one ends a line.
#[inline(always)]
fn look_at(group: &[u8; GROUP]) -> (bool, bool) {
    let any = |found: [u8; LANES]| found.iter().fold(false, |any, &far| any | (far == 0));
    let (mut odd, mut end) = ([0; LANES], [0; LANES]);
    for n in 0..LANES {
        let [one, other] = [group[n], group[n + LANES]];
        odd[n] = from_odd(one).min(from_odd(other));
        end[n] = (one ^ b'\n').min(other ^ b'\n');
    }
    (any(odd), any(end))
}

/// The same bytes, with those at `places` percent-encoded.
pub(in super::super) fn encoded(bytes: &[u8], places: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 2 * places.len());
    let mut from = 0;
    for &place in places {
        out.extend_from_slice(&bytes[from..place]);
        out.extend_from_slice(match bytes[place] {
            b'"' => b"%22",
            b'<' => b"%3C",
            b'>' => b"%3E",
            _ => b"%60",
        });
        from = place + 1;
    }
    out.extend_from_slice(&bytes[from..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_bytes_are_five() {
        let odd: Vec<u8> = (0..=255).filter(|&byte| is_odd(byte)).collect();
        assert_eq!(odd, b"\"#<>`");
        assert!((0..=255).all(|byte| is_odd(byte) == (is_raw(byte) || byte == b'#')));
    }

    #[test]
    fn the_end_of_a_line_is_found_unless_it_is_odd() {
        for length in 0..100 {
            let line = "a".repeat(length);
            let behind = "b".repeat(GROUP);
            assert_eq!(plain_line(format!("{line}\n{behind}\"#").as_bytes()), Some(length / GROUP * GROUP));
            assert_eq!(plain_line(format!("{line}\n").as_bytes()), Some(length / GROUP * GROUP));
            assert_eq!(plain_line(line.as_bytes()), None);
            for odd in ["\"", "#", "<", ">", "`"] {
                assert_eq!(plain_line(format!("{line}{odd}\n{behind}").as_bytes()), None);
                assert_eq!(plain_line(format!("{line}{odd}\n").as_bytes()), None);
            }
        }
    }

    #[test]
    fn places_are_encoded() {
        assert_eq!(encoded(b"GET /<\"`> ", &[5, 6, 7, 8]), b"GET /%3C%22%60%3E ");
        assert_eq!(encoded(b"<a", &[0]), b"%3Ca");
        assert_eq!(encoded(b"a<", &[1]), b"a%3C");
    }
}
