//! From a Lua value to JSON in place: the usual values, in one walk that touches no stack.
//!
//! Whatever is unusual is refused and left to [`encode`](super::encode), which is slower and finds out what is wrong with
//! it and where: keys other than strings, tables that mix items and pairs, holes, request bodies, too many levels, and everything that JSON cannot hold.

use std::cell::Cell;
use std::ffi::c_void;

use super::bounds::Bounds;
use super::rows::{self, Rows};
use super::{MOST_LEVELS, number, text};
use crate::{Light, TableView, View};

/// What one VM's values are recognised by.
pub(super) struct Identities {
    /// The identity of the metatable of arrays.
    pub(super) array: *const c_void,
    /// `rover.null`.
    pub(super) null: Light,
    /// The identity of the metatable of contexts, and of that of responses, once they are known.
    pub(super) context: Cell<*const c_void>,
    pub(super) response: Cell<*const c_void>,
    pub(super) bounds: Bounds,
    pub(super) rows: Rows,
}

/// The value is not one of the usual ones.
pub(super) struct Unusual;

/// Appends `value` as compact JSON to `out`, at the end of which part of it may stand where it is refused.
#[inline]
pub(super) fn write(value: View<'_>, known: &Identities, out: &mut Vec<u8>) -> Result<(), Unusual> {
    match value {
        View::Table(table) => write_table(table, known, MOST_LEVELS, out),
        other => write_plain(other, known, out),
    }
}

#[inline(always)]
fn write_plain(value: View<'_>, known: &Identities, out: &mut Vec<u8>) -> Result<(), Unusual> {
    match value {
        View::String(bytes) if known.bounds.has_room(bytes.len(), out) => text::write(bytes, out),
        View::Number(number) if number::write(number, out) => {}
        View::Boolean(true) => out.extend_from_slice(b"true"),
        View::Boolean(false) => out.extend_from_slice(b"false"),
        View::Nil => out.extend_from_slice(b"null"),
        View::Light(light) if light == known.null => out.extend_from_slice(b"null"),
        View::String(_) | View::Number(_) | View::Table(_) | View::Light(_) | View::Other => return Err(Unusual),
    }
    Ok(())
}

/// Writes a table in which at most so many `levels` may be open.
fn write_table(table: TableView<'_>, known: &Identities, levels: i32, out: &mut Vec<u8>) -> Result<(), Unusual> {
    // A context has such an item.
    if levels == 0 || table.has_zeroth() || !known.bounds.admit(table, out) {
        return Err(Unusual);
    }
    let mut pairs = table.pairs();
    let first = pairs.next();
    let mut items = table.items();
    match items.next() {
        None | Some(View::Nil) => {}
        Some(_) if first.is_some() || table.metatable_identity() == known.response.get() => return Err(Unusual),
        Some(item) => {
            out.push(b'[');
            write_inner(item, known, levels, out)?;
            for item in items.by_ref() {
                if matches!(item, View::Nil) {
                    break;
                }
                if !known.bounds.has_room(0, out) {
                    return Err(Unusual);
                }
                out.push(b',');
                write_inner(item, known, levels, out)?;
            }
            out.push(b']');
        }
    }
    // What is left over are items behind a hole.
    if items.any(|item| !matches!(item, View::Nil)) {
        return Err(Unusual);
    }
    let metatable = table.metatable_identity();
    if !metatable.is_null()
        && matches!(table.items().next(), None | Some(View::Nil))
        && let Some(columns) = known.rows.get(metatable)
    {
        let has_room = |more, out: &[u8]| known.bounds.has_room(more, out);
        let write_value = |value: View<'_>, out: &mut Vec<u8>| write_inner(value, known, levels, out).is_ok();
        return if rows::write(table, &columns, out, has_room, write_value) { Ok(()) } else { Err(Unusual) };
    }
    let Some(mut pair) = first else {
        if matches!(table.items().next(), None | Some(View::Nil)) {
            if metatable == known.array {
                out.extend_from_slice(b"[]");
            } else if metatable.is_null() {
                out.extend_from_slice(b"{}");
            } else {
                // Some library's mark, or an app's own kind of object.
                return Err(Unusual);
            }
        }
        return Ok(());
    };
    out.push(b'{');
    loop {
        let (View::String(key), value) = pair else { return Err(Unusual) };
        text::write(key, out);
        out.push(b':');
        write_inner(value, known, levels, out)?;
        match pairs.next() {
            Some(next) if known.bounds.has_room(0, out) => pair = next,
            Some(_) => return Err(Unusual),
            None => break,
        }
        out.push(b',');
    }
    out.push(b'}');
    Ok(())
}

#[inline(always)]
fn write_inner(value: View<'_>, known: &Identities, levels: i32, out: &mut Vec<u8>) -> Result<(), Unusual> {
    match value {
        View::Table(table) => write_table(table, known, levels - 1, out),
        other => write_plain(other, known, out),
    }
}
