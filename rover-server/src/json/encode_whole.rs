//! From the Lua stack to JSON by way of LuaJIT's serialization format, which pays for values of several tables.
//!
//! LuaJIT writes the whole value in that format in one call, and this module makes JSON of it. Whatever is unusual is
//! refused and left to [`encode`](super::encode): tables that mix items and pairs, keys other than strings, holes, request
//! bodies, and everything that JSON cannot hold.

use std::ffi::c_int;

use super::{number, text};
use crate::lua::serialized::{Item, Reader};
use crate::lua::{Serializer, Stack};

/// Appends the value at `index` as compact JSON to `out`; false if that takes [`encode`](super::encode). `out` is as it was
/// then.
pub(super) fn encode_whole(stack: &mut Stack<'_>, index: c_int, serializer: &Serializer, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let written = serializer.write(stack, index, |serialized| {
        // The format is about as long as JSON: a number takes nine bytes, and a string one or two more than its own.
        out.reserve(serialized.len() + serialized.len() / 4);
        let mut reader = Reader::new(serialized);
        let first = reader.item();
        value(first, &mut reader, out)
    });
    if written == Some(Some(())) {
        out.pop();
        return true;
    }
    out.truncate(start);
    false
}

/// Writes `item`, what belongs to it and a comma; `None` if that is unusual.
#[inline(always)]
fn value(item: Item<'_>, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    match item {
        Item::String(string) => text::write_before(&string, b',', out),
        Item::Number(number) => {
            if !number::write(number, out) {
                return None;
            }
            out.push(b',');
        }
        Item::Pairs(pairs) => return object(pairs, reader, out),
        Item::Items(items) => return array(items, reader, out),
        Item::Boolean(true) => out.extend_from_slice(b"true,"),
        Item::Boolean(false) => out.extend_from_slice(b"false,"),
        Item::Null => out.extend_from_slice(b"null,"),
        Item::Empty(true) => out.extend_from_slice(b"[],"),
        Item::Empty(false) => out.extend_from_slice(b"{},"),
        Item::Nil | Item::Other => return None,
    }
    Some(())
}

fn object(pairs: u32, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    out.push(b'{');
    for _ in 0..pairs {
        let Item::String(key) = reader.item() else { return None };
        text::write_before(&key, b':', out);
        value(reader.item(), reader, out)?;
    }
    close(b'}', out);
    Some(())
}

fn array(items: u32, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    out.push(b'[');
    for _ in 0..items {
        value(reader.item(), reader, out)?;
    }
    close(b']', out);
    Some(())
}

/// Ends a table that has written at least one item, whose comma gives way.
#[inline]
fn close(bracket: u8, out: &mut Vec<u8>) {
    out.pop();
    out.extend_from_slice(&[bracket, b',']);
}
