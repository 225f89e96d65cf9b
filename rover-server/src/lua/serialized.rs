//! LuaJIT's serialization format, as its manual specifies it (`ext_buffer.html`, "Serialization Format Specification").
//!
//! Comes in: serialized bytes. Goes out: items one by one, of the kinds that JSON has too.

const NIL: u8 = 0x00;
const FALSE: u8 = 0x01;
const TRUE: u8 = 0x02;
const NULL: u8 = 0x03;
const INT: u8 = 0x06;
const NUMBER: u8 = 0x07;
/// An empty table, …
const TABLE: u8 = 0x08;
/// … one with nothing but pairs, …
const PAIRS: u8 = TABLE + 1;
/// … and one with nothing but items from index 1 on.
const ITEMS: u8 = TABLE + 4;
/// In front of a table with a known metatable.
const METATABLE: u8 = 0x0e;
/// A string, with its length added.
const STRING: u32 = 0x20;

/// One value, or the head of one.
#[derive(Debug, PartialEq)]
pub(crate) enum Item<'r> {
    Nil,
    Null,
    Boolean(bool),
    Number(f64),
    String(Text<'r>),
    /// A table with so many pairs, which follow: key, value, key, …
    Pairs(u32),
    /// A table with items at the indices from 1 up to this one, which follow.
    Items(u32),
    /// An empty table; true if it has a known metatable.
    Empty(bool),
    /// Anything else. What follows cannot be read.
    Other,
}

/// A string, and what follows it.
#[derive(Debug, PartialEq)]
pub(crate) struct Text<'r> {
    from: &'r [u8],
    length: usize,
}

impl<'r> Text<'r> {
    /// The string itself.
    #[inline]
    pub(crate) fn bytes(&self) -> &'r [u8] {
        &self.from[..self.length]
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// `N` bytes from the first byte of the string on, if there are so many: a copy of constant length is cheap.
    #[inline]
    pub(crate) fn chunk<const N: usize>(&self) -> Option<&'r [u8; N]> {
        self.from.first_chunk()
    }
}

/// Reads items one by one.
pub(crate) struct Reader<'r> {
    rest: &'r [u8],
}

impl<'r> Reader<'r> {
    pub(crate) fn new(serialized: &'r [u8]) -> Reader<'r> {
        Reader { rest: serialized }
    }

    /// The next item; [`Item::Other`] also at the end.
    #[inline(always)]
    pub(crate) fn item(&mut self) -> Item<'r> {
        self.read().unwrap_or(Item::Other)
    }

    #[inline(always)]
    fn read(&mut self) -> Option<Item<'r>> {
        let tag = self.size()?;
        if tag >= STRING {
            let (from, length) = (self.rest, (tag - STRING) as usize);
            self.rest = from.get(length..)?;
            return Some(Item::String(Text { from, length }));
        }
        Some(match tag as u8 {
            NUMBER => Item::Number(f64::from_le_bytes(self.bytes()?)),
            PAIRS => Item::Pairs(self.size()?),
            ITEMS => Item::Items(self.size()?.checked_sub(1)?),
            METATABLE => self.tagged()?,
            TRUE => Item::Boolean(true),
            FALSE => Item::Boolean(false),
            NULL => Item::Null,
            TABLE => Item::Empty(false),
            INT => Item::Number(f64::from(i32::from_le_bytes(self.bytes()?))),
            NIL => Item::Nil,
            _ => return None,
        })
    }

    #[inline(never)]
    fn tagged(&mut self) -> Option<Item<'r>> {
        self.size()?;
        Some(match self.size()? as u8 {
            PAIRS => Item::Pairs(self.size()?),
            ITEMS => Item::Items(self.size()?.checked_sub(1)?),
            TABLE => Item::Empty(true),
            _ => return None,
        })
    }

    /// A number in one, two or five bytes.
    #[inline(always)]
    fn size(&mut self) -> Option<u32> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        if first < 0xe0 {
            return Some(u32::from(first));
        }
        self.large_size(first)
    }

    #[inline(never)]
    fn large_size(&mut self, first: u8) -> Option<u32> {
        if first == 0xff {
            return self.bytes().map(u32::from_le_bytes);
        }
        let [second] = self.bytes()?;
        Some((u32::from(first & 0x1f) << 8) + u32::from(second) + 0xe0)
    }

    #[inline]
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }
}
