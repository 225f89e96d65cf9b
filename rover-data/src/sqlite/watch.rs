//! What SQLite asks its thread while a statement runs: whether to go on, whether to wait for a lock, whether the app may.
//!
//! The thread's own state, not the connection's: an interrupt is an answer to the statement that runs, and can never reach
//! the next one.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::queue::Ticket;

/// How many instructions of SQLite's machine run between two looks, some tens of microseconds.
const LOOK_AFTER: i32 = 2000;

/// The longest sleep between two attempts at a lock.
const LONGEST_NAP: Duration = Duration::from_millis(5);

/// What may be written with `pragma name = value`: it is kept in the file, or lasts no longer than the statement.
const SETTABLE: &[&str] = &[
    "user_version",
    "application_id",
    "optimize",
    "wal_checkpoint",
    "incremental_vacuum",
    "auto_vacuum",
    "analysis_limit",
];

/// What takes an argument and sets nothing.
const ASKS: &[&str] = &[
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "foreign_key_check",
    "integrity_check",
    "quick_check",
];

#[derive(Default)]
struct StatementWatch {
    ticket: Option<Arc<Ticket>>,
    deadline: Option<Instant>,
    busy_from: Option<Instant>,
    /// The statement that runs is the engine's own.
    is_own: bool,
    denied: Option<&'static str>,
}

thread_local! {
    static WATCH: RefCell<StatementWatch> = RefCell::default();
}

/// Why a statement was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    TimedOut,
}

/// Installs the handlers.
pub(super) fn install(connection: &mut Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    connection.progress_handler(LOOK_AFTER, Some(|| stopped().is_some()))?;
    connection.busy_handler(Some(move |count| wait_for_lock(count, busy_timeout)))?;
    connection.authorizer(Some(authorize))
}

/// From here on, statements of this thread are watched for `ticket`, each for as long as `limit`.
pub(super) fn begin(ticket: Option<&Arc<Ticket>>, limit: Option<Duration>) {
    WATCH.with_borrow_mut(|watch| {
        watch.ticket = ticket.cloned();
        watch.deadline = limit.map(|limit| Instant::now() + limit);
        watch.denied = None;
    });
}

/// Nothing is watched any more.
pub(super) fn end() {
    WATCH.with_borrow_mut(|watch| {
        watch.ticket = None;
        watch.deadline = None;
    });
}

/// Runs a statement of the engine's own, which may do what an app's may not.
pub(super) fn own<T>(run: impl FnOnce() -> T) -> T {
    let before = WATCH.with_borrow_mut(|watch| std::mem::replace(&mut watch.is_own, true));
    let result = run();
    WATCH.with_borrow_mut(|watch| watch.is_own = before);
    result
}

/// Why the statement that runs is to stop.
pub(super) fn stopped() -> Option<Stop> {
    WATCH.with_borrow(|watch| {
        if watch.ticket.as_ref().is_some_and(|ticket| ticket.is_cancelled()) {
            return Some(Stop::Cancelled);
        }
        watch.deadline.filter(|deadline| Instant::now() >= *deadline).map(|_| Stop::TimedOut)
    })
}

/// Why the last statement was not allowed.
pub(super) fn denied() -> Option<&'static str> {
    WATCH.with_borrow_mut(|watch| watch.denied.take())
}

fn wait_for_lock(count: i32, limit: Duration) -> bool {
    let now = Instant::now();
    let from = WATCH.with_borrow_mut(|watch| {
        if count == 0 {
            watch.busy_from = Some(now);
        }
        watch.busy_from.unwrap_or(now)
    });
    if now.duration_since(from) >= limit || stopped().is_some() {
        return false;
    }
    let nap = Duration::from_micros(100) * 2_u32.saturating_pow(count.clamp(0, 10).unsigned_abs());
    std::thread::sleep(nap.min(LONGEST_NAP));
    true
}

fn authorize(context: AuthContext<'_>) -> Authorization {
    let denied = match context.action {
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            Some("a transaction would begin or end on a shared connection: use transaction(fn)")
        }
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Some("ATTACH would change a shared connection: declare a further database instead")
        }
        AuthAction::Pragma { pragma_name, pragma_value: Some(_) }
            if !SETTABLE.contains(&pragma_name) && !ASKS.contains(&pragma_name) =>
        {
            Some("this pragma would change a shared connection: such settings are options of the database")
        }
        _ => None,
    };
    let Some(reason) = denied else { return Authorization::Allow };
    WATCH.with_borrow_mut(|watch| {
        if watch.is_own {
            return Authorization::Allow;
        }
        watch.denied = Some(reason);
        Authorization::Deny
    })
}
