//! A database, whatever its engine.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::figures::{Slow, Stats};
use crate::rows::Answer;
use crate::settings::{Begin, Settings};
use crate::sql::{Dialect, Statement};
use crate::sqlite::Sqlite;
use crate::stream::Stream;

/// A database that is open. A clone is the same one; it closes when the last is dropped.
#[derive(Clone)]
pub struct Database(Engine);

#[derive(Clone)]
enum Engine {
    Sqlite(Sqlite),
}

impl Database {
    /// Opens a database. The file is opened by the first statement.
    ///
    /// # Errors
    /// Its name cannot be used.
    pub fn open(settings: &Settings) -> Result<Database, Error> {
        Ok(Database(Engine::Sqlite(Sqlite::open(settings)?)))
    }

    /// Whose SQL it understands.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match &self.0 {
            Engine::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// What it was opened with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        match &self.0 {
            Engine::Sqlite(sqlite) => sqlite.settings(),
        }
    }

    /// Tells of statements that took longer than `slow` of the settings. It is called on the database's thread.
    pub fn tell_of_slow(&self, tell: impl Fn(&Slow<'_>) + Send + Sync + 'static) {
        match &self.0 {
            Engine::Sqlite(sqlite) => sqlite.tell_of_slow(Arc::new(tell)),
        }
    }

    /// What it has done, and does now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match &self.0 {
            Engine::Sqlite(sqlite) => sqlite.stats(),
        }
    }

    /// Runs a statement; what it writes is committed when this returns.
    ///
    /// # Cancel safety
    /// Dropped, the statement is interrupted, or not begun: it has happened or not, as a whole.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(&self, statement: Statement) -> Result<Answer, Error> {
        only(self.batch(vec![statement]).await?)
    }

    /// Runs statements in order, all or none.
    ///
    /// # Errors
    /// One has failed, and none has happened.
    pub async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Answer>, Error> {
        match &self.0 {
            Engine::Sqlite(sqlite) => sqlite.run(statements).await,
        }
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn begin(&self, begin: Begin) -> Result<Transaction, Error> {
        Ok(Transaction(match &self.0 {
            Engine::Sqlite(sqlite) => sqlite.begin(begin).await?,
        }))
    }

    /// Runs a statement that reads, and brings its rows as they are wanted.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stream(&self, statement: Statement) -> Result<Stream, Error> {
        match &self.0 {
            Engine::Sqlite(sqlite) => sqlite.stream(statement).await,
        }
    }

    /// Gives the handle back and waits until the database is closed, for at most `limit`. Tells whether it is; others may
    /// still have it.
    #[must_use]
    pub fn close(self, limit: Duration) -> bool {
        match self.0 {
            Engine::Sqlite(sqlite) => sqlite.close(limit),
        }
    }
}

/// The answer to one statement.
fn only(mut answers: Vec<Answer>) -> Result<Answer, Error> {
    answers.pop().ok_or_else(|| Error::mistake("the statement has no answer"))
}

/// A transaction. Dropped, it is rolled back.
///
/// Once a statement in it has failed it cannot be committed; within a savepoint, only what is outside can.
pub struct Transaction(crate::sqlite::Session);

impl Transaction {
    /// Runs a statement. Dropped meanwhile it is interrupted, and the transaction has failed.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(&self, statement: Statement) -> Result<Answer, Error> {
        only(self.batch(vec![statement]).await?)
    }

    /// Runs statements in order until one fails.
    ///
    /// # Errors
    /// One has failed.
    pub async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Answer>, Error> {
        self.0.run(statements).await
    }

    /// Runs a statement that reads. The transaction does nothing else until the stream has ended.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stream(&self, statement: Statement) -> Result<Stream, Error> {
        self.0.stream(statement).await
    }

    /// Sets a savepoint, within the last one.
    ///
    /// # Errors
    /// The transaction has failed.
    pub async fn save(&self) -> Result<(), Error> {
        self.0.save().await
    }

    /// Keeps what has happened since the last savepoint, as a part of what is around it.
    ///
    /// # Errors
    /// A statement has failed since: the error that it failed with.
    pub async fn release(&self) -> Result<(), Error> {
        self.0.release().await
    }

    /// Undoes what has happened since the last savepoint, and forgets that it failed.
    ///
    /// # Errors
    /// There is none.
    pub async fn roll_back_to(&self) -> Result<(), Error> {
        self.0.roll_back_to().await
    }

    /// Commits. Once it was polled it goes on to its end, whoever is there to see it.
    ///
    /// # Errors
    /// Nothing has happened: a statement had failed, with this error, or the commit did.
    pub async fn commit(self) -> Result<(), Error> {
        self.0.commit().await
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// The connection is gone, and everything is undone as well.
    pub async fn roll_back(self) -> Result<(), Error> {
        self.0.roll_back().await
    }
}
