//! Hands a connection that leaves HTTP after a 101 to whoever speaks the other protocol.
//!
//! Comes in: with a response of status 101, the function that takes the connection over. Goes out: the [`Upgraded`]
//! connection, a plain stream of bytes that begins with the first one behind the request. hyper's own upgrades want what
//! they carry to be `Send`, which a worker's connections are not; so the function waits in a [`UpgradeSlot`] that the stages
//! share with the connection. This module must not know of HTTP.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::transport::socket::Socket;

/// Takes a connection over once its 101 has been written, for as long as the future that it gives runs.
pub(crate) type Upgrade = Box<dyn FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()>>>>;

/// The place where a connection finds its upgrade.
#[derive(Default)]
pub(crate) struct UpgradeSlot(Cell<Option<Upgrade>>);

impl UpgradeSlot {
    /// To be called when the connection's response is a 101, and then only.
    pub(crate) fn put(&self, upgrade: Upgrade) {
        self.0.set(Some(upgrade));
    }

    /// Whether something is there.
    pub(crate) fn is_full(&self) -> bool {
        let upgrade = self.0.take();
        let is_full = upgrade.is_some();
        self.0.set(upgrade);
        is_full
    }

    /// What was put there, once.
    pub(crate) fn take(&self) -> Option<Upgrade> {
        self.0.take()
    }
}

impl fmt::Debug for UpgradeSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

/// Tells upgraded connections, and others that never end by themselves, that the server stops.
#[derive(Clone, Default)]
pub(crate) struct ShutdownNotice(Rc<(Cell<bool>, Notify)>);

impl ShutdownNotice {
    /// Asks all of them to end soon; those that are left are cut after `shutdown_timeout`.
    pub(crate) fn tell(&self) {
        let (is_told, notify) = &*self.0;
        if !is_told.replace(true) {
            notify.notify_waiters();
        }
    }

    /// Waits until the server stops.
    pub(crate) async fn told(&self) {
        let (is_told, notify) = &*self.0;
        let notified = notify.notified();
        if !is_told.get() {
            notified.await;
        }
    }
}

/// A connection that has left HTTP.
///
/// What is written is collected, and sent when the task's turn ends, or before when it is flushed or grows large.
pub(crate) struct Upgraded {
    socket: Rc<Socket>,
    /// What hyper had read beyond the request.
    unread: Bytes,
    ending: ShutdownNotice,
}

impl Upgraded {
    pub(crate) fn new(socket: Rc<Socket>, unread: Bytes, ending: ShutdownNotice) -> Upgraded {
        Upgraded { socket, unread, ending }
    }

    /// Tells when the server stops.
    pub(crate) fn ending(&self) -> ShutdownNotice {
        self.ending.clone()
    }

    /// What tells, also while the connection is being used, a number that changes whenever a byte has passed.
    pub(crate) fn movement(&self) -> impl Fn() -> u64 + 'static {
        let socket = self.socket.clone();
        move || {
            let traffic = socket.traffic();
            traffic.read.wrapping_add(traffic.moved)
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return self.socket.poll_read(cx, buf);
        }
        let n = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..n]);
        self.unread.advance(n);
        if self.unread.is_empty() {
            // It may be a small part of a large buffer.
            self.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_shutdown(cx)
    }
}
