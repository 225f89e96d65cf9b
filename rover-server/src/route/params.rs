//! Path parameters: the positions of their values in the path, and their decoding.
//!
//! In: the places that a match chose. Out: positions, which outlive the borrow of the path,
//! and decoded bytes for whoever asks. Must not know: the names of the parameters.

use std::borrow::Cow;

use smallvec::SmallVec;

/// Where each parameter's value begins and ends in the path, in the order of the pattern.
///
/// Up to four parameters need no allocation.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Params {
    spans: SmallVec<[(u32, u32); 4]>,
}

impl Params {
    /// Returns how many parameters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Says whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Returns start and end of each value in the path, in bytes.
    #[must_use]
    pub fn spans(&self) -> &[(u32, u32)] {
        &self.spans
    }

    /// Returns the value at `index` as sent; `path` is the one that was searched for.
    #[must_use]
    pub fn raw<'p>(&self, index: usize, path: &'p str) -> Option<&'p str> {
        let (start, end) = *self.spans.get(index)?;
        path.get(start as usize..end as usize)
    }

    /// Adds the value between `start` and `end`.
    #[inline]
    pub(super) fn push(&mut self, start: usize, end: usize) {
        // A request target is shorter than 64 KiB (`http::Uri`), so nothing is cut off here.
        self.spans.push((start as u32, end as u32));
    }

    /// The same values in another spelling of the path: `place` tells where what stood at a byte stands there.
    #[cold]
    pub(super) fn moved(mut self, place: impl Fn(usize) -> usize) -> Params {
        for (start, end) in &mut self.spans {
            (*start, *end) = (place(*start as usize) as u32, place(*end as usize) as u32);
        }
        self
    }

    /// Says whether every `%` in a value begins a percent-encoded byte (RFC 3986, section 2.1).
    #[inline]
    pub(super) fn well_encoded(&self, path: &str) -> bool {
        // One scan from the first value on: most paths hold no `%` at all.
        let Some((first, _)) = self.spans.first() else {
            return true;
        };
        let rest = path.as_bytes().get(*first as usize..).unwrap_or_default();
        memchr::memchr(b'%', rest).is_none() || self.values_well_encoded(path)
    }

    #[cold]
    fn values_well_encoded(&self, path: &str) -> bool {
        (0..self.len()).filter_map(|i| self.raw(i, path)).all(|value| {
            let value = value.as_bytes();
            memchr::memchr_iter(b'%', value)
                .all(|at| matches!(value.get(at + 1..at + 3), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
        })
    }
}

/// Percent-decodes one parameter value. Allocates only where there is something to decode.
///
/// The result may be any bytes: `%FF` and `%00` are legal. A `+` stays a plus; it means a space in a query only.
#[must_use]
pub fn decode_param(raw: &str) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode_str(raw).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(values: &[(usize, usize)]) -> Params {
        let mut params = Params::default();
        for (start, end) in values {
            params.push(*start, *end);
        }
        params
    }

    #[test]
    fn remembers_places_in_the_path() {
        let path = "/users/42/posts/seven";
        let params = params(&[(7, 9), (16, 21)]);
        assert_eq!(params.spans(), [(7, 9), (16, 21)]);
        assert_eq!(params.raw(0, path), Some("42"));
        assert_eq!(params.raw(1, path), Some("seven"));
        assert_eq!(params.raw(2, path), None);
        assert!(!params.spans.spilled());
    }

    #[test]
    fn finds_broken_percent_encoding_in_values_only() {
        for (path, good) in
            [("/a/b", true), ("/a/%41", true), ("/a/%4", false), ("/a/%", false), ("/a/%4g", false), ("/a/%%41", false)]
        {
            assert_eq!(params(&[(3, path.len())]).well_encoded(path), good, "{path}");
        }
        assert!(params(&[(5, 6)]).well_encoded("/%zz/b"));
        assert!(params(&[(1, 2)]).well_encoded("/b/%zz"));
        // The end of a value is the end: digits beyond it do not complete the encoding.
        assert!(!params(&[(1, 3)]).well_encoded("/%4/1"));
    }

    #[test]
    fn decodes_to_bytes_and_borrows_when_it_can() {
        assert!(matches!(decode_param("plain+text"), Cow::Borrowed(b"plain+text")));
        assert_eq!(decode_param("a%20b%2Fc%ff%00").as_ref(), b"a b/c\xff\0");
    }
}
