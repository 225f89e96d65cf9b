//! `rover.shared.<name>`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, Table};
use rover_lua::json::Vocabulary;
use rover_lua::{Kind, OwnedMeta, Raise, Returns, Shared, Stack, seconds};

use super::{Own, data, fails, key, read, ttl};
use crate::store::{Datum, Dictionary, Refusal, Stores};

/// How many keys `keys()` gives where it is not told.
const USUAL_KEYS: f64 = 1024.0;

/// The most keys that fit into a table.
const MOST_KEYS: f64 = 10_000_000.0;

/// A dictionary as Lua holds it.
struct DictionaryHandle(Rc<Own<dyn Dictionary>>);

struct DictionaryFunctions {
    stores: Arc<Stores>,
    vocabulary: Rc<Vocabulary>,
    handles: OwnedMeta<DictionaryHandle>,
}

impl DictionaryFunctions {
    fn dictionary(&self, stack: &mut Stack<'_>, call: &str) -> Result<Rc<Own<dyn Dictionary>>, Raise> {
        match self.handles.get(stack, 1) {
            Some(handle) => Ok(handle.0.clone()),
            None => Err(Raise::Mistake(format!("call it with a colon: dict:{call}(…)"))),
        }
    }
}

/// Adds the table to `rover`.
pub(super) fn install(lua: &Lua, rover: &Table, vocabulary: &Rc<Vocabulary>, stores: &Arc<Stores>) -> mlua::Result<()> {
    let meta = lua.create_table()?;
    let handles = OwnedMeta::new(lua, &meta)?;
    meta.raw_set("__name", "shared dictionary")?;
    let functions = DictionaryFunctions { stores: stores.clone(), vocabulary: vocabulary.clone(), handles };
    let shared = Shared::new(lua, Rc::new(functions))?;
    let methods = lua.create_table()?;
    methods.raw_set("get", shared.function(lua, get)?)?;
    methods.raw_set("set", shared.function(lua, set)?)?;
    methods.raw_set("add", shared.function(lua, add)?)?;
    methods.raw_set("replace", shared.function(lua, replace)?)?;
    methods.raw_set("expire", shared.function(lua, expire)?)?;
    methods.raw_set("ttl", shared.function(lua, remaining)?)?;
    methods.raw_set("incr", shared.function(lua, incr)?)?;
    methods.raw_set("delete", shared.function(lua, delete)?)?;
    methods.raw_set("keys", shared.function(lua, keys)?)?;
    meta.raw_set("__index", methods)?;
    meta.raw_set("__len", shared.function(lua, len)?)?;
    meta.raw_set("__metatable", false)?;
    let refuse = shared.function(lua, |_, _| {
        Err(Raise::mistake("rover.shared cannot be changed: rover.shared.name is there for every name"))
    })?;
    rover.raw_set("shared", super::named(lua, shared.function(lua, find)?, refuse)?)
}

/// `rover.shared[name]`, which stays in the table.
fn find(stack: &mut Stack<'_>, functions: &DictionaryFunctions) -> Returns {
    let name = super::name(stack, "rover.shared")?;
    let Some(dictionary) = functions.stores.dictionary(name) else {
        return Err(Raise::mistake("there are too many dictionaries: use keys of one instead"));
    };
    functions.handles.push(stack, DictionaryHandle(Rc::new(Own(dictionary))));
    super::keep_field(stack);
    Ok(1)
}

/// `dict:get(key)` → the value or nil.
fn get(stack: &mut Stack<'_>, functions: &DictionaryFunctions) -> Returns {
    let dictionary = functions.dictionary(stack, "get")?;
    match dictionary.get(key(stack, "dict:get")?) {
        Some(datum) => data::push(stack, &datum, &functions.vocabulary)?,
        None => stack.push_nil(),
    }
    Ok(1)
}

/// `dict:set(key, value[, ttl])` → true, or `nil, err`.
fn set(stack: &mut Stack<'_>, functions: &DictionaryFunctions) -> Returns {
    let dictionary = functions.dictionary(stack, "set")?;
    let ttl = ttl(stack, 4, "dict:set")?;
    let value = read::read(stack, 3, &functions.vocabulary, "dict:set")?;
    let key = key(stack, "dict:set")?;
    let done = match value {
        Some(value) => dictionary.set(key, value, ttl),
        None => {
            dictionary.delete(key);
            Ok(())
        }
    };
    answer(stack, done)
}

/// `dict:add(key, value[, ttl])` → true, or `nil, err`.
fn add(stack: &mut Stack<'_>, functions: &DictionaryFunctions) -> Returns {
    put(stack, functions, ("add", "dict:add"), |dictionary, key, value, ttl| dictionary.add(key, value, ttl))
}

/// `dict:replace(key, value[, ttl])` → true, or `nil, err`.
fn replace(stack: &mut Stack<'_>, functions: &DictionaryFunctions) -> Returns {
    put(stack, functions, ("replace", "dict:replace"), |dictionary, key, value, ttl| {
        dictionary.replace(key, value, ttl)
    })
}

/// A way to store a value for a time.
type Store = fn(&Arc<dyn Dictionary>, &[u8], Datum, Option<Duration>) -> Result<(), Refusal>;

/// A value that there has to be is stored by `store`; the method's name, alone and as messages have it.
fn put(
    stack: &mut Stack<'_>,
    functions: &DictionaryFunctions,
    (method, call): (&'static str, &'static str),
    store: Store,
) -> Returns {
    let dictionary = functions.dictionary(stack, method)?;
    let ttl = ttl(stack, 4, call)?;
    let Some(value) = read::read(stack, 3, &functions.vocabulary, call)? else {
        return Err(Raise::Mistake(format!("{call} expects a value, not nil")));
    };
    let done = store(&dictionary, key(stack, call)?, value, ttl);
    answer(stack, done)
}

/// `dict:expire(key, ttl)` → true, or `nil, err`.
fn expire(stack: &mut Stack<'_>, functions: &DictionaryFunctions) -> Returns {
    let dictionary = functions.dictionary(stack, "expire")?;
    let time = seconds(stack, 3, "dict:expire")?;
    let done = dictionary.expire(key(stack, "dict:expire")?, (!time.is_zero()).then_some(time));
    answer(stack, done)
}

/// `dict:ttl(key)` → seconds, 0 for no end, or `nil, err`.
fn remaining(stack: &mut Stack<'_>, functions: &DictionaryFunctions) -> Returns {
    let dictionary = functions.dictionary(stack, "ttl")?;
    match dictionary.ttl(key(stack, "dict:ttl")?) {
        Ok(time) => {
            stack.push_number(time.map_or(0.0, |time| time.as_secs_f64()));
            Ok(1)
        }
        Err(refusal) => fails(stack, refusal.text()),
    }
}

fn answer(stack: &mut Stack<'_>, done: Result<(), Refusal>) -> Returns {
    match done {
        Ok(()) => {
            stack.push_boolean(true);
            Ok(1)
        }
        Err(refusal) => fails(stack, refusal.text()),
    }
}

/// `dict:incr(key, by[, init[, ttl]])` → the new number, or `nil, err`.
fn incr(stack: &mut Stack<'_>, functions: &DictionaryFunctions) -> Returns {
    let dictionary = functions.dictionary(stack, "incr")?;
    let by = number(stack, 3, "an amount")?.unwrap_or(1.0);
    let init = number(stack, 4, "an initial value")?;
    let ttl = ttl(stack, 5, "dict:incr")?;
    match dictionary.incr(key(stack, "dict:incr")?, by, init, ttl) {
        Ok(number) => {
            stack.push_number(number);
            Ok(1)
        }
        Err(refusal) => fails(stack, refusal.text()),
    }
}

fn number(stack: &Stack<'_>, index: i32, what: &str) -> Result<Option<f64>, Raise> {
    match stack.kind(index) {
        Kind::Number => Ok(Some(stack.number(index))),
        Kind::Nil => Ok(None),
        kind => Err(Raise::Mistake(format!("dict:incr expects {what} as a number, not {}", kind.name()))),
    }
}

/// `dict:delete(key)` → whether there was an entry.
fn delete(stack: &mut Stack<'_>, functions: &DictionaryFunctions) -> Returns {
    let dictionary = functions.dictionary(stack, "delete")?;
    let was_there = dictionary.delete(key(stack, "dict:delete")?);
    stack.push_boolean(was_there);
    Ok(1)
}

/// `dict:keys([max])` → an array.
fn keys(stack: &mut Stack<'_>, functions: &DictionaryFunctions) -> Returns {
    let dictionary = functions.dictionary(stack, "keys")?;
    let most = match stack.kind(2) {
        Kind::Nil => USUAL_KEYS,
        Kind::Number if (0.0..=MOST_KEYS).contains(&stack.number(2)) => stack.number(2),
        _ => return Err(Raise::Mistake(format!("dict:keys expects a number from 0 to {MOST_KEYS}"))),
    };
    let keys = dictionary.keys(most as usize);
    functions.vocabulary.push_array(stack, keys.len());
    let array = stack.top();
    for (n, key) in (1..).zip(&keys) {
        stack.push_bytes(key);
        stack.set_item(array, n);
    }
    Ok(1)
}

/// `#dict`.
fn len(stack: &mut Stack<'_>, functions: &DictionaryFunctions) -> Returns {
    let dictionary = functions.dictionary(stack, "get")?;
    stack.push_number(dictionary.len() as f64);
    Ok(1)
}
