//! Sends a large file, or ranges of it, while it is read.
//!
//! Comes in: an open file and what to send of it. Goes out: frames. Data in the system's page cache is read at once
//! (`preadv2` with RWF_NOWAIT); only data from the disk is read on a blocking thread, so the worker never waits for a
//! disk. A body has two buffers: the third frame waits until the first has been sent.

use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::runtime::Handle;

use super::range::Span;
use crate::log::{self, Level};
use crate::message::body::Aborted;
use crate::runtime::blocking::{self, Refused};

/// The size of a buffer, in bytes. Larger ones fall out of the CPU's cache between the file and the socket.
const BUFFER: usize = 64 * 1024;

/// How many buffers a body has.
const BUFFERS: usize = 2;

/// A piece of a body.
pub(super) enum Part {
    /// What stands between ranges.
    Text(Bytes),
    /// Bytes of the file.
    File(Span),
}

impl Part {
    pub(super) fn length(&self) -> u64 {
        match self {
            Part::Text(text) => text.len() as u64,
            Part::File(span) => span.length(),
        }
    }
}

/// A buffer, and how much of it was filled.
type Read = io::Result<(Vec<u8>, usize)>;

/// A read on another thread.
type Reading = Pin<Box<dyn Future<Output = Result<Read, Refused>> + Send>>;

/// Sends parts of a file.
pub(super) struct FileBody {
    file: Arc<File>,
    /// For the log.
    name: String,
    parts: VecDeque<Part>,
    left: u64,
    buffers: Arc<Buffers>,
    reading: Option<Reading>,
}

impl FileBody {
    /// A body of these parts of `file`; `name` is what the log calls it.
    pub(super) fn new(file: Arc<File>, name: String, parts: VecDeque<Part>) -> FileBody {
        // Twice the read-ahead; without it everything works as well.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        let left = parts.iter().map(Part::length).sum();
        FileBody { file, name, parts, left, buffers: Arc::default(), reading: None }
    }

    /// The span that is to be read next, as much as fits into a buffer.
    fn next(&self) -> Option<(u64, usize)> {
        match self.parts.front() {
            Some(Part::File(span)) => Some((span.first, span.length().min(BUFFER as u64) as usize)),
            _ => None,
        }
    }

    /// Sends what was read from the front of the parts.
    fn finish(&mut self, read: Read) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let problem = match read {
            Ok((memory, length)) if length > 0 => return Poll::Ready(Some(Ok(self.emit(memory, length)))),
            Ok(_) => "it has become shorter".to_owned(),
            Err(error) => error.to_string(),
        };
        self.parts.clear();
        log::event(Level::Error, "cannot send a file").field("file", &*self.name).field("error", &*problem).emit();
        Poll::Ready(Some(Err(Aborted)))
    }

    fn emit(&mut self, memory: Vec<u8>, length: usize) -> Frame<Bytes> {
        if let Some(Part::File(span)) = self.parts.front_mut() {
            if span.length() > length as u64 {
                span.first += length as u64;
            } else {
                self.parts.pop_front();
            }
        }
        self.left = self.left.saturating_sub(length as u64);
        Frame::data(Bytes::from_owner(Loan { memory, length, buffers: self.buffers.clone() }))
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        loop {
            if let Some(reading) = &mut this.reading {
                let read = ready!(reading.as_mut().poll(cx));
                this.reading = None;
                return this.finish(read.unwrap_or_else(|refused| Err(io::Error::other(refused.to_string()))));
            }
            let Some((offset, length)) = this.next() else {
                let Some(Part::Text(text)) = this.parts.pop_front() else { return Poll::Ready(None) };
                this.left = this.left.saturating_sub(text.len() as u64);
                return Poll::Ready(Some(Ok(Frame::data(text))));
            };
            let mut memory = ready!(this.buffers.poll_take(cx));
            match read_now(&this.file, &mut memory[..length], offset) {
                Ok(length) => return this.finish(Ok((memory, length))),
                Err(Errno::INTR) => this.buffers.put_back(memory),
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    let file = this.file.clone();
                    let read = move || file.read_at(&mut memory[..length], offset).map(|length| (memory, length));
                    match Handle::try_current() {
                        Ok(_) => this.reading = Some(Box::pin(blocking::run(read))),
                        // Without a runtime, nothing else could be delayed.
                        Err(_) => return this.finish(read()),
                    }
                }
                Err(error) => return this.finish(Err(error.into())),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Reads what the system has in memory.
///
/// # Errors
/// AGAIN where it has nothing, OPNOTSUPP where the file system cannot tell.
pub(super) fn read_now(file: &File, memory: &mut [u8], offset: u64) -> Result<usize, Errno> {
    rustix::io::preadv2(file, &mut [IoSliceMut::new(memory)], offset, ReadWriteFlags::NOWAIT)
}

/// The buffers of one body.
#[derive(Default)]
struct Buffers(Mutex<Free>);

#[derive(Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    made: usize,
    waiting: Option<Waker>,
}

impl Buffers {
    /// Ready with a buffer once there is one.
    fn poll_take(&self, cx: &Context<'_>) -> Poll<Vec<u8>> {
        let mut free = self.0.lock();
        if let Some(buffer) = free.buffers.pop() {
            return Poll::Ready(buffer);
        }
        if free.made < BUFFERS {
            free.made += 1;
            return Poll::Ready(vec![0; BUFFER]);
        }
        free.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn put_back(&self, buffer: Vec<u8>) {
        let mut free = self.0.lock();
        free.buffers.push(buffer);
        if let Some(waiting) = free.waiting.take() {
            waiting.wake();
        }
    }
}

/// A buffer that hyper has; it comes back when it is dropped.
struct Loan {
    memory: Vec<u8>,
    length: usize,
    buffers: Arc<Buffers>,
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.buffers.put_back(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;
    use http_body::Body;

    use super::*;

    fn poll(body: &mut FileBody) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(&noop_waker()))
    }

    #[test]
    fn the_third_frame_waits_until_the_first_has_left() {
        let path = std::env::temp_dir().join(format!("rover-body-{}", std::process::id()));
        std::fs::write(&path, vec![7; 3 * BUFFER + 5]).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let whole = Part::File(Span { first: 0, last: 3 * BUFFER as u64 + 4 });
        let mut body = FileBody::new(file, "x".to_owned(), VecDeque::from([whole, Part::Text("end".into())]));
        assert_eq!(body.size_hint().exact(), Some(3 * BUFFER as u64 + 8));
        let mut frame = || match poll(&mut body) {
            Poll::Ready(Some(Ok(frame))) => Some(frame.into_data().unwrap()),
            _ => None,
        };
        let (first, second) = (frame().unwrap(), frame().unwrap());
        assert_eq!((first.len(), second.len()), (BUFFER, BUFFER));
        assert!(frame().is_none());
        drop(first);
        assert_eq!(frame().unwrap().len(), BUFFER);
        drop(second);
        assert_eq!(frame().unwrap().len(), 5);
        assert_eq!(frame().unwrap(), "end");
        assert!(frame().is_none() && body.is_end_stream());
        std::fs::remove_file(&path).unwrap();
    }
}
