//! The encoders, with one interface.
//!
//! Comes in: bytes. Goes out: the same bytes in a content coding. Must not know: HTTP messages.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::ZlibEncoder;
use flate2::{Compress, FlushCompress, Status};
use zstd::zstd_safe::CParameter;

use crate::message::coding::Coding;

/// The encoders' levels: for answers that are made anew each time, a higher level costs more time than its bytes are
/// worth. `docs/compression.md` has the figures.
const GZIP_LEVEL: u32 = 5;
const BR_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;

/// How far encoders of streams look back, as a power of two: what bounds the memory of a stream that stays open.
const WINDOW_BITS: u8 = 16;

/// The largest window of `gzip`, as a power of two.
const GZIP_WINDOW_BITS: u8 = 15;

/// Encodes a stream.
pub(super) enum Encoder {
    /// A `Compress` that writes gzip's head and end.
    Gzip(Box<ZlibEncoder<Vec<u8>>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// An encoder with a small window.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn new(coding: Coding) -> io::Result<Encoder> {
        Ok(match coding {
            Coding::Gzip => {
                let compress = Compress::new_gzip(flate2::Compression::new(GZIP_LEVEL), GZIP_WINDOW_BITS);
                Encoder::Gzip(Box::new(ZlibEncoder::new_with_compress(Vec::new(), compress)))
            }
            Coding::Br => {
                let writer = brotli::CompressorWriter::new(Vec::new(), 4096, BR_LEVEL, WINDOW_BITS.into());
                Encoder::Br(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW_BITS.into()))?;
                encoder.set_parameter(CParameter::HashLog(u32::from(WINDOW_BITS) - 1))?;
                encoder.set_parameter(CParameter::ChainLog(u32::from(WINDOW_BITS) - 1))?;
                Encoder::Zstd(encoder)
            }
        })
    }

    /// Takes more bytes in.
    ///
    /// # Errors
    /// The encoder fails.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Br(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Makes everything that was taken in readable for the client.
    ///
    /// # Errors
    /// The encoder fails.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Br(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }

    /// What is ready to be sent.
    pub(super) fn ready(&mut self) -> &mut Vec<u8> {
        match self {
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Br(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
        }
    }

    /// The rest.
    ///
    /// # Errors
    /// The encoder fails.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Br(encoder) => Ok(encoder.into_inner()),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// Encodes whole bodies. The encoders' state is kept from one to the next, because making it costs more than a small
/// body.
#[derive(Default)]
pub(super) struct Whole {
    gzip: Option<Compress>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Whole {
    /// The bytes in a coding; `None` where that is no shorter, unless it `must` be all the same.
    pub(super) fn compress(&mut self, coding: Coding, bytes: &[u8], must: bool) -> Option<Bytes> {
        // What an encoder adds to bytes that it cannot make shorter is far less.
        let most = if must { bytes.len() + bytes.len() / 16 + 256 } else { bytes.len().saturating_sub(1) };
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => {
                out.reserve_exact(most);
                let level = flate2::Compression::new(GZIP_LEVEL);
                let encoder = self.gzip.get_or_insert_with(|| Compress::new_gzip(level, GZIP_WINDOW_BITS));
                encoder.reset();
                let ended = encoder.compress_vec(bytes, &mut out, FlushCompress::Finish).ok()?;
                if ended != Status::StreamEnd {
                    return None;
                }
            }
            Coding::Zstd => {
                out.reserve_exact(most);
                if self.zstd.is_none() {
                    self.zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
                }
                // Fails where the room does not suffice.
                self.zstd.as_mut()?.compress_to_buffer(bytes, &mut out).ok()?;
            }
            Coding::Br => {
                let window = usize::BITS - bytes.len().leading_zeros();
                let mut writer =
                    brotli::CompressorWriter::new(out, bytes.len().max(64), BR_LEVEL, window.clamp(10, 22));
                writer.write_all(bytes).ok()?;
                out = writer.into_inner();
                if out.len() > most {
                    return None;
                }
            }
        }
        // The memory is kept until the client has read everything.
        out.shrink_to_fit();
        Some(out.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
            Coding::Br => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap(),
            Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap(),
        };
        out
    }

    #[test]
    fn whole_bodies_come_back() {
        let mut whole = Whole::default();
        let text = "It was the best of times, it was the worst of times. ".repeat(200);
        let noise: Vec<u8> = (0..10_000).map(|_| fastrand::u8(..)).collect();
        for coding in Coding::ALL {
            for _ in 0..2 {
                let compressed = whole.compress(coding, text.as_bytes(), false).unwrap();
                assert!(compressed.len() < 400, "{coding:?}: {}", compressed.len());
                assert!(decoded(coding, &compressed) == text.as_bytes(), "{coding:?}");
                assert_eq!(whole.compress(coding, &noise, false), None, "{coding:?}");
                let compressed = whole.compress(coding, &noise, true).unwrap();
                assert!(decoded(coding, &compressed) == noise, "{coding:?}");
                assert_eq!(decoded(coding, &whole.compress(coding, b"x", true).unwrap()), b"x", "{coding:?}");
            }
        }
    }

    #[test]
    fn what_was_flushed_can_be_read() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding).unwrap();
            let mut sent = Vec::new();
            for n in 0..100 {
                encoder.write(format!("line {n}\n").as_bytes()).unwrap();
                encoder.flush().unwrap();
                let ready = std::mem::take(encoder.ready());
                assert!(!ready.is_empty(), "{coding:?}");
                sent.extend(ready);
            }
            sent.extend(encoder.finish().unwrap());
            let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
            assert!(decoded(coding, &sent) == text.as_bytes(), "{coding:?}");
        }
    }
}
