//! A transaction: its connection does nothing else until it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::connection::Connection;
use super::{Reply, Shared, streaming, watch};
use crate::error::{Class, Error, Outage};
use crate::figures::Counted;
use crate::queue::{Ticket, Wanted};
use crate::rows::Answer;
use crate::settings::Begin;
use crate::sql::Statement;
use crate::stream::Stream;

enum Command {
    Run(Vec<Statement>, Arc<Ticket>, Reply<Vec<Answer>>),
    Stream(Statement, Arc<Ticket>, Reply<Stream>),
    Save(Reply<()>),
    Release(Reply<()>),
    RollBackTo(Reply<()>),
    Commit(Reply<()>),
    RollBack(Reply<()>),
}

/// A transaction that has begun. Dropped, it is rolled back.
pub(crate) struct Session(mpsc::Sender<Command>);

impl Session {
    /// Runs statements in order until one fails. What is dropped meanwhile is interrupted.
    pub(crate) async fn run(&self, statements: Vec<Statement>) -> Result<Vec<Answer>, Error> {
        let ticket = Arc::new(Ticket::default());
        let _wanted = Wanted::new(ticket.clone());
        self.ask(|tell| Command::Run(statements, ticket, tell)).await
    }

    pub(crate) async fn stream(&self, statement: Statement) -> Result<Stream, Error> {
        let ticket = Arc::new(Ticket::default());
        let wanted = Wanted::new(ticket.clone());
        let stream = self.ask(|tell| Command::Stream(statement, ticket, tell)).await?;
        wanted.pass_on();
        Ok(stream)
    }

    pub(crate) async fn save(&self) -> Result<(), Error> {
        self.ask(Command::Save).await
    }

    pub(crate) async fn release(&self) -> Result<(), Error> {
        self.ask(Command::Release).await
    }

    pub(crate) async fn roll_back_to(&self) -> Result<(), Error> {
        self.ask(Command::RollBackTo).await
    }

    /// Commits. Once it was polled it goes on to its end, whoever is there to see it.
    pub(crate) async fn commit(self) -> Result<(), Error> {
        self.ask(Command::Commit).await
    }

    pub(crate) async fn roll_back(self) -> Result<(), Error> {
        self.ask(Command::RollBack).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let lost = || Error::outage(Outage::Lost, "the transaction has ended: its connection is gone");
        let (tell, told) = oneshot::channel();
        self.0.send(command(tell)).map_err(|_| lost())?;
        told.await.unwrap_or_else(|_| Err(lost()))
    }
}

/// What a transaction has come to.
struct SessionState {
    read_only: bool,
    depth: usize,
    /// A statement failed, with so many savepoints around it.
    failed: Option<(usize, Error)>,
}

impl SessionState {
    /// Why nothing more can be run here.
    fn refusal(&self) -> Option<Error> {
        let (_, error) = self.failed.as_ref()?;
        Some(Error::mistake(format!("this transaction has failed and can only be rolled back: {error}")))
    }

    /// Why this cannot be committed: the error that it failed with.
    fn failure(&self) -> Option<Error> {
        self.failed.as_ref().map(|(_, error)| error.clone())
    }

    fn note(&mut self, connection: &Connection<'_>, error: &Error) {
        // SQLite may have ended the whole transaction.
        let depth = if connection.is_free() { 0 } else { self.depth };
        match &mut self.failed {
            Some((known, _)) => *known = (*known).min(depth),
            None => self.failed = Some((depth, error.clone())),
        }
    }
}

/// Begins a transaction and does what is asked of it until it ends.
pub(super) fn serve(shared: &Shared, connection: &mut Connection<'_>, begin: Begin, tell: Reply<Session>) {
    let started = match begin.read_only {
        // The state that it reads is that of its beginning, not of its first statement.
        true => connection.own("BEGIN").and_then(|()| connection.own("SELECT 1 FROM sqlite_schema LIMIT 1")),
        false => connection.own("BEGIN IMMEDIATE"),
    };
    watch::end();
    if let Err(error) = started {
        connection.roll_back();
        return drop(tell.send(Err(error)));
    }
    let _open = Counted::new(&shared.figures.transactions);
    let (sender, commands) = mpsc::channel();
    if tell.send(Ok(Session(sender))).is_err() {
        return connection.roll_back();
    }
    let mut state = SessionState { read_only: begin.read_only, depth: 0, failed: None };
    // Ends with the handle.
    for command in &commands {
        match command {
            Command::Run(statements, ticket, tell) => {
                let result = run(shared, connection, &mut state, &statements, &ticket);
                let _ = tell.send(result);
            }
            Command::Stream(statement, ticket, tell) => match state.refusal() {
                Some(error) => drop(tell.send(Err(error))),
                None => {
                    ticket.start();
                    watch::begin(Some(&ticket), shared.settings.statement_timeout);
                    streaming::stream(shared, connection, &statement, &ticket, tell);
                    watch::end();
                }
            },
            Command::Save(tell) => drop(tell.send(save(connection, &mut state))),
            Command::Release(tell) => drop(tell.send(release(connection, &mut state))),
            Command::RollBackTo(tell) => drop(tell.send(roll_back_to(connection, &mut state))),
            Command::Commit(tell) => {
                let result = match state.failure() {
                    Some(error) => Err(error),
                    None => connection.own("COMMIT"),
                };
                connection.roll_back();
                shared.figures.commits.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
                return drop(tell.send(result));
            }
            Command::RollBack(tell) => {
                connection.roll_back();
                return drop(tell.send(Ok(())));
            }
        }
    }
    connection.roll_back();
}

fn run(
    shared: &Shared,
    connection: &mut Connection<'_>,
    state: &mut SessionState,
    statements: &[Statement],
    ticket: &Arc<Ticket>,
) -> Result<Vec<Answer>, Error> {
    if let Some(error) = state.refusal() {
        return Err(error);
    }
    ticket.start();
    let mut answers = Vec::with_capacity(statements.len());
    for statement in statements {
        watch::begin(Some(ticket), shared.settings.statement_timeout);
        let result = allowed(connection, state, statement).and_then(|()| connection.run(statement));
        watch::end();
        match result {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                state.note(connection, &error);
                return Err(error);
            }
        }
    }
    Ok(answers)
}

/// # Errors
/// The statement writes, in a transaction that only reads.
fn allowed(connection: &mut Connection<'_>, state: &SessionState, statement: &Statement) -> Result<(), Error> {
    if state.read_only && !connection.reads(statement)? {
        let error = Error::mistake("this transaction is read-only, and the statement writes");
        return Err(error.in_sql(statement.sql().source(), None));
    }
    Ok(())
}

fn save(connection: &mut Connection<'_>, state: &mut SessionState) -> Result<(), Error> {
    if let Some(error) = state.refusal() {
        return Err(error);
    }
    connection.own("SAVEPOINT rover")?;
    state.depth += 1;
    Ok(())
}

fn release(connection: &mut Connection<'_>, state: &mut SessionState) -> Result<(), Error> {
    if let Some(error) = state.failure() {
        return Err(error);
    }
    if state.depth == 0 {
        return Err(Error::mistake("there is no savepoint"));
    }
    connection.own("RELEASE rover")?;
    state.depth -= 1;
    Ok(())
}

fn roll_back_to(connection: &mut Connection<'_>, state: &mut SessionState) -> Result<(), Error> {
    if state.depth == 0 {
        return Err(Error::mistake("there is no savepoint"));
    }
    let depth = state.depth;
    state.depth -= 1;
    if connection.is_free() {
        // The whole transaction has gone; what failed stays failed.
        return Ok(());
    }
    connection.own("ROLLBACK TO rover")?;
    connection.own("RELEASE rover")?;
    if state
        .failed
        .as_ref()
        .is_some_and(|(at, error)| *at >= depth && !matches!(error.class(), Class::Unavailable(Outage::Lost)))
    {
        state.failed = None;
    }
    Ok(())
}
