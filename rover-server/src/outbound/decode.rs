//! Content codings of responses: gzip, brotli and zstd, undone piece by piece.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::Body;
use hyper::body::Incoming;
use tokio::io::AsyncRead;
use tokio_util::io::{StreamReader, poll_read_buf};

use super::Problem;

/// What requests say they understand.
pub(super) const ACCEPTED: &str = "gzip, br, zstd";

/// The size of the pieces that come out, in bytes.
const PIECE: usize = 32 * 1024;

/// The most memory that a zstd stream may ask for, as a power of two: 8 MB, as RFC 8878, section 3.1.1.1.2 recommends.
const ZSTD_WINDOW: u32 = 23;

/// A body being decoded.
pub(super) struct Decoder(Pin<Box<dyn AsyncRead>>);

impl Decoder {
    /// Takes `body` where `headers` name one coding that is known, and removes what they say of it.
    ///
    /// # Errors
    /// Gives the body back where there is nothing to decode.
    pub(super) fn new(body: Incoming, headers: &mut HeaderMap) -> Result<Decoder, Incoming> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let coding = match (codings.next(), codings.next()) {
            (Some(coding), None) if !body.is_end_stream() => coding.as_bytes().to_ascii_lowercase(),
            _ => return Err(body),
        };
        let reader: Pin<Box<dyn AsyncRead>> = match coding.trim_ascii() {
            b"gzip" | b"x-gzip" => {
                let mut decoder = GzipDecoder::new(StreamReader::new(Chunks(body)));
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            b"br" => Box::pin(BrotliDecoder::new(StreamReader::new(Chunks(body)))),
            b"zstd" => {
                let window = [DParameter::window_log_max(ZSTD_WINDOW)];
                let mut decoder = ZstdDecoder::with_params(StreamReader::new(Chunks(body)), &window);
                decoder.multiple_members(true);
                Box::pin(decoder)
            }
            _ => return Err(body),
        };
        headers.remove(CONTENT_ENCODING);
        headers.remove(CONTENT_LENGTH);
        Ok(Decoder(reader))
    }

    /// The next piece; `None` at the end.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Problem>>> {
        let mut piece = BytesMut::with_capacity(PIECE);
        match ready!(poll_read_buf(self.0.as_mut(), cx, &mut piece)) {
            Ok(0) => Poll::Ready(None),
            Ok(_) => Poll::Ready(Some(Ok(piece.freeze()))),
            Err(error) => Poll::Ready(Some(Err(match error.get_ref() {
                Some(inner) if inner.is::<hyper::Error>() => Problem::of(&error),
                _ => Problem::Undecodable,
            }))),
        }
    }
}

/// A body as a stream of its data.
struct Chunks(Incoming);

impl Stream for Chunks {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }
}
