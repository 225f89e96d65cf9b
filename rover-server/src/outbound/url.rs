//! URLs: what can be requested, which origin it belongs to, and where a redirect leads.

use http::Uri;
use http::uri::{Authority, Scheme};

use super::Problem;

/// Reads a URL that can be requested: `http` or `https`, with a host. A fragment is dropped; bytes that a URL cannot
/// hold as they are get percent-encoded.
///
/// # Errors
/// It is none, and why.
pub(crate) fn parse(text: &[u8]) -> Result<Uri, Problem> {
    if memchr::memmem::find(text, b"://").is_none() {
        return Err(Problem::BadUrl("it must begin with http:// or https://"));
    }
    let end = memchr::memchr(b'#', text).unwrap_or(text.len());
    let text = &text[..end];
    let mut clean = String::with_capacity(end);
    let rest = begin_with_ascii_host(text, &mut clean)?;
    for &byte in rest {
        match byte {
            0..=32 | 127.. | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                clean.push_str(percent_encoding::percent_encode_byte(byte));
            }
            byte => clean.push(char::from(byte)),
        }
    }
    let uri: Uri = clean.parse().map_err(|_| Problem::BadUrl("it cannot be understood"))?;
    match uri.scheme() {
        None => return Err(Problem::BadUrl("it must begin with http:// or https://")),
        Some(scheme) if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS => {
            return Err(Problem::BadUrl("only http and https can be requested"));
        }
        Some(_) => {}
    }
    let Some(authority) = uri.authority() else { return Err(Problem::BadUrl("it has no host")) };
    if authority.host().is_empty() {
        return Err(Problem::BadUrl("it has no host"));
    }
    if authority.as_str().contains('@') {
        return Err(Problem::BadUrl("a user and password belong into the Authorization header"));
    }
    if authority.host().len() + 1 < authority.as_str().len() && authority.port_u16().is_none() {
        return Err(Problem::BadUrl("the port is not a number up to 65535"));
    }
    Ok(uri)
}

/// Adds the beginning of a URL whose host is not in ASCII, up to the host in the form of DNS (RFC 5891); gives the rest, which
/// is all of it where the host is plain.
fn begin_with_ascii_host<'t>(text: &'t [u8], clean: &mut String) -> Result<&'t [u8], Problem> {
    let bad = || Problem::BadUrl("the host is not a valid name");
    let begin = memchr::memmem::find(text, b"://").map_or(0, |at| at + 3);
    let length = text[begin..].iter().position(|byte| b"/?\\".contains(byte)).unwrap_or(text.len() - begin);
    let authority = &text[begin..begin + length];
    // An `@` is refused later.
    let is_plain = authority.iter().all(|&byte| byte.is_ascii() && byte != b'%');
    if is_plain || authority.starts_with(b"[") || authority.contains(&b'@') {
        return Ok(text);
    }
    let scheme = std::str::from_utf8(&text[..begin]).map_err(|_| bad())?;
    let host = &authority[..memchr::memrchr(b':', authority).unwrap_or(authority.len())];
    let decoded = percent_encoding::percent_decode(host).collect::<Vec<u8>>();
    let ascii = idna::domain_to_ascii_cow(&decoded, idna::AsciiDenyList::URL).map_err(|_| bad())?;
    clean.push_str(scheme);
    clean.push_str(&ascii);
    Ok(&text[begin + host.len()..])
}

/// The origin as text (RFC 6454, section 6.2): scheme, host and a port that is not the scheme's own.
pub(super) fn origin_of(uri: &Uri) -> String {
    let mut origin = uri.scheme_str().unwrap_or("http").to_owned();
    origin.push_str("://");
    origin.push_str(&host_of(uri));
    origin
}

/// The host, and a port that is not the scheme's own, as `Host` names them.
pub(super) fn host_of(uri: &Uri) -> String {
    let mut host = uri.host().unwrap_or_default().to_ascii_lowercase();
    if let Some(port) = uri.port_u16().filter(|port| *port != default_port(uri)) {
        host.push(':');
        host.push_str(itoa::Buffer::new().format(port));
    }
    host
}

fn default_port(uri: &Uri) -> u16 {
    if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 }
}

/// Whether both have the same origin, so that what is meant for one may be sent to the other.
pub(super) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or_else(|| default_port(uri));
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

/// Where `reference`, found at `base`, leads (RFC 3986, section 5.2).
///
/// # Errors
/// Nowhere that could be requested.
pub(super) fn resolve(base: &Uri, reference: &[u8]) -> Result<Uri, Problem> {
    let end = memchr::memchr(b'#', reference).unwrap_or(reference.len());
    let reference = reference[..end].trim_ascii();
    let scheme_end = reference.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"+-.".contains(byte)));
    if scheme_end.is_some_and(|end| reference[end] == b':' && reference[0].is_ascii_alphabetic()) {
        return parse(reference);
    }
    let mut whole = format!("{}:", base.scheme_str().unwrap_or("http")).into_bytes();
    if reference.starts_with(b"//") {
        whole.extend_from_slice(reference);
        return parse(&whole);
    }
    whole.extend_from_slice(b"//");
    whole.extend_from_slice(base.authority().map_or("", Authority::as_str).as_bytes());
    let base_path = base.path();
    let query_at = memchr::memchr(b'?', reference).unwrap_or(reference.len());
    let (path, query) = reference.split_at(query_at);
    if path.is_empty() {
        whole.extend_from_slice(base_path.as_bytes());
        match (query.is_empty(), base.query()) {
            (true, Some(own)) => {
                whole.push(b'?');
                whole.extend_from_slice(own.as_bytes());
            }
            _ => whole.extend_from_slice(query),
        }
        return parse(&whole);
    }
    let mut merged = Vec::new();
    if !path.starts_with(b"/") {
        let folder = base_path.rfind('/').map_or(0, |at| at + 1);
        merged.extend_from_slice(&base_path.as_bytes()[..folder]);
    }
    merged.extend_from_slice(path);
    remove_dots(&merged, &mut whole);
    whole.extend_from_slice(query);
    parse(&whole)
}

/// Adds `path` without its `.` and `..` (RFC 3986, section 5.2.4).
fn remove_dots(path: &[u8], out: &mut Vec<u8>) {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." if is_last => kept.push(b""),
            b"." => {}
            b".." => {
                kept.pop();
                if is_last {
                    kept.push(b"");
                }
            }
            other => kept.push(other),
        }
    }
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_can_be_requested() {
        let ok = |text: &str| parse(text.as_bytes()).unwrap().to_string();
        assert_eq!(ok("http://a.test"), "http://a.test/");
        assert_eq!(ok("HTTPS://a.test:8443/x?y=1#z"), "https://a.test:8443/x?y=1");
        assert_eq!(ok("http://[::1]:80/a b/\u{e9}"), "http://[::1]:80/a%20b/%C3%A9");
        // Hosts in other scripts, as DNS has them.
        assert_eq!(ok("http://M\u{fc}nchen.test:81/\u{e4}"), "http://xn--mnchen-3ya.test:81/%C3%A4");
        assert_eq!(ok("http://m%C3%BCnchen.test?q=\u{fc}"), "http://xn--mnchen-3ya.test/?q=%C3%BC");
        assert_eq!(ok("http://\u{4f8b}\u{3048}\u{3002}\u{30c6}\u{30b9}\u{30c8}"), "http://xn--r8jz45g.xn--zckzah/");
        assert_eq!(ok("http://\u{ff4c}ocalhost/"), "http://localhost/");
        let no = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        for text in ["http://\u{ff05}a.test/", "http://a%2Fb.test/", "http://a%ff.test/", "http://xn--\u{fc}.test/"] {
            assert_eq!(no(text), "invalid URL: the host is not a valid name", "{text}");
        }
        assert_eq!(no("/path"), "invalid URL: it must begin with http:// or https://");
        assert_eq!(no("ftp://a.test/"), "invalid URL: only http and https can be requested");
        assert_eq!(
            no("http://me:secret@a.test/"),
            "invalid URL: a user and password belong into the Authorization header"
        );
        assert_eq!(no("http://a.test:99999/"), "invalid URL: the port is not a number up to 65535");
        for text in ["", "http://", "http:///x", "://x"] {
            assert!(no(text).starts_with("invalid URL: "), "{text}");
        }
    }

    #[test]
    fn origins() {
        let origin = |text: &str| origin_of(&parse(text.as_bytes()).unwrap());
        assert_eq!(origin("http://A.test:80/x"), "http://a.test");
        assert_eq!(origin("https://a.test:80/x"), "https://a.test:80");
        let same = |a: &str, b: &str| same_origin(&parse(a.as_bytes()).unwrap(), &parse(b.as_bytes()).unwrap());
        assert!(same("http://a.test/x", "http://A.test:80/y"));
        assert!(!same("http://a.test/", "https://a.test/"));
        assert!(!same("http://a.test/", "http://a.test:81/"));
    }

    /// The examples of RFC 3986, section 5.4, as far as they are of HTTP.
    #[test]
    fn references_resolve_as_the_rfc_has_it() {
        let base = parse(b"http://a/b/c/d;p?q").unwrap();
        for (reference, whole) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g#s", "http://a/b/c/g"),
            ("g;x?y#s", "http://a/b/c/g;x?y"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("./g/.", "http://a/b/c/g/"),
            ("g/../h", "http://a/b/c/h"),
            ("https://b.test/x", "https://b.test/x"),
        ] {
            assert_eq!(resolve(&base, reference.as_bytes()).unwrap().to_string(), whole, "{reference}");
        }
        assert!(resolve(&base, b"mailto:me@a.test").is_err());
    }
}
