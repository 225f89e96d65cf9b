//! A whole Lua value seen in place: tables are walked without a call and without pushing what they hold.
//!
//! Comes in: a place on the [`Stack`]. Goes out: a [`View`], which borrows the stack, so that nothing can be pushed, run
//! or collected while it is looked at. Metatables are ignored. `lua_next` and the look-ups for one pair cost about 250
//! instructions, this costs 20.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;

use super::layout::{Pair, Slot};
use super::{Kind, Stack};

/// What stands at a place.
#[derive(Clone, Copy)]
pub enum View<'s> {
    /// Nothing, or nil.
    Nil,
    /// `true` or `false`.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// The bytes of a string.
    String(&'s [u8]),
    /// A table, to be walked in place.
    Table(TableView<'s>),
    /// A light userdata.
    Light(Light),
    /// A kind without content of its own.
    Other,
}

/// A light userdata of one VM: equal to another one that stands for the same pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Light(Slot);

/// A table seen in place.
#[derive(Clone, Copy)]
pub struct TableView<'s> {
    table: Slot,
    alive: PhantomData<&'s ()>,
}

impl Stack<'_> {
    /// The value at `index` and everything below it.
    #[inline]
    pub fn view(&self, index: c_int) -> View<'_> {
        // SAFETY: what stands on the stack stays alive while the stack is borrowed, and so does what it refers to.
        unsafe { View::of(self.slot(index)) }
    }
}

impl<'s> View<'s> {
    /// # Safety
    /// The value is alive for `'s`.
    #[inline(always)]
    unsafe fn of(slot: Slot) -> View<'s> {
        match slot.kind() {
            // SAFETY: the caller's promise.
            Kind::String => View::String(unsafe { slot.bytes() }.unwrap_or_default()),
            Kind::Number => View::Number(slot.number()),
            Kind::Table => View::Table(TableView { table: slot, alive: PhantomData }),
            Kind::Boolean => View::Boolean(slot.is_true()),
            Kind::Nil => View::Nil,
            Kind::LightUserdata => View::Light(Light(slot)),
            _ => View::Other,
        }
    }
}

impl<'s> TableView<'s> {
    /// The items from 1 on that the table keeps in a row, nil ones among them. Others may be among the pairs.
    #[inline]
    pub fn items(self) -> impl ExactSizeIterator<Item = View<'s>> {
        // SAFETY: the table is alive, and with it what it holds.
        unsafe { self.table.array().get(1..).unwrap_or_default().iter().map(|slot| View::of(*slot)) }
    }

    /// Whether the table has an item with the key 0.
    #[inline]
    pub fn has_zeroth(self) -> bool {
        // SAFETY: the table is alive.
        unsafe { self.table.array().first().is_some_and(|slot| slot.kind() != Kind::Nil) }
    }

    /// How many items and pairs the table has room for.
    #[inline]
    pub fn places(self) -> usize {
        // SAFETY: the table is alive.
        unsafe { self.table.array().len() + self.table.pairs().len() }
    }

    /// The item with the key 0, or nil; it may also be among the pairs.
    #[inline]
    pub fn zeroth(self) -> View<'s> {
        // SAFETY: the table is alive, and with it what it holds.
        unsafe { self.table.array().first().map_or(View::Nil, |slot| View::of(*slot)) }
    }

    /// The other keys and their values, in the order in which `next` gives them.
    #[inline]
    pub fn pairs(self) -> impl Iterator<Item = (View<'s>, View<'s>)> {
        // SAFETY: the table is alive, and with it what it holds; the key of a pair is, as long as its value is not nil.
        unsafe {
            let taken = self.table.pairs().iter().filter(|pair| pair.value.kind() != Kind::Nil);
            taken.map(|Pair { key, value, .. }| (View::of(*key), View::of(*value)))
        }
    }

    /// The identity of the table's metatable; null where it has none.
    #[inline]
    pub fn metatable_identity(self) -> *const c_void {
        // SAFETY: the table is alive.
        unsafe { self.table.metatable_identity() }
    }
}

/// The null pointer as a light userdata of `lua`, which is `rover.null`.
///
/// # Errors
/// When Lua is out of memory.
pub fn null(lua: &mlua::Lua) -> mlua::Result<Light> {
    let mut null = None;
    // SAFETY: pushes one value, looks at it and drops it.
    unsafe {
        lua.exec_raw::<()>((), |state| {
            let mut stack = Stack::new(state);
            stack.push_null();
            null = Some(Light(stack.slot(stack.top())));
            stack.pop(1);
        })?;
    }
    null.ok_or_else(|| mlua::Error::runtime("no value"))
}
