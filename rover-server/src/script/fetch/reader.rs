//! Reads the body of an answer with `stream = true`, piece by piece.
//!
//! Dropping the body closes its connection. An app that forgets one keeps it until Lua's garbage collector finds it, or
//! until its patience has passed and another request is made.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use mlua::{Lua, Table};
use rover_lua::{Name, Raise, Returns, Shared, Stack, Waits, press};
use tokio::time::Instant;

use crate::outbound::{Inflow, Problem};

use super::{CONNECTION, Fetch, not_a, push_problem};

/// A body as Lua holds it.
pub(super) struct BodyReader(Rc<BodyState>);

/// What is left of a body.
pub(super) struct BodyState {
    /// `None` while it is being read, and once it is over.
    inflow: RefCell<Option<Inflow>>,
    is_reading: Cell<bool>,
    /// Why it broke off.
    problem: RefCell<Option<Problem>>,
    used: Cell<Instant>,
    patience: Option<Duration>,
}

impl BodyState {
    fn is_forgotten(&self) -> bool {
        let is_late = self.patience.is_some_and(|patience| self.used.get().elapsed() > patience);
        is_late && !self.is_reading.get()
    }
}

/// Gives the metatable of readers its methods.
///
/// # Errors
/// Memory errors of mlua.
pub(super) fn install(lua: &Lua, shared: &Shared<Fetch>, waits: &Rc<Waits>, meta: &Table) -> mlua::Result<()> {
    let methods = lua.create_table()?;
    methods.raw_set("read", waits.waiting(lua, shared.function(lua, read)?)?)?;
    methods.raw_set("close", shared.function(lua, close)?)?;
    meta.raw_set("__index", methods)?;
    meta.raw_set("__call", waits.waiting(lua, shared.function(lua, iterate)?)?)?;
    meta.raw_set("__name", "reader")?;
    meta.raw_set("__metatable", false)
}

/// Pushes a reader of `inflow`, which waits at most `patience` for each piece.
pub(super) fn push(stack: &mut Stack<'_>, fetch: &Fetch, mut inflow: Inflow, patience: Option<Duration>) {
    inflow.set_patience(patience);
    let state = Rc::new(BodyState {
        inflow: RefCell::new(Some(inflow)),
        is_reading: Cell::new(false),
        problem: RefCell::default(),
        used: Cell::new(Instant::now()),
        patience,
    });
    fetch.open.borrow_mut().push(Rc::downgrade(&state));
    fetch.readers.push(stack, BodyReader(state));
    press(stack, CONNECTION);
}

/// Closes bodies that nobody has read from for longer than their patience.
pub(super) fn sweep(fetch: &Fetch) {
    let Ok(mut open) = fetch.open.try_borrow_mut() else { return };
    let mut forgotten = Vec::new();
    open.retain(|state| {
        let Some(state) = state.upgrade() else { return false };
        if state.is_forgotten() {
            *state.problem.borrow_mut() = Some(Problem::Timeout);
            forgotten.push(state.inflow.take());
            return false;
        }
        state.is_reading.get() || state.inflow.borrow().is_some()
    });
    drop(open);
}

/// What one reading brings.
enum BodyPiece {
    Data(bytes::Bytes),
    End,
    Broken(Problem),
}

/// `reader:read()` → the next piece; nil at the end; `nil, err`.
fn read(stack: &mut Stack<'_>, fetch: &Fetch) -> Returns {
    next(stack, fetch, "reader:read", push_problem)
}

/// `for piece in reader do`: as `read`, but a body that breaks off raises, for a loop would take it for the end.
fn iterate(stack: &mut Stack<'_>, fetch: &Fetch) -> Returns {
    next(stack, fetch, "the loop over a body", |_, problem| {
        Err(Raise::Mistake(format!("the response body broke off: {problem}")))
    })
}

/// What is done about a body that breaks off.
type Breaking = fn(&mut Stack<'_>, &Problem) -> Returns;

fn push_piece(stack: &mut Stack<'_>, piece: BodyPiece, breaking: Breaking) -> Returns {
    match piece {
        BodyPiece::Data(data) => {
            stack.push_bytes(&data);
            Ok(1)
        }
        BodyPiece::End => {
            stack.push_nil();
            Ok(1)
        }
        BodyPiece::Broken(problem) => breaking(stack, &problem),
    }
}

fn next(stack: &mut Stack<'_>, fetch: &Fetch, call: &'static str, breaking: Breaking) -> Returns {
    let Some(state) = fetch.readers.get(stack, 1).map(|reader| reader.0.clone()) else {
        return Err(not_a("reader", "read"));
    };
    if state.is_reading.get() {
        return Err(Raise::mistake("this body is being read already"));
    }
    state.used.set(Instant::now());
    let Some(inflow) = state.inflow.take() else {
        let piece = state.problem.borrow().clone().map_or(BodyPiece::End, BodyPiece::Broken);
        stack.push_boolean(true);
        return push_piece(stack, piece, breaking).map(|n| n + 1);
    };
    state.is_reading.set(true);
    let mut reading = BodyReading { state, inflow: Some(inflow) };
    fetch.waits.suspend(stack, Name::Own(call), async move {
        let piece = reading.next().await;
        drop(reading);
        move |stack: &mut Stack<'_>| push_piece(stack, piece, breaking)
    })
}

/// A reading in progress. One that is cancelled leaves the body as it was: what comes next is the next piece.
struct BodyReading {
    state: Rc<BodyState>,
    inflow: Option<Inflow>,
}

impl BodyReading {
    async fn next(&mut self) -> BodyPiece {
        let Some(inflow) = &mut self.inflow else { return BodyPiece::End };
        let chunk = inflow.chunk().await;
        if let Some(Ok(data)) = chunk {
            return BodyPiece::Data(data);
        }
        self.inflow = None;
        match chunk {
            Some(Err(problem)) => {
                *self.state.problem.borrow_mut() = Some(problem.clone());
                BodyPiece::Broken(problem)
            }
            _ => BodyPiece::End,
        }
    }
}

impl Drop for BodyReading {
    fn drop(&mut self) {
        self.state.is_reading.set(false);
        self.state.used.set(Instant::now());
        *self.state.inflow.borrow_mut() = self.inflow.take();
    }
}

/// `reader:close()`: the rest is not wanted.
fn close(stack: &mut Stack<'_>, fetch: &Fetch) -> Returns {
    match fetch.readers.get(stack, 1) {
        Some(reader) => drop(reader.0.inflow.take()),
        None => return Err(not_a("reader", "close")),
    }
    Ok(0)
}
