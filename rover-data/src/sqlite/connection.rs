//! A connection of one thread: opened as settled, and what runs on it.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, OpenFlags, Row, ToSql};

use super::{Shared, problem, watch};
use crate::error::{Class, Error, Outage};
use crate::figures::{Counted, Slow};
use crate::rows::{Answer, Column, ColumnType, Columns, Datum, Rows};
use crate::settings::{Journal, Settings, Synchronous};
use crate::sql::{Keyword, Statement};
use crate::value::Value;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Reads,
    Writes,
}

pub(super) struct Connection<'a> {
    raw: rusqlite::Connection,
    shared: &'a Shared,
    looked: Instant,
    is_broken: bool,
    /// Dropped behind `raw`: what is counted out is closed.
    _open: Counted<'a>,
}

impl<'a> Connection<'a> {
    /// Opens the database.
    ///
    /// # Errors
    /// It cannot be opened, or is no database.
    fn open(shared: &'a Shared, role: Role) -> Result<Connection<'a>, Error> {
        let settings = &shared.settings;
        shared.is_same_file()?;
        let opened = open_raw(settings, &shared.memory, shared.may_create(), role).map_err(|error| {
            let name = settings.path.as_deref().unwrap_or(Path::new(":memory:")).display();
            match problem::sort(&error) {
                error if error.is_outage() => {
                    let found = match error.class() {
                        Class::Unavailable(outage) => outage,
                        _ => Outage::CannotOpen,
                    };
                    Error::outage(found, format!("{name}: {}", error.message()))
                        .with_code(error.code().unwrap_or_default())
                }
                error => Error::outage(Outage::CannotOpen, format!("{name}: {}", error.message())),
            }
        })?;
        shared.has_opened();
        let _open = Counted::new(&shared.figures.connections);
        Ok(Connection { raw: opened, shared, looked: Instant::now(), is_broken: false, _open })
    }

    /// The connection that is kept, opened anew where it has broken; it looks after its file where the last look is `look` ago.
    ///
    /// # Errors
    /// As [`open`](Connection::open) and [`look`](Connection::look).
    pub(super) fn ready<'k>(
        shared: &'a Shared,
        kept: &'k mut Option<Connection<'a>>,
        role: Role,
        look: Duration,
    ) -> Result<&'k mut Connection<'a>, Error> {
        if kept.as_ref().is_some_and(|connection| connection.is_broken) {
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

    /// Looks whether the file is still there that was opened, where the last look is so long ago.
    ///
    /// # Errors
    /// It is not: what would be written would be lost, what is read is out of date.
    fn look(&mut self, after: Duration) -> Result<(), Error> {
        if self.looked.elapsed() < after && !self.shared.is_gone.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.shared.is_same_file()?;
        self.looked = Instant::now();
        Ok(())
    }

    /// Whether no transaction is open.
    pub(super) fn is_free(&self) -> bool {
        self.raw.is_autocommit()
    }

    /// Runs a statement of the engine's own.
    ///
    /// # Errors
    /// As SQLite has it.
    pub(super) fn own(&mut self, sql: &str) -> Result<(), Error> {
        let done = watch::own(|| {
            let mut prepared = self.raw.prepare_cached(sql)?;
            let mut rows = prepared.raw_query();
            while rows.next()?.is_some() {}
            Ok(())
        });
        done.map_err(|error| self.sorted(&error))
    }

    /// Ends whatever transaction is open.
    pub(super) fn roll_back(&mut self) {
        watch::end();
        if !self.raw.is_autocommit() && self.own("ROLLBACK").is_err() {
            self.is_broken = true;
        }
    }

    fn sorted(&mut self, error: &rusqlite::Error) -> Error {
        let error = problem::sort(error);
        self.is_broken |= problem::breaks(&error);
        error
    }

    /// Whether SQLite says that the statement only reads.
    ///
    /// # Errors
    /// It is wrong.
    pub(super) fn reads(&mut self, statement: &Statement) -> Result<bool, Error> {
        let reads = self.raw.prepare_cached(&statement.text).map(|prepared| prepared.readonly());
        reads.inspect(|reads| statement.sql.note_reads(*reads)).map_err(|error| self.failed(&error, statement))
    }

    fn failed(&mut self, error: &rusqlite::Error, statement: &Statement) -> Error {
        let error = problem::of(error, statement);
        self.is_broken |= problem::breaks(&error);
        error
    }

    /// Runs a statement and collects its rows.
    ///
    /// # Errors
    /// As SQLite has it, or the rows are too many.
    pub(super) fn run(&mut self, statement: &Statement) -> Result<Answer, Error> {
        let started = Instant::now();
        let mut answer = match statement.sql.keyword() {
            // It attaches a database of its own.
            Keyword::Vacuum => watch::own(|| self.collect(statement)),
            _ => self.collect(statement),
        };
        let took = self.ran(statement, started, answer.is_err());
        if let Ok(answer) = &mut answer {
            answer.took = took;
        }
        answer
    }

    fn collect(&mut self, statement: &Statement) -> Result<Answer, Error> {
        let mut rows = Rows::new();
        let limit = self.shared.settings.answer_limit;
        let collected = self.step(statement, |row| {
            push_row(&mut rows, row, statement)?;
            if rows.size() > limit {
                let message = format!("the answer is larger than {limit} bytes: read it with stream");
                return Err(Stepped::Error(Error::mistake(message)));
            }
            Ok(())
        });
        let columns = collected?;
        if let Some(columns) = columns {
            rows.set_columns(columns);
        }
        let mut answer = Answer { rows, affected: 0, id: None, took: Duration::ZERO };
        if matches!(statement.sql.keyword(), Keyword::Insert | Keyword::Changes | Keyword::With)
            && !statement.sql.reads()
        {
            answer.affected = self.raw.changes();
            let has_id = statement.sql.keyword() == Keyword::Insert && answer.affected > 0;
            answer.id = Some(self.raw.last_insert_rowid()).filter(|_| has_id);
        }
        Ok(answer)
    }

    /// Runs a statement and gives each row to `take`; brings the columns where there is no row.
    fn step(
        &mut self,
        statement: &Statement,
        mut take: impl FnMut(&Row<'_>) -> Result<(), Stepped>,
    ) -> Result<Option<std::sync::Arc<Columns>>, Error> {
        let outcome = (|| {
            let mut prepared = self.raw.prepare_cached(&statement.text)?;
            statement.sql.note_reads(prepared.readonly());
            bind(&mut prepared, statement)?;
            let mut rows = prepared.raw_query();
            let mut has_rows = false;
            while let Some(row) = rows.next()? {
                has_rows = true;
                take(row)?;
            }
            drop(rows);
            Ok(if has_rows { None } else { Some(columns_of(&prepared, statement)) })
        })();
        match outcome {
            Ok(columns) => Ok(columns),
            Err(Stepped::Sqlite(error)) => Err(self.failed(&error, statement)),
            Err(Stepped::Error(error)) => Err(error.in_sql(statement.sql.source(), None)),
        }
    }

    /// Runs a statement and gives its rows to `send` in portions, the first of them soon.
    ///
    /// # Errors
    /// As SQLite has it. `send` ends it by saying that nobody wants more.
    pub(super) fn stream(&mut self, statement: &Statement, mut send: impl FnMut(Rows) -> bool) -> Result<(), Error> {
        /// As many rows as one portion has, after the first.
        const MOST_ROWS: usize = 256;
        /// As many bytes, unless one row has more.
        const MOST_BYTES: usize = 64 << 10;
        let started = Instant::now();
        let mut portion = Rows::new();
        let mut most = 16;
        let mut is_wanted = true;
        let done = self.step(statement, |row| {
            push_row(&mut portion, row, statement)?;
            if portion.len() < most && portion.size() < MOST_BYTES {
                return Ok(());
            }
            most = MOST_ROWS;
            is_wanted = send(std::mem::replace(&mut portion, Rows::new()));
            if is_wanted { Ok(()) } else { Err(Stepped::Error(Error::outage(Outage::Cancelled, "cancelled"))) }
        });
        self.ran(statement, started, done.is_err() && is_wanted);
        if !is_wanted {
            return Ok(());
        }
        if let Some(columns) = done? {
            portion.set_columns(columns);
        }
        send(portion);
        Ok(())
    }

    /// Counts a statement, and tells of it where it was slow.
    fn ran(&mut self, statement: &Statement, started: Instant, has_failed: bool) -> Duration {
        let took = started.elapsed();
        self.shared.figures.ran(took, has_failed);
        if self.shared.settings.slow.is_some_and(|slow| took >= slow)
            && let Some(tell) = self.shared.tell.lock().clone()
        {
            let plan = self.plan(statement);
            tell(&Slow { sql: statement.sql.source(), place: statement.place.as_deref(), took, plan });
        }
        took
    }

    /// How SQLite runs the statement.
    fn plan(&self, statement: &Statement) -> Option<String> {
        let text = format!("EXPLAIN QUERY PLAN {}", statement.text);
        let mut prepared = self.raw.prepare(&text).ok()?;
        let mut rows = prepared.raw_query();
        let mut steps = Vec::new();
        while let Ok(Some(row)) = rows.next() {
            steps.push(row.get::<_, String>(3).unwrap_or_default());
        }
        Some(steps.join("\n")).filter(|plan| !plan.is_empty())
    }
}

/// Why stepping ended.
enum Stepped {
    Sqlite(rusqlite::Error),
    Error(Error),
}

impl From<rusqlite::Error> for Stepped {
    fn from(error: rusqlite::Error) -> Stepped {
        Stepped::Sqlite(error)
    }
}

impl From<Error> for Stepped {
    fn from(error: Error) -> Stepped {
        Stepped::Error(error)
    }
}

pub(super) fn open_raw(
    settings: &Settings,
    memory: &str,
    may_create: bool,
    role: Role,
) -> rusqlite::Result<rusqlite::Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags |= match settings.read_only {
        true => OpenFlags::SQLITE_OPEN_READ_ONLY,
        false => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    if may_create && !settings.read_only {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let mut raw = match &settings.path {
        Some(path) => rusqlite::Connection::open_with_flags(path, flags)?,
        None => rusqlite::Connection::open_with_flags(memory, flags | OpenFlags::SQLITE_OPEN_URI)?,
    };
    watch::install(&mut raw, settings.busy_timeout)?;
    // Else a name in double quotes that is no column's is a string, and `where "nmae" = 'nmae'` means every row.
    raw.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    raw.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    raw.set_prepared_statement_cache_capacity(settings.statement_cache);
    watch::own(|| {
        let is_wal = settings.path.is_some() && settings.journal == Journal::Wal;
        if role == Role::Writes && !settings.read_only && settings.path.is_some() {
            raw.pragma_update(None, "journal_mode", if is_wal { "wal" } else { "delete" })?;
        }
        let synchronous = match settings.synchronous {
            Synchronous::Full => "full",
            // Without the log, only `full` survives a power loss.
            Synchronous::Normal if is_wal => "normal",
            Synchronous::Normal => "full",
        };
        raw.pragma_update(None, "synchronous", synchronous)?;
        raw.pragma_update(None, "foreign_keys", true)?;
        raw.pragma_update(None, "trusted_schema", false)?;
        if role == Role::Reads {
            raw.pragma_update(None, "query_only", true)?;
        }
        // The first look at the file: whether it is a database at all.
        raw.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    })?;
    Ok(raw)
}

struct Bound<'a>(&'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Bool(value) => ValueRef::Integer(i64::from(*value)),
            Value::Integer(value) => ValueRef::Integer(*value),
            Value::Real(value) => ValueRef::Real(*value),
            Value::Text(bytes) => ValueRef::Text(bytes),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn bind(prepared: &mut CachedStatement<'_>, statement: &Statement) -> Result<(), Stepped> {
    let expected = prepared.parameter_count();
    if expected != statement.values.len() {
        let message = format!("SQLite finds {expected} placeholders where {} were read", statement.values.len());
        return Err(Error::mistake(message).into());
    }
    for (n, value) in (1..).zip(&statement.values) {
        if matches!(value, Value::Real(value) if value.is_nan()) {
            return Err(Error::mistake(format!("value {n} is NaN, of which SQLite would make NULL")).into());
        }
        prepared.raw_bind_parameter(n, Bound(value))?;
    }
    Ok(())
}

/// How values of a column of this type are to be read.
fn kind_of(declared: Option<&str>) -> ColumnType {
    let Some(declared) = declared else { return ColumnType::Plain };
    match () {
        () if declared.eq_ignore_ascii_case("boolean") || declared.eq_ignore_ascii_case("bool") => ColumnType::Boolean,
        () if declared.eq_ignore_ascii_case("json") => ColumnType::Json,
        () => ColumnType::Plain,
    }
}

fn columns_of(prepared: &rusqlite::Statement<'_>, statement: &Statement) -> std::sync::Arc<Columns> {
    let columns = || prepared.columns();
    statement.sql.share_columns(
        |known| {
            known.len() == prepared.column_count()
                && known
                    .iter()
                    .zip(columns())
                    .all(|(known, column)| &*known.name == column.name() && known.kind == kind_of(column.decl_type()))
        },
        || {
            let columns =
                columns().map(|column| Column { name: column.name().into(), kind: kind_of(column.decl_type()) });
            Columns::new(columns.collect())
        },
    )
}

fn push_row(rows: &mut Rows, row: &Row<'_>, statement: &Statement) -> Result<(), Stepped> {
    if rows.is_empty() {
        // A change of the schema is noticed by the first step: only now the columns are known.
        rows.set_columns(columns_of(row.as_ref(), statement));
    }
    let columns = rows.columns().clone();
    for (n, column) in columns.iter().enumerate() {
        let value = match (row.get_ref(n)?, column.kind) {
            (ValueRef::Null, _) => Datum::Null,
            (ValueRef::Integer(value @ (0 | 1)), ColumnType::Boolean) => Datum::Bool(value == 1),
            (ValueRef::Integer(value), _) => Datum::Integer(value),
            (ValueRef::Real(value), _) => Datum::Real(value),
            (ValueRef::Text(bytes), ColumnType::Json) => Datum::Json(bytes),
            (ValueRef::Text(bytes), _) => Datum::Text(bytes),
            (ValueRef::Blob(bytes), _) => Datum::Blob(bytes),
        };
        rows.push(value)?;
    }
    rows.end_row();
    Ok(())
}
