//! Comes in: what is known of a request once its answer is complete. Goes out: one line of the log, at level info.
//! Must not know: how requests are served.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::AccessLog;
use crate::log::{self, Colour, Form, Level, Timestamp};

/// One answered request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    pub(crate) method: &'a str,
    /// As sent, without the query.
    pub(crate) path: &'a str,
    /// Without the question mark.
    pub(crate) query: Option<&'a str>,
    pub(crate) status: u16,
    /// Of the answer's body.
    pub(crate) bytes: u64,
    /// From the request's head to the end of the answer.
    pub(crate) duration: Duration,
    /// The client; empty where it has no address, as on a Unix socket.
    pub(crate) ip: &'a str,
    pub(crate) request_id: &'a str,
    /// Empty where the request belongs to no trace.
    pub(crate) trace_id: &'a str,
    /// `1.0`, `1.1` or `2`.
    pub(crate) version: &'a str,
}

/// Writes the request's line. Never waits for the output.
pub(crate) fn record(wanted: AccessLog, access: &Access<'_>) {
    log::write_line(Level::Info, |form, stamp, out| {
        match (wanted, form) {
            (AccessLog::Off, _) => return,
            (AccessLog::Json, _) | (AccessLog::Auto, Form::Json) | (_, Form::Record) => access.write_json(stamp, out),
            (AccessLog::Text, Form::Json) => access.write_text(stamp, out),
            (_, Form::Terminal(colour)) => access.write_terminal(colour, stamp, out),
        }
        out.push(b'\n');
    });
}

/// Writes the line of a request that could not be read; `head` is as much of it as came. What does not look like a
/// method, a target and a version is left out.
pub(crate) fn record_unparsed(wanted: AccessLog, head: &[u8], status: u16, bytes: u64, ip: Option<IpAddr>) {
    let (method, target) = words_of(head);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*target, None),
    };
    let access = Access {
        method: method.unwrap_or("-"),
        path,
        query,
        status,
        bytes,
        duration: Duration::ZERO,
        ip: &ip.map(|ip| ip.to_string()).unwrap_or_default(),
        request_id: "",
        trace_id: "",
        version: if line_of(head).ends_with(b" HTTP/1.0") { "1.0" } else { "1.1" },
    };
    record(wanted, &access);
}

/// The line that a head begins with, without its end.
fn line_of(head: &[u8]) -> &[u8] {
    head.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default()
}

/// The method and the target of a request that could not be read, as far as they look like that.
pub(crate) fn words_of(head: &[u8]) -> (Option<&str>, Cow<'_, str>) {
    let mut words = line_of(head).split(|&byte| byte == b' ');
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'-';
    let method = words.next().filter(|word| (1..=20).contains(&word.len()) && word.iter().all(is_letter));
    let target = words.next().filter(|_| method.is_some()).map(without_host).unwrap_or_default();
    let target = String::from_utf8_lossy(&target[..target.len().min(LONGEST_UNPARSED)]);
    (method.and_then(|word| std::str::from_utf8(word).ok()), target)
}

/// A target from its path on, as that of any other request is logged.
fn without_host(target: &[u8]) -> &[u8] {
    if target.starts_with(b"/") {
        return target;
    }
    let host = memchr::memmem::find(target, b"://").map_or(target.len(), |scheme| scheme + 3);
    let path = target[host..].iter().position(|&byte| byte == b'/');
    path.map_or(&[], |path| &target[host + path..])
}

/// How much of the target of a request that could not be read is logged, in bytes: as much as one may have, by default.
const LONGEST_UNPARSED: usize = 8 * 1024;

impl Access<'_> {
    fn write_json(&self, stamp: &Timestamp, out: &mut Vec<u8>) {
        log::push_json_head(stamp, Level::Info, "request", out);
        let text = |key: &[u8], value: &str, out: &mut Vec<u8>| {
            out.extend_from_slice(key);
            log::push_json_text(value, out);
        };
        let number = |key: &[u8], value: u64, out: &mut Vec<u8>| {
            out.extend_from_slice(key);
            log::push_number(value, out);
        };
        text(b",\"method\":", self.method, out);
        text(b",\"path\":", self.path, out);
        if let Some(query) = self.query {
            text(b",\"query\":", query, out);
        }
        number(b",\"status\":", self.status.into(), out);
        number(b",\"bytes\":", self.bytes, out);
        out.extend_from_slice(b",\"duration_ms\":");
        push_thousandths(self.duration.as_micros(), 3, out);
        if !self.ip.is_empty() {
            text(b",\"ip\":", self.ip, out);
        }
        if !self.request_id.is_empty() {
            text(b",\"request_id\":", self.request_id, out);
        }
        if !self.trace_id.is_empty() {
            text(b",\"trace_id\":", self.trace_id, out);
        }
        text(b",\"version\":", self.version, out);
        out.push(b'}');
    }

    /// A line for programs that read words: what is not known is a `-`.
    fn write_text(&self, stamp: &Timestamp, out: &mut Vec<u8>) {
        stamp.push_iso(out);
        out.push(b' ');
        log::push_plain(if self.ip.is_empty() { "-" } else { self.ip }, out);
        out.push(b' ');
        log::push_plain(self.method, out);
        out.push(b' ');
        self.push_target(out);
        out.extend_from_slice(b" HTTP/");
        out.extend_from_slice(self.version.as_bytes());
        out.push(b' ');
        log::push_number(self.status.into(), out);
        out.push(b' ');
        log::push_number(self.bytes, out);
        out.push(b' ');
        push_thousandths(self.duration.as_micros(), 3, out);
        out.extend_from_slice(b"ms ");
        log::push_plain(if self.request_id.is_empty() { "-" } else { self.request_id }, out);
        out.push(b' ');
        log::push_plain(if self.trace_id.is_empty() { "-" } else { self.trace_id }, out);
    }

    fn push_target(&self, out: &mut Vec<u8>) {
        log::push_plain(self.path, out);
        if let Some(query) = self.query {
            out.push(b'?');
            log::push_plain(query, out);
        }
    }

    fn write_terminal(&self, colour: Colour, stamp: &Timestamp, out: &mut Vec<u8>) {
        let shade = match self.status {
            500.. => Colour::RED,
            400.. => Colour::YELLOW,
            300.. => Colour::CYAN,
            _ => Colour::GREEN,
        };
        stamp.push_clock(out);
        out.push(b' ');
        let mut status = itoa::Buffer::new();
        colour.paint(shade, status.format(self.status).as_bytes(), out);
        out.push(b' ');
        log::push_plain(self.method, out);
        out.push(b' ');
        self.push_target(out);
        out.push(b' ');
        push_duration(self.duration, out);
        out.push(b' ');
        log::push_number(self.bytes, out);
        out.extend_from_slice(b"B ");
        let mut id = Vec::new();
        log::push_plain(self.request_id, &mut id);
        colour.paint(Colour::DIM, &id, out);
    }
}

/// Appends `870µs`, `1.2ms` or `3.4s`.
fn push_duration(duration: Duration, out: &mut Vec<u8>) {
    let unit = if duration < Duration::from_millis(1) {
        log::push_number(duration.subsec_micros().into(), out);
        "µs"
    } else if duration < Duration::from_secs(1) {
        push_thousandths(duration.as_micros(), 1, out);
        "ms"
    } else {
        push_thousandths(duration.as_millis(), 1, out);
        "s"
    };
    out.extend_from_slice(unit.as_bytes());
}

/// Appends a thousandth of the number with so many digits (1 to 3) behind the point; further ones are cut off.
fn push_thousandths(number: u128, digits: usize, out: &mut Vec<u8>) {
    let number = u64::try_from(number).unwrap_or(u64::MAX);
    log::push_number(number / 1000, out);
    let rest = number % 1000;
    let fraction = [rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8);
    out.push(b'.');
    out.extend_from_slice(&fraction[..digits]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: Access<'_> = Access {
        method: "GET",
        path: "/users/7",
        query: None,
        status: 200,
        bytes: 54,
        duration: Duration::from_micros(1234),
        ip: "10.0.0.1",
        request_id: "abc",
        trace_id: "",
        version: "1.1",
    };

    fn stamp() -> Timestamp {
        Timestamp::fixed(Duration::from_millis(1_767_323_045_678), 2)
    }

    fn terminal(access: &Access<'_>, colour: Colour) -> String {
        let mut out = Vec::new();
        access.write_terminal(colour, &stamp(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn json(access: &Access<'_>) -> String {
        let mut out = Vec::new();
        access.write_json(&stamp(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_form() {
        let access = Access { query: Some("q=\"1\""), ..EXAMPLE };
        assert_eq!(
            json(&access),
            "{\"time\":\"2026-01-02T03:04:05.678Z\",\"level\":\"info\",\"msg\":\"request\",\"worker\":2,\
             \"method\":\"GET\",\"path\":\"/users/7\",\"query\":\"q=\\\"1\\\"\",\"status\":200,\"bytes\":54,\
             \"duration_ms\":1.234,\"ip\":\"10.0.0.1\",\"request_id\":\"abc\",\"version\":\"1.1\"}"
        );
        let path: String = (' '..='\u{ff}').collect();
        let line = json(&Access { path: &path, ip: "", ..EXAMPLE });
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["path"], path.as_str());
        assert!(value.get("ip").is_none());
    }

    #[test]
    fn terminal_form() {
        assert_eq!(terminal(&EXAMPLE, Colour::Off), "03:04:05 200 GET /users/7 1.2ms 54B abc");
        let access = Access { status: 503, path: "/\u{1b}[2J", query: Some("a\nb"), ..EXAMPLE };
        assert_eq!(
            terminal(&access, Colour::On),
            "03:04:05 \u{1b}[31m503\u{1b}[0m GET /\\u{1b}[2J?a\\nb 1.2ms 54B \u{1b}[2mabc\u{1b}[0m"
        );
    }

    #[test]
    fn text_form() {
        let mut out = Vec::new();
        Access { query: Some("q=1"), trace_id: "4bf9", ..EXAMPLE }.write_text(&stamp(), &mut out);
        EXAMPLE.write_text(&stamp(), &mut out);
        let text = String::from_utf8(out).unwrap();
        let expected = "2026-01-02T03:04:05.678Z 10.0.0.1 GET /users/7?q=1 HTTP/1.1 200 54 1.234ms abc 4bf9\
                        2026-01-02T03:04:05.678Z 10.0.0.1 GET /users/7 HTTP/1.1 200 54 1.234ms abc -";
        assert_eq!(text, expected);
    }

    #[test]
    fn durations() {
        for (microseconds, text) in [
            (0, "0µs"),
            (999, "999µs"),
            (1000, "1.0ms"),
            (999_999, "999.9ms"),
            (1_050_000, "1.0s"),
            (90_000_000, "90.0s"),
        ] {
            let mut out = Vec::new();
            push_duration(Duration::from_micros(microseconds), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
