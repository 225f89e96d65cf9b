//! A thread that reads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::connection::{Connection, Role};
use super::{IDLE, Shared, Task, Tell1, Work, put, session, watch};
use crate::database::Stream;
use crate::figures::Counted;
use crate::queue::{Taken, Ticket, Wanted};
use crate::{Answer, Error, Statement};

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

/// The connection, opened anew where it has broken.
pub(super) fn ready<'a, 's>(
    shared: &'s Shared,
    kept: &'a mut Option<Connection<'s>>,
    role: Role,
    look: Duration,
) -> Result<&'a mut Connection<'s>, Error> {
    if kept.as_ref().is_some_and(Connection::is_broken) {
        *kept = None;
    }
    match kept {
        Some(connection) => {
            connection.look(look)?;
            Ok(connection)
        }
        None => Ok(kept.insert(Connection::open(shared, role)?)),
    }
}

fn serve<'s>(shared: &'s Arc<Shared>, kept: &mut Option<Connection<'s>>, task: Task) {
    let connection = match ready(shared, kept, Role::Reads, LOOK) {
        Ok(connection) => connection,
        Err(error) => return task.fail(error),
    };
    watch::begin(Some(&task.ticket), shared.settings.statement_timeout);
    match task.work {
        Work::One(statement, tell) => match connection.reads(&statement) {
            Ok(true) => drop(tell.send(connection.run(&statement))),
            Ok(false) => pass_on(shared, task.ticket, Work::One(statement, tell)),
            Err(error) => drop(tell.send(Err(error))),
        },
        Work::Batch(statements, tell) => {
            // One that is wrong may be right once those before it have run.
            match statements.iter().all(|statement| connection.reads(statement).unwrap_or(false)) {
                true => drop(tell.send(batch(connection, &statements))),
                false => pass_on(shared, task.ticket, Work::Batch(statements, tell)),
            }
        }
        Work::Begin(begin, tell) => session::serve(shared, connection, begin, tell),
        Work::Stream(statement, tell) => stream(shared, connection, &statement, &task.ticket, tell),
    }
    watch::end();
    connection.roll_back();
}

/// Gives work to the writer: SQLite says that it writes.
fn pass_on(shared: &Arc<Shared>, ticket: Arc<Ticket>, work: Work) {
    if ticket.wait_again() {
        // Where it cannot be put, whoever waits learns it from the channel, which is dropped.
        let _ = put(shared, Task { ticket, work }, false, false);
    }
}

/// Several statements that see the same state.
fn batch(connection: &mut Connection<'_>, statements: &[Statement]) -> Result<Vec<Answer>, Error> {
    connection.own("BEGIN")?;
    statements.iter().map(|statement| connection.run(statement)).collect()
}

/// Sends the rows of a statement as they are wanted.
pub(super) fn stream(
    shared: &Shared,
    connection: &mut Connection<'_>,
    statement: &Statement,
    ticket: &Arc<Ticket>,
    tell: Tell1<Stream>,
) {
    match connection.reads(statement) {
        Ok(true) => {}
        Ok(false) => {
            let error = Error::mistake("a stream only reads: write with exec or query");
            return drop(tell.send(Err(error.in_sql(statement.sql().source(), None))));
        }
        Err(error) => return drop(tell.send(Err(error))),
    }
    let _open = Counted::new(&shared.figures.streams);
    // Two portions at most are on their way.
    let (sender, receiver) = mpsc::channel(1);
    let mut tell = Some(tell);
    let mut receiver = Some(receiver);
    let limit = shared.settings.statement_timeout;
    let done = connection.stream(statement, |rows| {
        if let (Some(tell), Some(receiver)) = (tell.take(), receiver.take()) {
            let stream =
                Stream { columns: rows.columns().clone(), rows: receiver, _wanted: Wanted::new(ticket.clone()) };
            if tell.send(Ok(stream)).is_err() {
                return false;
            }
        }
        let is_wanted = sender.blocking_send(Ok(rows)).is_ok();
        // Time that the reader of the stream takes is not the statement's.
        watch::begin(Some(ticket), limit);
        is_wanted
    });
    if let Err(error) = done {
        match tell {
            Some(tell) => drop(tell.send(Err(error))),
            None => drop(sender.blocking_send(Err(error))),
        }
    }
}
