//! Refusals of HTTP/1 that no stage of a request can make, since no request came to be: as bytes.

use std::time::SystemTime;

use http::StatusCode;

use crate::config::SecurityHeaders;
use crate::{failure, security_headers};

/// How hyper begins a refusal, and how long it is at most.
const BARE_BEGIN: &[u8] = b"HTTP/1.1 4";
const BARE_MOST: usize = 200;

/// Takes hyper's own refusal, which has no body, off the end of what waits to be sent; gives its status.
pub(super) fn take_bare(waiting: &mut Vec<u8>) -> Option<StatusCode> {
    let from = waiting.len().saturating_sub(BARE_MOST);
    let tail = &waiting[from..];
    let begin = tail.windows(BARE_BEGIN.len()).rposition(|part| part == BARE_BEGIN)?;
    let head = std::str::from_utf8(&tail[begin..]).ok()?;
    let is_bare = head.ends_with("\r\n\r\n") && head.contains("\r\ncontent-length: 0\r\n");
    let status = head.get(9..12).filter(|_| is_bare)?.parse().ok()?;
    waiting.truncate(from + begin);
    Some(status)
}

/// Appends the answer that Rover gives by itself, after which the connection ends, with the `config`'s headers; gives the
/// length of its body.
pub(super) fn write(status: StatusCode, config: &SecurityHeaders, waiting: &mut Vec<u8>) -> u64 {
    let (body, reason) = (failure::body_of(status), status.canonical_reason().unwrap_or("Error"));
    let head = format!(
        "HTTP/1.1 {} {reason}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\ndate: {}\r\n{}\r\n",
        status.as_u16(),
        body.len(),
        httpdate::fmt_http_date(SystemTime::now()),
        security_headers::lines(config),
    );
    waiting.extend_from_slice(head.as_bytes());
    waiting.extend_from_slice(&body);
    body.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_without_a_body_is_taken() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let mut waiting = format!("{answer}{bare}").into_bytes();
        assert_eq!(take_bare(&mut waiting), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        assert_eq!(waiting, answer.as_bytes());
        assert_eq!(take_bare(&mut waiting), None);
        assert_eq!(take_bare(&mut Vec::new()), None);
    }
}
