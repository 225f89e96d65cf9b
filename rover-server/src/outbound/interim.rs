//! Interim responses (1xx): limits how many a server may send before its answer, and passes them to those who want
//! them.
//!
//! Comes in: the interim answers of HTTP/1.1, as hyper reports them, and the bytes of HTTP/2, of which hyper reports none.
//! Goes out: an error for a server that sends them without end, and the answers for a [`Relay`]. hyper reads on as long as
//! there are bytes, so nobody else would get a turn.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Problem;

/// How many interim responses there may be before an answer.
pub(super) const MOST: usize = 1000;

/// How many bytes of fields there may be in all of them.
pub(super) const MOST_BYTES: usize = 256 * 1024;

/// What a connection of HTTP/1.1 has had since its last request.
#[derive(Debug, Default)]
pub(super) struct Interims {
    count: AtomicUsize,
    bytes: AtomicUsize,
    is_flooded: AtomicBool,
}

impl Interims {
    /// A request goes out.
    pub(super) fn begin(&self) {
        self.count.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
    }

    /// An interim answer with these fields has come; false where it is one too many.
    pub(super) fn note(&self, fields: &HeaderMap) -> bool {
        let length = fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let count = self.count.fetch_add(1, Relaxed) + 1;
        let bytes = self.bytes.fetch_add(length, Relaxed) + length;
        let is_fine = count <= MOST && bytes <= MOST_BYTES;
        if !is_fine {
            self.is_flooded.store(true, Relaxed);
        }
        is_fine
    }

    /// To be asked before each read.
    ///
    /// # Errors
    /// There have been too many.
    #[inline]
    pub(super) fn check(&self) -> io::Result<()> {
        if self.is_flooded.load(Relaxed) { Err(flood()) } else { Ok(()) }
    }
}

fn flood() -> io::Error {
    io::Error::other(Problem::TooManyInterims)
}

/// The receiver of the interim responses to a request, in the request's extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relay(Arc<(Mutex<Vec<Interim>>, Notify)>);

/// The status and the fields of one.
pub(crate) type Interim = (StatusCode, HeaderMap);

impl Relay {
    pub(super) fn push(&self, status: StatusCode, fields: HeaderMap) {
        let (queue, notify) = &*self.0;
        queue.lock().push((status, fields));
        notify.notify_one();
    }

    /// Waits for the next ones.
    pub(crate) async fn next(&self) -> Vec<Interim> {
        let (queue, notify) = &*self.0;
        loop {
            let come = std::mem::take(&mut *queue.lock());
            if !come.is_empty() {
                return come;
            }
            notify.notified().await;
        }
    }
}

// Frames of RFC 9113, section 6, and their flag END_STREAM.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// How many streams are watched at once. More can be there only where many were given up.
const MOST_STREAMS: usize = 4096;

/// Watches the frames of an HTTP/2 connection: counts the heads of each stream before its first DATA.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; 9],
    /// Bytes of the next frame's head that are here.
    have: usize,
    /// Bytes of a frame's payload that are yet to come.
    skip: usize,
    /// Heads of each stream that has sent nothing else, and their bytes.
    heads: HashMap<u32, (usize, usize)>,
}

impl Frames {
    /// Looks at the next bytes.
    ///
    /// # Errors
    /// A stream has had too many heads.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let copied = (self.head.len() - self.have).min(bytes.len());
            self.head[self.have..self.have + copied].copy_from_slice(&bytes[..copied]);
            self.have += copied;
            bytes = &bytes[copied..];
            if self.have == self.head.len() {
                self.have = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> io::Result<()> {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        self.skip = length;
        match kind {
            HEADERS if flags & END_STREAM == 0 => {
                if self.heads.len() >= MOST_STREAMS {
                    self.heads.clear();
                }
                let (count, bytes) = self.heads.entry(stream).or_default();
                *count += 1;
                *bytes += length;
                // The answer's own head is one of them.
                if *count > MOST + 1 || *bytes > MOST_BYTES {
                    return Err(flood());
                }
            }
            CONTINUATION => {
                if let Some((_, bytes)) = self.heads.get_mut(&stream) {
                    *bytes += length;
                    if *bytes > MOST_BYTES {
                        return Err(flood());
                    }
                }
            }
            HEADERS | DATA | RST_STREAM if !self.heads.is_empty() => drop(self.heads.remove(&stream)),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    #[test]
    fn heads_of_one_stream_are_counted_whatever_pieces_they_come_in() {
        for piece in [1, 7, 9, 1000] {
            let mut frames = Frames::default();
            let many = |stream: u32, n| frame(HEADERS, 4, stream, b"\x08\x03103").repeat(n);
            let mut bytes = [many(1, MOST), frame(DATA, 0, 1, &[1; 300])].concat();
            bytes.extend([many(1, MOST), frame(HEADERS, 5, 1, &[0x88]), many(3, MOST + 1)].concat());
            assert!(bytes.chunks(piece).all(|piece| frames.take(piece).is_ok()));
            assert!(frames.take(&many(3, 1)).is_err());
        }
    }

    #[test]
    fn bytes_count_too() {
        let mut frames = Frames::default();
        assert!(frames.take(&frame(HEADERS, 0, 1, &[0; 16000])).is_ok());
        let more = frame(CONTINUATION, 0, 1, &[0; 16000]);
        assert!((0..20).any(|_| frames.take(&more).is_err()));
        let interims = Interims::default();
        let mut fields = HeaderMap::new();
        fields.insert("x", http::HeaderValue::from_static("1"));
        assert!((0..MOST).all(|_| interims.note(&fields)) && interims.check().is_ok());
        assert!(!interims.note(&fields) && interims.check().is_err());
    }
}
