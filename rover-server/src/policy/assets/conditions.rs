//! Evaluates the preconditions of a request for a file (RFC 9110, section 13).
//!
//! Comes in: the fields of the request, the validators of what would be sent. Goes out: whether to send it, and whether a
//! range of it may be sent. Must not know: files.

use std::time::{Duration, SystemTime};

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The validators of a representation.
pub(super) struct Validators<'a> {
    /// A strong one: `"…"`.
    pub(super) etag: &'a HeaderValue,
    /// In whole seconds, as Last-Modified tells it.
    pub(super) modified: SystemTime,
}

/// The result of the preconditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the fields in the order of RFC 9110, section 13.2.2, for GET and HEAD.
pub(super) fn evaluate(headers: &HeaderMap, validators: &Validators<'_>) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !lists(headers, &IF_MATCH, validators.etag, false) {
            return Verdict::Failed;
        }
    } else if let Some(date) = date(headers, &IF_UNMODIFIED_SINCE)
        && validators.modified > date
    {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if lists(headers, &IF_NONE_MATCH, validators.etag, true) {
            return Verdict::NotModified;
        }
    } else if let Some(date) = date(headers, &IF_MODIFIED_SINCE)
        && validators.modified <= date
    {
        return Verdict::NotModified;
    }
    Verdict::Send
}

/// Whether a `Range` counts: there is no `If-Range`, or it names this very state.
///
/// A date is exact only if the file rested for a second before the answer (section 8.8.2.2), a tag only if it is strong.
pub(super) fn allows_range(headers: &HeaderMap, validators: &Validators<'_>, now: SystemTime) -> bool {
    let Some(value) = headers.get(IF_RANGE) else { return true };
    if value.as_bytes().first() == Some(&b'"') {
        return value == validators.etag;
    }
    let date = value.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
    date == Some(validators.modified) && validators.modified + Duration::from_secs(1) <= now
}

/// Whether the fields hold `*` or the tag. The weak comparison leaves `W/` aside (section 8.8.3.2).
fn lists(headers: &HeaderMap, name: &HeaderName, etag: &HeaderValue, weak: bool) -> bool {
    headers.get_all(name).iter().any(|value| {
        let value = value.as_bytes();
        // No tag of Rover's holds a comma, so splitting at every comma finds it all the same.
        value.trim_ascii() == b"*"
            || value.split(|byte| *byte == b',').any(|tag| {
                let tag = tag.trim_ascii();
                tag == etag.as_bytes() || weak && tag.strip_prefix(b"W/") == Some(etag.as_bytes())
            })
    })
}

/// The date of a field; one that cannot be read does not count.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const EXACT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn with<T>(check: impl FnOnce(&Validators<'_>) -> T) -> T {
        let etag = HeaderValue::from_static("\"a\"");
        check(&Validators { etag: &etag, modified: httpdate::parse_http_date(EXACT).unwrap() })
    }

    #[test]
    fn the_order_of_the_fields() {
        use Verdict::{Failed, NotModified, Send};
        for (fields, verdict) in [
            (&[][..], Send),
            (&[(IF_MATCH, "\"a\"")], Send),
            (&[(IF_MATCH, "*")], Send),
            (&[(IF_MATCH, "\"b\"")], Failed),
            (&[(IF_MATCH, "W/\"a\"")], Failed),
            (&[(IF_UNMODIFIED_SINCE, BEFORE)], Failed),
            (&[(IF_UNMODIFIED_SINCE, EXACT)], Send),
            (&[(IF_MATCH, "\"a\""), (IF_UNMODIFIED_SINCE, BEFORE)], Send),
            (&[(IF_NONE_MATCH, "\"a\"")], NotModified),
            (&[(IF_NONE_MATCH, "\"b\" , W/\"a\"")], NotModified),
            (&[(IF_NONE_MATCH, "*")], NotModified),
            (&[(IF_NONE_MATCH, "\"b\"")], Send),
            (&[(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, LATER)], Send),
            (&[(IF_MODIFIED_SINCE, EXACT)], NotModified),
            (&[(IF_MODIFIED_SINCE, LATER)], NotModified),
            (&[(IF_MODIFIED_SINCE, BEFORE)], Send),
            (&[(IF_MODIFIED_SINCE, "yesterday")], Send),
            (&[(IF_MATCH, "\"b\""), (IF_NONE_MATCH, "\"a\"")], Failed),
        ] {
            let headers = headers(fields);
            assert_eq!(with(|validators| evaluate(&headers, validators)), verdict, "{fields:?}");
        }
    }

    #[test]
    fn if_range_wants_the_very_state() {
        let modified = httpdate::parse_http_date(EXACT).unwrap();
        let allows =
            |value: &'static str, now| with(|validators| allows_range(&headers(&[(IF_RANGE, value)]), validators, now));
        let (at_once, later) = (modified, modified + Duration::from_secs(5));
        assert!(allows("\"a\"", later) && allows(EXACT, later));
        assert!(!allows(EXACT, at_once), "it may change again within the second");
        for other in ["\"b\"", "W/\"a\"", BEFORE, LATER, "a"] {
            assert!(!allows(other, later), "{other}");
        }
        assert!(with(|validators| allows_range(&HeaderMap::new(), validators, later)));
    }
}
