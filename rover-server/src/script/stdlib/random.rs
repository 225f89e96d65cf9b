//! `rover.random` and `rover.uuid`: unpredictable values, from the system's cryptographic source.
//!
//! Comes in: how much. Goes out: bytes, text, a number, an element; a UUID. `math.random` has another seed in each VM,
//! but its next numbers can be computed from earlier ones: it is not for secrets.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use mlua::{Function, Lua, Table};
use rover_lua::{Kind, Raise, Returns, Shared, Stack};

use crate::runtime::random;

/// The most bytes of one call.
const MOST_BYTES: f64 = 1_048_576.0;

/// The default number of bytes in a token.
const TOKEN_BYTES: usize = 32;

/// Whole numbers up to here, of either sign, are exact.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

/// The alphabet of RFC 4648, section 5.
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The time of the last UUID of version 7.
type Last = Cell<u64>;

/// Adds `random` and `uuid` to `rover`, and gives `math.random` a seed of this VM.
pub(super) fn install(lua: &Lua, rover: &Table) -> mlua::Result<()> {
    let shared = Shared::new(lua, Rc::new(Last::new(0)))?;
    let table = lua.create_table()?;
    table.raw_set("bytes", shared.function(lua, bytes)?)?;
    table.raw_set("token", shared.function(lua, token)?)?;
    table.raw_set("int", shared.function(lua, int)?)?;
    table.raw_set("choice", shared.function(lua, choice)?)?;
    rover.raw_set("random", table)?;
    rover.raw_set("uuid", shared.function(lua, uuid)?)?;
    let seed: Function = lua.globals().get::<Table>("math")?.get("randomseed")?;
    // As many bits as a number of Lua's holds exactly.
    seed.call((random::seed() >> 11) as f64)
}

fn fill(bytes: &mut [u8]) -> Result<(), Raise> {
    random::fill(bytes).map_err(|_| Raise::mistake("the system gives no random bytes"))
}

/// The number of bytes at index 1, `usual` where there is none.
fn count(stack: &Stack<'_>, usual: Option<usize>, call: &str) -> Result<usize, Raise> {
    match (stack.kind(1), usual) {
        (Kind::Nil, Some(usual)) => Ok(usual),
        (Kind::Number, _) if is_whole(stack.number(1), 0.0, MOST_BYTES) => Ok(stack.number(1) as usize),
        _ => Err(Raise::Mistake(format!(
            "{call} expects a number of bytes, a whole number from 0 to {MOST_BYTES}, not {}",
            shown(stack, 1)
        ))),
    }
}

fn is_whole(number: f64, least: f64, most: f64) -> bool {
    number.fract() == 0.0 && (least..=most).contains(&number)
}

/// A value as a message shows it.
fn shown(stack: &Stack<'_>, index: i32) -> String {
    match stack.kind(index) {
        Kind::Number => stack.number(index).to_string(),
        kind => kind.name().to_owned(),
    }
}

/// `bytes(n)` → a string.
fn bytes(stack: &mut Stack<'_>, _: &Last) -> Returns {
    let mut bytes = vec![0; count(stack, None, "rover.random.bytes")?];
    fill(&mut bytes)?;
    stack.push_bytes(&bytes);
    Ok(1)
}

/// `token([n])` → n bytes as text for URLs.
fn token(stack: &mut Stack<'_>, _: &Last) -> Returns {
    let mut bytes = vec![0; count(stack, Some(TOKEN_BYTES), "rover.random.token")?];
    fill(&mut bytes)?;
    stack.push_bytes(&base64url(&bytes));
    Ok(1)
}

/// Without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let digits = [bits >> 18, bits >> 12, bits >> 6, bits].map(|bits| BASE64URL[bits as usize & 63]);
        text.extend_from_slice(&digits[..=group.len()]);
    }
    text
}

/// A number below `bound`, which is not 0; all are equally likely.
fn below(bound: u64) -> Result<u64, Raise> {
    // What lies above the last whole multiple would make the first ones more likely.
    let rest = (u64::MAX % bound + 1) % bound;
    loop {
        let mut bytes = [0; 8];
        fill(&mut bytes)?;
        let drawn = u64::from_le_bytes(bytes);
        if drawn <= u64::MAX - rest {
            return Ok(drawn % bound);
        }
    }
}

/// `int(a, b)` → a whole number from a to b.
fn int(stack: &mut Stack<'_>, _: &Last) -> Returns {
    for index in [1, 2] {
        if stack.kind(index) != Kind::Number || !is_whole(stack.number(index), -MOST_EXACT, MOST_EXACT) {
            let shown = shown(stack, index);
            return Err(Raise::Mistake(format!(
                "rover.random.int expects two whole numbers up to 2^53, the least and the largest, not {shown}"
            )));
        }
    }
    let (least, most) = (stack.number(1), stack.number(2));
    if most < least {
        return Err(Raise::Mistake(format!("rover.random.int: {most} is less than {least}")));
    }
    // Both are exact, and so is their distance as a whole number.
    let (least, most) = (least as i64, most as i64);
    let drawn = below(most.abs_diff(least) + 1)?;
    stack.push_number(least.saturating_add_unsigned(drawn) as f64);
    Ok(1)
}

/// `choice(t)` → an element of an array.
fn choice(stack: &mut Stack<'_>, _: &Last) -> Returns {
    if stack.kind(1) != Kind::Table {
        let kind = stack.kind(1).name();
        return Err(Raise::Mistake(format!("rover.random.choice expects an array, not {kind}")));
    }
    let length = stack.raw_len(1) as u64;
    if length == 0 {
        return Err(Raise::mistake("rover.random.choice expects an array with at least one element"));
    }
    let drawn = below(length)? + 1;
    stack.push_item(1, i32::try_from(drawn).unwrap_or(1));
    Ok(1)
}

/// `uuid([version])` → one of version 7, or 4.
fn uuid(stack: &mut Stack<'_>, last: &Last) -> Returns {
    let version = match stack.kind(1) {
        Kind::Nil => 7,
        Kind::Number if stack.number(1) == 7.0 => 7,
        Kind::Number if stack.number(1) == 4.0 => 4,
        _ => {
            let shown = shown(stack, 1);
            return Err(Raise::Mistake(format!(
                "rover.uuid makes version 7, or 4 where that is asked for, not {shown}"
            )));
        }
    };
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    if version == 7 {
        let time = time(last);
        bytes[..6].copy_from_slice(&(time >> 12).to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&(time as u16 & 0x0fff).to_be_bytes());
    }
    bytes[6] = bytes[6] & 0x0f | version << 4;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    stack.push_bytes(&hyphenated(&bytes));
    Ok(1)
}

/// Milliseconds since 1970, and 12 bits of the fraction (RFC 9562, section 6.2, method 3): later than the last one, so that
/// those of one VM sort as they were made.
fn time(last: &Last) -> u64 {
    /// A clock that was further ahead than this, about ten seconds, was wrong.
    const AHEAD: u64 = 10_000 << 12;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = u64::from(since.subsec_nanos() % 1_000_000) * 4096 / 1_000_000;
    let now = (since.as_millis() as u64) << 12 | fraction;
    let time = match last.get() {
        last if last >= now && last - now < AHEAD => last + 1,
        _ => now,
    };
    last.set(time);
    time
}

fn hyphenated(bytes: &[u8; 16]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(36);
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push(b'-');
        }
        text.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_for_urls() {
        for (bytes, text) in [
            (&b""[..], &b""[..]),
            (b"f", b"Zg"),
            (b"fo", b"Zm8"),
            (b"foo", b"Zm9v"),
            (b"foobar", b"Zm9vYmFy"),
            (&[0xfb, 0xff, 0xbf], b"-_-_"),
        ] {
            assert_eq!(base64url(bytes), text);
        }
    }

    #[test]
    fn each_number_below_a_bound_comes_and_none_above() {
        for bound in [1, 2, 3, 7, u64::MAX] {
            assert!((0..100).all(|_| below(bound).is_ok_and(|drawn| drawn < bound)));
        }
        let mut seen = [0; 3];
        (0..3000).for_each(|_| seen[below(3).unwrap_or(3) as usize] += 1);
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
    }

    #[test]
    fn times_grow_also_where_the_clock_does_not() {
        let ahead = Last::new(0);
        let now = time(&ahead);
        ahead.set(now + (5_000 << 12));
        let first = time(&ahead);
        assert_eq!(first, now + (5_000 << 12) + 1);
        assert_eq!(time(&ahead), first + 1);
        ahead.set(now + (60_000 << 12));
        assert!(time(&ahead) < now + (5_000 << 12), "a clock that was wrong does not count for ever");
    }
}
