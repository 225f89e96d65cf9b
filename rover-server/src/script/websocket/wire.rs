//! Speaks the protocol, by tungstenite, over a connection that has left HTTP.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes};

use crate::transport::upgrade::Upgraded;

use super::client::Outgoing;

/// How much is read at once, and what an idle client takes for it, in bytes.
const READ_BUFFER: usize = 4096;

/// How many bytes of answers to pings may wait for a client that does not read them, until it is not read from either.
const MOST_OWED: usize = 64 * 1024;

/// What a client sent.
pub(super) enum Event {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// A ping, which is answered already, or a pong.
    Sign,
    /// The client has sent a close; the answer is on its way.
    Close,
}

impl Event {
    /// The length of a message, in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Event::Text(text) => text.len(),
            Event::Binary(bytes) => bytes.len(),
            Event::Sign | Event::Close => 0,
        }
    }
}

/// Why nothing more comes.
pub(super) enum End {
    /// Both sides have sent a close.
    Closed,
    /// The connection is gone.
    Cut,
    /// The client broke the protocol: the code and reason to close with.
    Wrong(u16, &'static str),
}

/// A WebSocket.
pub(super) struct Wire {
    socket: WebSocket<Io>,
    /// What has been written last waits for the client to read.
    is_blocked: bool,
    /// The bytes of answers to pings that may wait in tungstenite, which knows no bound for them.
    owed: usize,
}

impl Wire {
    pub(super) fn new(upgraded: Upgraded, max_message: u64) -> Wire {
        let most = usize::try_from(max_message).unwrap_or(usize::MAX);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(most))
            .max_frame_size(Some(most));
        let io = Io { upgraded, waker: Waker::noop().clone(), received: 0, written: 0 };
        Wire { socket: WebSocket::from_raw_socket(io, Role::Server, Some(config)), is_blocked: false, owed: 0 }
    }

    /// Says which task goes on when the connection is ready. To be called before the others.
    pub(super) fn set_waker(&mut self, waker: &Waker) {
        let own = &mut self.socket.get_mut().waker;
        if !own.will_wake(waker) {
            *own = waker.clone();
        }
    }

    pub(super) fn poll_read(&mut self) -> Poll<Result<Event, End>> {
        let end = match self.socket.read() {
            Ok(Message::Text(text)) => return Poll::Ready(Ok(Event::Text(text))),
            Ok(Message::Binary(bytes)) => return Poll::Ready(Ok(Event::Binary(bytes))),
            Ok(Message::Close(_)) => return Poll::Ready(Ok(Event::Close)),
            Ok(Message::Ping(payload)) => {
                const HEAD: usize = 2;
                self.owed += HEAD + payload.len();
                return Poll::Ready(Ok(Event::Sign));
            }
            Ok(_) => return Poll::Ready(Ok(Event::Sign)),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            Err(Error::ConnectionClosed) => End::Closed,
            Err(Error::Utf8(_)) => End::Wrong(1007, "a text message is not UTF-8"),
            Err(Error::Capacity(_)) => End::Wrong(1009, "the message is too large"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => End::Cut,
            Err(Error::Protocol(_) | Error::AttackAttempt) => End::Wrong(1002, "the protocol was broken"),
            Err(_) => End::Cut,
        };
        Poll::Ready(Err(end))
    }

    /// Sends a message, of which a part may be left for [`poll_flush`](Wire::poll_flush); that must be ready before the next.
    ///
    /// # Errors
    /// Nothing more can be sent.
    pub(super) fn write(&mut self, message: Outgoing) -> Result<(), End> {
        let message = match message {
            Outgoing::Text(text) => Message::Text(text),
            Outgoing::Binary(bytes) => Message::Binary(bytes),
            Outgoing::Close(code, reason) => Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason })),
        };
        let written = self.socket.write(message);
        self.note(written)
    }

    /// Asks the client for a sign of life.
    ///
    /// # Errors
    /// Nothing more can be sent.
    pub(super) fn ping(&mut self) -> Result<(), End> {
        let written = self.socket.write(Message::Ping(Bytes::new()));
        self.note(written)
    }

    /// Sends what is left.
    pub(super) fn poll_flush(&mut self) -> Poll<Result<(), End>> {
        let flushed = self.socket.flush();
        let flushed = self.note(flushed);
        if flushed.is_ok() && self.is_blocked { Poll::Pending } else { Poll::Ready(flushed) }
    }

    fn note(&mut self, done: Result<(), Error>) -> Result<(), End> {
        self.is_blocked = false;
        match done {
            Ok(()) => {
                self.owed = 0;
                Ok(())
            }
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                self.is_blocked = true;
                Ok(())
            }
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Err(End::Closed),
            // The client was the first to close; what was to be sent is dropped.
            Err(Error::Protocol(ProtocolError::SendAfterClosing)) => Ok(()),
            Err(_) => Err(End::Cut),
        }
    }

    /// Whether the client has yet to read what was sent.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked
    }

    /// Whether nothing more should be read before the client has read what it was sent.
    pub(super) fn is_full(&self) -> bool {
        self.owed >= MOST_OWED
    }

    /// How many bytes have come so far.
    pub(super) fn received(&self) -> u64 {
        self.socket.get_ref().received
    }

    /// How many bytes have been sent so far.
    pub(super) fn written(&self) -> u64 {
        self.socket.get_ref().written
    }

    /// Closes this side of the connection below the protocol, as far as that goes without waiting. May be called again.
    pub(super) fn shut(&mut self, cx: &mut Context<'_>) {
        let _ = Pin::new(&mut self.socket.get_mut().upgraded).poll_shutdown(cx);
    }
}

/// The connection as tungstenite wants it: one that says so when it would block.
struct Io {
    upgraded: Upgraded,
    waker: Waker,
    received: u64,
    written: u64,
}

fn now<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

impl Read for Io {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(space);
        now(Pin::new(&mut self.upgraded).poll_read(&mut Context::from_waker(&self.waker), &mut buf))?;
        self.received += buf.filled().len() as u64;
        Ok(buf.filled().len())
    }
}

impl Write for Io {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = now(Pin::new(&mut self.upgraded).poll_write(&mut Context::from_waker(&self.waker), bytes))?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut self.upgraded).poll_flush(&mut Context::from_waker(&self.waker)))
    }
}
