//! Rows on their way from a thread of the engine to whoever reads them.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::error::Error;
use crate::queue::Wanted;
use crate::rows::{Columns, Rows};

/// Rows as they come. Dropping it ends the statement.
pub struct Stream {
    pub(crate) columns: Arc<Columns>,
    pub(crate) rows: mpsc::Receiver<Result<Rows, Error>>,
    pub(crate) _wanted: Wanted,
}

impl Stream {
    /// The columns of the rows.
    #[must_use]
    pub fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// The next rows, or `None` behind the last.
    ///
    /// # Errors
    /// The statement has failed.
    pub async fn next(&mut self) -> Result<Option<Rows>, Error> {
        self.rows.recv().await.transpose()
    }
}
