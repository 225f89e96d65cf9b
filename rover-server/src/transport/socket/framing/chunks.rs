//! A body in chunks (RFC 9112, section 7.1), byte by byte but for the data.
//!
//! Comes in: bytes, split in any way. Goes out: where the body ends, its trailers included, or what is wrong.

use super::Fault;

/// What the next byte is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    #[default]
    FirstDigit,
    Digit,
    Extension,
    /// The LF behind a size or an extension.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The first of a trailer, or the end.
    Trailer,
    TrailerRest,
    TrailerLf,
    LastLf,
}

/// A body in chunks, as far as it has come.
#[derive(Default)]
pub(super) struct Chunks {
    part: Part,
    /// Of the chunk, as far as it is read, or of what is left of its data.
    size: u64,
}

impl Chunks {
    /// Takes bytes up to the end of the body, or all: so many, and whether it is over.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), (usize, Fault)> {
        let mut at = 0;
        while at < bytes.len() {
            if self.part == Part::Data {
                let length = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += length;
                self.size -= length as u64;
                if self.size == 0 {
                    self.part = Part::DataCr;
                }
                continue;
            }
            let is_last = self.part == Part::LastLf;
            self.part = self.next(bytes[at]).map_err(|fault| (at, fault))?;
            at += 1;
            if is_last {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// What comes behind `byte`.
    fn next(&mut self, byte: u8) -> Result<Part, Fault> {
        Ok(match (self.part, byte) {
            (Part::FirstDigit | Part::Digit, byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                let shifted = self.size.checked_mul(16).ok_or(Fault::ChunkSize)?;
                self.size = shifted + digit;
                Part::Digit
            }
            (Part::Digit, b';') => Part::Extension,
            (Part::Digit | Part::Extension, b'\r') => Part::SizeLf,
            (Part::FirstDigit | Part::Digit, _) => return Err(Fault::ChunkSize),
            (Part::Extension, byte) if byte == b'\t' || !byte.is_ascii_control() => Part::Extension,
            (Part::Extension, _) => return Err(Fault::ChunkExtension),
            (Part::SizeLf, b'\n') if self.size == 0 => Part::Trailer,
            (Part::SizeLf, b'\n') => Part::Data,
            (Part::SizeLf, _) => return Err(Fault::ChunkSize),
            (Part::DataCr, b'\r') => Part::DataLf,
            (Part::DataLf, b'\n') => Part::FirstDigit,
            (Part::Data | Part::DataCr | Part::DataLf, _) => return Err(Fault::ChunkEnd),
            (Part::Trailer, b'\r') => Part::LastLf,
            (Part::LastLf | Part::TrailerLf, b'\n') => Part::Trailer,
            (Part::TrailerRest, b'\r') => Part::TrailerLf,
            (Part::Trailer | Part::TrailerRest, byte) if byte != b'\n' => Part::TrailerRest,
            (Part::Trailer | Part::TrailerRest | Part::TrailerLf | Part::LastLf, _) => return Err(Fault::TrailerEnd),
        })
    }
}
