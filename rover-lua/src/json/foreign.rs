//! The values by which JSON libraries for Lua mark arrays and null, so that what they have decoded is encoded as it was.
//!
//! Comes in: a value that is none of the usual ones. Goes out: what it stands for. Libraries are asked for what they have by the
//! names of their modules, as soon as the app has loaded them. No metamethod is called.

use std::ffi::c_int;

use crate::{Kind, Stack};

/// What a value stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    Array,
    Null,
}

/// Modules and their fields: metatables of arrays.
const ARRAY_METATABLES: [(&str, &str); 4] =
    [("cjson", "empty_array_mt"), ("cjson", "array_mt"), ("cjson.safe", "empty_array_mt"), ("cjson.safe", "array_mt")];
/// Values that are an empty array.
const ARRAYS: [(&str, &str); 2] = [("cjson", "empty_array"), ("cjson.safe", "empty_array")];
/// Values that are null.
const NULLS: [(&str, &str); 2] = [("dkjson", "null"), ("lyaml", "null")];

/// What the empty table, or light userdata, at `index` stands for. `loaded` keeps the table of loaded modules.
#[cold]
pub(super) fn meaning(stack: &mut Stack<'_>, index: c_int, loaded: c_int) -> Option<Foreign> {
    let top = stack.top();
    // The table of modules, a module, a field, and a metatable with one of its fields.
    if !stack.reserve(5) {
        return None;
    }
    let found = marked(stack, index).or_else(|| listed(stack, index, loaded));
    stack.truncate(top);
    found
}

/// By what the metatable says of itself: `__jsontype` as dkjson and rapidjson write it, `_type` of lyaml's null.
fn marked(stack: &mut Stack<'_>, index: c_int) -> Option<Foreign> {
    if stack.kind(index) != Kind::Table || !stack.push_metatable(index) {
        return None;
    }
    let metatable = stack.top();
    for (name, value, meaning) in [("__jsontype", "array", Foreign::Array), ("_type", "LYAML null", Foreign::Null)] {
        stack.push_bytes(name.as_bytes());
        stack.get_field(metatable);
        if stack.bytes(metatable + 1) == Some(value.as_bytes()) {
            return Some(meaning);
        }
        stack.truncate(metatable);
    }
    None
}

/// By what the libraries have that are loaded. Where the value has a metatable, that is on top of the stack.
fn listed(stack: &mut Stack<'_>, index: c_int, loaded: c_int) -> Option<Foreign> {
    let is_table = stack.kind(index) == Kind::Table;
    let metatable = stack.top();
    stack.push_anchored(loaded);
    let top = stack.top();
    let mut is_any = |fields: &[(&str, &str)], wanted: c_int| {
        fields.iter().any(|(module, field)| {
            stack.truncate(top);
            stack.push_bytes(module.as_bytes());
            stack.get_field(top);
            if stack.kind(top + 1) != Kind::Table {
                return false;
            }
            stack.push_bytes(field.as_bytes());
            stack.get_field(top + 1);
            stack.kind(top + 2) != Kind::Nil && stack.is_same(top + 2, wanted)
        })
    };
    if is_any(&NULLS, index) {
        return Some(Foreign::Null);
    }
    let is_array = if is_table { is_any(&ARRAY_METATABLES, metatable) } else { is_any(&ARRAYS, index) };
    is_array.then_some(Foreign::Array)
}
