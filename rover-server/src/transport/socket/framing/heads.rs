//! One head of a request: its lines, and how long the body is that follows.
//!
//! Comes in: bytes, split in any way. Goes out: where the head ends and what it says of its body, or what is wrong.

use memchr::memchr;
use smallvec::SmallVec;

use super::Fault;
use super::target;

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
    /// How many blanks of it have come, as long as that tells its words apart. The target is the second word.
    blanks: u8,
    /// The beginning of a line that a read has left unfinished.
    kept: SmallVec<[u8; KEPT]>,
    /// The length of that line so far.
    so_far: usize,
    ends_in_cr: bool,
    length: Length,
}

impl Head {
    /// Whether the request line is over.
    pub(super) fn has_request_line(&self) -> bool {
        self.has_request_line
    }

    /// Whether more than empty lines has come.
    #[cfg(test)]
    pub(super) fn has_begun(&self) -> bool {
        self.has_request_line || self.so_far > 0
    }

    /// Takes bytes up to the end of the head, or all: so many, and whether it is over. Calls `raw` with the place of each
    /// byte of the target that has to be encoded.
    pub(super) fn take(&mut self, bytes: &[u8], mut raw: impl FnMut(usize)) -> Result<(usize, Step), (usize, Fault)> {
        let mut from = 0;
        while let Some(length) = memchr(b'\n', &bytes[from..]) {
            let part = &bytes[from..from + length];
            if !self.has_request_line && target::plain_line(&bytes[from..]).is_none() {
                self.look_at_request_line(from, part, &mut raw)?;
            }
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
        if !self.has_request_line {
            self.look_at_request_line(from, part, &mut raw)?;
        }
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
        match line {
            [] => return Ok(true),
            // The place of the colon tells nearly all other fields apart.
            [b'c' | b'C', ..] if line.get(14) == Some(&b':') && is_content_length(&line[..14]) => {
                self.content_length(&line[15..], is_whole)?;
            }
            [b't' | b'T', ..]
                if line.get(17) == Some(&b':') && line[8] == b'-' && is_name(&line[..17], b"transfer", b"encoding") =>
            {
                self.length = Length::Chunked;
            }
            _ => {}
        }
        Ok(false)
    }

    fn content_length(&mut self, value: &[u8], is_whole: bool) -> Result<(), Fault> {
        let digits = value.trim_ascii();
        if digits.is_empty() || !is_whole {
            return Err(Fault::Length);
        }
        let mut number = 0_u64;
        for digit in digits {
            let digit = digit.wrapping_sub(b'0');
            let shifted = number.checked_mul(10).filter(|_| digit < 10).ok_or(Fault::Length)?;
            number = shifted.checked_add(digit.into()).ok_or(Fault::Length)?;
        }
        match self.length {
            Length::None => self.length = Length::Known(number),
            Length::Known(known) if known != number => return Err(Fault::Length),
            Length::Known(_) | Length::Chunked => {}
        }
        Ok(())
    }

    /// Looks at a part of the request line, which begins at `from`, byte by byte. Tells of what has to be encoded in its
    /// target, or of a fragment, which no target has (RFC 9112, section 3.2).
    #[cold]
    fn look_at_request_line(
        &mut self,
        from: usize,
        part: &[u8],
        raw: &mut impl FnMut(usize),
    ) -> Result<(), (usize, Fault)> {
        for (place, &byte) in part.iter().enumerate() {
            match byte {
                b' ' => self.blanks = self.blanks.saturating_add(1),
                b'#' => return Err((from + place, Fault::Fragment)),
                _ if self.blanks == 1 && target::is_raw(byte) => raw(from + place),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a name of 14 bytes is Content-Length.
#[inline]
pub(super) fn is_content_length(name: &[u8]) -> bool {
    is_name(name, b"content-", b"t-length")
}

/// Whether a name begins and ends with eight bytes each, in any case. What else sets this bit, hyper takes for no name.
#[inline]
fn is_name(name: &[u8], begin: &[u8; 8], end: &[u8; 8]) -> bool {
    const LOWER: u64 = u64::from_ne_bytes([0x20; 8]);
    let is = |part: Option<&[u8; 8]>, wanted: &[u8; 8]| {
        part.is_some_and(|part| u64::from_ne_bytes(*part) | LOWER == u64::from_ne_bytes(*wanted))
    };
    is(name.first_chunk(), begin) && is(name.last_chunk(), end)
}
