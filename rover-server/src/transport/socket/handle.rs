//! hyper's handle to a connection: it reads from the transport, and its writes wait for the end of the turn.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::Socket;

/// hyper's end of a [`Socket`].
pub(crate) struct SocketHandle(pub(crate) Rc<Socket>);

impl Read for SocketHandle {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.inner.borrow_mut();
        let before = inner.io.inner().read;
        let read = Pin::new(&mut inner.io).poll_read(cx, buf);
        let received = inner.io.inner().read - before;
        self.0.spare.count_received(received);
        read
    }
}

impl Write for SocketHandle {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.inner.borrow_mut();
        let written = inner.poll_take(cx, buf, &self.0.spare);
        inner.io.inner_mut().blocked(cx, written.is_pending());
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.inner.borrow_mut();
        let written = inner.poll_take_vectored(cx, bufs, &self.0.spare);
        inner.io.inner_mut().blocked(cx, written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Ready at once: the connection's task flushes at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ready at once: the connection's task closes when it has had the last word.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
