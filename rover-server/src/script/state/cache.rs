//! `rover.cache.<name>`.

use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use mlua::{Lua, Table};
use rover_lua::json::Vocabulary;
use rover_lua::{Kind, Name, OwnedMeta, Raise, Returns, Shared, Stack, Waits};

use super::{Own, data, key, read, ttl};
use crate::script::tasks::{Held, Run, Tasks, alive, place_of_call};
use crate::store::{Cache, Datum, Joined, Lead, Outcome, Stores};

/// A cache as Lua holds it. It is looked up when it is used first, for its size is known only once the app has loaded.
struct CacheHandle {
    name: Box<[u8]>,
    cache: OnceCell<Rc<Own<Cache>>>,
}

struct CacheFunctions {
    stores: Arc<Stores>,
    vocabulary: Rc<Vocabulary>,
    tasks: Weak<Tasks>,
    waits: Rc<Waits>,
    handles: OwnedMeta<CacheHandle>,
    computing: Computing,
}

/// What the functions that run right now compute, the innermost last.
type Computing = Rc<RefCell<Vec<(*const Cache, Rc<[u8]>)>>>;

impl CacheFunctions {
    fn cache(&self, stack: &mut Stack<'_>, call: &str) -> Result<Rc<Own<Cache>>, Raise> {
        let Some(handle) = self.handles.get(stack, 1) else {
            return Err(Raise::Mistake(format!("call it with a colon: cache:{call}(…)")));
        };
        if let Some(cache) = handle.cache.get() {
            return Ok(cache.clone());
        }
        if !self.waits.is_loaded() {
            return Err(Raise::Mistake(format!(
                "cache:{call} cannot be called at the top level of the app: call it in a handler, a hook or a task"
            )));
        }
        match self.stores.cache(&handle.name) {
            Some(cache) => Ok(handle.cache.get_or_init(|| Rc::new(Own(cache))).clone()),
            None => Err(Raise::mistake("there are too many caches: use keys of one instead")),
        }
    }
}

/// Adds the table to `rover`.
pub(super) fn install(
    lua: &Lua,
    rover: &Table,
    tasks: &Rc<Tasks>,
    vocabulary: &Rc<Vocabulary>,
    stores: &Arc<Stores>,
) -> mlua::Result<()> {
    let meta = lua.create_table()?;
    let handles = OwnedMeta::new(lua, &meta)?;
    meta.raw_set("__name", "cache")?;
    let waits = tasks.waits();
    let functions = CacheFunctions {
        stores: stores.clone(),
        vocabulary: vocabulary.clone(),
        tasks: Rc::downgrade(tasks),
        waits: waits.clone(),
        handles,
        computing: Rc::default(),
    };
    let shared = Shared::new(lua, Rc::new(functions))?;
    let methods = lua.create_table()?;
    methods.raw_set("get_or", waits.waiting(lua, shared.function(lua, get_or)?)?)?;
    methods.raw_set("get", shared.function(lua, get)?)?;
    methods.raw_set("set", shared.function(lua, set)?)?;
    methods.raw_set("delete", shared.function(lua, delete)?)?;
    meta.raw_set("__index", methods)?;
    meta.raw_set("__metatable", false)?;
    let refuse = shared.function(lua, |_, _| {
        Err(Raise::mistake("rover.cache cannot be changed: rover.cache.name is there for every name"))
    })?;
    rover.raw_set("cache", super::named(lua, shared.function(lua, find)?, refuse)?)
}

/// `rover.cache[name]`, which stays in the table.
fn find(stack: &mut Stack<'_>, functions: &CacheFunctions) -> Returns {
    let name = super::name(stack, "rover.cache")?.into();
    functions.handles.push(stack, CacheHandle { name, cache: OnceCell::new() });
    super::keep_field(stack);
    Ok(1)
}

/// `cache:get(key)` → the value or nil.
fn get(stack: &mut Stack<'_>, functions: &CacheFunctions) -> Returns {
    let cache = functions.cache(stack, "get")?;
    match cache.get(key(stack, "cache:get")?) {
        Some(datum) => data::push(stack, &datum, &functions.vocabulary)?,
        None => stack.push_nil(),
    }
    Ok(1)
}

/// `cache:set(key, value[, ttl])`.
fn set(stack: &mut Stack<'_>, functions: &CacheFunctions) -> Returns {
    let cache = functions.cache(stack, "set")?;
    let ttl = ttl(stack, 4, "cache:set")?;
    let value = read::read(stack, 3, &functions.vocabulary, "cache:set")?;
    let key = key(stack, "cache:set")?;
    match value {
        Some(value) => cache.set(key, value, ttl),
        None => cache.delete(key),
    }
    Ok(0)
}

/// `cache:delete(key)`.
fn delete(stack: &mut Stack<'_>, functions: &CacheFunctions) -> Returns {
    functions.cache(stack, "delete")?.delete(key(stack, "cache:delete")?);
    Ok(0)
}

/// How `get_or` ends for one who asked.
enum Answer {
    Outcome(Outcome),
    /// The asker's own function raised.
    Raised(Held),
}

/// `cache:get_or(key, ttl, fn, …)` → the value, or what `fn(…)` returns.
fn get_or(stack: &mut Stack<'_>, functions: &CacheFunctions) -> Returns {
    let call = "cache:get_or";
    let cache = functions.cache(stack, "get_or")?;
    let ttl = ttl(stack, 3, call)?;
    if stack.kind(4) != Kind::Function {
        return Err(Raise::Mistake(format!("{call} expects a function as argument 3, not {}", stack.kind(4).name())));
    }
    let key: Rc<[u8]> = key(stack, call)?.into();
    let computes = |(other, computed): &(*const Cache, Rc<[u8]>)| *other == Arc::as_ptr(&cache) && *computed == key;
    if functions.computing.borrow().iter().any(computes) {
        return Err(Raise::Mistake(format!("{call}: the function asks for the key that it computes")));
    }
    if let Some(datum) = cache.get(&key) {
        stack.push_boolean(true);
        data::push(stack, &datum, &functions.vocabulary)?;
        return Ok(2);
    }
    let tasks = alive(&functions.tasks)?;
    let place = place_of_call(stack);
    let last = stack.top();
    let run = Run::nested(&tasks, stack, 4, last, &place)?;
    let (vocabulary, computing) = (functions.vocabulary.clone(), functions.computing.clone());
    functions.waits.suspend(stack, Name::Own(call), async move {
        // Asked anew here, for a lead must not be taken by a call that cannot wait.
        let answer = loop {
            match cache.join(&key) {
                Joined::Hit(datum) => break Answer::Outcome(Outcome::Value(datum)),
                Joined::Follow(following) => {
                    if let Some(outcome) = following.outcome().await {
                        break Answer::Outcome(outcome);
                    }
                }
                Joined::Lead(lead) => {
                    let result = within(&computing, (Arc::as_ptr(&cache), key), run).await;
                    break end(lead, result, ttl, &vocabulary);
                }
            }
        };
        move |stack: &mut Stack<'_>| push(stack, answer, &vocabulary)
    })
}

/// Runs the function, and has its key among what is computed whenever it runs.
async fn within(computing: &Computing, entry: (*const Cache, Rc<[u8]>), run: Run) -> Result<Held, Held> {
    struct Innermost<'a>(&'a Computing);
    impl Drop for Innermost<'_> {
        fn drop(&mut self) {
            self.0.borrow_mut().pop();
        }
    }
    let mut run = pin!(run);
    poll_fn(|cx| {
        computing.borrow_mut().push(entry.clone());
        let _innermost = Innermost(computing);
        run.as_mut().poll(cx)
    })
    .await
}

/// Tells the others how the function ended.
fn end(lead: Lead, result: Result<Held, Held>, ttl: Option<std::time::Duration>, vocabulary: &Vocabulary) -> Answer {
    match result {
        Ok(mut held) => {
            let outcome = held.stack().map_or(Outcome::Nothing(None), |stack| returned(&stack, vocabulary));
            lead.end(outcome.clone(), ttl);
            Answer::Outcome(outcome)
        }
        Err(mut held) => {
            let error = held.stack().and_then(|stack| read::read(&stack, 1, vocabulary, "").ok().flatten());
            let unknown = || Datum::String(b"the function that computes this value has failed"[..].into());
            lead.end(Outcome::Raised(error.unwrap_or_else(unknown)), ttl);
            Answer::Raised(held)
        }
    }
}

/// What the function returned, as data.
fn returned(stack: &Stack<'_>, vocabulary: &Vocabulary) -> Outcome {
    let read = |index| read::read(stack, index, vocabulary, "cache:get_or");
    let outcome = match read(1) {
        Ok(Some(value)) => Ok(Outcome::Value(value)),
        Ok(None) => read(2).map(Outcome::Nothing),
        Err(problem) => Err(problem),
    };
    outcome.unwrap_or_else(|problem| match problem {
        Raise::Mistake(message) => Outcome::Mistake(message.into()),
        Raise::Value | Raise::Yield(_) => Outcome::Nothing(None),
    })
}

fn push(stack: &mut Stack<'_>, answer: Answer, vocabulary: &Vocabulary) -> Returns {
    match answer {
        Answer::Outcome(Outcome::Value(value)) => {
            data::push(stack, &value, vocabulary)?;
            Ok(1)
        }
        Answer::Outcome(Outcome::Nothing(why)) => {
            stack.push_nil();
            match why {
                Some(why) => data::push(stack, &why, vocabulary)?,
                None => stack.push_nil(),
            }
            Ok(2)
        }
        Answer::Outcome(Outcome::Raised(error)) => {
            data::push(stack, &error, vocabulary)?;
            Err(Raise::Value)
        }
        Answer::Outcome(Outcome::Mistake(message)) => Err(Raise::mistake(&*message)),
        Answer::Raised(mut held) => {
            held.push_first(stack);
            Err(Raise::Value)
        }
    }
}
