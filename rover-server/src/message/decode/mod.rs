//! Decodes bodies that came in a content coding.
//!
//! Comes in: for a request, a whole body as sent, and its coding; for an answer to Rover as a client, piece after piece.
//! Goes out: its bytes, up to a limit, some at a time. Must not know: how the body was collected, and what is done about
//! one that cannot be decoded.

mod codec;

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};

pub(crate) use codec::{BrokenCoding, Codec};

/// What a client may send, as the value of `Accept-Encoding` in a 415 (RFC 9110, section 15.5.16).
pub(crate) const ACCEPTED: &str = "gzip, br, zstd, deflate";

/// The coding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyCoding {
    Gzip,
    Br,
    Zstd,
    Deflate,
}

/// The body is in a coding that is not known, or in several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnknownCoding;

/// The coding that the fields of a message name; `None` for plain bytes.
///
/// # Errors
/// It is not known. Several codings count as one that is not: decoding one within the other could take any time for a
/// few bytes.
#[inline]
pub(crate) fn coding(headers: &HeaderMap) -> Result<Option<BodyCoding>, UnknownCoding> {
    // To look at a few names costs less than to look one up.
    match headers.keys().any(|name| *name == CONTENT_ENCODING) {
        false => Ok(None),
        true => named(headers),
    }
}

#[cold]
fn named(headers: &HeaderMap) -> Result<Option<BodyCoding>, UnknownCoding> {
    let mut found = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.to_str().map_err(|_| UnknownCoding)?.split(',').map(|name| name.trim().to_ascii_lowercase()) {
            let coding = match name.as_str() {
                "gzip" | "x-gzip" => BodyCoding::Gzip,
                "br" => BodyCoding::Br,
                "zstd" => BodyCoding::Zstd,
                "deflate" => BodyCoding::Deflate,
                "identity" | "" => continue,
                _ => return Err(UnknownCoding),
            };
            if found.replace(coding).is_some() {
                return Err(UnknownCoding);
            }
        }
    }
    Ok(found)
}

/// How many bytes come of one step at most.
const STEP: usize = 64 * 1024;

/// A body while it is decoded.
pub(crate) struct Decode {
    codec: Codec,
    /// What is still to be decoded.
    body: Bytes,
    out: BytesMut,
    limit: u64,
}

/// What a step came to.
pub(crate) enum DecodeStep {
    More,
    Done(Bytes),
}

impl Decode {
    /// Begins to decode to at most `limit` bytes.
    ///
    /// # Errors
    /// 400 where the decoder refuses to begin.
    pub(crate) fn new(coding: BodyCoding, body: Bytes, limit: u64) -> Result<Decode, StatusCode> {
        let codec = Codec::new(coding, &body).map_err(|BrokenCoding| StatusCode::BAD_REQUEST)?;
        Ok(Decode { codec, body, out: BytesMut::new(), limit })
    }

    /// Decodes some more.
    ///
    /// # Errors
    /// 413 above the limit, 400 when the body is not in the coding, or is cut off.
    pub(crate) fn step(&mut self) -> Result<DecodeStep, StatusCode> {
        let start = self.out.len();
        // One byte more than the limit shows that there is more.
        let room = self.limit.saturating_add(1).saturating_sub(start as u64).min(STEP as u64) as usize;
        self.out.resize(start + room, 0);
        let (mut filled, mut read) = (start, 0);
        let has_ended = loop {
            // What decodes to nothing must not take all day either.
            if filled == self.out.len() || read >= STEP {
                break false;
            }
            let step =
                self.codec.run(&self.body, &mut self.out[filled..]).map_err(|BrokenCoding| StatusCode::BAD_REQUEST)?;
            self.body.advance(step.read);
            filled += step.written;
            read += step.read;
            if step.read + step.written == 0 {
                if !self.codec.is_whole() || !self.body.is_empty() {
                    return Err(StatusCode::BAD_REQUEST);
                }
                break true;
            }
        };
        self.out.truncate(filled);
        if filled as u64 > self.limit {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        Ok(if has_ended { DecodeStep::Done(std::mem::take(&mut self.out).freeze()) } else { DecodeStep::More })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http::HeaderValue;

    use super::*;

    const CODINGS: [BodyCoding; 4] = [BodyCoding::Gzip, BodyCoding::Br, BodyCoding::Zstd, BodyCoding::Deflate];

    fn encoded(coding: BodyCoding, bytes: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::best();
        match coding {
            BodyCoding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            BodyCoding::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            BodyCoding::Br => {
                let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
                encoder.write_all(bytes).unwrap();
                encoder.into_inner()
            }
            BodyCoding::Zstd => zstd::encode_all(bytes, 3).unwrap(),
        }
    }

    fn decoded(coding: BodyCoding, body: Vec<u8>, limit: u64) -> Result<Bytes, StatusCode> {
        let mut decode = Decode::new(coding, body.into(), limit)?;
        loop {
            if let DecodeStep::Done(bytes) = decode.step()? {
                return Ok(bytes);
            }
        }
    }

    #[test]
    fn every_coding_up_to_the_limit() {
        let text = "a line of text\n".repeat(20_000);
        for coding in CODINGS {
            let body = encoded(coding, text.as_bytes());
            assert!(decoded(coding, body.clone(), text.len() as u64).unwrap() == text.as_bytes(), "{coding:?}");
            let above = decoded(coding, body.clone(), text.len() as u64 - 1);
            assert_eq!(above, Err(StatusCode::PAYLOAD_TOO_LARGE), "{coding:?}");
            assert_eq!(decoded(coding, encoded(coding, b""), 0).unwrap().len(), 0, "{coding:?}");
            assert_eq!(decoded(coding, encoded(coding, &[7; 65536]), 65536).unwrap().len(), 65536, "{coding:?}");
        }
    }

    #[test]
    fn a_body_that_is_cut_off_or_no_such_coding() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        for coding in CODINGS {
            let body = encoded(coding, &text);
            for length in [1, 5, body.len() / 2, body.len() - 1] {
                let cut = decoded(coding, body[..length].to_vec(), 1 << 20);
                assert_eq!(cut, Err(StatusCode::BAD_REQUEST), "{coding:?}: {length} of {}", body.len());
            }
            assert_eq!(
                decoded(coding, b"plain text it is".to_vec(), 1 << 20),
                Err(StatusCode::BAD_REQUEST),
                "{coding:?}"
            );
        }
    }

    #[test]
    fn a_bomb_is_let_down_early() {
        let bomb = encoded(BodyCoding::Zstd, &vec![0; 200 << 20]);
        assert!(bomb.len() < 20_000);
        let mut decode = Decode::new(BodyCoding::Zstd, bomb.into(), 1 << 20).unwrap();
        let refused = loop {
            match decode.step() {
                Ok(DecodeStep::More) => assert!(decode.out.len() <= 1 << 20),
                Ok(DecodeStep::Done(_)) => panic!("it was let in"),
                Err(status) => break status,
            }
        };
        assert_eq!(refused, StatusCode::PAYLOAD_TOO_LARGE);
    }

    /// A server may flush at any byte, and what has come must not wait for what comes next.
    #[test]
    fn input_and_output_may_come_in_pieces_of_any_size() {
        let text: Vec<u8> = (0..40_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        for coding in CODINGS {
            let body = encoded(coding, &text);
            for (most_in, most_out) in [(1, 70_000), (3, 5), (4096, 100), (body.len(), 1), (body.len(), 1 << 20)] {
                let mut codec = Codec::new(coding, &body).unwrap();
                let (mut rest, mut decoded, mut space) = (&body[..], Vec::new(), vec![0; most_out]);
                loop {
                    let step = codec.run(&rest[..rest.len().min(most_in)], &mut space).unwrap();
                    rest = &rest[step.read..];
                    decoded.extend_from_slice(&space[..step.written]);
                    if step.read + step.written == 0 {
                        break;
                    }
                }
                assert!(rest.is_empty() && codec.is_whole() && decoded == text, "{coding:?} {most_in} {most_out}");
            }
        }
    }

    #[test]
    fn what_stands_one_behind_the_other_is_one_body_where_the_coding_says_so() {
        for coding in CODINGS {
            let twice = [encoded(coding, b"one"), encoded(coding, b"two")].concat();
            let expected = match coding {
                BodyCoding::Gzip | BodyCoding::Zstd => Ok(Bytes::from_static(b"onetwo")),
                BodyCoding::Br | BodyCoding::Deflate => Err(StatusCode::BAD_REQUEST),
            };
            assert_eq!(decoded(coding, twice, 100), expected, "{coding:?}");
        }
    }

    #[test]
    fn brotli_has_no_window_beyond_the_rfc_s() {
        // The window's bits stand behind the escape: 30 of them, as the encoder with a large window writes it.
        let mut body = Vec::new();
        let params = brotli::enc::BrotliEncoderParams {
            lgwin: 30,
            large_window: true,
            ..brotli::enc::BrotliEncoderParams::default()
        };
        brotli::BrotliCompress(&mut &b"text"[..], &mut body, &params).unwrap();
        assert_eq!(decoded(BodyCoding::Br, body, 100), Err(StatusCode::BAD_REQUEST));
        for window in 10..=24 {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, window);
            encoder.write_all(b"text").unwrap();
            assert_eq!(decoded(BodyCoding::Br, encoder.into_inner(), 100).unwrap(), "text", "{window}");
        }
    }

    #[test]
    fn raw_deflate_is_read_too() {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(b"{\"a\":1}").unwrap();
        assert_eq!(decoded(BodyCoding::Deflate, encoder.finish().unwrap(), 100).unwrap(), "{\"a\":1}");
    }

    #[test]
    fn names() {
        let of = |fields: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(field));
            }
            coding(&headers)
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["identity"]), Ok(None));
        assert_eq!(of(&["GZIP"]), Ok(Some(BodyCoding::Gzip)));
        assert_eq!(of(&["identity, x-gzip"]), Ok(Some(BodyCoding::Gzip)));
        assert_eq!(of(&["deflate"]), Ok(Some(BodyCoding::Deflate)));
        for unknown in [&["compress"][..], &["gzip, br"], &["gzip", "gzip"], &["rot13"]] {
            assert_eq!(of(unknown), Err(UnknownCoding), "{unknown:?}");
        }
    }
}
