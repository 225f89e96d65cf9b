//! Where the messages of an HTTP/1 client begin and end, and what is wrong with their framing.
//!
//! Comes in: the bytes of each read, before hyper sees them. Goes out: the place of the first one that RFC 9112 does not
//! allow. hyper's parser is lenient and has no strict switch: it takes a bare LF for the end of a line, blanks behind the
//! size of a chunk, control characters in its extensions, and cuts the fragment off a target. A server in front that
//! reads such bytes in another way sees other requests than hyper does.
//!
//! Both must find the end of each message at the same byte. For a head that is so by its grammar: every LF has a CR
//! before it, hyper refuses every CR without LF, so the head ends with its first empty line. The length of a body is
//! taken from the same two fields by the same rules: with Transfer-Encoding hyper takes chunks or refuses the head, else
//! the one Content-Length counts. A body of known length is not looked at. What cannot be known is refused.

mod chunks;
mod heads;
mod scan;

use chunks::Chunks;
use heads::{Head, Length, Step};

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    BareLf,
    Fragment,
    Length,
    ChunkSize,
    ChunkExtension,
    ChunkEnd,
    TrailerEnd,
}

impl Fault {
    /// In words, for the client.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Fault::BareLf => "a line ends in LF without CR",
            Fault::Fragment => "the request target holds a fragment",
            Fault::Length => "the Content-Length is not one number",
            Fault::ChunkSize => "the size of a chunk is not hexadecimal digits alone",
            Fault::ChunkExtension => "the extension of a chunk holds a control character",
            Fault::ChunkEnd => "a chunk does not end in CRLF",
            Fault::TrailerEnd => "a trailer does not end in CRLF",
        }
    }
}

/// The first byte that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its place in the read.
    pub(super) at: usize,
    pub(super) fault: Fault,
    /// It belongs to a body, not to a head.
    pub(super) in_body: bool,
    /// How many heads have ended within the same read before it.
    pub(super) heads: u64,
}

/// What the next byte belongs to.
enum State {
    /// A head that begins with it.
    Start,
    /// As `Start`, unless hyper [says](Framing::declare) that the last head has a body: nobody has looked yet.
    Asking,
    /// A head that an earlier read has left unfinished.
    Head(Box<Head>),
    /// The rest of a body of known length.
    Known(u64),
    Chunks(Chunks),
}

/// How much of a head is remembered, in bytes.
const REMEMBERED: usize = 64;

/// Follows the bytes of one connection.
pub(super) struct Framing {
    state: State,
    /// The number of the first request, of those that hyper has not begun, or else of the last one, whose body may be as
    /// long as either of two fields says.
    doubtful: u64,
    /// The beginning of the last head: hyper drops a head that it can split into fields, and refuses then.
    begin: [u8; REMEMBERED],
    length: u8,
}

impl Framing {
    pub(super) fn new() -> Framing {
        Framing { state: State::Start, doubtful: 0, begin: [0; REMEMBERED], length: 0 }
    }

    /// The beginning of the last head, as far as it is remembered.
    pub(super) fn begin(&self) -> &[u8] {
        &self.begin[..usize::from(self.length)]
    }

    /// Remembers a head by its first bytes, in as few instructions as that takes: none for a loop.
    #[inline(always)]
    fn remember(&mut self, head: &[u8]) {
        if let Some(begin) = head.first_chunk::<REMEMBERED>() {
            self.begin = *begin;
            self.length = REMEMBERED as u8;
        } else if let Some(begin) = head.first_chunk::<32>() {
            self.begin[..32].copy_from_slice(begin);
            self.length = 32;
        } else {
            self.remember_short(head);
        }
    }

    #[cold]
    fn remember_short(&mut self, head: &[u8]) {
        self.begin[..head.len()].copy_from_slice(head);
        self.length = head.len() as u8;
    }

    /// Remembers more of a head that came in several reads.
    #[cold]
    fn remember_more(&mut self, part: &[u8]) {
        let known = usize::from(self.length);
        let length = part.len().min(REMEMBERED - known);
        self.begin[known..known + length].copy_from_slice(&part[..length]);
        self.length = (known + length) as u8;
    }

    /// Whether the request with this number, which hyper has just begun and whose body comes in chunks, may have had a
    /// Content-Length beside Transfer-Encoding: hyper hides it.
    pub(super) fn is_doubtful(&self, request: u64) -> bool {
        self.doubtful == request
    }

    /// Looks at what a read has brought; hyper has begun so many `requests` before.
    ///
    /// A read mostly brings whole heads without a body and nothing else, which takes one pass over its bytes: 80
    /// instructions for a short GET. A head with its body is read line by line: 450 for a short POST.
    ///
    /// # Errors
    /// The first byte that is wrong. Nothing may be looked at after it.
    #[inline(always)]
    pub(super) fn look(&mut self, bytes: &[u8], requests: u64) -> Result<(), Found> {
        // The smallest of all ways stays free of what the others need.
        if matches!(self.state, State::Start | State::Asking) && scan::is_head(bytes) {
            self.state = State::Asking;
            self.remember(bytes);
            return Ok(());
        }
        self.look_again(bytes, requests)
    }

    /// As [`Framing::look`], for all but a head alone.
    #[inline(never)]
    fn look_again(&mut self, bytes: &[u8], requests: u64) -> Result<(), Found> {
        if matches!(self.state, State::Start | State::Asking) {
            if let Some(left) = scan::with_body(bytes) {
                self.state = if left == 0 { State::Start } else { State::Known(left) };
                self.remember(bytes);
                return Ok(());
            }
            if scan::are_heads(bytes) {
                self.state = State::Start;
                self.length = 0;
                return Ok(());
            }
        }
        self.look_closely(bytes, requests)
    }

    /// hyper has read the head of `request`, with a body of `length` bytes, or in chunks.
    #[cold]
    pub(super) fn declare(&mut self, length: Option<u64>, request: u64) {
        if matches!(self.state, State::Asking) {
            self.state = length.map_or(State::Chunks(Chunks::default()), State::Known);
            // Nobody has looked for another length.
            self.doubtful = request;
        }
    }

    #[inline(never)]
    fn look_closely(&mut self, bytes: &[u8], requests: u64) -> Result<(), Found> {
        let (mut at, mut heads) = (0, 0);
        while at < bytes.len() {
            let rest = &bytes[at..];
            let wrong = |place: usize, fault, in_body| Found { at: at + place, fault, in_body, heads };
            match &mut self.state {
                State::Start | State::Asking => {
                    self.remember(rest);
                    let mut head = Head::default();
                    let (read, step) = head.take(rest).map_err(|(place, fault)| wrong(place, fault, false))?;
                    at += read;
                    match step {
                        Step::Unfinished => self.state = State::Head(Box::new(head)),
                        ended => {
                            heads += 1;
                            self.ended(ended, requests, heads);
                        }
                    }
                }
                State::Head(head) => {
                    let taken = head.take(rest).map_err(|(place, fault)| wrong(place, fault, false));
                    self.remember_more(rest);
                    let (read, step) = taken?;
                    at += read;
                    if !matches!(step, Step::Unfinished) {
                        heads += 1;
                        self.ended(step, requests, heads);
                    }
                }
                State::Known(left) => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    at += length;
                    *left -= length as u64;
                    if *left == 0 {
                        self.state = State::Start;
                    }
                }
                State::Chunks(chunks) => {
                    let (read, is_over) = chunks.take(rest).map_err(|(place, fault)| wrong(place, fault, true))?;
                    at += read;
                    if is_over {
                        self.state = State::Start;
                    }
                }
            }
        }
        Ok(())
    }

    /// A head is over, the one with this number of those that a read ended.
    fn ended(&mut self, step: Step, requests: u64, heads: u64) {
        self.state = match step {
            Step::Ended(length) => behind(length),
            Step::EndedDoubtful | Step::Unfinished => State::Chunks(Chunks::default()),
        };
        if matches!(step, Step::EndedDoubtful) && self.doubtful <= requests {
            self.doubtful = requests + heads;
        }
    }
}

/// What comes behind a head.
fn behind(length: Length) -> State {
    match length {
        Length::Chunked => State::Chunks(Chunks::default()),
        Length::None | Length::Known(0) => State::Start,
        Length::Known(length) => State::Known(length),
    }
}

#[cfg(test)]
mod tests;
