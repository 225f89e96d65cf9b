//! Matches a pattern of Lua's at one place of a text, as LuaJIT does it, quirks included, and in steps that are counted.
//!
//! Comes in: two byte strings, and a function that is asked now and then whether to go on. Goes out: where the match ends,
//! and its captures. This module must not know of a VM.
//!
//! A pattern may take time exponential in its length, so matching counts what it does, and asks after each
//! [`ALLOWANCE`] of steps. A pattern ends at its first zero byte, as for LuaJIT it is a text of C's.

use super::set::{CLASSES, Set};

/// The most captures of a pattern.
const MOST_CAPTURES: usize = 32;
/// How deep items may be tried inside one another.
const MOST_LEVELS: u32 = 200;
/// Steps from one question to the next: some ten microseconds.
const ALLOWANCE: u32 = 8192;
/// Bytes that one item takes before it counts them. Each byte of those is far less than a step.
const PIECE: usize = 16 * 1024;
const BYTES_PER_STEP: usize = 8;

/// No match here.
const NONE: usize = usize::MAX;
/// There is a problem. Handed on as if it were a match.
const FAILED: usize = usize::MAX - 1;

/// Why matching ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    EndsWithEscape,
    MissingBracket,
    MissingFrontierBracket,
    UnbalancedPattern,
    InvalidCapture,
    InvalidCaptureIndex,
    TooManyCaptures,
    UnfinishedCapture,
    TooComplex,
    /// Whoever was asked whether to go on said no.
    Stopped,
    /// A panic.
    Internal,
}

/// What a capture holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capture {
    /// These bytes of the text.
    Text(usize, usize),
    /// A place in the text, counted from 0.
    Position(usize),
}

/// A capture on its way: small, as room for all is made for each match. A string of LuaJIT's has less than 2^31 bytes.
#[derive(Clone, Copy)]
struct Part {
    start: u32,
    /// Of its bytes, or one of the two below.
    length: u32,
}

const UNFINISHED: u32 = u32::MAX;
const POSITION: u32 = u32::MAX - 1;

/// Where sets of bytes are kept that a pattern has in brackets, by their place.
#[derive(Clone, Copy)]
struct KnownSet {
    place: usize,
    set: Set,
}

pub(super) struct Matcher<'s> {
    text: &'s [u8],
    pattern: &'s [u8],
    parts: [Part; MOST_CAPTURES],
    captures: usize,
    levels: u32,
    steps: u32,
    problem: Problem,
    known: [KnownSet; 2],
    is_stopped: fn() -> bool,
}

impl<'s> Matcher<'s> {
    /// `pattern` without its `^`.
    #[inline]
    pub(super) fn new(text: &'s [u8], pattern: &'s [u8], is_stopped: fn() -> bool) -> Matcher<'s> {
        Matcher {
            text,
            pattern,
            parts: [Part { start: 0, length: 0 }; MOST_CAPTURES],
            captures: 0,
            levels: 0,
            steps: ALLOWANCE,
            problem: Problem::Internal,
            known: [KnownSet { place: NONE, set: Set::EMPTY }; 2],
            is_stopped,
        }
    }

    /// Where a match that begins at `start` ends.
    #[inline]
    pub(super) fn at(&mut self, start: usize) -> Result<Option<usize>, Problem> {
        self.captures = 0;
        self.levels = 0;
        match self.run(start, 0) {
            NONE => Ok(None),
            FAILED => Err(self.problem),
            end => Ok(Some(end)),
        }
    }

    /// The first match that begins at `start` or behind it, and where that ends.
    #[inline]
    pub(super) fn from(&mut self, mut start: usize) -> Result<Option<(usize, usize)>, Problem> {
        let first = self.first_byte();
        loop {
            if let Some(byte) = first {
                let rest = self.text.get(start..).unwrap_or_default();
                match memchr::memchr(byte, rest) {
                    Some(n) => start += n,
                    None => return Ok(None),
                }
            }
            if let Some(end) = self.at(start)? {
                return Ok(Some((start, end)));
            }
            if start >= self.text.len() {
                return Ok(None);
            }
            start += 1;
        }
    }

    /// The byte with which every match begins, where the pattern's first item says so.
    #[inline]
    fn first_byte(&self) -> Option<u8> {
        let (first, second) = (self.item(0), self.item(1));
        let is_literal = !matches!(first, 0 | b'(' | b')' | b'%' | b'.' | b'[' | b'$');
        (is_literal && !matches!(second, b'*' | b'?' | b'-')).then_some(first)
    }

    /// How many captures the last match has.
    #[inline]
    pub(super) fn captures(&self) -> usize {
        self.captures
    }

    /// The capture `n`, counted from 0, of the match from `start` to `end`. Where there are none, the match is the first.
    #[inline]
    pub(super) fn capture(&self, n: usize, start: usize, end: usize) -> Result<Capture, Problem> {
        if n >= self.captures {
            return if n == 0 { Ok(Capture::Text(start, end)) } else { Err(Problem::InvalidCaptureIndex) };
        }
        let Part { start, length } = self.parts[n];
        match length {
            UNFINISHED => Err(Problem::UnfinishedCapture),
            POSITION => Ok(Capture::Position(start as usize)),
            length => Ok(Capture::Text(start as usize, start as usize + length as usize)),
        }
    }

    /// The pattern's byte at `p`; 0 at its end.
    #[inline(always)]
    fn item(&self, p: usize) -> u8 {
        self.pattern.get(p).copied().unwrap_or(0)
    }

    #[cold]
    fn fail(&mut self, problem: Problem) -> usize {
        self.problem = problem;
        FAILED
    }

    /// Counts steps; true where matching is to end.
    #[inline(always)]
    fn count(&mut self, steps: usize) -> bool {
        match (self.steps as usize).checked_sub(steps) {
            Some(left) => {
                self.steps = left as u32;
                false
            }
            None => self.ask(),
        }
    }

    #[cold]
    #[inline(never)]
    fn ask(&mut self) -> bool {
        self.steps = ALLOWANCE;
        if (self.is_stopped)() {
            self.problem = Problem::Stopped;
            return true;
        }
        false
    }

    /// Matches the pattern from `p` on at the place `s`.
    fn run(&mut self, mut s: usize, mut p: usize) -> usize {
        self.levels += 1;
        if self.levels > MOST_LEVELS {
            return self.fail(Problem::TooComplex);
        }
        let found = loop {
            if self.count(1) {
                return FAILED;
            }
            match self.item(p) {
                0 => break s,
                b'(' if self.item(p + 1) == b')' => break self.open(s, p + 2, POSITION),
                b'(' => break self.open(s, p + 1, UNFINISHED),
                b')' => break self.close(s, p + 1),
                b'$' if self.item(p + 1) == 0 => break if s == self.text.len() { s } else { NONE },
                b'%' => match self.item(p + 1) {
                    b'b' => {
                        s = self.balanced(s, p + 2);
                        if s >= FAILED {
                            break s;
                        }
                        p += 4;
                        continue;
                    }
                    b'f' => {
                        p += 2;
                        if self.item(p) != b'[' {
                            return self.fail(Problem::MissingFrontierBracket);
                        }
                        let end = self.item_end(p);
                        if end == FAILED {
                            return FAILED;
                        }
                        let set = *self.set(p, end);
                        let before = s.checked_sub(1).and_then(|s| self.text.get(s)).copied().unwrap_or(0);
                        let next = self.text.get(s).copied().unwrap_or(0);
                        if set.has(before) || !set.has(next) {
                            break NONE;
                        }
                        p = end;
                        continue;
                    }
                    digit @ b'0'..=b'9' => {
                        s = self.repeated(s, digit);
                        if s >= FAILED {
                            break s;
                        }
                        p += 2;
                        continue;
                    }
                    _ => {}
                },
                _ => {}
            }
            let end = self.item_end(p);
            if end == FAILED {
                return FAILED;
            }
            match self.item(end) {
                b'?' => {
                    if self.is_one(s, p, end) {
                        let found = self.run(s + 1, end + 1);
                        if found != NONE {
                            break found;
                        }
                    }
                    p = end + 1;
                }
                b'*' => break self.longest(s, p, end),
                b'+' => break if self.is_one(s, p, end) { self.longest(s + 1, p, end) } else { NONE },
                b'-' => break self.shortest(s, p, end),
                _ => {
                    if !self.is_one(s, p, end) {
                        break NONE;
                    }
                    s += 1;
                    p = end;
                }
            }
        };
        self.levels -= 1;
        found
    }

    /// Where the single item at `p` ends.
    #[inline(always)]
    fn item_end(&mut self, p: usize) -> usize {
        match self.item(p) {
            b'%' if self.item(p + 1) == 0 => self.fail(Problem::EndsWithEscape),
            b'%' => p + 2,
            b'[' => self.bracket_end(p + 1),
            _ => p + 1,
        }
    }

    fn bracket_end(&mut self, mut p: usize) -> usize {
        let start = p;
        if self.item(p) == b'^' {
            p += 1;
        }
        loop {
            match self.item(p) {
                0 => return self.fail(Problem::MissingBracket),
                b'%' if self.item(p + 1) != 0 => p += 2,
                _ => p += 1,
            }
            if self.item(p) == b']' {
                return if self.count((p - start) / BYTES_PER_STEP) { FAILED } else { p + 1 };
            }
        }
    }

    /// Whether the single item from `p` to `end` matches the byte at `s`.
    #[inline(always)]
    fn is_one(&mut self, s: usize, p: usize, end: usize) -> bool {
        let Some(&byte) = self.text.get(s) else { return false };
        match self.item(p) {
            b'.' => true,
            b'%' => CLASSES[usize::from(self.item(p + 1))].has(byte),
            b'[' => self.set(p, end).has(byte),
            literal => literal == byte,
        }
    }

    /// The bytes that the set in brackets from `p` to `end` holds.
    #[inline]
    fn set(&mut self, p: usize, end: usize) -> &Set {
        let n = usize::from(self.known[0].place != p && (self.known[1].place == p || self.known[0].place != NONE));
        if self.known[n].place != p {
            self.known[n] = KnownSet { place: p, set: self.read_set(p + 1, end - 1) };
        }
        &self.known[n].set
    }

    fn read_set(&self, mut p: usize, end: usize) -> Set {
        let mut set = Set::EMPTY;
        let is_inverted = self.item(p) == b'^';
        if is_inverted {
            p += 1;
        }
        while p < end {
            let byte = self.item(p);
            if byte == b'%' {
                p += 1;
                set.add_all(&CLASSES[usize::from(self.item(p))]);
            } else if self.item(p + 1) == b'-' && p + 2 < end {
                p += 2;
                set.add_range(byte, self.item(p));
            } else {
                set.add(byte);
            }
            p += 1;
        }
        if is_inverted { set.inverted() } else { set }
    }

    /// As many of the item as there are from `least` on, then ever fewer.
    #[inline]
    fn longest(&mut self, least: usize, p: usize, end: usize) -> usize {
        let mut s = self.span(least, p, end);
        // The usual end of a pattern.
        if s == FAILED || self.item(end + 1) == 0 && self.levels < MOST_LEVELS {
            return s;
        }
        loop {
            let found = self.run(s, end + 1);
            if found != NONE {
                return found;
            }
            if s == least {
                return NONE;
            }
            s -= 1;
        }
    }

    /// Where the bytes end that are of the item, from `s` on.
    #[inline]
    fn span(&mut self, s: usize, p: usize, end: usize) -> usize {
        match self.item(p) {
            b'.' => self.text.len(),
            b'%' => {
                let class = &CLASSES[usize::from(self.item(p + 1))];
                self.span_by(s, |byte| class.has(byte))
            }
            b'[' => {
                let set = *self.set(p, end);
                self.span_by(s, |byte| set.has(byte))
            }
            literal => self.span_by(s, |byte| byte == literal),
        }
    }

    #[inline(always)]
    fn span_by(&mut self, mut s: usize, is_in: impl Fn(u8) -> bool) -> usize {
        let text = self.text;
        loop {
            let rest = text.get(s..).unwrap_or_default();
            let piece = &rest[..rest.len().min(PIECE)];
            let length = piece.iter().position(|&byte| !is_in(byte)).unwrap_or(piece.len());
            s += length;
            if self.count(length / BYTES_PER_STEP) {
                return FAILED;
            }
            if length < PIECE {
                return s;
            }
        }
    }

    /// None of the item, then ever more.
    fn shortest(&mut self, mut s: usize, p: usize, end: usize) -> usize {
        loop {
            let found = self.run(s, end + 1);
            if found != NONE {
                return found;
            }
            if !self.is_one(s, p, end) {
                return NONE;
            }
            s += 1;
        }
    }

    fn open(&mut self, s: usize, p: usize, length: u32) -> usize {
        let Some(part) = self.parts.get_mut(self.captures) else { return self.fail(Problem::TooManyCaptures) };
        *part = Part { start: s as u32, length };
        self.captures += 1;
        let found = self.run(s, p);
        if found == NONE {
            self.captures -= 1;
        }
        found
    }

    fn close(&mut self, s: usize, p: usize) -> usize {
        let open = self.parts[..self.captures].iter().rposition(|part| part.length == UNFINISHED);
        let Some(open) = open else { return self.fail(Problem::InvalidCapture) };
        self.parts[open].length = s as u32 - self.parts[open].start;
        let found = self.run(s, p);
        if found == NONE {
            self.parts[open].length = UNFINISHED;
        }
        found
    }

    /// What the capture of this digit holds, once more.
    fn repeated(&mut self, s: usize, digit: u8) -> usize {
        let part = usize::from(digit).checked_sub(usize::from(b'1')).filter(|n| *n < self.captures);
        match part.map(|n| self.parts[n]) {
            None | Some(Part { length: UNFINISHED, .. }) => self.fail(Problem::InvalidCaptureIndex),
            Some(Part { length: POSITION, .. }) => NONE,
            Some(Part { start, length }) => {
                let (text, start, length) = (self.text, start as usize, length as usize);
                if self.count(length / BYTES_PER_STEP) {
                    return FAILED;
                }
                if text.get(s..).unwrap_or_default().starts_with(&text[start..start + length]) {
                    s + length
                } else {
                    NONE
                }
            }
        }
    }

    /// Behind the byte that closes what the one at `s` opens.
    fn balanced(&mut self, s: usize, p: usize) -> usize {
        let (open, close) = (self.item(p), self.item(p + 1));
        if open == 0 || close == 0 {
            return self.fail(Problem::UnbalancedPattern);
        }
        let text = self.text;
        if text.get(s) != Some(&open) {
            return NONE;
        }
        let mut depth = 1_usize;
        let mut start = s + 1;
        for piece in text[start..].chunks(PIECE) {
            for (n, &byte) in piece.iter().enumerate() {
                if byte == close {
                    depth -= 1;
                    if depth == 0 {
                        return if self.count(n / BYTES_PER_STEP) { FAILED } else { start + n + 1 };
                    }
                } else if byte == open {
                    depth += 1;
                }
            }
            start += piece.len();
            if self.count(piece.len() / BYTES_PER_STEP) {
                return FAILED;
            }
        }
        NONE
    }
}
