//! `db:transaction(fn)`: all of what a function does, or nothing.
//!
//! The function runs in a coroutine of its own within the wait of its caller, so that a cancelled handler takes it with it,
//! and everything that it starts is known to be a part of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mlua::{Lua, Table};
use rover_data::{Answer, Begin, Class, Database, Error, Statement, Stream, Transaction};

use super::{Databases, Handle, Target};
use crate::script::tasks::{Held, Run, Scope, alive, place_of_call};
use rover_lua::{Kind, Name, Raise, Returns, Shared, Stack, Waits};

/// A transaction, or a part of one, as Lua holds it.
pub(super) struct Tx {
    database: Database,
    /// `None` before it has begun and once it has ended.
    session: RefCell<Option<Rc<Transaction>>>,
    /// A part of it runs, which has the connection.
    is_nested: Cell<bool>,
}

impl Tx {
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Whether it has the connection.
    pub(super) fn is_open(&self) -> bool {
        self.session.borrow().is_some()
    }

    fn session(&self) -> Result<Rc<Transaction>, Error> {
        if self.is_nested.get() {
            return Err(Error::misuse("a transaction within this one is open: call it on what its function was given"));
        }
        self.session.borrow().clone().ok_or_else(|| Error::misuse("this transaction has ended"))
    }

    pub(super) async fn run(&self, statement: Statement) -> Result<Answer, Error> {
        self.session()?.run(statement).await
    }

    pub(super) async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Answer>, Error> {
        self.session()?.batch(statements).await
    }

    pub(super) async fn stream(&self, statement: Statement) -> Result<Stream, Error> {
        self.session()?.stream(statement).await
    }
}

/// Closes a transaction for Lua, whatever becomes of whoever runs it; one that was not committed is rolled back with it.
struct Closing(Rc<Tx>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.session.take();
    }
}

/// Lets the outer transaction go on.
struct Nested(Rc<Tx>);

impl Drop for Nested {
    fn drop(&mut self) {
        self.0.is_nested.set(false);
    }
}

/// Adds the method.
pub(super) fn install(lua: &Lua, shared: &Shared<Databases>, waits: &Rc<Waits>, methods: &Table) -> mlua::Result<()> {
    methods.raw_set("transaction", waits.waiting(lua, shared.function(lua, transaction)?)?)
}

/// What has become of it.
enum Ended {
    /// The function has returned, and all is kept.
    Kept(Held),
    /// It has returned, and asked for nothing to be kept.
    Undone(Held),
    /// It has raised this.
    Raised(Held),
    Failed(Error),
}

/// `transaction(fn[, { read_only, isolation, retry }])` → what `fn(tx)` returned.
fn transaction(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    let target = databases.target(stack, "transaction")?;
    if stack.kind(2) != Kind::Function {
        let kind = stack.kind(2).name();
        return Err(Raise::Mistake(format!("db:transaction expects a function, not {kind}")));
    }
    let begin = options(stack)?;
    let (database, outer) = match target {
        Target::Database(database) => (database, None),
        Target::Transaction(tx) => (tx.database.clone(), Some(tx)),
    };
    let tasks = databases.tasks()?;
    let place = place_of_call(stack);
    let tx = Rc::new(Tx { database, session: RefCell::default(), is_nested: Cell::new(false) });
    stack.push_copy(2);
    let function = stack.top();
    databases.handles.push(stack, Handle::Within(tx.clone()));
    let run = Run::nested(&tasks, stack, function, function + 1, &place)?;
    let scope = Scope::within(tx.clone(), tasks.scope());
    let run = run.within(scope);
    let (shared, waits) = (databases.shared(), tasks.waits().clone());
    let own = databases.shared();
    waits.suspend(stack, Name::Own("db:transaction"), async move {
        let is_answer = move |held: &mut Held| own.upgrade().is_some_and(|databases| databases.undoes(held));
        let ended = match outer {
            None => whole(&tx, begin, run, is_answer).await,
            Some(outer) => part(&outer, &tx, run, is_answer).await,
        };
        move |stack: &mut Stack<'_>| {
            let databases = alive(&shared)?;
            match ended {
                Ended::Kept(mut held) => match held.push_all(stack)? {
                    0 => {
                        stack.push_boolean(true);
                        Ok(1)
                    }
                    n => Ok(n),
                },
                Ended::Undone(mut held) => held.push_all(stack),
                Ended::Raised(mut error) => {
                    error.push_first(stack);
                    Err(Raise::Value)
                }
                Ended::Failed(error) => databases.failed(stack, &error),
            }
        }
    })
}

/// Runs the function in a transaction.
async fn whole(tx: &Rc<Tx>, begin: Begin, run: Run, undoes: impl Fn(&mut Held) -> bool) -> Ended {
    let session = match tx.database.begin(begin).await {
        Ok(session) => Rc::new(session),
        Err(error) => return Ended::Failed(error),
    };
    tx.session.replace(Some(session));
    let closing = Closing(tx.clone());
    let result = run.await;
    let session = tx.session.take();
    drop(closing);
    // Calls that were still waiting have gone with the function.
    let Some(session) = session.and_then(|session| Rc::try_unwrap(session).ok()) else {
        return Ended::Failed(Error::misuse(
            "a task of this transaction still uses it: wait for it within the function",
        ));
    };
    match result {
        Ok(mut held) => match undoes(&mut held) {
            true => session.roll_back().await.map_or_else(Ended::Failed, |()| Ended::Undone(held)),
            false => session.commit().await.map_or_else(Ended::Failed, |()| Ended::Kept(held)),
        },
        Err(error) => {
            // It is undone also where its connection is gone.
            let _ = session.roll_back().await;
            Ended::Raised(error)
        }
    }
}

/// Runs the function in a part of a transaction, which can be undone by itself.
async fn part(outer: &Rc<Tx>, tx: &Rc<Tx>, run: Run, undoes: impl Fn(&mut Held) -> bool) -> Ended {
    let session = match outer.session() {
        Ok(session) => session,
        Err(error) => return Ended::Failed(error),
    };
    if let Err(error) = session.save().await {
        return Ended::Failed(error);
    }
    outer.is_nested.set(true);
    let _nested = Nested(outer.clone());
    tx.session.replace(Some(session.clone()));
    let closing = Closing(tx.clone());
    let result = run.await;
    drop(closing);
    match result {
        Ok(mut held) => match undoes(&mut held) {
            true => session.roll_back_to().await.map_or_else(Ended::Failed, |()| Ended::Undone(held)),
            false => match session.release().await {
                Ok(()) => Ended::Kept(held),
                Err(error) => Ended::Failed(session.roll_back_to().await.err().unwrap_or(error)),
            },
        },
        Err(error) => match session.roll_back_to().await {
            Err(lost) if matches!(lost.class(), Class::Unavailable(_)) => Ended::Failed(lost),
            _ => Ended::Raised(error),
        },
    }
}

impl Databases {
    /// Whether what the function returned undoes the transaction: `nil, err`, or an answer from 400 on.
    fn undoes(&self, held: &mut Held) -> bool {
        /// Where a response keeps its status.
        const STATUS: i32 = 2;
        let Some(mut stack) = held.stack() else { return false };
        if stack.kind(1) == Kind::Nil {
            return stack.kind(2) != Kind::Nil;
        }
        if stack.kind(1) != Kind::Table || stack.metatable_identity(1) != self.response_meta {
            return false;
        }
        let top = stack.top();
        if !stack.reserve(1) {
            return false;
        }
        stack.push_item(1, STATUS);
        let is_error = stack.kind(top + 1) == Kind::Number && stack.number(top + 1) >= 400.0;
        stack.truncate(top);
        is_error
    }
}

/// The options at 3.
fn options(stack: &mut Stack<'_>) -> Result<Begin, Raise> {
    let mut begin = Begin::default();
    match stack.kind(3) {
        Kind::Nil => return Ok(begin),
        Kind::Table => {}
        kind => return Err(Raise::Mistake(format!("db:transaction expects a table of options, not {}", kind.name()))),
    }
    let top = stack.top();
    stack.push_nil();
    while stack.next(3) {
        let value = top + 2;
        match stack.bytes(top + 1) {
            Some(b"read_only") if stack.kind(value) == Kind::Boolean => begin.read_only = stack.boolean(value),
            Some(b"read_only") => return Err(Raise::mistake("db:transaction: read_only must be true or false")),
            // SQLite's transactions are serializable, and none is refused for the sake of another.
            Some(b"isolation") => match stack.bytes(value) {
                Some(b"read committed" | b"repeatable read" | b"serializable") => {}
                _ => {
                    return Err(Raise::mistake(
                        "db:transaction: isolation must be \"read committed\", \"repeatable read\" or \"serializable\"",
                    ));
                }
            },
            Some(b"retry") if stack.kind(value) == Kind::Number => {}
            Some(b"retry") => return Err(Raise::mistake("db:transaction: retry must be a number of attempts")),
            _ => return Err(Raise::mistake("db:transaction has the options read_only, isolation and retry")),
        }
        stack.truncate(top + 1);
    }
    Ok(begin)
}
