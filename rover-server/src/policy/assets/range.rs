//! Reads byte ranges of a file (RFC 9110, section 14).
//!
//! Comes in: the `Range` field and a length. Goes out: which bytes to send. Must not know: files.

use http::HeaderValue;
use smallvec::SmallVec;

/// Bytes of a file, from the first to the last; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Span {
    pub(super) fn length(self) -> u64 {
        self.last - self.first + 1
    }

    /// The value of `Content-Range`.
    pub(super) fn of(self, length: u64) -> String {
        format!("bytes {}-{}/{length}", self.first, self.last)
    }
}

/// What a `Range` field asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything: the field is not one for bytes, is malformed, or asks for so much that all of it is cheaper.
    Whole,
    /// These parts, in the order asked for.
    Parts(SmallVec<[Span; 1]>),
    /// 416: nothing that the file has.
    Nothing,
}

/// How many parts one answer has at most. Nobody who reads a file asks for more.
const MOST_PARTS: usize = 32;

/// Reads the field. What is asked for twice is not sent twice: parts that make up more than the file get the file
/// (section 14.2 lets a server ignore such a field).
pub(super) fn wanted(field: &HeaderValue, length: u64) -> Wanted {
    let Some(set) = field.to_str().ok().and_then(|text| text.trim().split_once('=')) else { return Wanted::Whole };
    if !set.0.trim_end().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    let mut parts = SmallVec::new();
    let mut count = 0;
    let mut total = 0u64;
    for spec in set.1.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        count += 1;
        match span(spec, length) {
            None => return Wanted::Whole,
            Some(Some(span)) => {
                total = total.saturating_add(span.length());
                parts.push(span);
            }
            Some(None) => {}
        }
        if count > MOST_PARTS {
            return Wanted::Whole;
        }
    }
    match (count, parts.len()) {
        (0, _) => Wanted::Whole,
        (_, 0) => Wanted::Nothing,
        (_, parts) if parts > 1 && total > length => Wanted::Whole,
        _ => Wanted::Parts(parts),
    }
}

/// One of `0-99`, `100-`, `-100`: `None` when it is malformed, `Some(None)` when the file has nothing of it.
fn span(spec: &str, length: u64) -> Option<Option<Span>> {
    let (first, last) = spec.split_once('-')?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number beyond all lengths is one all the same.
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        let count = number(last)?.min(length);
        return Some((count > 0).then(|| Span { first: length - count, last: length - 1 }));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    Some((first < length).then(|| Span { first, last: last.min(length - 1) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(field: &'static str, length: u64) -> Wanted {
        wanted(&HeaderValue::from_static(field), length)
    }

    fn some(spans: &[(u64, u64)]) -> Wanted {
        Wanted::Parts(spans.iter().map(|&(first, last)| Span { first, last }).collect())
    }

    #[test]
    fn single_ranges() {
        for (field, expected) in [
            ("bytes=0-0", some(&[(0, 0)])),
            ("bytes=0-99", some(&[(0, 99)])),
            ("bytes=0-", some(&[(0, 999)])),
            ("bytes=500-9999", some(&[(500, 999)])),
            ("bytes=-1", some(&[(999, 999)])),
            ("bytes=-5000", some(&[(0, 999)])),
            ("Bytes = 1-2", some(&[(1, 2)])),
            ("bytes=0-99999999999999999999999", some(&[(0, 999)])),
            ("bytes=1000-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
        ] {
            assert_eq!(parts(field, 1000), expected, "{field}");
        }
        assert_eq!(parts("bytes=0-", 0), Wanted::Nothing);
        assert_eq!(parts("bytes=-1", 0), Wanted::Nothing);
    }

    #[test]
    fn several_ranges() {
        assert_eq!(parts("bytes=0-1, 4-5,-2", 1000), some(&[(0, 1), (4, 5), (998, 999)]));
        assert_eq!(parts("bytes=0-1,2000-", 1000), some(&[(0, 1)]), "what is beyond the end is left out");
        assert_eq!(parts("bytes=2000-,3000-", 1000), Wanted::Nothing);
        assert_eq!(parts("bytes=0-,0-", 1000), Wanted::Whole, "twice the file");
        let many = HeaderValue::from_str(&format!("bytes={}", "0-0,".repeat(33))).unwrap();
        assert_eq!(wanted(&many, 1000), Wanted::Whole);
    }

    #[test]
    fn what_is_malformed_does_not_count() {
        for field in [
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=a-b",
            "bytes=5-1",
            "bytes=-",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=+1-2",
            "lines=0-1",
            "bytes=0-1,x",
        ] {
            assert_eq!(parts(field, 1000), Wanted::Whole, "{field}");
        }
    }
}
