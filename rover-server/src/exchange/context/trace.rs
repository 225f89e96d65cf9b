//! Reads and writes the trace of a request: the `traceparent` header of W3C Trace Context.

use http::{HeaderMap, HeaderName, HeaderValue};
use rover_lua::{Returns, Stack};

use super::{Contexts, request_key};

/// The header that names the trace.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace's id in a `traceparent`, 32 hexadecimal digits, where that is valid: section 3.2 of the recommendation.
pub(crate) fn trace_id(traceparent: &HeaderValue) -> Option<&str> {
    let text = traceparent.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex =
        |part: &str, length| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && !is_zero(trace)
        && is_hex(parent, 16)
        && !is_zero(parent)
        && is_hex(flags, 2)
        // Versions to come may add parts, this one has none.
        && (version != "00" || parts.next().is_none());
    is_valid.then_some(trace)
}

/// Begins a trace if the request has no valid one.
#[cold]
pub(crate) fn ensure_trace(headers: &mut HeaderMap) {
    if headers.get(TRACEPARENT).and_then(trace_id).is_some() {
        return;
    }
    headers.insert(TRACEPARENT, traceparent(fastrand::u128(1..), fastrand::u64(1..), 0));
}

/// The header's value for a span of a trace.
pub(crate) fn traceparent(trace: u128, span: u64, flags: u8) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    push_hex(&mut text[3..35], &trace.to_be_bytes());
    push_hex(&mut text[36..52], &span.to_be_bytes());
    push_hex(&mut text[53..55], &[flags]);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
}

/// Writes bytes as two digits each. `fmt` takes ten times as long.
fn push_hex(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// `ctx:trace_id()`.
pub(super) fn function(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "trace_id()")?;
    let request = contexts.requests.get(request_key)?;
    match request.head.headers.get(TRACEPARENT).and_then(trace_id) {
        Some(id) => stack.push_bytes(id.as_bytes()),
        None => stack.push_nil(),
    }
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_traces_count() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let read = |text: &str| trace_id(&HeaderValue::from_str(text).unwrap()).map(str::to_owned);
        assert_eq!(read(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(), Some(trace));
        assert_eq!(read(&format!("01-{trace}-00f067aa0ba902b7-01-more")).as_deref(), Some(trace));
        for wrong in [
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{trace}-00f067aa0ba902b7"),
            String::new(),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }
}
