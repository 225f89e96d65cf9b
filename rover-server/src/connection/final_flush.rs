//! Ends a connection: sends what is left, closes the server's side, and waits for the client to close its own.
//!
//! Comes in: a socket that nobody else writes to any more. Goes out: the last bytes. It must not know why the connection
//! ends.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use crate::transport::socket::Socket;

/// How long a closing connection waits for its client to stop sending, at most.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Sends what is left and then the end, and reads until the client closes its side, for [`LINGER`] at most: closing a
/// socket with unread bytes could destroy the answer on its way. A client that takes nothing for `send_timeout` is
/// given up.
pub(super) async fn flush_and_linger(socket: Rc<Socket>, send_timeout: Duration) {
    if flush(&socket, send_timeout).await.is_ok() {
        let _ = timeout(LINGER, drain(&socket)).await;
    }
}

/// As [`flush_and_linger`], for a client that was not waiting for anything: nothing is waited for after the end.
pub(super) async fn flush_and_leave(socket: Rc<Socket>, send_timeout: Duration) {
    let _ = flush(&socket, send_timeout).await;
    // A request that crosses with the end is read, so that the client sees an end and no reset.
    poll_fn(|cx| {
        let _ = socket.poll_drain(cx);
        Poll::Ready(())
    })
    .await;
}

/// As [`flush_and_linger`], all of it within [`LINGER`]: a client of an upgraded protocol may never read the rest.
pub(super) async fn close_upgraded(socket: Rc<Socket>) {
    let close = async {
        if poll_fn(|cx| socket.poll_shutdown(cx)).await.is_ok() {
            drain(&socket).await;
        }
    };
    let _ = timeout(LINGER, close).await;
}

/// Reads until the client closes its side.
async fn drain(socket: &Socket) {
    poll_fn(|cx| socket.poll_drain(cx)).await;
}

/// Sends what is left, and then the end.
///
/// # Errors
/// What the system says about the stream; the client has taken nothing for `send_timeout`.
async fn flush(socket: &Socket, send_timeout: Duration) -> io::Result<()> {
    loop {
        let moved = socket.traffic().moved;
        let shut = poll_fn(|cx| match socket.poll_shutdown(cx) {
            Poll::Pending if socket.traffic().moved != moved => Poll::Ready(None),
            polled => polled.map(Some),
        });
        match timeout(send_timeout, shut).await {
            Ok(Some(shut)) => return shut,
            // The client has taken something: it has as long again.
            Ok(None) => {}
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
