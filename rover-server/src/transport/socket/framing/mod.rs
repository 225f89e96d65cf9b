//! Where the messages of an HTTP/1 client begin and end, and what is wrong with their framing.
//!
//! Comes in: the bytes of each read, before hyper sees them. Goes out: the place of the first one that RFC 9112 does not
//! allow, and of those in targets that clients should have encoded, which hyper refuses. hyper's parser is lenient and has no strict switch: it takes a bare LF for the end of a line, blanks behind the
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
pub(super) mod target;

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

/// Why hyper must not see a read as it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Remarks {
    /// The places of the bytes in targets that are to be [encoded](target::encoded), all before the wrong one.
    pub(super) raw: Vec<usize>,
    pub(super) wrong: Option<Found>,
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

/// How much of a head is remembered, in bytes, whatever it holds.
const REMEMBERED: usize = 64;

/// How much more of a long request line is remembered, in bytes: as much as a target has, mostly.
const REMEMBERED_MORE: usize = 8 * 1024;

/// Follows the bytes of one connection.
pub(super) struct Framing {
    state: State,
    /// The beginning of the last head: hyper drops a head that it can split into fields, and refuses then.
    begin: [u8; REMEMBERED],
    length: u8,
    /// What comes behind it, where the request line is longer.
    more: Vec<u8>,
}

impl Framing {
    pub(super) fn new() -> Framing {
        Framing { state: State::Start, begin: [0; REMEMBERED], length: 0, more: Vec::new() }
    }

    /// The beginning of the last head, as far as it is remembered: mostly its request line, at least.
    pub(super) fn begin(&self) -> Vec<u8> {
        [&self.begin[..usize::from(self.length)], &self.more].concat()
    }

    /// Remembers a head by its first bytes: in as few instructions as that takes, none for a loop. Its first line ends less
    /// than a group of bytes behind `line`.
    #[inline(always)]
    fn remember(&mut self, head: &[u8], line: usize) {
        if let Some(begin) = head.first_chunk::<REMEMBERED>() {
            self.begin = *begin;
            self.length = REMEMBERED as u8;
        } else if let (Some(begin), Some(end)) = (head.first_chunk::<32>(), head.last_chunk::<32>()) {
            // Both may hold the same bytes.
            self.begin[..32].copy_from_slice(begin);
            self.begin[head.len() - 32..head.len()].copy_from_slice(end);
            self.length = head.len() as u8;
        } else {
            self.remember_short(head);
        }
        if line >= REMEMBERED || !self.more.is_empty() {
            self.remember_line(head);
        }
    }

    #[cold]
    fn remember_short(&mut self, head: &[u8]) {
        self.begin[..head.len()].copy_from_slice(head);
        self.length = head.len() as u8;
    }

    /// Remembers the rest of a long request line.
    #[cold]
    fn remember_line(&mut self, head: &[u8]) {
        let rest = head.get(REMEMBERED..line_of(head)).unwrap_or_default();
        self.more.clear();
        self.more.extend_from_slice(&rest[..rest.len().min(REMEMBERED_MORE)]);
    }

    /// Remembers more of a head that came in several reads: bytes of its `line` beyond what is remembered in any case.
    #[cold]
    fn remember_more(&mut self, part: &[u8], line: usize) {
        let known = usize::from(self.length);
        let length = part.len().min(REMEMBERED - known);
        self.begin[known..known + length].copy_from_slice(&part[..length]);
        self.length = (known + length) as u8;
        let line = &part[length.min(line)..line];
        self.more.extend_from_slice(&line[..line.len().min(REMEMBERED_MORE - self.more.len())]);
    }

    /// Nothing is known of the last head.
    fn forget(&mut self) {
        self.length = 0;
        self.more.clear();
    }

    /// Looks at what a read has brought.
    ///
    /// A read mostly brings whole heads without a body and nothing else, which takes one pass over its bytes and another
    /// over the request line. A head with its body is read line by line.
    ///
    /// # Errors
    /// What hyper must not see as it is. Nothing may be looked at after a byte that is wrong.
    #[inline(always)]
    pub(super) fn look(&mut self, bytes: &[u8]) -> Result<(), Remarks> {
        // The smallest of all ways stays free of what the others need.
        if matches!(self.state, State::Start | State::Asking)
            && scan::is_head(bytes)
            && let Some(line) = target::plain_line(bytes)
        {
            self.state = State::Asking;
            self.remember(bytes, line);
            return Ok(());
        }
        self.look_again(bytes)
    }

    /// As [`Framing::look`], for all but a head alone.
    #[inline(never)]
    fn look_again(&mut self, bytes: &[u8]) -> Result<(), Remarks> {
        if matches!(self.state, State::Start | State::Asking) {
            if let Some(left) = scan::with_body(bytes)
                && let Some(line) = target::plain_line(bytes)
            {
                self.state = if left == 0 { State::Start } else { State::Known(left) };
                self.remember(bytes, line);
                return Ok(());
            }
            if scan::are_heads(bytes) {
                self.state = State::Start;
                self.forget();
                return Ok(());
            }
        }
        self.look_closely(bytes)
    }

    /// hyper has read the last head, with a body of `length` bytes, or in chunks.
    #[cold]
    pub(super) fn declare(&mut self, length: Option<u64>) {
        if matches!(self.state, State::Asking) {
            self.state = length.map_or(State::Chunks(Chunks::default()), State::Known);
        }
    }

    #[inline(never)]
    fn look_closely(&mut self, bytes: &[u8]) -> Result<(), Remarks> {
        let mut raw = Vec::new();
        let wrong = self.look_at_all(bytes, &mut raw).err();
        if raw.is_empty() && wrong.is_none() { Ok(()) } else { Err(Remarks { raw, wrong }) }
    }

    /// Adds the places of what is to be encoded to `raw`.
    ///
    /// # Errors
    /// The first byte that is wrong.
    fn look_at_all(&mut self, bytes: &[u8], raw: &mut Vec<usize>) -> Result<(), Found> {
        let (mut at, mut heads) = (0, 0);
        while at < bytes.len() {
            let rest = &bytes[at..];
            let wrong = |place: usize, fault, in_body| Found { at: at + place, fault, in_body, heads };
            match &mut self.state {
                State::Start | State::Asking => {
                    self.forget();
                    self.remember_more(rest, line_of(rest));
                    let mut head = Head::default();
                    let taken = head.take(rest, |place| raw.push(at + place));
                    let (read, step) = taken.map_err(|(place, fault)| wrong(place, fault, false))?;
                    at += read;
                    match step {
                        Step::Unfinished => self.state = State::Head(Box::new(head)),
                        Step::Ended(length) => {
                            heads += 1;
                            self.state = behind(length);
                        }
                    }
                }
                State::Head(head) => {
                    let line = if head.has_request_line() { 0 } else { line_of(rest) };
                    let taken = head.take(rest, |place| raw.push(at + place));
                    let taken = taken.map_err(|(place, fault)| wrong(place, fault, false));
                    self.remember_more(rest, line);
                    let (read, step) = taken?;
                    at += read;
                    if let Step::Ended(length) = step {
                        heads += 1;
                        self.state = behind(length);
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
}

/// How much of a part of a head belongs to its request line. Empty lines may come before that.
fn line_of(part: &[u8]) -> usize {
    let begin = part.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    memchr::memchr(b'\n', &part[begin..]).map_or(part.len(), |end| begin + end)
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
