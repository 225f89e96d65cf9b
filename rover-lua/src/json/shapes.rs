//! Objects with the same keys in the same order, as the items of a list have them, are made by one function of their own.
//!
//! Such a function is Lua code that returns a table with constant keys, so that neither a key's string nor its place
//! in the table is looked up again. It is compiled for keys that have come up several times.
//!
//! Comes in: the keys of an object. Goes out: where the function is kept that makes it.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ffi::c_int;

use crate::{Stack, anchor};

/// How many shapes a VM keeps. Each has one place, which it may lose to another.
const PLACES: usize = 64;
/// A function is compiled for keys that came so often, …
const OFTEN: u8 = 4;
/// … and keeps its place against so many others at most.
const MOST: u8 = 64;
/// Longer keys are nobody's field names.
const LONGEST_KEY: usize = 64;
/// One function may be compiled for so many bytes of JSON, so that no client can have the server compile all the time; …
const BYTES_PER_FUNCTION: usize = 32 * 1024;
/// … so many bytes may be saved up, and are there at first.
const MOST_BYTES: usize = PLACES * BYTES_PER_FUNCTION;

/// The shapes that a VM has met.
pub(super) struct Shapes {
    /// Where the function is kept that makes the others.
    make: c_int,
    places: RefCell<Vec<Place>>,
    bytes: Cell<usize>,
}

#[derive(Default)]
struct Place {
    print: u32,
    seen: u8,
    /// Empty while there is no function.
    keys: Vec<Box<[u8]>>,
    function: c_int,
}

impl Place {
    #[inline]
    fn holds(&self, keys: &[Cow<'_, str>]) -> bool {
        self.keys.len() == keys.len() && self.keys.iter().zip(keys).all(|(own, key)| same(own, key.as_bytes()))
    }
}

/// Whether two keys are equal, without a call for the usual short ones: their first and last parts meet or overlap.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        4..=8 => a.first_chunk::<4>() == b.first_chunk() && a.last_chunk::<4>() == b.last_chunk(),
        9..=16 => a.first_chunk::<8>() == b.first_chunk() && a.last_chunk::<8>() == b.last_chunk(),
        _ => a == b,
    }
}

/// Differs for most shapes that differ, and costs little.
#[inline]
fn print(keys: &[Cow<'_, str>]) -> u32 {
    let mut print = 0u32;
    for key in keys {
        let (first, last) = (key.as_bytes().first(), key.as_bytes().last());
        let ends = u32::from(first.copied().unwrap_or(0)) | u32::from(last.copied().unwrap_or(0)) << 8;
        print = (print.rotate_left(5) ^ ends ^ (key.len() as u32) << 16).wrapping_mul(0x9e37_79b1);
    }
    print
}

impl Shapes {
    /// # Errors
    /// Memory errors of mlua.
    pub(super) fn new(lua: &mlua::Lua) -> mlua::Result<Shapes> {
        let make: mlua::Function = lua.load(include_str!("shapes.lua")).set_name("=rover/shapes").eval()?;
        Ok(Shapes { make: anchor(lua, make)?, places: RefCell::default(), bytes: Cell::new(MOST_BYTES) })
    }

    /// A text of so many bytes is decoded.
    #[inline]
    pub(super) fn allow(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_add(bytes).min(MOST_BYTES));
    }

    /// Pushes the function that makes tables with these keys of as many values; false if there is none.
    ///
    /// The stack must have room for the keys and two more values.
    #[inline]
    pub(super) fn push(&self, stack: &mut Stack<'_>, keys: &[Cow<'_, str>]) -> bool {
        let print = print(keys);
        let Ok(mut places) = self.places.try_borrow_mut() else { return false };
        let Some(place) = places.get_mut(print as usize % PLACES) else {
            places.resize_with(PLACES, Place::default);
            return false;
        };
        if place.holds(keys) {
            place.seen = (place.seen + 1).min(MOST);
            stack.push_anchored(place.function);
            return true;
        }
        if place.print == print && place.keys.is_empty() {
            place.seen += 1;
            if place.seen >= OFTEN {
                drop(places);
                self.compile(stack, keys, print);
            }
            return false;
        }
        place.seen = place.seen.saturating_sub(1);
        if place.seen == 0 {
            if !place.keys.is_empty() {
                stack.release(place.function);
            }
            *place = Place { print, seen: 1, ..Place::default() };
        }
        false
    }

    #[cold]
    fn compile(&self, stack: &mut Stack<'_>, keys: &[Cow<'_, str>], print: u32) {
        let left = self.bytes.get().checked_sub(BYTES_PER_FUNCTION);
        let (Some(left), false) = (left, keys.iter().any(|key| key.len() > LONGEST_KEY)) else {
            // Another shape may try.
            if let Ok(mut places) = self.places.try_borrow_mut() {
                places[print as usize % PLACES].seen = 1;
            }
            return;
        };
        self.bytes.set(left);
        let top = stack.top();
        stack.push_anchored(self.make);
        for key in keys {
            stack.push_bytes(key.as_bytes());
        }
        if !stack.call_protected(keys.len() as c_int, 1) {
            return stack.truncate(top);
        }
        let function = stack.pop_anchor();
        // A finalizer may have been here meanwhile.
        let Ok(mut places) = self.places.try_borrow_mut() else { return stack.release(function) };
        let place = &mut places[print as usize % PLACES];
        if place.print != print || !place.keys.is_empty() {
            return stack.release(function);
        }
        place.keys = keys.iter().map(|key| key.as_bytes().into()).collect();
        place.function = function;
    }
}
