//! `db:stream(sql, …)`: rows as they are wanted.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mlua::{Lua, Table};
use rover_data::{Error, Rows, Stream};

use super::Databases;
use crate::script::tasks::alive;
use rover_lua::{Name, Raise, Returns, Shared, Stack, Waits, press};

/// What an open stream costs beside its rows, in bytes: a connection.
const CONNECTION: usize = 256 * 1024;

/// Rows as Lua holds them.
pub(super) struct RowStream(Rc<State>);

/// What is left of them.
pub(super) struct State {
    /// `None` while it is being read, and once it is over.
    stream: RefCell<Option<Stream>>,
    /// Rows that have come, and how many of them have been given.
    rows: RefCell<Option<Rows>>,
    given: Cell<usize>,
    is_reading: Cell<bool>,
}

/// Adds the methods.
pub(super) fn install(
    lua: &Lua,
    shared: &Shared<Databases>,
    waits: &Rc<Waits>,
    methods: &Table,
    meta: &Table,
) -> mlua::Result<()> {
    methods.raw_set("stream", waits.waiting(lua, shared.function(lua, open)?)?)?;
    let own = lua.create_table()?;
    own.raw_set("close", shared.function(lua, close)?)?;
    meta.raw_set("__index", own)?;
    meta.raw_set("__call", waits.waiting(lua, shared.function(lua, next)?)?)
}

/// `stream(sql, …)` → the rows, one at each call.
fn open(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    let target = databases.target(stack, "stream")?;
    let statement = databases.statement(stack, &target, "stream")?;
    databases.find_forgotten(stack, target.database().settings().readers);
    let work = async move { target.stream(statement).await };
    databases.wait(stack, "db:stream", work, |databases, stack, stream| {
        let state = State {
            stream: RefCell::new(Some(stream)),
            rows: RefCell::default(),
            given: Cell::new(0),
            is_reading: Cell::new(false),
        };
        let state = Rc::new(state);
        databases.open.borrow_mut().push(Rc::downgrade(&state));
        databases.streams.push(stack, RowStream(state));
        // The collector does not know what a connection costs.
        press(stack, CONNECTION);
        Ok(1)
    })
}

impl Databases {
    /// Looks for streams that the app has forgotten, as a loop does that it leaves early, where those that are open are this
    /// worker's share of the connections: another one would wait for the collector.
    fn find_forgotten(&self, stack: &mut Stack<'_>, readers: usize) {
        let share = (readers.saturating_sub(1) / self.workers.get()).max(1);
        self.open.borrow_mut().retain(|state| {
            state.upgrade().is_some_and(|state| state.is_reading.get() || state.stream.borrow().is_some())
        });
        let is_used_up = self.open.borrow().len() >= share;
        if is_used_up && stack.can_call() {
            let top = stack.top();
            stack.push_anchored(self.collect);
            // It has failed where memory is short, and the stream then waits for its turn.
            let _ = stack.call_protected(0, 0);
            stack.truncate(top);
        }
    }
}

/// Gives the next of the rows that have come.
fn push_ready(stack: &mut Stack<'_>, databases: &Databases, state: &State) -> Result<bool, Raise> {
    let mut rows = state.rows.borrow_mut();
    let Some(ready) = rows.as_ref() else { return Ok(false) };
    let given = state.given.get();
    if given >= ready.len() {
        *rows = None;
        return Ok(false);
    }
    databases.push_row(stack, ready, given)?;
    state.given.set(given + 1);
    Ok(true)
}

/// `rows()` → the next row, nil behind the last.
fn next(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    let Some(state) = databases.streams.get(stack, 1).map(|rows| rows.0.clone()) else {
        return Err(Raise::mistake("this is no stream of rows"));
    };
    if state.is_reading.get() {
        return Err(Raise::mistake("this stream of rows is being read already"));
    }
    stack.push_boolean(true);
    if push_ready(stack, databases, &state)? {
        return Ok(2);
    }
    let Some(stream) = state.stream.take() else {
        stack.push_nil();
        return Ok(2);
    };
    state.is_reading.set(true);
    let mut reading = Reading { state, stream: Some(stream) };
    let (shared, waits) = (databases.shared(), databases.tasks()?.waits().clone());
    waits.suspend(stack, Name::Own("the loop over rows"), async move {
        let outcome = reading.next().await;
        let state = reading.state.clone();
        drop(reading);
        move |stack: &mut Stack<'_>| {
            let databases = alive(&shared)?;
            match outcome {
                Ok(()) => {
                    if !push_ready(stack, &databases, &state)? {
                        stack.push_nil();
                    }
                    Ok(1)
                }
                Err(error) => match databases.failed(stack, &error) {
                    // A loop would take `nil` for the end.
                    Ok(_) => Err(Raise::mistake(error.to_string())),
                    raised => raised,
                },
            }
        }
    })
}

/// A reading in progress. One that is cancelled leaves the rows as they were.
struct Reading {
    state: Rc<State>,
    stream: Option<Stream>,
}

impl Reading {
    async fn next(&mut self) -> Result<(), Error> {
        while let Some(stream) = &mut self.stream {
            match stream.next().await {
                // The last portion may have none.
                Ok(Some(rows)) if rows.is_empty() => {}
                Ok(Some(rows)) => {
                    self.state.given.set(0);
                    self.state.rows.replace(Some(rows));
                    return Ok(());
                }
                end => {
                    self.stream = None;
                    return end.map(|_| ());
                }
            }
        }
        Ok(())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.state.is_reading.set(false);
        self.state.stream.replace(self.stream.take());
    }
}

/// `rows:close()`: the rest is not wanted.
fn close(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    let Some(rows) = databases.streams.get(stack, 1) else {
        return Err(Raise::mistake("call it with a colon: rows:close()"));
    };
    rows.0.rows.take();
    drop(rows.0.stream.take());
    Ok(0)
}
