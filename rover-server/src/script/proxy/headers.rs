//! Passes header fields on: drops those of one hop, and tells the upstream about the client.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    VIA,
};
use http::{HeaderMap, HeaderValue, Version};

use super::claims::{self, Forwarding};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Whether the field is hop-by-hop (RFC 9110, section 7.6.1).
fn is_of_one_hop(name: &HeaderName) -> bool {
    [&CONNECTION, &KEEP_ALIVE, &PROXY_CONNECTION, &TE, &TRAILER, &TRANSFER_ENCODING, &UPGRADE].contains(&name)
}

/// Whether a proxy may pass on the wish for these protocols. `h2c` would take requests past everything that the app
/// checks, as they would be frames of HTTP/2 to nobody but the upstream.
fn may_switch(protocols: &HeaderValue) -> bool {
    let mut names = protocols.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    !names.any(|name| name.eq_ignore_ascii_case(b"h2c") || name.len() >= 4 && name[..4].eq_ignore_ascii_case(b"HTTP"))
}

/// Whether an upstream that switches to `chosen` was asked for that.
pub(super) fn lists(asked: Option<&HeaderValue>, chosen: &HeaderValue) -> bool {
    let mut names = asked.into_iter().flat_map(|asked| asked.as_bytes().split(|&byte| byte == b','));
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(chosen.as_bytes()))
}

/// The names that `Connection` lists, and the protocol that the message wants to switch to.
struct Hop {
    listed: Vec<HeaderName>,
    upgrade: Option<HeaderValue>,
}

impl Hop {
    fn of(headers: &HeaderMap) -> Hop {
        let mut listed = Vec::new();
        for value in headers.get_all(CONNECTION) {
            let names = value.as_bytes().split(|&byte| byte == b',');
            listed.extend(names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()));
        }
        let upgrade = headers.get(UPGRADE).filter(|value| listed.contains(&UPGRADE) && may_switch(value)).cloned();
        Hop { listed, upgrade }
    }

    fn keeps(&self, name: &HeaderName) -> bool {
        !is_of_one_hop(name) && !self.listed.contains(name)
    }
}

/// Where a request came from, as far as the upstream is told.
pub(super) struct Requester<'a> {
    pub(super) ip: Option<IpAddr>,
    pub(super) scheme: &'static str,
    pub(super) host: Option<&'a [u8]>,
    pub(super) version: Version,
}

/// The fields of a request as they go on, and the protocol that it wants to switch to.
///
/// hyper writes Content-Length or Transfer-Encoding by the body; an expectation was for this server. What a client only
/// claims stays here, except for the fields that are `kept`.
pub(super) fn onward(
    from: &HeaderMap,
    client: &Requester<'_>,
    options: &super::Options,
    kept: &[HeaderName],
) -> (HeaderMap, Option<HeaderValue>) {
    let hop = Hop::of(from);
    let mut headers = HeaderMap::with_capacity(from.len() + 6);
    for (name, value) in from {
        let is_own = *name == HOST || *name == CONTENT_LENGTH || *name == EXPECT;
        if hop.keeps(name) && !is_own && claims::may_pass(name, options.forwarded, kept) {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(cookies) = one_cookie_line(&headers) {
        headers.insert(COOKIE, cookies);
    }
    if options.preserves_host
        && let Some(host) = client.host.and_then(|host| HeaderValue::from_bytes(host).ok())
    {
        headers.insert(HOST, host);
    }
    if options.forwarded != Forwarding::Off {
        tell_of(client, options.forwarded, &mut headers);
    }
    if options.via {
        add_via(&mut headers, client.version);
    }
    let upgrade = hop.upgrade.filter(|_| client.version == Version::HTTP_11);
    if let Some(protocol) = &upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    (headers, upgrade)
}

/// The cookies that came in several lines, as they do over HTTP/2, in the one line that they are to others (RFC 9113,
/// section 8.2.3).
fn one_cookie_line(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    (lines.len() > 1).then(|| HeaderValue::from_bytes(&lines.join(&b"; "[..])).ok())?
}

/// Whether the length that an answer without a body tells is one (RFC 9110, section 8.6).
pub(super) fn has_sound_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_number = |value: &HeaderValue| {
        let digits = value.as_bytes();
        digits.iter().all(u8::is_ascii_digit) && value.to_str().is_ok_and(|text| text.parse::<u64>().is_ok())
    };
    lengths.next().is_none_or(is_number) && lengths.next().is_none()
}

/// Sets `Forwarded` (RFC 7239) and the older fields of the same meaning.
fn tell_of(client: &Requester<'_>, forwarding: Forwarding, headers: &mut HeaderMap) {
    let ip = client.ip.map(|ip| ip.to_canonical());
    let mut element = Vec::with_capacity(96);
    element.extend_from_slice(b"for=");
    match ip {
        Some(ip @ IpAddr::V4(_)) => push_ip(ip, &mut element),
        Some(ip @ IpAddr::V6(_)) => {
            element.extend_from_slice(b"\"[");
            push_ip(ip, &mut element);
            element.extend_from_slice(b"]\"");
        }
        None => element.extend_from_slice(b"unknown"),
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(client.scheme.as_bytes());
    if let Some(host) = client.host {
        // A port or an IPv6 literal holds what only a quoted string may.
        let is_token = host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte));
        let quote: &[u8] = if is_token { b"" } else { b"\"" };
        for part in [b";host=", quote, host, quote] {
            element.extend_from_slice(part);
        }
    }
    let list = |name: &HeaderName, own: &[u8], headers: &mut HeaderMap| {
        let mut longer = Vec::new();
        if forwarding == Forwarding::Append {
            for line in headers.get_all(name) {
                longer.extend_from_slice(line.as_bytes());
                longer.extend_from_slice(b", ");
            }
        }
        let value = if longer.is_empty() {
            HeaderValue::from_bytes(own)
        } else {
            longer.extend_from_slice(own);
            HeaderValue::from_bytes(&longer)
        };
        if let Ok(value) = value {
            headers.insert(name, value);
        }
    };
    list(&FORWARDED, &element, headers);
    match ip {
        Some(ip) => {
            element.clear();
            push_ip(ip, &mut element);
            list(&FOR, &element, headers);
        }
        None if forwarding == Forwarding::Replace => drop(headers.remove(&FOR)),
        None => {}
    }
    // A proxy in front knows better than this server what the client asked for.
    let mut once = |name: &HeaderName, value: Option<HeaderValue>| {
        if let Some(value) = value.filter(|_| forwarding == Forwarding::Replace || !headers.contains_key(name)) {
            headers.insert(name, value);
        }
    };
    once(&PROTO, Some(HeaderValue::from_static(client.scheme)));
    once(&FORWARDED_HOST, client.host.and_then(|host| HeaderValue::from_bytes(host).ok()));
}

/// Adds the address as text. That of IPv4 is written here: `fmt` takes ten times as long, and every request has one.
fn push_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            let mut digits = itoa::Buffer::new();
            for (n, octet) in ip.octets().into_iter().enumerate() {
                if n > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(digits.format(octet).as_bytes());
            }
        }
        IpAddr::V6(ip) => out.extend_from_slice(ip.to_string().as_bytes()),
    }
}

fn add_via(headers: &mut HeaderMap, version: Version) {
    let value = match version {
        Version::HTTP_10 => "1.0 rover",
        Version::HTTP_2 => "2.0 rover",
        _ => "1.1 rover",
    };
    headers.append(VIA, HeaderValue::from_static(value));
}

/// Calls `push` with each field of an answer that goes on to the client. `is_bodiless` says that the length is that of a
/// body which does not come, so it has to be said.
pub(super) fn backward(
    from: &HeaderMap,
    version: Version,
    options: &super::Options,
    is_bodiless: bool,
    mut push: impl FnMut(&[u8], &[u8]),
) {
    let hop = Hop::of(from);
    for (name, value) in from {
        if hop.keeps(name) && (*name != CONTENT_LENGTH || is_bodiless) {
            push(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if options.via {
        push(b"via", if version == Version::HTTP_2 { b"2.0 rover" } else { b"1.1 rover" });
    }
}
