//! Decodes responses piece by piece: gzip, brotli and zstd.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::Body;
use hyper::body::Incoming;
use tokio::task::coop;

use super::Problem;
use crate::message::decode::{BodyCoding, BrokenCoding, Codec, coding};

/// The `Accept-Encoding` of requests.
pub(super) const ACCEPTED: &str = "gzip, br, zstd";

/// The size of the largest pieces that come out, in bytes.
const PIECE: usize = 32 * 1024;

/// A body being decoded.
pub(super) struct Decoder {
    body: Incoming,
    codec: Codec,
    /// What has come and is not decoded yet.
    input: Bytes,
    room: Box<[u8]>,
    /// Anything has come. A body without a byte counts as empty, for there are servers that say so.
    has_begun: bool,
    is_complete: bool,
}

impl Decoder {
    /// Takes `body` where `headers` name one coding that is known, and removes what they say of it.
    ///
    /// # Errors
    /// Gives the body back where there is nothing to decode.
    pub(super) fn new(body: Incoming, headers: &mut HeaderMap) -> Result<Decoder, Incoming> {
        let coding = match coding(headers) {
            Ok(Some(coding)) if coding != BodyCoding::Deflate && !body.is_end_stream() => coding,
            _ => return Err(body),
        };
        let Ok(codec) = Codec::new(coding, &[]) else { return Err(body) };
        headers.remove(CONTENT_ENCODING);
        headers.remove(CONTENT_LENGTH);
        let room = vec![0; PIECE].into_boxed_slice();
        Ok(Decoder { body, codec, input: Bytes::new(), room, has_begun: false, is_complete: false })
    }

    /// The next piece; `None` at the end.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Problem>>> {
        // A few bytes may decode to very many, which must not keep the worker for themselves.
        let turn = ready!(coop::poll_proceed(cx));
        loop {
            let step = match self.codec.run(&self.input, &mut self.room) {
                Ok(step) => step,
                Err(BrokenCoding) => return Poll::Ready(Some(Err(Problem::Undecodable))),
            };
            self.input.advance(step.read);
            if step.written > 0 {
                turn.made_progress();
                return Poll::Ready(Some(Ok(Bytes::copy_from_slice(&self.room[..step.written]))));
            }
            if step.read > 0 {
                continue;
            }
            if self.is_complete || !self.input.is_empty() {
                let is_fine = self.input.is_empty() && (self.codec.is_whole() || !self.has_begun);
                return Poll::Ready(if is_fine { None } else { Some(Err(Problem::Undecodable)) });
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.is_complete = true,
                Some(Err(error)) => return Poll::Ready(Some(Err(Problem::of(&error)))),
                // Trailers are not part of the body.
                Some(Ok(frame)) => self.input = frame.into_data().unwrap_or_default(),
            }
            self.has_begun |= !self.input.is_empty();
        }
    }
}
