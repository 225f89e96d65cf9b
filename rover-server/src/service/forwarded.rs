//! Reads the client from the headers of trusted proxies: `Forwarded` (RFC 7239) and `X-Forwarded-For`, `-Proto`,
//! `-Host`.
//!
//! Comes in: the head of a request and the peer of its connection. Goes out: the client as the request's handler sees
//! it. Each proxy adds what it saw at the right end, so the headers are read from there, as long as the addresses are
//! those of trusted proxies: anyone may have written what is further left. This module must not know of routes or Lua.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use http::request::Parts;

use crate::config::{Proxies, ProxyHeaders, Trusted};
use crate::exchange::context::{ForwardedClient, Peer};
use crate::policy::http_checks;

const X_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Other headers with the same meaning, which Rover does not read.
const OTHERS: [&str; 6] =
    ["x-forwarded-port", "x-forwarded-server", "x-forwarded-prefix", "x-forwarded", "x-real-ip", "x-forwarded-ssl"];

/// Reads the headers of trusted proxies.
pub(crate) struct Forwarded {
    trusted: Trusted,
    headers: ProxyHeaders,
}

/// What is known of the client so far.
#[derive(Default)]
struct ForwardedClaims {
    ip: Option<IpAddr>,
    scheme: Option<&'static str>,
    host: Option<Box<str>>,
}

impl Forwarded {
    /// A reader for the proxies of the config; `None` if nothing is configured.
    pub(crate) fn new(config: &Proxies) -> Option<Forwarded> {
        Some(Forwarded { trusted: config.trusted.clone()?, headers: config.headers })
    }

    /// The client behind trusted proxies; `None` if the peer is the client. Removes headers that cannot be trusted.
    pub(crate) fn client(&self, head: &mut Parts, peer: &Peer) -> Option<Rc<ForwardedClient>> {
        let headers = &mut head.headers;
        if !self.trusted.contains(peer.ip) {
            strip(headers, &[FORWARDED, X_FOR, X_PROTO, X_HOST]);
            OTHERS.iter().for_each(|name| {
                headers.remove(*name);
            });
            return None;
        }
        match self.headers {
            ProxyHeaders::Both => {}
            ProxyHeaders::Forwarded => strip(headers, &[X_FOR, X_PROTO, X_HOST]),
            ProxyHeaders::XForwarded => strip(headers, &[FORWARDED]),
        }
        let told = match headers.contains_key(FORWARDED) {
            true => self.read_forwarded(headers),
            false => self.read_x_forwarded(headers),
        };
        if told.ip.is_none() && told.scheme.is_none() && told.host.is_none() {
            return None;
        }
        Some(Rc::new(ForwardedClient {
            ip: told.ip.or(peer.ip),
            scheme: told.scheme.unwrap_or(peer.scheme),
            host: told.host,
        }))
    }

    fn read_forwarded(&self, headers: &HeaderMap) -> ForwardedClaims {
        let mut told = ForwardedClaims::default();
        for element in from_the_right(headers, FORWARDED) {
            let mut node = None;
            let parts = split(element.as_bytes(), b';').into_iter();
            for (name, value) in parts.filter_map(|part| pair(std::str::from_utf8(part).ok()?)) {
                if name.eq_ignore_ascii_case("for") {
                    node = address(&value);
                } else if name.eq_ignore_ascii_case("proto") {
                    told.scheme = scheme(&value).or(told.scheme);
                } else if name.eq_ignore_ascii_case("host") && http_checks::is_host(value.as_bytes()) {
                    told.host = Some(value.into());
                }
            }
            // For an unknown or hidden client, the last known address counts.
            let Some(ip) = node else { break };
            told.ip = Some(ip);
            if !self.trusted.contains(Some(ip)) {
                break;
            }
        }
        told
    }

    fn read_x_forwarded(&self, headers: &HeaderMap) -> ForwardedClaims {
        let mut told = ForwardedClaims::default();
        let mut hops = 0;
        for entry in from_the_right(headers, X_FOR) {
            let Some(ip) = address(entry) else { break };
            told.ip = Some(ip);
            hops += 1;
            if !self.trusted.contains(Some(ip)) {
                break;
            }
        }
        // The proxies may have added to these as well, or one of them has set it once.
        let at_client = |name| {
            let mut values = from_the_right(headers, name);
            let last = values.len().min(hops.max(1)).checked_sub(1)?;
            Some(values.swap_remove(last))
        };
        told.scheme = at_client(X_PROTO).and_then(scheme);
        told.host = at_client(X_HOST).filter(|host| http_checks::is_host(host.as_bytes())).map(Box::from);
        told
    }
}

fn strip(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
    }
}

/// The parts of a list header, the last one first. A part that is no text ends the list: no proxy writes one, so what
/// stands left of it is the client's own, and so is the part itself.
fn from_the_right(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
    let lines = headers.get_all(name).iter().rev();
    let parts = lines.flat_map(|line| split(line.as_bytes(), b',').into_iter().rev());
    let texts = parts.map_while(|part| std::str::from_utf8(part).ok().filter(|text| text.is_ascii()));
    texts.filter(|text| !text.is_empty()).collect()
}

/// Splits at a separator outside of quotes. Quotes are found from the right, so that an open one in what a client wrote
/// cannot swallow what a proxy added.
fn split(bytes: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut parts, mut end, mut is_quoted) = (Vec::new(), bytes.len(), false);
    for at in (0..bytes.len()).rev() {
        let escapes = || bytes[..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
        if bytes[at] == b'"' && escapes() % 2 == 0 {
            is_quoted = !is_quoted;
        } else if bytes[at] == separator && !is_quoted {
            parts.push(bytes[at + 1..end].trim_ascii());
            end = at;
        }
    }
    parts.push(bytes[..end].trim_ascii());
    parts.reverse();
    parts
}

/// `name=value` or `name="value"`.
fn pair(text: &str) -> Option<(&str, String)> {
    let (name, value) = text.split_once('=')?;
    let value = value.trim();
    let value = match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(quoted) => quoted.replace('\\', ""),
        None => value.to_owned(),
    };
    Some((name.trim(), value))
}

/// The address of a node, with or without its port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`, `2001:db8::1`.
fn address(node: &str) -> Option<IpAddr> {
    let node = node.trim().trim_matches('"');
    let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(node);
    let ip: Option<IpAddr> = bare.parse().ok();
    ip.or_else(|| node.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| {
            // A port may be hidden: "192.0.2.1:_http" (RFC 7239, section 6.2).
            let (host, port) = node.rsplit_once(':')?;
            let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
            port.starts_with('_').then(|| host.parse().ok())?
        })
        .map(|ip| ip.to_canonical())
}

fn scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| text.eq_ignore_ascii_case(known))
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
