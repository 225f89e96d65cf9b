//! The thread that writes. What waits for it is committed together, and answered when it is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::connection::{Connection, Role};
use super::{IDLE, QueuedWork, Reply, Shared, Work, session, streaming, watch};
use crate::error::Error;
use crate::figures::Counted;
use crate::queue::{Taken, Ticket};
use crate::rows::Answer;
use crate::sql::{Keyword, Statement};

/// How many writes are committed together at most.
const MOST_TOGETHER: usize = 256;

/// How long the first of them waits for the others.
const LONGEST_GROUP: Duration = Duration::from_millis(5);

/// How many bytes of answers they have.
const LARGEST_GROUP: usize = 8 << 20;

/// How long the thread waits for the readers when the database closes.
const LAST: Duration = Duration::from_secs(2);

/// The life of the thread.
pub(super) fn live(shared: &Arc<Shared>) {
    shared.writer.enter();
    let mut connection = None;
    while let Some(Taken { work: task, .. }) = shared.writer.take(usize::MAX, IDLE) {
        if !task.ticket.start() {
            continue;
        }
        let _busy = Counted::new(&shared.figures.busy);
        // A panic costs the connection, and with it what was not committed, and not the thread.
        let done = catch_unwind(AssertUnwindSafe(|| serve(shared, &mut connection, task)));
        if done.is_err() {
            connection = None;
        }
    }
    // Whoever closes the last connection empties the log and removes it; of two that close at once, neither does.
    let latest = Instant::now() + LAST;
    while shared.figures.connections.load(Ordering::Relaxed) > 1 && Instant::now() < latest {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn serve<'s>(shared: &'s Arc<Shared>, kept: &mut Option<Connection<'s>>, task: QueuedWork) {
    // A commit to a file that nobody finds any more would be lost: so each is preceded by a look.
    let connection = match Connection::ready(shared, kept, Role::Writes, Duration::ZERO) {
        Ok(connection) => connection,
        Err(error) => return task.fail(error),
    };
    match task.work {
        Work::Begin(begin, tell) => {
            watch::begin(Some(&task.ticket), shared.settings.statement_timeout);
            session::serve(shared, connection, begin, tell);
        }
        Work::Stream(statement, tell) => {
            watch::begin(Some(&task.ticket), shared.settings.statement_timeout);
            streaming::stream(shared, connection, &statement, &task.ticket, tell);
        }
        Work::Run(statements, tell) => write(shared, connection, Write { ticket: task.ticket, statements, tell }),
    }
    watch::end();
    connection.roll_back();
}

/// Statements that somebody waits for.
struct Write {
    ticket: Arc<Ticket>,
    statements: Vec<Statement>,
    tell: Reply<Vec<Answer>>,
}

impl Write {
    /// Runs the statements, in a transaction or without one.
    fn run(&self, shared: &Shared, connection: &mut Connection<'_>) -> Result<Vec<Answer>, Error> {
        let run = |statement| {
            watch::begin(Some(&self.ticket), shared.settings.statement_timeout);
            connection.run(statement)
        };
        self.statements.iter().map(run).collect()
    }

    fn tell(self, result: Result<Vec<Answer>, Error>) {
        // Nobody may be there any more.
        drop(self.tell.send(result));
    }
}

/// Whether they can be committed with others: `vacuum` cannot, and pragmas had better not.
fn are_groupable(statements: &[Statement]) -> bool {
    let is_usual =
        |statement: &Statement| matches!(statement.sql().keyword(), Keyword::Insert | Keyword::Changes | Keyword::With);
    statements.iter().all(is_usual)
}

/// The next write that can be committed with others, if one waits.
fn next(shared: &Shared) -> Option<Write> {
    loop {
        let is_groupable =
            |task: &QueuedWork| matches!(&task.work, Work::Run(statements, _) if are_groupable(statements));
        let task = shared.writer.take_now(is_groupable)?;
        if task.ticket.start()
            && let Work::Run(statements, tell) = task.work
        {
            return Some(Write { ticket: task.ticket, statements, tell });
        }
    }
}

fn write(shared: &Shared, connection: &mut Connection<'_>, first: Write) {
    let second = if are_groupable(&first.statements) { next(shared) } else { None };
    match second {
        None => alone(shared, connection, first),
        Some(second) => together(shared, connection, [first, second]),
    }
}

/// Runs one write and commits it.
fn alone(shared: &Shared, connection: &mut Connection<'_>, write: Write) {
    // SQLite commits a single one by itself.
    let is_batch = write.statements.len() > 1;
    if is_batch {
        watch::begin(Some(&write.ticket), shared.settings.statement_timeout);
        if let Err(error) = connection.own("BEGIN IMMEDIATE") {
            return write.tell(Err(error));
        }
    }
    let mut result = write.run(shared, connection);
    if is_batch && result.is_ok() {
        watch::end();
        if let Err(error) = connection.own("COMMIT") {
            result = Err(error);
        }
    }
    connection.roll_back();
    shared.figures.commits.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
    write.tell(result);
}

/// Runs writes as long as some wait, and commits them at once. Where that cannot be, each is run alone.
fn together(shared: &Shared, connection: &mut Connection<'_>, begin: [Write; 2]) {
    let started = Instant::now();
    watch::begin(None, None);
    if let Err(error) = connection.own("BEGIN IMMEDIATE") {
        for write in begin {
            write.tell(Err(error.clone()));
        }
        return;
    }
    let mut done: Vec<(Write, Vec<Answer>)> = Vec::new();
    let mut size = 0;
    let mut waiting = begin.into_iter();
    loop {
        let has_room = done.len() < MOST_TOGETHER && size < LARGEST_GROUP && started.elapsed() < LONGEST_GROUP;
        let Some(write) = waiting.next().or_else(|| if has_room { next(shared) } else { None }) else { break };
        match inside(shared, connection, &write) {
            Ok(answers) => {
                size += answers.iter().map(|answer| answer.rows.size()).sum::<usize>();
                done.push((write, answers));
            }
            Err(error) => {
                write.tell(Err(error));
                if connection.is_free() {
                    // The failure took the others' work with it.
                    let left = done.into_iter().map(|(write, _)| write).chain(waiting);
                    return left.for_each(|write| alone(shared, connection, write));
                }
            }
        }
    }
    watch::end();
    if done.is_empty() {
        return connection.roll_back();
    }
    match connection.own("COMMIT") {
        Ok(()) => {
            shared.figures.commits.fetch_add(1, Ordering::Relaxed);
            done.into_iter().for_each(|(write, answers)| write.tell(Ok(answers)));
        }
        Err(_) => {
            connection.roll_back();
            done.into_iter().for_each(|(write, _)| alone(shared, connection, write));
        }
    }
}

/// Runs a write that leaves nothing behind where it fails.
fn inside(shared: &Shared, connection: &mut Connection<'_>, write: &Write) -> Result<Vec<Answer>, Error> {
    connection.own("SAVEPOINT rover")?;
    let result = write.run(shared, connection);
    watch::end();
    if connection.is_free() {
        return result;
    }
    if result.is_err() {
        connection.own("ROLLBACK TO rover")?;
    }
    connection.own("RELEASE rover")?;
    result
}
