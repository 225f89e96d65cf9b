//! The byte stream under a connection: what hyper writes during one turn goes out in one system call.
//!
//! hyper flushes after every response, so sixteen pipelined requests would cost sixteen writes; its own remedy
//! (`pipeline_flush`) loses what was written before a malformed request, the 400 for it included. So hyper's writes are
//! collected here, and the connection's task [flushes](Socket::poll_flush) once at the end of its turn. The buffer
//! belongs to the connection only while bytes wait in it: an idle connection holds none.
//!
//! Comes in: an accepted stream. Goes out: hyper's `Read` and `Write`. Of HTTP this module knows how a client's bytes are
//! divided into messages (`preface`, `framing`), and nothing of what they mean.

mod framing;
mod handle;
mod incoming;
mod preface;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

pub(crate) use framing::Fault;
use framing::Framing;
pub(crate) use handle::SocketHandle;
use incoming::{Incoming, Mode, SPOILED};
use preface::Preface;
pub(crate) use preface::Spoken;

/// A stream that a client is at the other end of.
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// One of the others, encrypted. Boxed, for the state of a session is large.
    Tls(Box<TlsStream<Transport>>),
    /// Anything else that carries bytes.
    #[cfg_attr(not(feature = "bench_support"), allow(dead_code, reason = "only benches bring one"))]
    Other(Box<dyn Duplex>),
}

/// A stream that is neither of the kernel's.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

macro_rules! each_transport {
    ($transport:expr, $stream:ident => $call:expr) => {
        match $transport {
            Transport::Tcp($stream) => $call,
            Transport::Unix($stream) => $call,
            Transport::Tls($stream) => $call,
            Transport::Other($stream) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each_transport!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each_transport!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each_transport!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_transport!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_transport!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl Transport {
    /// Whether the system knows that the client has closed its side, although there may be bytes to be read before that.
    fn has_left(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        // Nothing urgent ever comes: this is ready only at the end.
        let ready = match self {
            Transport::Tcp(stream) => pin!(stream.ready(Interest::PRIORITY)).poll(&mut cx),
            Transport::Unix(stream) => pin!(stream.ready(Interest::PRIORITY)).poll(&mut cx),
            Transport::Tls(stream) => return stream.get_ref().0.has_left(),
            Transport::Other(_) => return false,
        };
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }
}

/// How much is collected, in bytes. Longer writes go to the system as they are, without a copy.
const COLLECT_MOST: usize = 32 * 1024;

/// Write buffers of one worker that no connection needs at the moment, and the bytes that went through all of them.
#[derive(Default)]
pub(crate) struct SpareBuffers {
    buffers: RefCell<Vec<Vec<u8>>>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl SpareBuffers {
    /// How many are kept.
    const MOST: usize = 8;

    fn take(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// The bytes that all connections of the worker have received and sent.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.received.get(), self.sent.get())
    }

    #[inline]
    fn count_received(&self, length: u64) {
        self.received.set(self.received.get() + length);
    }

    #[inline]
    fn count_sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &written {
            self.sent.set(self.sent.get() + *n as u64);
        }
        written
    }

    fn put_back(&self, mut buffer: Vec<u8>) {
        let mut spare = self.buffers.borrow_mut();
        if spare.len() < Self::MOST {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

struct SocketState {
    io: TokioIo<Incoming>,
    /// Collected bytes; those before `sent` are out.
    waiting: Vec<u8>,
    sent: usize,
    is_shut: bool,
    /// What is written goes out only when the transport is flushed.
    is_tls: bool,
    /// Changes whenever the client has taken something.
    moved: u64,
}

/// What a client has said beforehand that it will speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agreed {
    /// Its first bytes tell.
    Nothing,
    Http1,
    Http2,
}

/// How far a client has got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Bytes read from it.
    pub(crate) read: u64,
    /// Changes whenever it has taken something.
    pub(crate) moved: u64,
    /// Something waits for it to take more.
    pub(crate) is_blocked: bool,
}

/// A stream that hyper and the connection's task share.
pub(crate) struct Socket {
    inner: RefCell<SocketState>,
    spare: Rc<SpareBuffers>,
}

impl Socket {
    /// Wraps an accepted stream. `agreed` is what the client has said that it will speak, where it has; in HTTP/1 its
    /// messages are looked at unless the server `is_lenient`.
    pub(crate) fn new(transport: Transport, agreed: Agreed, spare: Rc<SpareBuffers>, is_lenient: bool) -> Rc<Socket> {
        let is_tls = matches!(transport, Transport::Tls(_));
        let mode = match agreed {
            Agreed::Http1 => Mode::Plain,
            Agreed::Http2 => Mode::Opening(Box::new(Preface::expected())),
            Agreed::Nothing => Mode::Opening(Box::new(Preface::possible())),
        };
        let framing = (agreed != Agreed::Http2 && !is_lenient).then(Framing::new);
        let inner = SocketState {
            io: TokioIo::new(Incoming::new(transport, mode, framing)),
            waiting: Vec::new(),
            sent: 0,
            is_shut: false,
            is_tls,
            moved: 0,
        };
        Rc::new(Socket { inner: RefCell::new(inner), spare })
    }

    /// What the client speaks, once its first bytes are there.
    pub(crate) fn spoken(&self) -> Option<Spoken> {
        match &self.inner.borrow().io.inner().mode {
            Mode::Opening(preface) => preface.spoken(),
            Mode::Plain | Mode::Ended | Mode::Refused(_) | Mode::Held(_) => Some(Spoken::Http1),
        }
    }

    /// hyper has read a request.
    #[inline]
    pub(crate) fn begin_request(&self) {
        self.inner.borrow_mut().io.inner_mut().begin_request();
    }

    /// The request just begun has a body, so long where it is not in chunks.
    #[cold]
    pub(crate) fn begin_body(&self, length: Option<u64>) {
        self.inner.borrow_mut().io.inner_mut().begin_body(length);
    }

    /// What is wrong with the body of the request that was begun last, as far as it has been read.
    #[cold]
    pub(crate) fn body_fault(&self) -> Option<Fault> {
        self.inner.borrow().io.inner().body_fault()
    }

    /// The request just begun may end in a switch to another protocol, as long as `is_open` says so: what follows it need
    /// not be HTTP.
    #[cold]
    pub(crate) fn begin_switch(&self, is_open: impl Fn() -> bool + 'static) {
        self.inner.borrow_mut().io.inner_mut().begin_switch(Box::new(is_open));
    }

    /// What hyper has not got of what was read, for whoever takes the connection over.
    pub(crate) fn take_rest(&self) -> Vec<u8> {
        self.inner.borrow_mut().io.inner_mut().take_rest()
    }

    /// The beginning of the head that hyper has read last, as far as it is known.
    #[cold]
    pub(crate) fn head(&self) -> Vec<u8> {
        self.inner.borrow().io.inner().head()
    }

    /// What is wrong with the head that hyper has refused, where it is that. Takes off its end what hyper has got in place
    /// of its first wrong byte.
    pub(crate) fn take_fault(&self, head: &mut Bytes) -> Option<Fault> {
        let fault = self.inner.borrow().io.inner().head_fault()?;
        if head.ends_with(SPOILED) {
            head.truncate(head.len() - SPOILED.len());
        }
        Some(fault)
    }

    /// Whether the client has closed its side; to be asked at the beginning of each turn.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.inner.borrow_mut().io.inner_mut().begin_turn()
    }

    /// The same, also where nobody has read so far.
    #[cold]
    pub(crate) fn has_left(&self) -> bool {
        self.inner.borrow().io.inner().transport.has_left()
    }

    /// Holds the end of a client back while the rest of its answer `is_working` its way here.
    #[cold]
    pub(crate) fn hold_end(&self, cx: &Context<'_>, is_working: bool) {
        self.inner.borrow_mut().io.inner_mut().working(cx, is_working);
    }

    /// Bytes read from the client.
    #[inline]
    pub(crate) fn read_so_far(&self) -> u64 {
        self.inner.borrow().io.inner().read
    }

    /// How far the client has got with sending and taking.
    pub(crate) fn traffic(&self) -> Traffic {
        let inner = self.inner.borrow();
        let incoming = inner.io.inner();
        let is_blocked = incoming.is_blocked || !inner.waiting.is_empty();
        Traffic { read: incoming.read, moved: inner.moved, is_blocked }
    }

    /// Whether hyper has bytes for which there is no room: its last message is not whole yet.
    pub(crate) fn is_blocked(&self) -> bool {
        self.inner.borrow().io.inner().is_blocked
    }

    /// Changes what waits to be sent.
    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Vec<u8>)) {
        edit(&mut self.inner.borrow_mut().waiting);
    }

    /// Puts `bytes` between two messages of hyper's, which must be at such a place. False where hyper has yet to get rid of
    /// an earlier one, or where there is no room.
    #[cold]
    pub(crate) fn interject(&self, bytes: &[u8]) -> bool {
        let Ok(mut inner) = self.inner.try_borrow_mut() else { return false };
        if inner.io.inner().is_blocked || inner.is_shut || inner.waiting.len() + bytes.len() > COLLECT_MOST {
            return false;
        }
        if inner.waiting.capacity() == 0 {
            inner.waiting = self.spare.take();
        }
        inner.waiting.extend_from_slice(bytes);
        true
    }

    /// Sends what has been collected.
    ///
    /// # Errors
    /// What the system says about the stream.
    #[inline]
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.borrow_mut().poll_send(cx, &self.spare)
    }

    /// Sends what has been collected, and tells the client that nothing follows.
    ///
    /// # Errors
    /// What the system says about the stream.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        if inner.is_shut {
            return Poll::Ready(Ok(()));
        }
        ready!(inner.poll_send(cx, &self.spare))?;
        ready!(Pin::new(inner.transport()).poll_shutdown(cx))?;
        inner.is_shut = true;
        Poll::Ready(Ok(()))
    }

    /// Reads what the client sends, past hyper: for a connection that has left HTTP.
    ///
    /// # Errors
    /// What the system says about the stream.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        let before = buf.filled().len();
        let read = Pin::new(inner.transport()).poll_read(cx, buf);
        let received = (buf.filled().len() - before) as u64;
        inner.io.inner_mut().read += received;
        self.spare.count_received(received);
        read
    }

    /// Collects bytes, or sends where there are many: for a connection that has left HTTP.
    ///
    /// # Errors
    /// What the system says about the stream.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inner.borrow_mut().poll_take(cx, buf, &self.spare)
    }

    /// Reads and drops what the client still sends; ready when it has closed its side, or failed.
    ///
    /// Closing a stream that holds unread bytes resets it, and may destroy the response on its way; see RFC 9112,
    /// section 9.6.
    pub(crate) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        loop {
            let mut buf = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(inner.transport()).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl SocketState {
    fn transport(&mut self) -> &mut Transport {
        &mut self.io.inner_mut().transport
    }

    /// The client has taken something.
    #[inline]
    fn has_moved(&mut self) {
        self.moved += 1;
        self.io.inner_mut().sent();
    }

    #[inline]
    fn poll_send(&mut self, cx: &mut Context<'_>, spare: &SpareBuffers) -> Poll<io::Result<()>> {
        if self.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.waiting.len() {
            let n = ready!(Pin::new(&mut self.io.inner_mut().transport).poll_write(cx, &self.waiting[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
            self.has_moved();
            spare.sent.set(spare.sent.get() + n as u64);
        }
        if self.is_tls {
            ready!(Pin::new(self.transport()).poll_flush(cx))?;
        }
        self.sent = 0;
        spare.put_back(std::mem::take(&mut self.waiting));
        Poll::Ready(Ok(()))
    }

    /// Makes room, and gives how many of `length` bytes the buffer takes. Where they would never fit, they go to the
    /// transport as they are, which is 0 here; TLS copies in any case.
    fn poll_room(&mut self, cx: &mut Context<'_>, length: usize, spare: &SpareBuffers) -> Poll<io::Result<usize>> {
        if self.waiting.len() + length > COLLECT_MOST {
            ready!(self.poll_send(cx, spare))?;
            if length > COLLECT_MOST && !self.is_tls {
                return Poll::Ready(Ok(0));
            }
        }
        if self.waiting.capacity() == 0 {
            self.waiting = spare.take();
        }
        Poll::Ready(Ok(length.min(COLLECT_MOST)))
    }

    #[inline]
    fn poll_take(&mut self, cx: &mut Context<'_>, buf: &[u8], spare: &SpareBuffers) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_room(cx, buf.len(), spare))?;
        if room == 0 && !buf.is_empty() {
            let written = ready!(spare.count_sent(Pin::new(self.transport()).poll_write(cx, buf)));
            self.has_moved();
            return Poll::Ready(written);
        }
        self.waiting.extend_from_slice(&buf[..room]);
        Poll::Ready(Ok(room))
    }

    #[inline]
    fn poll_take_vectored(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        spare: &SpareBuffers,
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        let room = ready!(self.poll_room(cx, length, spare))?;
        if room == 0 && length > 0 {
            let written = ready!(spare.count_sent(Pin::new(self.transport()).poll_write_vectored(cx, bufs)));
            self.has_moved();
            return Poll::Ready(written);
        }
        let mut left = room;
        for buf in bufs {
            let n = buf.len().min(left);
            self.waiting.extend_from_slice(&buf[..n]);
            left -= n;
        }
        Poll::Ready(Ok(room))
    }
}
