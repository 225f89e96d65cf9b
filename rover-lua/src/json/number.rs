//! Numbers as JSON: a double in, the shortest text that reads back as the same double out.

/// The largest magnitude up to which every integer has a double of its own, and is written without a point.
const LAST_EXACT: u64 = 1 << 53;

/// Integers below this one have at most eight digits, which fit a word.
const ONE_WORD: u64 = 100_000_000;

/// Appends `number` to `out`; false, and nothing written, for NaN and the infinities, which JSON cannot hold.
///
/// `-0.0` keeps its sign.
#[inline]
pub(super) fn write(number: f64, out: &mut Vec<u8>) -> bool {
    let integer = number as i64;
    let size = integer.unsigned_abs();
    // Comparing bits leaves out fractions, NaN and the negative zero at once.
    if (integer as f64).to_bits() != number.to_bits() || size > LAST_EXACT {
        return write_float(number, out);
    }
    if integer < 0 {
        out.push(b'-');
    }
    if size < 10 {
        out.push(b'0' + size as u8);
    } else if size < ONE_WORD {
        // A copy of constant length is a single store; what was too much is taken back.
        let (digits, unused) = eight_digits(size);
        out.extend_from_slice(&digits.to_le_bytes());
        out.truncate(out.len() - unused);
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
    }
    true
}

/// The usual fractions have at most three decimals: prices, seconds, percentages.
const DECIMALS: f64 = 1000.0;

/// Numbers below this one have at most 15 digits when they have three decimals. No two of those share a double, so the
/// first that reads back is also the shortest.
const FEW_DIGITS: f64 = 1e12;

#[inline(never)]
fn write_float(number: f64, out: &mut Vec<u8>) -> bool {
    let size = number.abs();
    let thousandths = (size * DECIMALS + 0.5) as i64;
    // A division gives the double next to the exact quotient, which is what reading the decimals gives.
    if size < FEW_DIGITS && thousandths as f64 / DECIMALS == size && thousandths > 0 {
        if number < 0.0 {
            out.push(b'-');
        }
        return write_decimals(thousandths, out);
    }
    if number == 0.0 {
        // The negative zero: an integer too, so without a point.
        out.extend_from_slice(b"-0");
    } else if size >= LAST_EXACT as f64 && number.is_finite() {
        write_large(number, out);
    } else if number.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
    }
    number.is_finite()
}

/// Writes an integer too large to have neighbours, without the point and the plus by which zmij marks a float.
#[cold]
fn write_large(number: f64, out: &mut Vec<u8>) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(number);
    let (digits, exponent) = text.split_once("e+").unwrap_or((text.strip_suffix(".0").unwrap_or(text), ""));
    out.extend_from_slice(digits.as_bytes());
    if !exponent.is_empty() {
        out.push(b'e');
        out.extend_from_slice(exponent.as_bytes());
    }
}

/// Writes a number of thousandths, which is not a multiple of a thousand.
fn write_decimals(thousandths: i64, out: &mut Vec<u8>) -> bool {
    let (whole, rest) = (thousandths / 1000, thousandths % 1000);
    let written = write(whole as f64, out);
    let digits = [rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8);
    out.extend_from_slice(&[b'.', digits[0], digits[1], digits[2]]);
    let zeros = if rest % 10 != 0 { 0 } else { 1 + usize::from(rest % 100 == 0) };
    out.truncate(out.len() - zeros);
    written
}

/// The digits of `n`, which is from 1 to 99 999 999, as text from the lowest byte on, and how many of the eight bytes
/// are not used.
///
/// The number is halved into 4 + 4, 2 + 2 + 2 + 2 and then single digits, each time for all parts at once; the
/// divisions are multiplications by 2^20/100 and 2^10/10, exact for parts of that size.
#[inline]
fn eight_digits(n: u64) -> (u64, usize) {
    let fours = (n / 10_000) | ((n % 10_000) << 32);
    let high = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = high | ((fours - 100 * high) << 16);
    let high = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = high | ((twos - 10 * high) << 8);
    let unused = ones.trailing_zeros() as usize / 8;
    ((ones | 0x3030_3030_3030_3030) >> (unused * 8), unused)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(number: f64) -> String {
        let mut out = Vec::new();
        assert!(write(number, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_are_written_as_they_are() {
        let sparse = (0..=53).flat_map(|bits| [(1i64 << bits) - 1, 1 << bits]);
        let powers = (0..=15).flat_map(|n| [10i64.pow(n) - 1, 10i64.pow(n), 10i64.pow(n) + 1]);
        let spread = (0..100_000_000).step_by(9_973);
        for integer in (0..20_000).chain(sparse).chain(powers).chain(spread) {
            assert_eq!(written(integer as f64), integer.to_string());
            if integer > 0 {
                assert_eq!(written(-integer as f64), (-integer).to_string());
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_not_written() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut out = Vec::new();
            assert!(!write(number, &mut out));
            assert!(out.is_empty());
        }
    }

    #[test]
    fn fractions_are_as_short_as_they_can_be() {
        let near = |number: f64| [number.next_down(), number, number.next_up()];
        let decimals = (1..20_000).map(|n| f64::from(n) / 1000.0);
        let large = (1..20_000).map(|n| f64::from(n) * 49_999_999.877);
        for number in decimals.chain(large).flat_map(near) {
            assert_eq!(written(number), zmij::Buffer::new().format(number).trim_end_matches(".0"));
            assert_eq!(written(-number), format!("-{}", written(number)));
        }
    }

    #[test]
    fn floats_read_back() {
        let powers = (54..1024).map(|n| 2f64.powi(n)).chain((-300..300).map(|n| 10f64.powi(n)));
        let near = powers.flat_map(|number| [number.next_down(), number, number.next_up()]);
        let some = [0.1, 1.0 / 3.0, -0.0, 5e-324, 1e300, f64::MAX, 9_007_199_254_740_994.0];
        for number in some.into_iter().chain(near) {
            let text = written(number);
            let read: f64 = text.parse().unwrap();
            assert_eq!(read.to_bits(), number.to_bits());
            assert!(!text.ends_with(".0") && !text.contains('+'), "{text}");
        }
    }

    #[test]
    fn large_numbers_are_as_short_as_they_can_be() {
        for (number, text) in [
            (9_007_199_254_740_994.0, "9007199254740994"),
            (-9_007_199_254_740_994.0, "-9007199254740994"),
            (1e16, "1e16"),
            (-1.5e16, "-1.5e16"),
            (1e300, "1e300"),
            (f64::MAX, "1.7976931348623157e308"),
        ] {
            assert_eq!(written(number), text);
        }
    }
}
