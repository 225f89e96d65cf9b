//! Runs blocking work of the standard library on other threads.

use crate::runtime::blocking;
use crate::store::Gate;

/// Does the work on another thread when it is its turn. The turn lasts as long as the work, even if nobody waits for it
/// any more: a stuck thread occupies its place, so no further thread is used.
///
/// # Errors
/// What the work says, or that there is too much of it, or no thread for it: then it has not been done, and will not be.
pub(super) async fn off_thread<T: Send + 'static>(
    gate: &Gate,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let Some(turn) = gate.enter().await else { return Err(TOO_MANY.to_owned()) };
    let working = blocking::run(move || {
        let _turn = turn;
        work()
    });
    working.await.unwrap_or_else(|refused| Err(refused.to_string()))
}

/// The message if the queue is full.
pub(super) const TOO_MANY: &str = "too many calls wait for their turn";

/// The system's message without the number: `No such file or directory`.
pub(super) fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
