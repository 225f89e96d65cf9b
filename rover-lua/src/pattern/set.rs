//! Sets of bytes, and those that Lua's patterns name: `%a`, `%s`, …
//!
//! Comes in: bytes. Goes out: whether they are in a set. As in LuaJIT, no locale has a say in it.

/// A set of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set([u64; 4]);

/// By byte: what matches it behind a `%`.
pub(super) static CLASSES: [Set; 256] = classes();

impl Set {
    pub(super) const EMPTY: Set = Set([0; 4]);

    #[inline(always)]
    pub(super) const fn has(&self, byte: u8) -> bool {
        self.0[byte as usize >> 6] >> (byte & 63) & 1 != 0
    }

    #[inline]
    pub(super) const fn add(&mut self, byte: u8) {
        self.0[byte as usize >> 6] |= 1 << (byte & 63);
    }

    pub(super) fn add_range(&mut self, first: u8, last: u8) {
        for byte in first..=last {
            self.add(byte);
        }
    }

    #[inline]
    pub(super) const fn add_all(&mut self, other: &Set) {
        let mut n = 0;
        while n < 4 {
            self.0[n] |= other.0[n];
            n += 1;
        }
    }

    #[inline]
    pub(super) const fn inverted(self) -> Set {
        Set([!self.0[0], !self.0[1], !self.0[2], !self.0[3]])
    }
}

const fn classes() -> [Set; 256] {
    let mut all = [Set::EMPTY; 256];
    let mut name = 0;
    while name < 256 {
        all[name] = class(name as u8);
        name += 1;
    }
    all
}

const fn class(name: u8) -> Set {
    let mut set = Set::EMPTY;
    let mut byte = 0;
    while byte < 256 {
        if is_in(byte as u8, name) {
            set.add(byte as u8);
        }
        byte += 1;
    }
    set
}

/// Whether `%name` matches `byte`.
const fn is_in(byte: u8, name: u8) -> bool {
    let is_in = match name.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'g' => byte.is_ascii_graphic(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, 9..=13 | b' '),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return byte == name,
    };
    is_in != name.is_ascii_uppercase()
}
