//! Writes refusals of HTTP/1 for heads that did not become requests, as bytes.

use std::time::SystemTime;

use http::StatusCode;

use crate::config::SecurityHeaders;
use crate::policy::security_headers;

/// How long hyper's own refusal is at most.
const BARE_MOST: usize = 200;

/// The fields of hyper's own refusal, besides the date.
const BARE_FIELDS: [&str; 2] = ["connection: close", "content-length: 0"];

/// Removes hyper's own refusal, which has no body, from the end of the bytes to be sent; returns its status.
///
/// It cannot be mistaken for an app's answer: after one that closes the connection, hyper refuses nothing any more. Where
/// the client spoke HTTP/1.0, hyper leaves the first field out, and an answer after which it went on has another one.
pub(super) fn take_bare(waiting: &mut Vec<u8>) -> Option<StatusCode> {
    const BEGIN: &[u8] = b"HTTP/1.";
    let from = waiting.len().saturating_sub(BARE_MOST);
    let tail = &waiting[from..];
    let begin = tail.windows(BEGIN.len()).rposition(|part| part == BEGIN)?;
    let mut lines = std::str::from_utf8(&tail[begin..]).ok()?.strip_suffix("\r\n\r\n")?.split("\r\n");
    let (version, status) = lines.next()?.split_at_checked(9)?;
    let status = status.get(..3)?.parse().ok().filter(StatusCode::is_client_error)?;
    let left_out = usize::from(version == "HTTP/1.0 ");
    let is_bare = BARE_FIELDS[left_out..].iter().all(|field| lines.next() == Some(*field))
        && lines.next().is_some_and(|line| line.starts_with("date: "))
        && lines.next().is_none();
    is_bare.then(|| waiting.truncate(from + begin))?;
    Some(status)
}

/// Whether an unparsed head is that of a HEAD request, whose answers have no body (RFC 9110, section 9.3.2).
fn is_for_head(head: &[u8]) -> bool {
    head.trim_ascii_start().starts_with(b"HEAD ")
}

/// The target in the line that a head begins with: all between its first word and the version.
fn target(head: &[u8]) -> &[u8] {
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let target = line.iter().position(|&byte| byte == b' ').map_or(&[][..], |blank| &line[blank + 1..]);
    match target.iter().rposition(|&byte| byte == b' ') {
        Some(blank) if target[blank + 1..].get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"HTTP")) => {
            &target[..blank]
        }
        _ => target,
    }
}

/// Whether the target of a head is none already by its bytes, or its lack of any: hyper keeps the head then.
pub(super) fn is_no_target(head: &[u8]) -> bool {
    let target = target(head);
    matches!(target, [] | [b' ', ..]) || target.iter().any(u8::is_ascii_control) || std::str::from_utf8(target).is_err()
}

/// Why hyper takes no such target, where its bytes tell. Of those that no URL can hold, others are taken.
pub(super) fn target_fault(head: &[u8]) -> Option<String> {
    let target = target(head);
    let has_empty_word = target.split(|&byte| byte == b' ').any(<[u8]>::is_empty);
    if target.contains(&b' ') && !has_empty_word {
        return Some("the request target holds a blank, which is sent as %20".to_owned());
    }
    if let Some(byte) = target.iter().find(|byte| byte.is_ascii_control()) {
        return Some(format!("the request target holds the byte 0x{byte:02X}, which is sent as %{byte:02X}"));
    }
    if let Err(error) = std::str::from_utf8(target)
        && let Some(byte) = target.get(error.valid_up_to())
    {
        return Some(format!(
            "the request target is not UTF-8: it holds the byte 0x{byte:02X}, which is sent as %{byte:02X}"
        ));
    }
    match target {
        [] | [b'/' | b' ', ..] => None,
        _ if target.windows(3).any(|part| part == b"://") => {
            Some("the request target does not name a host with an optional port".to_owned())
        }
        _ => Some("the request target is neither a path nor a URL".to_owned()),
    }
}

/// Appends Rover's answer to an incomplete or invalid `head`, with the `config`'s headers, after which the connection
/// ends; returns the length of its body.
pub(super) fn write(
    (status, body): (StatusCode, &[u8]),
    config: &SecurityHeaders,
    head: &[u8],
    waiting: &mut Vec<u8>,
) -> u64 {
    let reason = status.canonical_reason().unwrap_or("Error");
    let lines = format!(
        "HTTP/1.1 {} {reason}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\ndate: {}\r\n{}\r\n",
        status.as_u16(),
        body.len(),
        httpdate::fmt_http_date(SystemTime::now()),
        security_headers::lines(config),
    );
    waiting.extend_from_slice(lines.as_bytes());
    if is_for_head(head) {
        return 0;
    }
    waiting.extend_from_slice(body);
    body.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "date: Sat, 08 Nov 2025 11:06:40 GMT\r\n\r\n";

    #[test]
    fn only_hyper_s_refusal_is_taken() {
        let app_s = [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_owned(),
            format!("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n{DATE}"),
            format!("HTTP/1.1 404 Not Found\r\nx-mine: yes\r\ncontent-length: 0\r\n{DATE}"),
            format!("HTTP/1.0 404 Not Found\r\nconnection: keep-alive\r\ncontent-length: 0\r\n{DATE}"),
        ];
        for answer in app_s {
            for bare in [
                "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n",
                "HTTP/1.0 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n",
            ] {
                let mut waiting = format!("{answer}{bare}{DATE}").into_bytes();
                assert_eq!(take_bare(&mut waiting), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
                assert_eq!(waiting, answer.as_bytes());
                assert_eq!(take_bare(&mut waiting), None);
                assert_eq!(waiting, answer.as_bytes());
            }
        }
        assert_eq!(take_bare(&mut Vec::new()), None);
    }
}
