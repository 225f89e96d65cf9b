//! Checks whether a request may become a WebSocket (RFC 6455, section 4.2).

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Version};
use tungstenite::handshake::derive_accept_key;

use crate::config::PageOrigins;

/// The kind of a request for a WebSocket's path.
pub(super) enum Asked {
    /// No handshake at all.
    Plain,
    /// A handshake; holds `Sec-WebSocket-Accept`.
    Accept(String),
    /// A handshake that is refused, with this status and for this reason.
    Refuse(u16, &'static str),
}

/// Reads the handshake. `told_host` is the host that the client asked for, where a trusted proxy tells of another than Host.
pub(super) fn read(head: &Parts, told_host: Option<&str>, origins: &PageOrigins) -> Asked {
    let headers = &head.headers;
    if head.method != Method::GET || head.version != Version::HTTP_11 || !has_token(headers, UPGRADE, "websocket") {
        return Asked::Plain;
    }
    if !has_token(headers, CONNECTION, "upgrade") {
        return Asked::Refuse(400, "the Connection header of a WebSocket handshake holds Upgrade");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Asked::Refuse(426, "the version of the WebSocket protocol is 13");
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key.as_bytes()) => key,
        _ => return Asked::Refuse(400, "Sec-WebSocket-Key holds 16 bytes in base64"),
    };
    let has_body = headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|n| n != "0");
    if has_body {
        return Asked::Refuse(400, "a WebSocket handshake has no body");
    }
    if !allows(origins, headers, told_host) {
        return Asked::Refuse(403, "this origin may not connect");
    }
    Asked::Accept(derive_accept_key(key.as_bytes()))
}

/// Whether one of the field's comma-separated values is `token`, in any case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(token)))
}

/// Base64 of 16 bytes: 22 characters and two of padding. The last character holds only four bits.
fn is_key(key: &[u8]) -> bool {
    let Some((digits, b"==")) = key.split_last_chunk::<2>().map(|(digits, end)| (digits, &end[..])) else {
        return false;
    };
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits.len() == 22 && digits.iter().all(is_digit) && matches!(digits[21], b'A' | b'Q' | b'g' | b'w')
}

/// Checks `Origin`: browsers send the page's origin, and do not themselves stop a page from connecting to another site
/// (RFC 6455, section 10.2). Other clients send none, and are accepted.
fn allows(origins: &PageOrigins, headers: &HeaderMap, told_host: Option<&str>) -> bool {
    let mut sent = headers.get_all(ORIGIN).iter();
    let origin = match (sent.next(), sent.next()) {
        (None, _) => return true,
        (Some(origin), None) => origin.to_str().unwrap_or_default(),
        (Some(_), Some(_)) => return false,
    };
    if origins.any || origins.others.iter().any(|other| other.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let host = told_host.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    let own = origin.split_once("://").map(|(_, own)| own);
    origins.same && own.zip(host).is_some_and(|(own, host)| own.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for wrong in ["", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25j!Q==", "AAAA"] {
            assert!(!is_key(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn origins() {
        let headers = |origin: &str, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, origin.parse().unwrap());
            headers.insert(HOST, host.parse().unwrap());
            headers
        };
        let same = PageOrigins::default();
        assert!(allows(&same, &HeaderMap::new(), None));
        assert!(allows(&same, &headers("https://example.com", "Example.com"), None));
        assert!(allows(&same, &headers("http://localhost:4242", "localhost:4242"), None));
        assert!(!allows(&same, &headers("http://localhost:4243", "localhost:4242"), None));
        assert!(allows(&same, &headers("https://a.example", "inner"), Some("a.example")));
        assert!(!allows(&same, &headers("null", "localhost"), None));
        let other = PageOrigins { any: false, same: false, others: vec!["https://a.example".to_owned()] };
        assert!(allows(&other, &headers("https://a.example", "b.example"), None));
        assert!(!allows(&other, &headers("https://b.example", "b.example"), None));
        assert!(!allows(&other, &headers("http://a.example", "b.example"), None));
    }
}
