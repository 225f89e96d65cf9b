//! Compresses a body while it is sent.
//!
//! Comes in: another body. Goes out: its bytes in a content coding. Nothing is delayed: when the source waits, the
//! client can read everything that it gave so far. Large pieces are compressed in slices, and other requests get their
//! turn after a few.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use super::SLICE;
use super::encoder::Encoder;
use crate::message::body::{Aborted, Body};
use crate::message::coding::Coding;

/// How many slices are compressed before other requests get their turn.
const SLICES_EACH_TURN: u8 = 2;

/// How many bytes are collected before they are sent on, unless the source waits.
const COLLECT: usize = 8 * 1024;

/// A source and its encoder.
pub(super) struct Compressed {
    source: Body,
    /// `None` once everything is out.
    encoder: Option<Encoder>,
    /// What the source gave last and the encoder has not had.
    rest: Bytes,
    /// The encoder holds bytes that the client cannot read yet.
    holds: bool,
    slices: u8,
    trailers: Option<Frame<Bytes>>,
}

impl Compressed {
    /// Begins to compress.
    ///
    /// # Errors
    /// The source, where the encoder cannot be made.
    pub(super) fn new(source: Body, coding: Coding) -> Result<Compressed, Body> {
        match Encoder::new(coding) {
            Ok(encoder) => Ok(Compressed {
                source,
                encoder: Some(encoder),
                rest: Bytes::new(),
                holds: false,
                slices: 0,
                trailers: None,
            }),
            Err(_) => Err(source),
        }
    }

    /// What to do next: bytes to send, or `None` where the source has to be asked first.
    fn compress_rest(&mut self) -> io::Result<Option<Bytes>> {
        let Some(encoder) = &mut self.encoder else { return Ok(None) };
        let slice = self.rest.split_to(self.rest.len().min(SLICE));
        encoder.write(&slice)?;
        self.holds = true;
        self.slices += 1;
        let ready = encoder.ready();
        Ok((ready.len() >= COLLECT).then(|| std::mem::take(ready).into()))
    }

    /// Lets the client read everything so far.
    fn release(&mut self) -> io::Result<Option<Bytes>> {
        let Some(encoder) = self.encoder.as_mut().filter(|_| self.holds) else { return Ok(None) };
        encoder.flush()?;
        self.holds = false;
        let ready = std::mem::take(encoder.ready());
        Ok((!ready.is_empty()).then(|| ready.into()))
    }

    fn finish(&mut self) -> io::Result<Option<Bytes>> {
        let Some(encoder) = self.encoder.take() else { return Ok(None) };
        let rest = encoder.finish()?;
        Ok((!rest.is_empty()).then(|| rest.into()))
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if self.encoder.is_none() {
                return Poll::Ready(Ok(None));
            }
            if !self.rest.is_empty() {
                if self.slices >= SLICES_EACH_TURN {
                    self.slices = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match self.compress_rest()? {
                    Some(bytes) => return Poll::Ready(Ok(Some(bytes))),
                    None => continue,
                }
            }
            match Pin::new(&mut self.source).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => {
                        self.trailers = Some(trailers);
                        return Poll::Ready(self.finish());
                    }
                },
                Poll::Ready(Some(Err(Aborted))) => {
                    self.encoder = None;
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                Poll::Ready(None) => return Poll::Ready(self.finish()),
                Poll::Pending => {
                    self.slices = 0;
                    return match self.release()? {
                        Some(bytes) => Poll::Ready(Ok(Some(bytes))),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }
}

impl http_body::Body for Compressed {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        this.poll_bytes(cx).map(|bytes| match bytes {
            Ok(Some(bytes)) => Some(Ok(Frame::data(bytes))),
            Ok(None) => this.trailers.take().map(Ok),
            Err(_) => {
                this.encoder = None;
                Some(Err(Aborted))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::io::Read;
    use std::rc::Rc;

    use futures_util::task::noop_waker;

    use super::*;

    /// Gives what a test has put in, and waits where there is nothing.
    #[derive(Clone, Default)]
    struct Source(Rc<RefCell<VecDeque<Given>>>);

    /// A frame, or the end.
    type Given = Option<Result<Frame<Bytes>, Aborted>>;

    impl Source {
        fn put(&self, bytes: &[u8]) {
            self.0.borrow_mut().push_back(Some(Ok(Frame::data(Bytes::copy_from_slice(bytes)))));
        }
    }

    impl http_body::Body for Source {
        type Data = Bytes;
        type Error = Aborted;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
            self.0.borrow_mut().pop_front().map_or(Poll::Pending, Poll::Ready)
        }
    }

    fn poll(body: &mut Compressed) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(&noop_waker()))
    }

    /// All bytes that can be had now.
    fn ready(body: &mut Compressed) -> Vec<u8> {
        let mut all = Vec::new();
        while let Poll::Ready(Some(Ok(frame))) = poll(body) {
            all.extend(frame.into_data().unwrap());
        }
        all
    }

    #[test]
    fn an_event_can_be_read_before_the_next_one_comes() {
        for coding in Coding::ALL {
            let source = Source::default();
            let mut body = Compressed::new(Body::Stream(Box::pin(source.clone())), coding).ok().unwrap();
            assert!(poll(&mut body).is_pending());
            let mut sent = Vec::new();
            for n in 0..20 {
                source.put(format!("data: {n}\n\n").as_bytes());
                let bytes = ready(&mut body);
                assert!(!bytes.is_empty(), "{coding:?}: event {n} is held back");
                sent.extend(bytes);
                let mut text = vec![0; 4096];
                let mut read = 0;
                // What is there so far decodes to all events so far; then the decoder misses the end.
                let mut decoder: Box<dyn Read> = match coding {
                    Coding::Gzip => Box::new(flate2::read::GzDecoder::new(&sent[..])),
                    Coding::Br => Box::new(brotli::Decompressor::new(&sent[..], 4096)),
                    Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(&sent[..]).unwrap()),
                };
                while let Ok(more @ 1..) = decoder.read(&mut text[read..]) {
                    read += more;
                }
                assert!(text[..read].ends_with(format!("data: {n}\n\n").as_bytes()), "{coding:?}: {n}");
            }
            source.0.borrow_mut().push_back(None);
            sent.extend(ready(&mut body));
            assert!(http_body::Body::is_end_stream(&body));
            assert!(matches!(poll(&mut body), Poll::Ready(None)));
        }
    }

    #[test]
    fn a_source_that_breaks_off_breaks_off() {
        let source = Source::default();
        let mut body = Compressed::new(Body::Stream(Box::pin(source.clone())), Coding::Gzip).ok().unwrap();
        source.put(b"some");
        source.0.borrow_mut().push_back(Some(Err(Aborted)));
        let mut last = poll(&mut body);
        while let Poll::Ready(Some(Ok(_))) = last {
            last = poll(&mut body);
        }
        assert!(matches!(last, Poll::Ready(Some(Err(Aborted)))));
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn much_at_once_leaves_turns_to_others() {
        let mut body = Compressed::new(Body::Full(vec![b'x'; 10 * SLICE].into()), Coding::Gzip).ok().unwrap();
        let mut turns = 0;
        loop {
            match poll(&mut body) {
                Poll::Ready(None) => break,
                Poll::Ready(Some(_)) => {}
                Poll::Pending => turns += 1,
            }
        }
        assert!(turns >= 4, "{turns}");
    }

    #[test]
    fn trailers_come_behind_the_last_bytes() {
        let source = Source::default();
        let mut body = Compressed::new(Body::Stream(Box::pin(source.clone())), Coding::Gzip).ok().unwrap();
        source.put(b"some");
        source.0.borrow_mut().push_back(Some(Ok(Frame::trailers(http::HeaderMap::new()))));
        let mut is_trailers = Vec::new();
        while let Poll::Ready(Some(Ok(frame))) = poll(&mut body) {
            is_trailers.push(frame.is_trailers());
        }
        assert_eq!(is_trailers, [false, true]);
    }
}
