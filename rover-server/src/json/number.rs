//! Numbers as JSON: a double in, the shortest text that reads back as the same double out.

/// The largest magnitude up to which every integer has a double of its own, and is written without a point.
const LAST_EXACT: u64 = 1 << 53;

/// Appends `number` to `out`; false, and nothing written, for NaN and the infinities, which JSON cannot hold.
///
/// `-0.0` keeps its sign.
#[inline]
pub(super) fn write(number: f64, out: &mut Vec<u8>) -> bool {
    let integer = number as i64;
    // Comparing bits leaves out fractions, NaN and the negative zero at once.
    if (integer as f64).to_bits() == number.to_bits() && integer.unsigned_abs() <= LAST_EXACT {
        if let digit @ 0..=9 = integer {
            out.push(b'0' + digit as u8);
        } else {
            out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
        }
        return true;
    }
    write_float(number, out)
}

fn write_float(number: f64, out: &mut Vec<u8>) -> bool {
    if number.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
    }
    number.is_finite()
}
