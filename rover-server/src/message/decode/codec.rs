//! The codecs: one step at a time, from whatever input there is to whatever room there is.
//!
//! flate2, brotli and zstd have readers and writers too, but a reader keeps what it has decoded until more input comes, and
//! brotli's writer has no bound on what it makes of one piece.

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Operation};

use super::BodyCoding;

/// The largest window that a zstd frame may ask for, as a power of two: 8 MiB (RFC 9659).
const ZSTD_WINDOW_BITS: u32 = 23;

/// The window of gzip, as a power of two (RFC 1952).
const GZIP_WINDOW_BITS: u8 = 15;

/// The bytes are not in the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BrokenCoding;

/// How far a step came. Without either, there is nothing to do without more input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of the input.
    pub(crate) read: usize,
    /// Bytes of the room.
    pub(crate) written: usize,
}

/// A decoder in the middle of its work. Its memory is bounded: 16 MiB for brotli, 8 MiB for zstd, 64 KiB for the others.
pub(crate) struct Codec {
    inner: Inner,
    /// What has been read so far could be all.
    is_whole: bool,
}

enum Inner {
    Gzip(Decompress),
    Deflate(Decompress),
    // Boxed, for it is some kilobytes.
    Br(Box<Brotli>),
    Zstd(zstd::stream::raw::Decoder<'static>),
}

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

impl Codec {
    /// `beginning` is of a body in `deflate`, which some send without zlib's head; others need none.
    ///
    /// # Errors
    /// The decoder refuses to begin.
    pub(crate) fn new(coding: BodyCoding, beginning: &[u8]) -> Result<Codec, BrokenCoding> {
        let inner = match coding {
            BodyCoding::Gzip => Inner::Gzip(Decompress::new_gzip(GZIP_WINDOW_BITS)),
            BodyCoding::Deflate => Inner::Deflate(Decompress::new(is_zlib(beginning))),
            BodyCoding::Br => {
                let alloc = StandardAlloc::default;
                // Strict: without the large windows that RFC 7932 does not know.
                Inner::Br(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))
            }
            BodyCoding::Zstd => {
                let mut decoder = zstd::stream::raw::Decoder::new().map_err(|_| BrokenCoding)?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_BITS)).map_err(|_| BrokenCoding)?;
                Inner::Zstd(decoder)
            }
        };
        Ok(Codec { inner, is_whole: false })
    }

    /// Whether the body may end here.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Decodes what it can. To be called with the rest of the input, and with none for what has been held back.
    ///
    /// # Errors
    /// The input is not in the coding.
    pub(crate) fn run(&mut self, input: &[u8], room: &mut [u8]) -> Result<Progress, BrokenCoding> {
        if self.is_whole {
            match &mut self.inner {
                _ if input.is_empty() => return Ok(Progress::default()),
                // Members of gzip and frames of zstd may follow each other.
                Inner::Gzip(decoder) => *decoder = Decompress::new_gzip(GZIP_WINDOW_BITS),
                Inner::Zstd(_) => {}
                Inner::Deflate(_) | Inner::Br(_) => return Err(BrokenCoding),
            }
            self.is_whole = false;
        }
        let mut progress = Progress::default();
        self.is_whole = match &mut self.inner {
            Inner::Gzip(decoder) | Inner::Deflate(decoder) => {
                let (read, written) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, room, FlushDecompress::None).map_err(|_| BrokenCoding)?;
                progress.read = (decoder.total_in() - read) as usize;
                progress.written = (decoder.total_out() - written) as usize;
                status == Status::StreamEnd
            }
            Inner::Br(state) => {
                let (mut input_left, mut room_left, mut total) = (input.len(), room.len(), 0);
                let Progress { read, written } = &mut progress;
                let result = BrotliDecompressStream(
                    &mut input_left,
                    read,
                    input,
                    &mut room_left,
                    written,
                    room,
                    &mut total,
                    state,
                );
                match result {
                    BrotliResult::ResultSuccess => true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => false,
                    BrotliResult::ResultFailure => return Err(BrokenCoding),
                }
            }
            Inner::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, room).map_err(|_| BrokenCoding)?;
                progress = Progress { read: status.bytes_read, written: status.bytes_written };
                status.remaining == 0
            }
        };
        Ok(progress)
    }
}

/// Whether `deflate` is what RFC 9110, section 8.4.1.2 wants: with zlib's head. Some clients send it without.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0)
}
