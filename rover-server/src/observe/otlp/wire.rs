//! Protocol Buffers as far as spans need them: fields are written straight into a buffer, with nothing in between.
//!
//! prost knows the encoding. Its messages own every name and value as a string of its own, some thirty blocks of memory
//! for each span; here a span costs none.

use prost::encoding::{WireType, encode_varint, encoded_len_varint};

/// The longest value of an attribute, in bytes; longer ones are cut. A client may send a path of 60 KB.
pub(super) const LONGEST: usize = 1024;

/// A whole number. Nearly all are lengths and keys of one byte.
#[inline(always)]
fn varint(out: &mut Vec<u8>, value: u64) {
    match u8::try_from(value) {
        Ok(byte @ ..0x80) => out.push(byte),
        _ => encode_varint(value, out),
    }
}

/// What a field begins with.
#[inline(always)]
fn key(out: &mut Vec<u8>, tag: u32, kind: WireType) {
    varint(out, u64::from(tag << 3 | kind as u32));
}

/// The head of a field that has so many bytes.
#[inline(always)]
pub(super) fn head(out: &mut Vec<u8>, tag: u32, length: usize) {
    key(out, tag, WireType::LengthDelimited);
    varint(out, length as u64);
}

/// A field of bytes, or a message that has been written already.
#[inline]
pub(super) fn bytes(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    head(out, tag, value.len());
    out.extend_from_slice(value);
}

/// A field of text that consists of several pieces.
pub(super) fn pieces(out: &mut Vec<u8>, tag: u32, pieces: &[&str]) {
    head(out, tag, pieces.iter().map(|piece| piece.len()).sum());
    pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
}

/// A field of text.
#[inline(always)]
pub(super) fn text(out: &mut Vec<u8>, tag: u32, value: &str) {
    bytes(out, tag, value.as_bytes());
}

/// A field of an enum or of a whole number.
pub(super) fn number(out: &mut Vec<u8>, tag: u32, value: u64) {
    key(out, tag, WireType::Varint);
    varint(out, value);
}

/// A field of 64 bits.
pub(super) fn fixed64(out: &mut Vec<u8>, tag: u32, value: u64) {
    key(out, tag, WireType::SixtyFourBit);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field of 32 bits.
pub(super) fn fixed32(out: &mut Vec<u8>, tag: u32, value: u32) {
    key(out, tag, WireType::ThirtyTwoBit);
    out.extend_from_slice(&value.to_le_bytes());
}

/// How long a field of so many bytes is, where its tag is below 16.
#[inline(always)]
pub(super) fn length_of(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

/// Fields of a `KeyValue` and its `AnyValue`.
mod field {
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    pub(super) const STRING: u32 = 1;
    pub(super) const INTEGER: u32 = 3;
}

/// The head of a `KeyValue` in the field `tag`, up to the content of its `AnyValue`, which has so many bytes.
#[inline(always)]
fn key_value(out: &mut Vec<u8>, tag: u32, key: &str, value: usize) {
    head(out, tag, length_of(key.len()) + length_of(value));
    text(out, field::KEY, key);
    head(out, field::VALUE, value);
}

/// An attribute of text, in the field `tag`. Inlined, as the key is a constant whose copying then takes few instructions.
#[inline(always)]
pub(super) fn attribute(out: &mut Vec<u8>, tag: u32, key: &str, value: &str) {
    let value = cut(value);
    key_value(out, tag, key, length_of(value.len()));
    text(out, field::STRING, value);
}

/// An attribute that is a whole number.
#[inline(always)]
pub(super) fn attribute_number(out: &mut Vec<u8>, tag: u32, key: &str, value: u64) {
    key_value(out, tag, key, 1 + encoded_len_varint(value));
    number(out, field::INTEGER, value);
}

/// As much of it as is told.
#[inline]
fn cut(value: &str) -> &str {
    if value.len() <= LONGEST {
        return value;
    }
    let end = (0..=LONGEST).rev().find(|&end| value.is_char_boundary(end)).unwrap_or(0);
    &value[..end]
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
    use prost::Message;

    use super::*;

    /// The attribute in the field 1 of `out`, which is all that it holds.
    fn read(out: &[u8]) -> (String, Value) {
        let whole = KeyValue::decode_length_delimited(&out[1..]).unwrap();
        (whole.key, whole.value.unwrap().value.unwrap())
    }

    #[test]
    fn attributes_of_every_length() {
        for length in [0, 1, 100, 127, 128, 1023, 1024] {
            let mut out = Vec::new();
            let value = "x".repeat(length);
            attribute(&mut out, 1, "key", &value);
            assert_eq!(read(&out), ("key".to_owned(), Value::StringValue(value)), "{length}");
        }
        for value in [0, 1, 127, 128, u64::from(u32::MAX)] {
            let mut out = Vec::new();
            attribute_number(&mut out, 1, "key", value);
            assert_eq!(read(&out), ("key".to_owned(), Value::IntValue(value as i64)));
        }
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let mut out = Vec::new();
        attribute(&mut out, 1, "key", &"ä".repeat(1000));
        assert_eq!(read(&out).1, Value::StringValue("ä".repeat(512)));
        let mut out = Vec::new();
        attribute(&mut out, 1, "key", &format!("x{}", "ä".repeat(1000)));
        assert_eq!(read(&out).1, Value::StringValue(format!("x{}", "ä".repeat(511))));
    }
}
