//! Databases for a server that never blocks: statements go out of a task and come back to it, whatever thread runs them.
//!
//! Comes in: SQL text with placeholders and values, never values within the text. Goes out: rows, or an [`Error`] that
//! says what to do about it. This crate must know neither Lua nor HTTP. SQLite is its first engine; what the engines
//! share stands above `sqlite`.
//!
//! ```
//! # async fn example() -> Result<(), rover_data::Error> {
//! use rover_data::{Argument, Database, Settings, Sql, Value};
//!
//! let database = Database::open(&Settings::of_url("sqlite::memory:")?)?;
//! let create = Sql::read("create table books (id integer primary key, title text)", database.dialect())?;
//! database.run(create.with(vec![])?).await?;
//! let insert = Sql::read("insert into books (title) values (?)", database.dialect())?;
//! let done = database.run(insert.with(vec![Argument::One(Value::text("Dune"))])?).await?;
//! assert_eq!((done.affected, done.id), (1, Some(1)));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod database;
mod error;
mod figures;
mod migration;
pub mod migrations;
mod queue;
mod rows;
mod settings;
mod sql;
mod sqlite;
mod stream;
mod value;

pub use database::{Database, Transaction};
pub use error::{Class, Error, Outage, Violation};
pub use figures::{Slow, Stats};
pub use rows::{Answer, Column, ColumnType, Columns, Datum, Rows};
pub use settings::{Begin, Journal, Settings, Synchronous};
pub use sql::{Dialect, Sql, Statement};
pub use stream::Stream;
pub use value::{Argument, Value};
