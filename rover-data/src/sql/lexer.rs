//! Cuts SQL text into what a reader of placeholders has to tell apart: comments, strings, quoted names, words, placeholders.
//!
//! What it does not know passes as a single byte: the database is the judge of its own language.

use super::Dialect;

/// What a piece of the text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// White space or a comment.
    Blank,
    /// A name or a keyword.
    Word,
    /// A string, a quoted name, a number, an operator.
    Other,
    Open,
    Close,
    Semicolon,
    /// `?`
    Question,
    /// `??`
    Literal,
    /// `:name`
    Named,
    /// `$1`
    Numbered,
    /// A placeholder of the database's own, such as `?1` or `@name`.
    Foreign,
}

pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    dialect: Dialect,
}

fn starts_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_name(byte: u8) -> bool {
    starts_name(byte) || byte.is_ascii_digit() || byte == b'$'
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str, dialect: Dialect) -> Lexer<'a> {
        Lexer { text: text.as_bytes(), at: 0, dialect }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// The end of what `is_in` accepts from `from` on.
    fn end_of(&self, from: usize, is_in: fn(u8) -> bool) -> usize {
        self.text[from..].iter().position(|&byte| !is_in(byte)).map_or(self.text.len(), |n| from + n)
    }

    /// The end behind the first `end` from `from` on, or of the text.
    fn behind(&self, from: usize, end: &[u8]) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        memchr::memmem::find(rest, end).map_or(self.text.len(), |n| from + n + end.len())
    }

    /// The end of a string or a quoted name that begins at `from`.
    fn quoted(&self, from: usize, has_escapes: bool) -> usize {
        let quote = self.text[from];
        let mut at = from + 1;
        while let Some(&byte) = self.text.get(at) {
            if byte == b'\\' && has_escapes {
                at += 2;
            } else if byte != quote {
                at += 1;
            } else if self.text.get(at + 1) == Some(&quote) {
                at += 2;
            } else {
                return at + 1;
            }
        }
        self.text.len()
    }

    /// The end of a comment that begins here; PostgreSQL's nest.
    fn comment(&self) -> usize {
        if self.dialect == Dialect::Sqlite {
            return self.behind(self.at + 2, b"*/");
        }
        let (mut depth, mut at) = (1_usize, self.at + 2);
        while depth > 0 && at < self.text.len() {
            match self.text.get(at..at + 2) {
                Some(b"/*") => (depth, at) = (depth + 1, at + 2),
                Some(b"*/") => (depth, at) = (depth - 1, at + 2),
                _ => at += 1,
            }
        }
        at
    }

    /// What begins with a dollar: `$1`, `$tag$text$tag$`, or a variable of SQLite.
    fn dollar(&self) -> (Token, usize) {
        let digits = self.end_of(self.at + 1, |byte| byte.is_ascii_digit());
        if digits > self.at + 1 && !self.text.get(digits).is_some_and(|&byte| is_name(byte)) {
            return (Token::Numbered, digits);
        }
        if self.dialect == Dialect::Sqlite {
            return self.variable();
        }
        let tag = self.end_of(self.at + 1, |byte| starts_name(byte) || byte.is_ascii_digit());
        if self.text.get(tag) == Some(&b'$') && !self.peek(1).is_ascii_digit() {
            let tag = &self.text[self.at..=tag];
            return (Token::Other, self.behind(self.at + tag.len(), tag));
        }
        (Token::Other, self.at + 1)
    }

    /// A variable of SQLite, with the parts that Tcl's names have.
    fn variable(&self) -> (Token, usize) {
        let mut at = self.at + 1;
        let mut letters = 0;
        while let Some(&byte) = self.text.get(at) {
            if is_name(byte) {
                letters += 1;
                at += 1;
            } else if byte == b'(' && letters > 0 {
                at = self.behind(at, b")");
                break;
            } else if byte == b':' && self.text.get(at + 1) == Some(&b':') {
                at += 2;
            } else {
                break;
            }
        }
        if letters == 0 { (Token::Other, self.at + 1) } else { (Token::Foreign, at) }
    }

    fn question(&self) -> (Token, usize) {
        if self.peek(1) == b'?' {
            return (Token::Literal, self.at + 2);
        }
        if self.dialect == Dialect::Sqlite && self.peek(1).is_ascii_digit() {
            return (Token::Foreign, self.end_of(self.at + 1, |byte| byte.is_ascii_digit()));
        }
        (Token::Question, self.at + 1)
    }

    fn colon(&self) -> (Token, usize) {
        match self.peek(1) {
            b':' => (Token::Other, self.at + 2),
            next if starts_name(next) => (Token::Named, self.end_of(self.at + 1, is_name)),
            next if is_name(next) && self.dialect == Dialect::Sqlite => self.variable(),
            _ => (Token::Other, self.at + 1),
        }
    }

    fn word(&self) -> (Token, usize) {
        let end = self.end_of(self.at, is_name);
        let has_escapes =
            self.dialect == Dialect::Postgres && end == self.at + 1 && matches!(self.peek(0), b'e' | b'E');
        if has_escapes && self.text.get(end) == Some(&b'\'') {
            return (Token::Other, self.quoted(end, true));
        }
        (Token::Word, end)
    }
}

impl Iterator for Lexer<'_> {
    type Item = (Token, usize, usize);

    fn next(&mut self) -> Option<(Token, usize, usize)> {
        let first = *self.text.get(self.at)?;
        let single = |token| (token, self.at + 1);
        let (token, end) = match first {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => {
                (Token::Blank, self.end_of(self.at, |b| b" \t\n\r\x0c".contains(&b)))
            }
            b'-' if self.peek(1) == b'-' => (Token::Blank, self.behind(self.at, b"\n")),
            // SQLite takes `/*` at the end of the text for two operators.
            b'/' if self.peek(1) == b'*' && self.at + 2 < self.text.len() => (Token::Blank, self.comment()),
            b'\'' | b'"' => (Token::Other, self.quoted(self.at, false)),
            b'`' if self.dialect == Dialect::Sqlite => (Token::Other, self.quoted(self.at, false)),
            b'[' if self.dialect == Dialect::Sqlite => (Token::Other, self.behind(self.at, b"]")),
            b'?' => self.question(),
            b':' => self.colon(),
            b'$' => self.dollar(),
            b'@' | b'#' if self.dialect == Dialect::Sqlite => self.variable(),
            b'(' => single(Token::Open),
            b')' => single(Token::Close),
            b';' => single(Token::Semicolon),
            b'0'..=b'9' => (Token::Other, self.end_of(self.at, is_name)),
            byte if starts_name(byte) => self.word(),
            _ => single(Token::Other),
        };
        let start = self.at;
        self.at = end.min(self.text.len());
        Some((token, start, self.at))
    }
}
