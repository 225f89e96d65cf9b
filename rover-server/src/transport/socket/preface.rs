//! Distinguishes HTTP/2 from HTTP/1.1 by a connection's first bytes (RFC 9113, section 3.4), and gives those bytes back
//! to the reader.

use tokio::io::ReadBuf;

/// What every HTTP/2 client sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Behind it comes a SETTINGS frame, whose type is the fourth byte of its head.
const FIRST_TYPE: usize = PREFACE.len() + 3;
const SETTINGS: u8 = 4;

/// How much of it no HTTP/1.1 request can begin with.
const UNMISTAKABLE: usize = 18;

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
    /// It announced HTTP/2, and sent something else.
    Neither,
}

/// The first bytes of a connection, as long as they may still be a preface.
pub(super) struct Preface {
    /// Bytes that have been looked at. Longer than the preface where a read brought more.
    held: Vec<u8>,
    /// How much of them has been given back.
    given: usize,
    must_be_http2: bool,
    spoken: Option<Spoken>,
}

impl Preface {
    /// For a client that may speak either.
    pub(super) fn possible() -> Preface {
        Preface { held: Vec::new(), given: 0, must_be_http2: false, spoken: None }
    }

    /// For a client that has agreed on HTTP/2.
    pub(super) fn expected() -> Preface {
        Preface { must_be_http2: true, ..Preface::possible() }
    }

    /// What the client speaks, as far as it is known.
    pub(super) fn spoken(&self) -> Option<Spoken> {
        self.spoken
    }

    /// Whether the client has agreed on HTTP/2 before.
    pub(super) fn was_expected(&self) -> bool {
        self.must_be_http2
    }

    pub(super) fn is_decided(&self) -> bool {
        self.spoken.is_some()
    }

    /// Whether nothing is held, so that the bytes just looked at can stay where they are.
    pub(super) fn is_untouched(&self) -> bool {
        self.held.is_empty()
    }

    /// Looks at the bytes that came, and decides if they suffice.
    pub(super) fn take(&mut self, bytes: &[u8], is_end: bool) -> Option<Spoken> {
        let known = self.held.len().min(PREFACE.len());
        let same = PREFACE[known..].iter().zip(bytes).take_while(|(a, b)| a == b).count();
        let is_whole = known + same == PREFACE.len();
        let may_become_whole = same == bytes.len() && !is_end;
        let first_type = match FIRST_TYPE.checked_sub(self.held.len()) {
            Some(at) => bytes.get(at),
            None => self.held.get(FIRST_TYPE),
        };
        self.spoken = if is_whole {
            match first_type {
                Some(&SETTINGS) => Some(Spoken::Http2),
                Some(_) => Some(Spoken::Neither),
                None => is_end.then_some(Spoken::Neither),
            }
        } else if may_become_whole {
            None
        } else if self.must_be_http2 || known + same >= UNMISTAKABLE {
            Some(Spoken::Neither)
        } else {
            Some(Spoken::Http1)
        };
        if !(self.held.is_empty() && self.spoken == Some(Spoken::Http1)) {
            self.held.extend_from_slice(bytes);
        }
        self.spoken
    }

    /// Gives back what is held, as much as there is room for; true when that was the last of it.
    pub(super) fn give_back(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = &self.held[self.given..];
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        self.given += n;
        self.given == self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(mut preface: Preface, parts: &[&[u8]]) -> Option<Spoken> {
        parts.iter().map(|part| preface.take(part, false)).last().flatten()
    }

    #[test]
    fn the_first_bytes_decide() {
        let (start, end) = PREFACE.split_at(9);
        let whole = [&PREFACE[..], b"\0\0\0\x04\0"].concat();
        let behind = b"\0\0\0\x04";
        for parts in [&[&whole[..]][..], &[start, end, behind], &[b"P", &whole[1..]], &[&whole[..27], &whole[27..]]] {
            assert_eq!(spoken(Preface::possible(), parts), Some(Spoken::Http2));
            assert_eq!(spoken(Preface::expected(), parts), Some(Spoken::Http2));
        }
        for parts in [&[&b"GET / HTTP/1.1\r\n"[..]][..], &[b"P", b"OST / HTTP/1.1"], &[b"PRI * HTTP/2.1\r\n\r\n"]] {
            assert_eq!(spoken(Preface::possible(), parts), Some(Spoken::Http1));
            assert_eq!(spoken(Preface::expected(), parts), Some(Spoken::Neither));
        }
        for parts in [&[&b"PRI * HTTP/2.0\r\n\r\nXX"[..]][..], &[start, end, b"\0\0\x08\x06"]] {
            assert_eq!(spoken(Preface::possible(), parts), Some(Spoken::Neither));
        }
        assert_eq!(spoken(Preface::possible(), &[start, end, b"\0\0\0"]), None);
        assert_eq!(spoken(Preface::possible(), &[b"PRI * HTTP"]), None);
    }

    #[test]
    fn what_was_looked_at_comes_back() {
        let mut preface = Preface::possible();
        preface.take(b"PR", false);
        preface.take(b"OPFIND / HTTP/1.1\r\n", false);
        let mut space = [0; 8];
        let mut all = Vec::new();
        loop {
            let mut buf = ReadBuf::new(&mut space);
            let is_last = preface.give_back(&mut buf);
            all.extend_from_slice(buf.filled());
            if is_last {
                break;
            }
        }
        assert_eq!(all, b"PROPFIND / HTTP/1.1\r\n");
    }
}
