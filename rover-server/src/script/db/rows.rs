//! Rows on their way to Lua.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use rover_data::{Columns, Datum, Rows};

use super::Databases;
use rover_lua::json::{self, RowMetas};
use rover_lua::{Raise, Stack};

/// How many lists of columns a VM knows at once.
const SHAPES: NonZeroUsize = NonZeroUsize::new(256).expect("it is not zero");

/// Integers up to here have a number of Lua's each: 2^53.
const LAST_EXACT: u64 = 1 << 53;

/// The metatables of rows, by the columns that they have.
pub(super) struct RowShapes {
    metas: RowMetas,
    known: RefCell<LruCache<*const Columns, (Arc<Columns>, i32)>>,
}

impl RowShapes {
    pub(super) fn new(metas: RowMetas) -> RowShapes {
        RowShapes { metas, known: RefCell::new(LruCache::new(SHAPES)) }
    }

    /// The registry reference of the metatable of rows with these columns.
    fn meta(&self, stack: &mut Stack<'_>, columns: &Arc<Columns>) -> i32 {
        if let Some((_, meta)) = self.known.borrow_mut().get(&Arc::as_ptr(columns)) {
            return *meta;
        }
        let names: Vec<&[u8]> = columns.iter().map(|column| column.name.as_bytes()).collect();
        let meta = self.metas.make(stack, &names);
        let gone = self.known.borrow_mut().push(Arc::as_ptr(columns), (columns.clone(), meta));
        if let Some((_, (_, gone))) = gone {
            stack.release(gone);
        }
        meta
    }
}

impl Databases {
    /// Pushes the rows as an array.
    pub(super) fn push_rows(&self, stack: &mut Stack<'_>, rows: &Rows) -> Result<(), Raise> {
        self.vocabulary.push_array(stack, rows.len());
        let array = stack.top();
        let mut pushing = self.begin(stack, rows)?;
        for row in 0..rows.len() {
            pushing.push(self, stack, rows, row);
            // An array of 2^31 items does not fit into memory.
            stack.set_item(array, i32::try_from(row + 1).unwrap_or(i32::MAX));
        }
        stack.truncate(array);
        Ok(())
    }

    /// Pushes one row.
    pub(super) fn push_row(&self, stack: &mut Stack<'_>, rows: &Rows, row: usize) -> Result<(), Raise> {
        let bottom = stack.top();
        let mut pushing = self.begin(stack, rows)?;
        pushing.push(self, stack, rows, row);
        stack.replace(bottom + 1);
        stack.truncate(bottom + 1);
        Ok(())
    }

    /// Pushes what rows have in common.
    fn begin(&self, stack: &mut Stack<'_>, rows: &Rows) -> Result<Pushing, Raise> {
        let columns = rows.columns();
        let room = i32::try_from(columns.len()).ok().filter(|room| stack.reserve(room + 8));
        if room.is_none() {
            return Err(Raise::mistake("the rows have too many columns"));
        }
        let meta = self.shapes.meta(stack, columns);
        stack.push_anchored(meta);
        let meta = stack.top();
        for column in columns.iter() {
            stack.push_bytes(column.name.as_bytes());
        }
        Ok(Pushing { meta })
    }

    /// Pushes a value.
    pub(super) fn push_datum(&self, stack: &mut Stack<'_>, datum: Datum<'_>) {
        match datum {
            Datum::Null => stack.push_nil(),
            Datum::Bool(value) => stack.push_boolean(value),
            Datum::Integer(value) if value.unsigned_abs() <= LAST_EXACT => stack.push_number(value as f64),
            Datum::Integer(value) => stack.push_bytes(value.to_string().as_bytes()),
            Datum::Real(value) => stack.push_number(value),
            Datum::Text(bytes) | Datum::Blob(bytes) => stack.push_bytes(bytes),
            Datum::Json(bytes) => {
                let top = stack.top();
                if json::decode(stack, bytes, &self.vocabulary).is_err() {
                    stack.truncate(top);
                    stack.push_bytes(bytes);
                }
            }
        }
    }
}

/// Rows that are being pushed: the metatable stands at `meta`, the names of the columns above it.
struct Pushing {
    meta: i32,
}

impl Pushing {
    fn push(&mut self, databases: &Databases, stack: &mut Stack<'_>, rows: &Rows, row: usize) {
        let columns = rows.columns().len();
        stack.push_table(0, columns);
        let table = stack.top();
        for (n, datum) in (1..).zip(rows.row(row)) {
            if datum == Datum::Null {
                continue;
            }
            stack.push_copy(self.meta + n);
            databases.push_datum(stack, datum);
            stack.set_field(table);
        }
        stack.push_copy(self.meta);
        stack.set_metatable(table);
    }
}
