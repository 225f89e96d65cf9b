//! One head of a request: its lines, and how long the body is that follows.
//!
//! Comes in: bytes, split in any way. Goes out: where the head ends and what it says of its body, or what is wrong.

use memchr::memchr;
use smallvec::SmallVec;

use super::Fault;

/// How much of a line is kept that a read has left unfinished, in bytes: more than a Content-Length takes.
const KEPT: usize = 64;

/// How long a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Length {
    #[default]
    None,
    Known(u64),
    Chunked,
}

pub(super) enum Step {
    Unfinished,
    /// The head is over.
    Ended(Length),
}

/// A head, as far as it has come.
#[derive(Default)]
pub(super) struct Head {
    /// The request line is over.
    has_request_line: bool,
    /// Its method is over.
    has_method: bool,
    /// The beginning of a line that a read has left unfinished.
    kept: SmallVec<[u8; KEPT]>,
    /// The length of that line so far.
    so_far: usize,
    ends_in_cr: bool,
    length: Length,
}

impl Head {
    /// Takes bytes up to the end of the head, or all: so many, and whether it is over.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Step), (usize, Fault)> {
        let mut from = 0;
        while let Some(length) = memchr(b'\n', &bytes[from..]) {
            let part = &bytes[from..from + length];
            self.look_for_fragment(part).map_err(|place| (from + place, Fault::Fragment))?;
            let end = from + length;
            let has_cr = part.last().map_or(self.ends_in_cr, |&last| last == b'\r');
            if !has_cr {
                return Err((end, Fault::BareLf));
            }
            from = end + 1;
            let is_over = match self.so_far {
                0 => self.line(&part[..part.len() - 1], true),
                _ => self.kept_line(part),
            };
            if is_over.map_err(|fault| (end, fault))? {
                return Ok((from, Step::Ended(self.length)));
            }
        }
        let part = &bytes[from..];
        self.look_for_fragment(part).map_err(|place| (from + place, Fault::Fragment))?;
        self.keep(part);
        Ok((bytes.len(), Step::Unfinished))
    }

    /// Keeps the beginning of a line.
    #[cold]
    fn keep(&mut self, part: &[u8]) {
        let room = KEPT - self.kept.len();
        self.kept.extend_from_slice(&part[..part.len().min(room)]);
        self.so_far += part.len();
        self.ends_in_cr = part.last().map_or(self.ends_in_cr, |&last| last == b'\r');
    }

    /// As [`Head::line`], for one that an earlier read began.
    #[cold]
    fn kept_line(&mut self, part: &[u8]) -> Result<bool, Fault> {
        self.keep(part);
        let mut line = std::mem::take(&mut self.kept);
        let is_whole = self.so_far == line.len();
        if is_whole {
            line.pop();
        }
        self.so_far = 0;
        self.ends_in_cr = false;
        self.line(&line, is_whole)
    }

    /// Reads a line without its end, or its beginning; true when it is the last one.
    fn line(&mut self, line: &[u8], is_whole: bool) -> Result<bool, Fault> {
        if !self.has_request_line {
            // Empty lines before a request are passed over (RFC 9112, section 2.2).
            self.has_request_line = !line.is_empty();
            return Ok(false);
        }
        match line.first() {
            None => return Ok(true),
            Some(b'c' | b'C') => self.content_length(line, is_whole)?,
            Some(b't' | b'T') if is_field(line, b"transfer-encoding:") => self.length = Length::Chunked,
            Some(_) => {}
        }
        Ok(false)
    }

    fn content_length(&mut self, line: &[u8], is_whole: bool) -> Result<(), Fault> {
        const NAME: &[u8] = b"content-length:";
        if !is_field(line, NAME) {
            return Ok(());
        }
        let digits = line[NAME.len()..].trim_ascii();
        let number = std::str::from_utf8(digits).ok().filter(|_| is_whole && digits.iter().all(u8::is_ascii_digit));
        let number = number.and_then(|digits| digits.parse().ok()).ok_or(Fault::Length)?;
        match self.length {
            Length::None => self.length = Length::Known(number),
            Length::Known(known) if known != number => return Err(Fault::Length),
            Length::Known(_) | Length::Chunked => {}
        }
        Ok(())
    }

    /// A target has no fragment (RFC 9112, section 3.2). Gives the place of its mark.
    #[inline]
    fn look_for_fragment(&mut self, part: &[u8]) -> Result<(), usize> {
        if self.has_request_line {
            return Ok(());
        }
        let from = match memchr(b' ', part) {
            _ if self.has_method => 0,
            Some(blank) => blank,
            None => return Ok(()),
        };
        self.has_method = true;
        memchr(b'#', &part[from..]).map_or(Ok(()), |place| Err(from + place))
    }
}

/// Whether a line begins with `name`, which ends in a colon.
fn is_field(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
}
