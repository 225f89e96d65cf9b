//! Sends rows as they are wanted, from whatever thread has the connection.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::connection::Connection;
use super::{Reply, Shared, watch};
use crate::error::Error;
use crate::figures::Counted;
use crate::queue::{Ticket, Wanted};
use crate::sql::Statement;
use crate::stream::Stream;

/// Sends the rows of a statement as they are wanted.
pub(super) fn stream(
    shared: &Shared,
    connection: &mut Connection<'_>,
    statement: &Statement,
    ticket: &Arc<Ticket>,
    tell: Reply<Stream>,
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
