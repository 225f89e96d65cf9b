//! Reads and writes JSON straight from and to the Lua stack, with no tree in between.
//!
//! Comes in: a value on a [`Stack`], or bytes. Goes out: bytes, or a value on the stack. This
//! module must not know of HTTP or requests.
//!
//! Two things spare calls to LuaJIT: objects of a known shape (`shapes.rs`) are made by a function of their own, and the usual
//! values are encoded in place (`direct.rs`).
//!
//! No metamethod is called in either direction, so user code cannot run (or change a table) while it is read.
//! `benches/benches/json.rs` compares both directions with the route through serde that mlua offers.

mod bounds;
mod classify;
mod decode;
mod direct;
mod encode;
mod error;
mod foreign;
mod locate;
mod number;
mod rows;
mod shapes;
#[cfg(test)]
mod tests;
mod text;

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr;
use std::rc::Rc;

use bytes::Bytes;

use self::rows::Rows;
use self::shapes::Shapes;
use crate::{Light, OwnedMeta, Stack, anchor, null};

pub use decode::decode;
pub use encode::{encode, encode_beginning, encode_pretty};
pub use error::{DecodeError, EncodeError};
pub use rows::RowMetas;
pub use text::write as push_text;

/// The most tables or documents inside one another, in both directions; the outermost is the first level.
pub const MOST_LEVELS: c_int = 128;

/// Userdata that stand for a text: request bodies.
pub trait Texts {
    /// The text that the value at `index` stands for; `None` where it is none of these userdata.
    fn text(&self, stack: &mut Stack<'_>, index: c_int) -> Option<Result<Bytes, Gone>>;
}

/// The text is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body of a request that is over: keep body:text() where the content is needed longer")
    }
}

impl Texts for OwnedMeta<Bytes> {
    fn text(&self, stack: &mut Stack<'_>, index: c_int) -> Option<Result<Bytes, Gone>> {
        self.get(stack, index).cloned().map(Ok)
    }
}

/// What JSON needs to know of one VM.
pub struct Vocabulary {
    /// Where the metatable that marks arrays is kept.
    array: c_int,
    known: direct::Identities,
    /// Where the table of loaded modules is kept.
    loaded: c_int,
    /// Userdata that are encoded as their text: request bodies.
    texts: Rc<dyn Texts>,
    shapes: Shapes,
}

impl Vocabulary {
    /// Tables with `array_metatable` are arrays even when they are empty, and `texts` are encoded as strings.
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn new(lua: &mlua::Lua, array_metatable: &mlua::Table, texts: Rc<dyn Texts>) -> mlua::Result<Vocabulary> {
        let known = direct::Identities {
            array: array_metatable.to_pointer(),
            null: null(lua)?,
            // Never those of a table.
            context: Cell::new(ptr::dangling()),
            response: Cell::new(ptr::dangling()),
            bounds: bounds::Bounds::new(),
            rows: Rows::default(),
        };
        let loaded = lua.globals().get::<mlua::Table>("package")?.get::<mlua::Table>("loaded")?;
        let (array, loaded) = (anchor(lua, array_metatable)?, anchor(lua, loaded)?);
        Ok(Vocabulary { array, known, loaded, texts, shapes: Shapes::new(lua)? })
    }

    /// Makes metatables of rows, which are written in the order of their columns.
    ///
    /// # Errors
    /// Memory errors of mlua.
    pub fn row_metas(&self, lua: &mlua::Lua) -> mlua::Result<RowMetas> {
        RowMetas::new(lua, &self.known.rows)
    }

    /// Notes the identities of the metatables of contexts and responses, which are tables that no document may have in it.
    pub fn refuses(&self, context: *const c_void, response: *const c_void) {
        self.known.context.set(context);
        self.known.response.set(response);
    }

    /// Sets how many bytes of JSON one value may make; 0 for any number.
    pub fn limit(&self, bytes: u64) {
        self.known.bounds.set(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// How many bytes one value may make.
    pub fn size_limit(&self) -> usize {
        self.known.bounds.limit()
    }

    /// Whether the value at `index` is a userdata that is encoded as its text.
    pub fn is_text(&self, stack: &mut Stack<'_>, index: c_int) -> bool {
        self.texts.text(stack, index).is_some()
    }

    /// The userdata at `index` as its text, where it is one that has a text.
    pub fn text(&self, stack: &mut Stack<'_>, index: c_int) -> Option<Result<Bytes, Gone>> {
        self.texts.text(stack, index)
    }

    /// Whether this is the identity of the metatable that marks arrays.
    pub fn is_array(&self, metatable: *const c_void) -> bool {
        metatable == self.known.array
    }

    /// Whether this is `rover.null`.
    pub fn is_null(&self, light: Light) -> bool {
        light == self.known.null
    }

    /// Pushes a new array with room for `items`.
    pub fn push_array(&self, stack: &mut Stack<'_>, items: usize) {
        stack.push_table(items, 0);
        let array = stack.top();
        self.mark_array(stack, array);
    }

    /// Makes an array of the table at `index`.
    pub fn mark_array(&self, stack: &mut Stack<'_>, index: c_int) {
        stack.push_anchored(self.array);
        stack.set_metatable(index);
    }
}
