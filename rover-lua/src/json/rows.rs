//! Rows of a database: tables with a list of columns, which are written in the order of the columns, and whole, though
//! Lua keeps no nil in them.
//!
//! Comes in: the columns of rows. Goes out: the metatable that such rows have, and JSON of a table that has one. What an
//! app has added to a row follows the columns.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::text;
use crate::{OwnedMeta, Stack, TableView, View, anchor};

/// The columns of some rows.
pub(super) struct Columns {
    names: Vec<Box<[u8]>>,
    /// Each as JSON begins a pair: `"name":`.
    written: Vec<Box<[u8]>>,
    /// Which column the pairs of the last row were, in the order in which its table gave them.
    order: RefCell<Vec<u32>>,
}

impl Columns {
    fn new(names: &[&[u8]]) -> Columns {
        let mut own: Vec<Box<[u8]>> = Vec::with_capacity(names.len());
        for name in names {
            // Of two with one name a table holds the last.
            if !own.iter().any(|known| **known == **name) {
                own.push((*name).into());
            }
        }
        let written = own.iter().map(|name| {
            let mut json = Vec::with_capacity(name.len() + 3);
            text::write(name, &mut json);
            json.push(b':');
            json.into()
        });
        let written = written.collect();
        Columns { names: own, written, order: RefCell::default() }
    }

    /// The column of the `n`th pair, which has this key.
    fn of(&self, order: &mut Vec<u32>, n: usize, key: &[u8]) -> Option<usize> {
        if let Some(&hint) = order.get(n)
            && self.names.get(hint as usize).is_some_and(|name| **name == *key)
        {
            return Some(hint as usize);
        }
        let found = self.names.iter().position(|name| **name == *key)?;
        if order.len() <= n {
            order.resize(n + 1, 0);
        }
        order[n] = found as u32;
        Some(found)
    }

    pub(super) fn names(&self) -> &[Box<[u8]>] {
        &self.names
    }
}

/// What is known of the rows of one VM, by the identity of their metatables.
#[derive(Clone, Default)]
pub(super) struct Rows(Rc<RefCell<HashMap<*const c_void, Rc<Columns>, RandomState>>>);

impl Rows {
    /// The columns of rows with this metatable.
    #[inline]
    pub(super) fn get(&self, metatable: *const c_void) -> Option<Rc<Columns>> {
        self.0.borrow().get(&metatable).cloned()
    }
}

/// Lies in a metatable of rows and ends with it.
pub(super) struct Mark {
    rows: Rows,
    metatable: Cell<*const c_void>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.rows.0.borrow_mut().remove(&self.metatable.get());
    }
}

/// Makes the metatables of rows in one VM.
pub struct RowMetas {
    rows: Rows,
    marks: OwnedMeta<Mark>,
    /// Registry reference of the key under which a metatable holds its mark.
    key: c_int,
}

impl RowMetas {
    /// # Errors
    /// Memory errors of mlua.
    pub(super) fn new(lua: &mlua::Lua, rows: &Rows) -> mlua::Result<RowMetas> {
        let marks = OwnedMeta::new(lua, &lua.create_table()?)?;
        Ok(RowMetas { rows: rows.clone(), marks, key: anchor(lua, "columns")? })
    }

    /// Makes a metatable for rows with these columns, and keeps it in the registry until the reference is released; rows
    /// that have it keep it longer.
    pub fn make(&self, stack: &mut Stack<'_>, names: &[&[u8]]) -> c_int {
        stack.push_table(0, 1);
        let metatable = stack.top();
        let identity = stack.identity(metatable);
        stack.push_anchored(self.key);
        self.marks.push(stack, Mark { rows: self.rows.clone(), metatable: Cell::new(identity) });
        let mark = stack.top();
        // The mark refers to the metatable, which so is there until the mark has ended: no other table can have its
        // identity before.
        stack.push_copy(metatable);
        self.marks.keep(stack, mark, 1);
        stack.pop(1);
        stack.set_field(metatable);
        self.rows.0.borrow_mut().insert(identity, Rc::new(Columns::new(names)));
        stack.pop_anchor()
    }
}

/// Writes a row, with `write_value` for each value and `has_room` before so many bytes more. False where it cannot be
/// written here; part of it may stand at the end of `out` then.
pub(super) fn write(
    table: TableView<'_>,
    columns: &Columns,
    out: &mut Vec<u8>,
    has_room: impl Fn(usize, &[u8]) -> bool,
    write_value: impl Fn(View<'_>, &mut Vec<u8>) -> bool,
) -> bool {
    /// Rows with so many columns need no memory of their own.
    const FEW: usize = 32;
    let Ok(mut order) = columns.order.try_borrow_mut() else { return false };
    let mut values = smallvec::SmallVec::<[View<'_>; FEW]>::from_elem(View::Nil, columns.names.len());
    let mut has_more = false;
    for (n, (key, value)) in table.pairs().enumerate() {
        let View::String(key) = key else { return false };
        match columns.of(&mut order, n, key) {
            Some(column) => values[column] = value,
            None => has_more = true,
        }
    }
    out.push(b'{');
    for (name, value) in columns.written.iter().zip(values) {
        if !has_room(name.len(), out) {
            return false;
        }
        out.extend_from_slice(name);
        if !write_value(value, out) {
            return false;
        }
        out.push(b',');
    }
    if has_more {
        for (key, value) in table.pairs() {
            let View::String(key) = key else { return false };
            if columns.names.iter().any(|name| **name == *key) {
                continue;
            }
            if !has_room(key.len(), out) {
                return false;
            }
            text::write(key, out);
            out.push(b':');
            if !write_value(value, out) {
                return false;
            }
            out.push(b',');
        }
    }
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.push(b'}');
    true
}
