//! Who the client is, for many forms of the headers.

use http::Request;

use super::*;

fn reader(trusted: &str, headers: ProxyHeaders) -> Forwarded {
    let text = trusted.to_owned();
    Forwarded { trusted: Trusted::from_text(&text).unwrap(), headers }
}

/// `ip scheme host` of a request that comes from 10.0.0.1.
fn client(trusted: &str, headers: ProxyHeaders, lines: &[(&str, &str)]) -> String {
    let mut request = Request::builder();
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    let (mut head, ()) = request.body(()).unwrap().into_parts();
    let peer = Peer::new(Some([10, 0, 0, 1].into()), "http");
    match reader(trusted, headers).client(&mut head, &peer) {
        Some(peer) => format!("{} {} {}", peer.ip.unwrap(), peer.scheme, peer.host.as_deref().unwrap_or("-")),
        None => "the peer".to_owned(),
    }
}

#[test]
fn forwarded_is_read_from_the_right() {
    for (value, expected) in [
        ("for=192.0.2.60;proto=https;host=example.com", "192.0.2.60 https example.com"),
        ("FOR=\"192.0.2.60:4711\"; Proto=HTTPS", "192.0.2.60 https -"),
        ("for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17 http -"),
        ("for=\"[2001:db8:cafe::17]\"", "2001:db8:cafe::17 http -"),
        ("for=6.6.6.6, for=192.0.2.60", "192.0.2.60 http -"),
        ("for=6.6.6.6;proto=https, for=192.0.2.60, for=10.0.0.2", "192.0.2.60 http -"),
        ("for=192.0.2.60;proto=https, for=10.0.0.2;proto=http", "192.0.2.60 https -"),
        ("for=10.0.0.9, for=10.0.0.2", "10.0.0.9 http -"),
        ("for=unknown, for=10.0.0.2", "10.0.0.2 http -"),
        ("for=_hidden", "the peer"),
        ("for=192.0.2.60, for=\"_gazonk\"", "the peer"),
        ("for=192.0.2.60:_http", "192.0.2.60 http -"),
        ("for=\"broken, for=192.0.2.60", "192.0.2.60 http -"),
        ("for=\"a\\\", for=192.0.2.60;host=\"a,b\"", "192.0.2.60 http a,b"),
        ("for=192.0.2.60;host=\"bad host\"", "192.0.2.60 http -"),
        ("for=192.0.2.60;proto=gopher", "192.0.2.60 http -"),
        ("for=::ffff:192.0.2.60", "192.0.2.60 http -"),
        ("nonsense", "the peer"),
        ("", "the peer"),
    ] {
        assert_eq!(client("10.0.0.0/8", ProxyHeaders::Both, &[("forwarded", value)]), expected, "{value}");
    }
}

#[test]
fn x_forwarded_is_read_from_the_right() {
    for (lines, expected) in [
        (&[("x-forwarded-for", "192.0.2.60"), ("x-forwarded-proto", "https")][..], "192.0.2.60 https -"),
        (&[("x-forwarded-for", "6.6.6.6, 192.0.2.60")], "192.0.2.60 http -"),
        (&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "192.0.2.60, 10.0.0.2")], "192.0.2.60 http -"),
        (&[("x-forwarded-for", "192.0.2.60, 10.0.0.2"), ("x-forwarded-proto", "https, http")], "192.0.2.60 https -"),
        (&[("x-forwarded-for", "192.0.2.60, 10.0.0.2"), ("x-forwarded-proto", "https")], "192.0.2.60 https -"),
        (&[("x-forwarded-for", "192.0.2.60"), ("x-forwarded-proto", "https, http")], "192.0.2.60 http -"),
        (&[("x-forwarded-for", "2001:db8::1")], "2001:db8::1 http -"),
        (&[("x-forwarded-for", "192.0.2.60:1234")], "192.0.2.60 http -"),
        (&[("x-forwarded-for", "gibberish, 10.0.0.2")], "10.0.0.2 http -"),
        (&[("x-forwarded-host", "example.com:8080")], "10.0.0.1 http example.com:8080"),
        (&[("x-forwarded-host", "bad host")], "the peer"),
        (&[], "the peer"),
    ] {
        assert_eq!(client("10.0.0.0/8", ProxyHeaders::Both, lines), expected, "{lines:?}");
    }
}

#[test]
fn which_header_counts() {
    let both = [("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "192.0.2.2")];
    assert_eq!(client("10.0.0.1", ProxyHeaders::Both, &both), "192.0.2.1 http -");
    assert_eq!(client("10.0.0.1", ProxyHeaders::Forwarded, &both), "192.0.2.1 http -");
    assert_eq!(client("10.0.0.1", ProxyHeaders::XForwarded, &both), "192.0.2.2 http -");
    assert_eq!(client("10.0.0.1", ProxyHeaders::Forwarded, &both[1..]), "the peer");
    assert_eq!(client("192.0.2.0/24", ProxyHeaders::Both, &both), "the peer", "the peer is not trusted");
}

#[test]
fn what_nobody_may_believe_is_removed() {
    let build = || {
        let request = Request::builder().header("forwarded", "for=192.0.2.1").header("x-forwarded-for", "192.0.2.2");
        let request = request.header("x-real-ip", "192.0.2.3").header("accept", "*/*");
        request.body(()).unwrap().into_parts().0
    };
    let peer = |ip: [u8; 4]| Peer::new(Some(ip.into()), "http");
    let mut head = build();
    assert!(reader("10.0.0.1", ProxyHeaders::Both).client(&mut head, &peer([10, 0, 0, 2])).is_none());
    assert_eq!(head.headers.keys().collect::<Vec<_>>(), ["accept"]);
    let mut head = build();
    assert!(reader("10.0.0.1", ProxyHeaders::XForwarded).client(&mut head, &peer([10, 0, 0, 1])).is_some());
    assert!(!head.headers.contains_key("forwarded") && head.headers.contains_key("x-forwarded-for"));
}
