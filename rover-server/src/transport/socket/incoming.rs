//! What comes from a client: which HTTP its first bytes speak, whether its messages are framed as they must be, and when
//! hyper learns that it has closed its side.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::Transport;
use super::framing::{Fault, Framing, Remarks, target};
use super::preface::{Preface, Spoken};

/// For how many turns in a row, without a byte sent, hyper is not told that the client has closed its side.
///
/// hyper takes the end for a client that went away, and drops the request that came just before it. A client may well
/// have said all that it had to say and wait for the answer, so a handler that does not wait gets these turns to answer:
/// one for its head, one for its body, and as many to spare. One that waits is cancelled afterwards. Turns in which the
/// answer waits for the client to read do not count, and neither do those in which Rover itself is at work on its body.
const END_HELD_BACK: u8 = 4;

/// What hyper reads in place of a head's first wrong byte, and refuses wherever that was: no part of a head may hold NUL.
/// The ends of lines make hyper look, for it waits for the end of a head that came in several reads.
pub(super) const SPOILED: &[u8; 3] = b"\0\n\n";

/// A transport that tells which HTTP is spoken on it, and holds back its end.
pub(super) struct Incoming {
    pub(super) transport: Transport,
    /// Follows the messages of HTTP/1, where they are looked at.
    framing: Option<Framing>,
    /// How many requests hyper has read.
    requests: u64,
    /// The last request to which the answer may be a switch to another protocol, and what tells that it still may.
    switching: Option<(u64, Box<dyn Fn() -> bool>)>,
    /// How reads go.
    pub(super) mode: Mode,
    /// For how many turns hyper has not been told of the end, since the last byte was sent.
    end_held_back: u8,
    /// This turn is one of them.
    is_counted: bool,
    /// hyper has bytes that the client has yet to make room for. They would be lost if hyper learned of the end now.
    pub(super) is_blocked: bool,
    /// The rest of the answer is on its way, and nothing that could be cancelled: it would be lost as well.
    is_working: bool,
    /// Bytes read so far.
    pub(super) read: u64,
}

/// How reads go; nearly all are plain.
pub(super) enum Mode {
    Plain,
    /// The first bytes are looked at.
    Opening(Box<Preface>),
    /// The client has closed its side.
    Ended,
    /// The client has sent what no message may hold. Nothing is read any more.
    Refused(Box<RefusedMessage>),
    /// Some of a read waits for the next one.
    Held(Box<Held>),
}

/// What became too long for the buffer that it was read into.
pub(super) struct Held {
    bytes: Vec<u8>,
    /// So many of them have been given away.
    given: usize,
    /// How reads go afterwards.
    then: Mode,
}

/// A message that is wrong.
pub(super) struct RefusedMessage {
    pub(super) fault: Fault,
    pub(super) in_body: bool,
    /// The number of the request that the body belongs to, or of the one before the head.
    request: u64,
    /// What came from the first wrong byte on. It is right where the connection switches to another protocol.
    pub(super) rest: Vec<u8>,
}

impl Incoming {
    pub(super) fn new(transport: Transport, mode: Mode, framing: Option<Framing>) -> Incoming {
        Incoming {
            transport,
            framing,
            requests: 0,
            switching: None,
            mode,
            end_held_back: 0,
            is_counted: false,
            is_blocked: false,
            is_working: false,
            read: 0,
        }
    }

    /// hyper has read a request.
    #[inline]
    pub(super) fn begin_request(&mut self) {
        self.requests += 1;
    }

    /// The request just begun has a body, so long where it is not in chunks.
    #[cold]
    pub(super) fn begin_body(&mut self, length: Option<u64>) {
        if let Some(framing) = &mut self.framing {
            framing.declare(length);
        }
    }

    /// What is wrong with the body of the request that was begun last, as far as it has been read.
    #[cold]
    pub(super) fn body_fault(&self) -> Option<Fault> {
        self.refused().filter(|refused| refused.in_body).map(|refused| refused.fault)
    }

    /// What is wrong with the head behind the request that was begun last.
    #[cold]
    pub(super) fn head_fault(&self) -> Option<Fault> {
        self.refused().filter(|refused| !refused.in_body).map(|refused| refused.fault)
    }

    /// What is wrong with the body of the request that was begun last, or with the head behind it.
    fn refused(&self) -> Option<&RefusedMessage> {
        let mode = match &self.mode {
            Mode::Held(held) => &held.then,
            mode => mode,
        };
        match mode {
            Mode::Refused(refused) if refused.request == self.requests => Some(refused),
            _ => None,
        }
    }

    /// The request just begun may end in a switch to another protocol, as long as `is_open` says so.
    #[cold]
    pub(super) fn begin_switch(&mut self, is_open: Box<dyn Fn() -> bool>) {
        self.switching = Some((self.requests, is_open));
    }

    /// The beginning of the last head, as far as it is known.
    pub(super) fn head(&self) -> Vec<u8> {
        self.framing.as_ref().map(Framing::begin).unwrap_or_default()
    }

    /// What the connection has read and not given to hyper, for whoever takes it over.
    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        match std::mem::replace(&mut self.mode, Mode::Plain) {
            Mode::Refused(refused) => refused.rest,
            Mode::Held(held) => {
                let Held { mut bytes, given, then } = *held;
                self.mode = then;
                bytes.drain(..given);
                bytes.extend(self.take_rest());
                bytes
            }
            other => {
                self.mode = other;
                Vec::new()
            }
        }
    }

    /// Looks at what a read has brought behind `before`, encodes what clients should have encoded, and cuts off what is
    /// wrong.
    #[inline(always)]
    fn check(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> Poll<io::Result<()>> {
        match &mut self.framing {
            Some(framing) => match framing.look(&buf.filled()[before..]) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(remarks) => self.amend(&remarks, buf, before),
            },
            None => Poll::Ready(Ok(())),
        }
    }

    #[cold]
    fn amend(&mut self, remarks: &Remarks, buf: &mut ReadBuf<'_>, before: usize) -> Poll<io::Result<()>> {
        if let Some(found) = remarks.wrong {
            let end = before + found.at;
            // Whenever hyper reads on, it has begun all requests whose heads it has.
            let (request, rest) = (self.requests + found.heads, buf.filled()[end..].to_vec());
            self.mode =
                Mode::Refused(Box::new(RefusedMessage { fault: found.fault, in_body: found.in_body, request, rest }));
            buf.set_filled(end);
        }
        if !remarks.raw.is_empty() {
            let bytes = target::encoded(&buf.filled()[before..], &remarks.raw);
            buf.set_filled(before);
            let given = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..given]);
            if given < bytes.len() {
                let then = std::mem::replace(&mut self.mode, Mode::Plain);
                self.mode = Mode::Held(Box::new(Held { bytes, given, then }));
            }
        }
        if buf.filled().len() > before { Poll::Ready(Ok(())) } else { self.poll_refused(buf) }
    }

    /// Goes on with what an earlier read had no room for.
    #[cold]
    fn read_held(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Mode::Held(held) = &mut self.mode {
            let rest = &held.bytes[held.given..];
            let length = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..length]);
            held.given += length;
            if held.given == held.bytes.len() {
                self.mode = std::mem::replace(&mut held.then, Mode::Plain);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// hyper asks for the byte that is wrong.
    #[cold]
    fn poll_refused(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Mode::Refused(refused) = &mut self.mode else { return Poll::Pending };
        // Another protocol begins behind the body of the request that asks for it.
        if let Some((request, is_open)) = &self.switching
            && *request == self.requests
            && !(refused.in_body && refused.request == *request)
            && is_open()
        {
            return Poll::Pending;
        }
        refused.rest = Vec::new();
        if refused.in_body {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refused.fault.text())));
        }
        buf.put_slice(&SPOILED[..SPOILED.len().min(buf.remaining())]);
        Poll::Ready(Ok(()))
    }

    /// To be called at the beginning of each turn: true when the client has closed its side.
    #[inline]
    pub(super) fn begin_turn(&mut self) -> bool {
        let has_ended = matches!(self.mode, Mode::Ended);
        if has_ended {
            self.is_counted = false;
        }
        has_ended
    }

    /// Bytes have been sent: an answer is on its way.
    #[inline]
    pub(super) fn sent(&mut self) {
        self.end_held_back = 0;
    }

    /// Notes whether hyper's bytes wait for the client.
    #[inline]
    pub(super) fn blocked(&mut self, cx: &Context<'_>, is_blocked: bool) {
        if self.is_blocked && !is_blocked && matches!(self.mode, Mode::Ended) {
            // hyper may have asked for the end meanwhile, and does not ask again by itself.
            cx.waker().wake_by_ref();
        }
        self.is_blocked = is_blocked;
    }

    /// Notes whether the rest of an answer is on its way.
    pub(super) fn working(&mut self, cx: &Context<'_>, is_working: bool) {
        if self.is_working && !is_working {
            cx.waker().wake_by_ref();
        }
        self.is_working = is_working;
    }

    /// Reads the first bytes, or again those that have been looked at.
    #[cold]
    fn poll_opening(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let Mode::Opening(preface) = &mut self.mode else { return Poll::Pending };
            if preface.is_decided() {
                let before = buf.filled().len();
                if preface.spoken() != Some(Spoken::Http1) {
                    self.framing = None;
                }
                if preface.give_back(buf) {
                    self.mode = Mode::Plain;
                }
                return self.check(buf, before);
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.transport).poll_read(cx, buf))?;
            self.read += (buf.filled().len() - before) as u64;
            let is_end = buf.filled().len() == before;
            let spoken = preface.take(&buf.filled()[before..], is_end);
            if spoken == Some(Spoken::Http1) && preface.is_untouched() {
                // The usual first bytes of HTTP/1.1 stay where they are.
                self.mode = if is_end { Mode::Ended } else { Mode::Plain };
                return if is_end { self.poll_end(cx) } else { self.check(buf, before) };
            }
            buf.set_filled(before);
            match spoken {
                Some(Spoken::Neither) => return Poll::Pending,
                // Who asked speaks HTTP/1.1: somebody else reads on.
                Some(Spoken::Http2) if !preface.was_expected() => return Poll::Pending,
                _ => {}
            }
        }
    }

    /// The client has closed its side: hyper learns of it later.
    #[cold]
    fn poll_end(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.is_blocked || self.is_working {
            // The write that is blocked wakes the task, or the body.
            return Poll::Pending;
        }
        if !self.is_counted {
            if self.end_held_back == END_HELD_BACK {
                return Poll::Ready(Ok(()));
            }
            self.is_counted = true;
            self.end_held_back += 1;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl AsyncRead for Incoming {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.mode {
            Mode::Plain => {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.transport).poll_read(cx, buf))?;
                let length = buf.filled().len() - before;
                this.read += length as u64;
                if length > 0 {
                    return this.check(buf, before);
                }
                this.mode = Mode::Ended;
                this.poll_end(cx)
            }
            Mode::Opening(_) => this.poll_opening(cx, buf),
            Mode::Ended => this.poll_end(cx),
            Mode::Refused(_) => this.poll_refused(buf),
            Mode::Held(_) => this.read_held(buf),
        }
    }
}
