//! The thread that writes. What waits for it is committed together, and answered when it is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::connection::{Connection, Role};
use super::{IDLE, Shared, Task, Tell1, Work, reader, session, watch};
use crate::figures::Counted;
use crate::queue::{Taken, Ticket};
use crate::sql::Keyword;
use crate::{Answer, Error, Statement};

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

fn serve<'s>(shared: &'s Arc<Shared>, kept: &mut Option<Connection<'s>>, task: Task) {
    // A commit to a file that nobody finds any more would be lost: so each is preceded by a look.
    let connection = match reader::ready(shared, kept, Role::Writes, Duration::ZERO) {
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
            reader::stream(shared, connection, &statement, &task.ticket, tell);
        }
        Work::One(statement, tell) => write(shared, connection, Write::One(task.ticket, statement, tell)),
        Work::Batch(statements, tell) => write(shared, connection, Write::Batch(task.ticket, statements, tell)),
    }
    watch::end();
    connection.roll_back();
}

/// Writes that somebody waits for.
enum Write {
    One(Arc<Ticket>, Statement, Tell1<Answer>),
    Batch(Arc<Ticket>, Vec<Statement>, Tell1<Vec<Answer>>),
}

/// A write that was done and is not committed yet.
enum Done {
    One(Answer),
    Batch(Vec<Answer>),
}

impl Done {
    fn size(&self) -> usize {
        match self {
            Done::One(answer) => answer.rows.size(),
            Done::Batch(answers) => answers.iter().map(|answer| answer.rows.size()).sum(),
        }
    }
}

impl Write {
    fn of(task: Task) -> Option<Write> {
        match task.work {
            Work::One(statement, tell) => Some(Write::One(task.ticket, statement, tell)),
            Work::Batch(statements, tell) => Some(Write::Batch(task.ticket, statements, tell)),
            Work::Begin(..) | Work::Stream(..) => None,
        }
    }

    fn ticket(&self) -> &Arc<Ticket> {
        match self {
            Write::One(ticket, ..) | Write::Batch(ticket, ..) => ticket,
        }
    }

    /// Runs the statements, in a transaction or without one.
    fn run(&self, shared: &Shared, connection: &mut Connection<'_>) -> Result<Done, Error> {
        let limit = shared.settings.statement_timeout;
        match self {
            Write::One(ticket, statement, _) => {
                watch::begin(Some(ticket), limit);
                connection.run(statement).map(Done::One)
            }
            Write::Batch(ticket, statements, _) => {
                let mut answers = Vec::with_capacity(statements.len());
                for statement in statements {
                    watch::begin(Some(ticket), limit);
                    answers.push(connection.run(statement)?);
                }
                Ok(Done::Batch(answers))
            }
        }
    }

    fn tell(self, result: Result<Done, Error>) {
        // Nobody may be there any more.
        match (self, result) {
            (Write::One(_, _, tell), Ok(Done::One(answer))) => drop(tell.send(Ok(answer))),
            (Write::Batch(_, _, tell), Ok(Done::Batch(answers))) => drop(tell.send(Ok(answers))),
            (Write::One(_, _, tell), Err(error)) => drop(tell.send(Err(error))),
            (Write::Batch(_, _, tell), Err(error)) => drop(tell.send(Err(error))),
            // Each is answered by what it ran.
            (Write::One(..), Ok(Done::Batch(_))) | (Write::Batch(..), Ok(Done::One(_))) => {}
        }
    }
}

/// Whether it can be committed with others: `vacuum` cannot, and pragmas had better not.
fn is_groupable(work: &Work) -> bool {
    let is_usual =
        |statement: &Statement| matches!(statement.sql().keyword(), Keyword::Insert | Keyword::Changes | Keyword::With);
    match work {
        Work::One(statement, _) => is_usual(statement),
        Work::Batch(statements, _) => statements.iter().all(is_usual),
        Work::Begin(..) | Work::Stream(..) => false,
    }
}

fn is_groupable_write(write: &Write) -> bool {
    let is_usual =
        |statement: &Statement| matches!(statement.sql().keyword(), Keyword::Insert | Keyword::Changes | Keyword::With);
    match write {
        Write::One(_, statement, _) => is_usual(statement),
        Write::Batch(_, statements, _) => statements.iter().all(is_usual),
    }
}

fn next(shared: &Shared) -> Option<Write> {
    loop {
        let task = shared.writer.take_now(|task| is_groupable(&task.work))?;
        if task.ticket.start() {
            return Write::of(task);
        }
    }
}

fn write(shared: &Shared, connection: &mut Connection<'_>, first: Write) {
    let second = if is_groupable_write(&first) { next(shared) } else { None };
    match second {
        None => alone(shared, connection, first),
        Some(second) => together(shared, connection, [first, second]),
    }
}

/// Runs one write and commits it.
fn alone(shared: &Shared, connection: &mut Connection<'_>, write: Write) {
    let is_batch = matches!(write, Write::Batch(..));
    if is_batch {
        watch::begin(Some(write.ticket()), shared.settings.statement_timeout);
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
    let mut done: Vec<(Write, Done)> = Vec::new();
    let mut size = 0;
    let mut waiting = begin.into_iter();
    loop {
        let has_room = done.len() < MOST_TOGETHER && size < LARGEST_GROUP && started.elapsed() < LONGEST_GROUP;
        let Some(write) = waiting.next().or_else(|| if has_room { next(shared) } else { None }) else { break };
        match inside(shared, connection, &write) {
            Ok(answer) => {
                size += answer.size();
                done.push((write, answer));
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
            done.into_iter().for_each(|(write, answer)| write.tell(Ok(answer)));
        }
        Err(_) => {
            connection.roll_back();
            done.into_iter().for_each(|(write, _)| alone(shared, connection, write));
        }
    }
}

/// Runs a write that leaves nothing behind where it fails.
fn inside(shared: &Shared, connection: &mut Connection<'_>, write: &Write) -> Result<Done, Error> {
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
