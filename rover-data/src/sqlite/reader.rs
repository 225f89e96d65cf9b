//! A thread that reads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::connection::{Connection, Role};
use super::{IDLE, QueuedWork, Shared, Work, put, session, streaming, watch};
use crate::error::Error;
use crate::figures::Counted;
use crate::queue::{Taken, Ticket};
use crate::rows::Answer;
use crate::sql::Statement;

/// How often a reader looks whether its file has been replaced.
const LOOK: Duration = Duration::from_secs(1);

/// The life of a thread.
pub(super) fn live(shared: &Arc<Shared>) {
    shared.readers.enter();
    let mut connection = None;
    while let Some(Taken { work: task, is_long }) = shared.readers.take(shared.most_long(), IDLE) {
        if task.ticket.start() {
            let _busy = Counted::new(&shared.figures.busy);
            // A panic costs the connection, whatever state it is in, and not the thread.
            let done = catch_unwind(AssertUnwindSafe(|| serve(shared, &mut connection, task)));
            if done.is_err() {
                connection = None;
            }
        }
        if is_long {
            shared.readers.end_long();
        }
    }
}

fn serve<'s>(shared: &'s Arc<Shared>, kept: &mut Option<Connection<'s>>, task: QueuedWork) {
    let connection = match Connection::ready(shared, kept, Role::Reads, LOOK) {
        Ok(connection) => connection,
        Err(error) => return task.fail(error),
    };
    watch::begin(Some(&task.ticket), shared.settings.statement_timeout);
    match task.work {
        Work::Run(statements, tell) => match reads(connection, &statements) {
            Ok(true) => drop(tell.send(run(connection, &statements))),
            Ok(false) => pass_on(shared, task.ticket, Work::Run(statements, tell)),
            Err(error) => drop(tell.send(Err(error))),
        },
        Work::Begin(begin, tell) => session::serve(shared, connection, begin, tell),
        Work::Stream(statement, tell) => streaming::stream(shared, connection, &statement, &task.ticket, tell),
    }
    watch::end();
    connection.roll_back();
}

/// Gives work to the writer: SQLite says that it writes.
fn pass_on(shared: &Arc<Shared>, ticket: Arc<Ticket>, work: Work) {
    if ticket.wait_again() {
        // Where it cannot be put, whoever waits learns it from the channel, which is dropped.
        let _ = put(shared, QueuedWork { ticket, work }, false, false);
    }
}

/// Whether SQLite says that the statements only read.
///
/// # Errors
/// A single one is wrong. Of several, one that is wrong may be right once those before it have run.
fn reads(connection: &mut Connection<'_>, statements: &[Statement]) -> Result<bool, Error> {
    match statements {
        [statement] => connection.reads(statement),
        _ => Ok(statements.iter().all(|statement| connection.reads(statement).unwrap_or(false))),
    }
}

/// Runs statements that see the same state.
fn run(connection: &mut Connection<'_>, statements: &[Statement]) -> Result<Vec<Answer>, Error> {
    if statements.len() > 1 {
        connection.own("BEGIN")?;
    }
    statements.iter().map(|statement| connection.run(statement)).collect()
}
