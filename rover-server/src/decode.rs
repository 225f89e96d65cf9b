//! Decodes request bodies that came in a content coding.
//!
//! Comes in: a whole body as sent, and its coding. Goes out: its bytes, up to a limit, some at a time. Must not know:
//! how the body was collected, and what is done about one that cannot be decoded.

use std::io::Read;

use bytes::{Buf, Bytes, BytesMut};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};

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
pub(crate) struct Unknown;

/// The coding that the fields of a request name; `None` for plain bytes.
///
/// # Errors
/// It is not known. Several codings count as one that is not: decoding one within the other could take any time for a
/// few bytes.
#[inline]
pub(crate) fn coding(headers: &HeaderMap) -> Result<Option<BodyCoding>, Unknown> {
    match headers.contains_key(CONTENT_ENCODING) {
        false => Ok(None),
        true => named(headers),
    }
}

#[cold]
fn named(headers: &HeaderMap) -> Result<Option<BodyCoding>, Unknown> {
    let mut found = None;
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.to_str().map_err(|_| Unknown)?.split(',').map(|name| name.trim().to_ascii_lowercase()) {
            let coding = match name.as_str() {
                "gzip" | "x-gzip" => BodyCoding::Gzip,
                "br" => BodyCoding::Br,
                "zstd" => BodyCoding::Zstd,
                "deflate" => BodyCoding::Deflate,
                "identity" | "" => continue,
                _ => return Err(Unknown),
            };
            if found.replace(coding).is_some() {
                return Err(Unknown);
            }
        }
    }
    Ok(found)
}

/// How many bytes come of one step at most.
const STEP: usize = 64 * 1024;

/// The largest window that a zstd frame may ask for, as a power of two: 8 MiB (RFC 9659).
const ZSTD_WINDOW_BITS: u32 = 23;

/// A body while it is decoded.
pub(crate) struct Decode {
    reader: Box<dyn Read>,
    out: BytesMut,
    limit: u64,
}

/// What a step came to.
pub(crate) enum Step {
    More,
    Done(Bytes),
}

impl Decode {
    /// Begins to decode to at most `limit` bytes.
    ///
    /// # Errors
    /// 400 where the decoder refuses to begin.
    pub(crate) fn new(coding: BodyCoding, body: Bytes, limit: u64) -> Result<Decode, StatusCode> {
        if coding == BodyCoding::Br && is_wide_brotli(&body) {
            return Err(StatusCode::BAD_REQUEST);
        }
        let is_zlib = is_zlib(&body);
        let body = body.reader();
        let reader: Box<dyn Read> = match coding {
            BodyCoding::Gzip => Box::new(MultiGzDecoder::new(body)),
            BodyCoding::Br => Box::new(brotli::Decompressor::new(body, 4096)),
            BodyCoding::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(body).map_err(|_| StatusCode::BAD_REQUEST)?;
                decoder.window_log_max(ZSTD_WINDOW_BITS).map_err(|_| StatusCode::BAD_REQUEST)?;
                Box::new(decoder)
            }
            BodyCoding::Deflate if is_zlib => Box::new(ZlibDecoder::new(body)),
            BodyCoding::Deflate => Box::new(DeflateDecoder::new(body)),
        };
        Ok(Decode { reader, out: BytesMut::new(), limit })
    }

    /// Decodes some more.
    ///
    /// # Errors
    /// 413 above the limit, 400 when the body is not in the coding, or is cut off.
    pub(crate) fn step(&mut self) -> Result<Step, StatusCode> {
        let start = self.out.len();
        // One byte more than the limit shows that there is more.
        let room = self.limit.saturating_add(1).saturating_sub(start as u64).min(STEP as u64) as usize;
        self.out.resize(start + room, 0);
        let mut filled = start;
        let ended = loop {
            match self.reader.read(&mut self.out[filled..]) {
                Ok(0) => break filled < self.out.len(),
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(StatusCode::BAD_REQUEST),
            }
        };
        self.out.truncate(filled);
        if filled as u64 > self.limit {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        Ok(if ended { Step::Done(std::mem::take(&mut self.out).freeze()) } else { Step::More })
    }
}

/// Whether a body is in the "large window" kind of Brotli, which is not the coding `br`: RFC 7932, section 9.1 has this
/// beginning as an invalid one. The decoder takes it all the same, and gives it a window of up to 1 GiB at once.
fn is_wide_brotli(body: &[u8]) -> bool {
    body.first().is_some_and(|first| first & 0x7f == 0x11)
}

/// Whether `deflate` is what RFC 9110, section 8.4.1.2 wants: with zlib's head. Some clients send it without.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0)
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
            if let Step::Done(bytes) = decode.step()? {
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
                Ok(Step::More) => assert!(decode.out.len() <= 1 << 20),
                Ok(Step::Done(_)) => panic!("it was let in"),
                Err(status) => break status,
            }
        };
        assert_eq!(refused, StatusCode::PAYLOAD_TOO_LARGE);
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
            assert_eq!(of(unknown), Err(Unknown), "{unknown:?}");
        }
    }
}
