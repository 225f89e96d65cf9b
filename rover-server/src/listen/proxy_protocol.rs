//! Reads the PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt), in which a proxy names the client before
//! the first byte.
//!
//! Comes in: an accepted stream. Goes out: the client that the proxy names; no byte after the header is read. Version 2
//! takes two or three reads, version 1 one for each byte beyond its shortest form. This module must not know which
//! proxies are trusted.
//!
//! The crate `ppp` 2.3 refuses what the document allows: a proxy's own check that names a family without addresses, and
//! text after UNKNOWN that is longer than two addresses or not UTF-8.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// How long a proxy may take for the header.
const PATIENCE: Duration = Duration::from_secs(5);

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The shortest header there is: `PROXY UNKNOWN` and the end of its line.
const SHORTEST: usize = 15;

/// The longest line of version 1.
const LONGEST_LINE: usize = 107;

/// What a header says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ProxyHeader {
    /// The client; `None` if the proxy speaks for itself, as in health checks.
    pub(crate) ip: Option<IpAddr>,
    /// The client speaks TLS with the proxy (the type PP2_TYPE_SSL of version 2).
    pub(crate) is_secure: bool,
}

/// Reads the header.
///
/// # Errors
/// Something other than a header, an end within it, or 5 s without it.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<ProxyHeader> {
    match timeout(PATIENCE, read_header(stream)).await {
        Ok(header) => header,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no PROXY header came within 5 s")),
    }
}

async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<ProxyHeader> {
    let mut start = [0; SHORTEST];
    stream.read_exact(&mut start).await?;
    if start.starts_with(SIGNATURE) {
        let low = stream.read_u8().await?;
        let mut rest = vec![0; usize::from(u16::from_be_bytes([start[14], low]))];
        stream.read_exact(&mut rest).await?;
        return binary(start[12], start[13], &rest).ok_or_else(|| wrong("a PROXY header of version 2 is malformed"));
    }
    if !start.starts_with(b"PROXY ") {
        return Err(wrong("the connection does not begin with a PROXY header"));
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST_LINE {
            return Err(wrong("a PROXY header of version 1 has no end"));
        }
        line.push(stream.read_u8().await?);
    }
    // The receiver ignores what follows then (proxy-protocol.txt, section 2.1), text or not.
    if line.starts_with(b"PROXY UNKNOWN ") || line == b"PROXY UNKNOWN\r\n" {
        return Ok(ProxyHeader::default());
    }
    let text = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix("\r\n"));
    text.and_then(text_line).ok_or_else(|| wrong("a PROXY header of version 1 is malformed"))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.9 56324 443`.
fn text_line(line: &str) -> Option<ProxyHeader> {
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    let (source, target): (IpAddr, IpAddr) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let _ports: (u16, u16) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let is_family = |ip: &IpAddr| match family {
        "TCP4" => ip.is_ipv4(),
        "TCP6" => ip.is_ipv6(),
        _ => false,
    };
    let is_whole = words.next().is_none() && is_family(&source) && is_family(&target);
    is_whole.then(|| ProxyHeader { ip: Some(source.to_canonical()), is_secure: false })
}

/// The part of version 2 behind its signature: version and command, family and transport, addresses and further values.
fn binary(version_command: u8, family: u8, rest: &[u8]) -> Option<ProxyHeader> {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    match version_command {
        LOCAL => return Some(ProxyHeader::default()),
        PROXY => {}
        _ => return None,
    }
    let (length, ip) = match family >> 4 {
        0 => return Some(ProxyHeader::default()),
        1 => (12, IpAddr::from(*rest.first_chunk::<4>()?)),
        2 => (36, IpAddr::from(*rest.first_chunk::<16>()?)),
        3 => return (rest.len() >= 216).then(ProxyHeader::default),
        _ => return None,
    };
    let is_secure = is_secure(rest.get(length..)?);
    Some(ProxyHeader { ip: Some(ip.to_canonical()), is_secure })
}

/// Whether the values say that the client speaks TLS. Broken ones say nothing.
fn is_secure(mut values: &[u8]) -> bool {
    const SSL: u8 = 0x20;
    const CLIENT_SSL: u8 = 0x01;
    while let [kind, high, low, rest @ ..] = values {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, further)) = rest.split_at_checked(length) else { return false };
        if *kind == SSL {
            return value.first().is_some_and(|flags| flags & CLIENT_SSL != 0);
        }
        values = further;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the header says, and what is left behind it.
    fn read_all(bytes: &[u8]) -> (Result<ProxyHeader, String>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut rest = bytes;
        let header = runtime.block_on(read(&mut rest)).map_err(|error| error.to_string());
        (header, rest.to_vec())
    }

    fn ip(text: &str) -> ProxyHeader {
        ProxyHeader { ip: Some(text.parse().unwrap()), is_secure: false }
    }

    fn version2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest, b"GET /"].concat()
    }

    #[test]
    fn version_1() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n", ip("192.0.2.1")),
            ("PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", ip("1.1.1.1")),
            ("PROXY TCP6 2001:db8::1 ::1 56324 443\r\n", ip("2001:db8::1")),
            ("PROXY UNKNOWN\r\n", ProxyHeader::default()),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", ProxyHeader::default()),
        ] {
            let (header, rest) = read_all(format!("{line}GET /").as_bytes());
            assert_eq!((header, rest.as_slice()), (Ok(expected), &b"GET /"[..]), "{line}");
        }
        let (header, rest) = read_all(b"PROXY UNKNOWN \xff\0\xfe \n\r\nGET /");
        assert_eq!((header, rest.as_slice()), (Ok(ProxyHeader::default()), &b"GET /"[..]), "what is no text");
        for wrong in [
            "PROXY TCP4 192.0.2.1 192.0.2.9 56324\r\n",
            "PROXY TCP4 192.0.2.1 ::1 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 56324 99999\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 more\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.9 56324 443\r\n",
            "PROXY TCP4 host.example 192.0.2.9 56324 443\r\n",
            "PROXY UNKNOWNS\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            &format!("PROXY TCP4 {}\r\n", "1".repeat(200)),
            "PROXY TCP4 192.0.2.1",
        ] {
            assert!(read_all(wrong.as_bytes()).0.is_err(), "{wrong}");
        }
    }

    #[test]
    fn version_2() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 9, 0xdc, 4, 1, 187];
        let (header, rest) = read_all(&version2(0x21, 0x11, &v4));
        assert_eq!((header, rest.as_slice()), (Ok(ip("192.0.2.1")), &b"GET /"[..]));
        let v6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[1], &[0; 20]].concat();
        assert_eq!(read_all(&version2(0x21, 0x21, &v6)).0, Ok(ip("2001:db8::1")));
        assert_eq!(read_all(&version2(0x20, 0, &[])).0, Ok(ProxyHeader::default()), "the proxy's own check");
        assert_eq!(read_all(&version2(0x21, 0, &[1, 2, 3])).0, Ok(ProxyHeader::default()));
        assert_eq!(read_all(&version2(0x21, 0x31, &[0; 216])).0, Ok(ProxyHeader::default()));
        let ssl = [&v4[..], &[4, 0, 1, 9], &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
        assert_eq!(read_all(&version2(0x21, 0x11, &ssl)).0, Ok(ProxyHeader { is_secure: true, ..ip("192.0.2.1") }));
        let broken = [&v4[..], &[0x20, 255, 255, 1]].concat();
        assert_eq!(read_all(&version2(0x21, 0x11, &broken)).0, Ok(ip("192.0.2.1")));
        for (command, family, rest) in
            [(0x11, 0x11, &v4[..]), (0x22, 0x11, &v4), (0x21, 0x11, &v4[..8]), (0x21, 0x41, &v4)]
        {
            assert!(read_all(&version2(command, family, rest)).0.is_err());
        }
    }
}
