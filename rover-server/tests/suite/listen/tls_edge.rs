//! HTTPS together with what else stands at the edge: the PROXY protocol, HSTS, clients' certificates that are no longer
//! taken, and a stop in the middle of a handshake.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rover_server::Server;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConnection, HandshakeKind, StreamOwned};

use super::tls::{APP, HOME, address, ask, certificate, connect, folder, offer, pem};
use crate::support::{App, DEADLINE, each_worker_count, wait_until};

fn line<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn hosts_are_pinned_to_https_but_not_localhost() {
    let server =
        Server::from_source("app.lua", APP).workers(1).set("tls.self_signed", "true").set("tls.redirect_port", "0");
    let app = App::start_server(server);
    let config = offer(&["http/1.1"], false, None);
    let mut stream = connect(address(&app), &config, "localhost").unwrap();
    for (path, status) in [("/", 200), ("/nowhere", 404)] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        let (head, _) = ask(&mut stream, &request).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(line(&head, "strict-transport-security"), Some("max-age=31536000"));
        assert_eq!(line(&head, "x-content-type-options"), Some("nosniff"));
    }
    let (head, _) = ask(&mut stream, HOME).unwrap();
    assert_eq!(line(&head, "strict-transport-security"), None, "localhost is everybody's");
    // In clear text it would mean nothing (RFC 6797, section 7.2).
    let redirect = app.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!((redirect.status, redirect.header("strict-transport-security")), (308, None));
    assert_eq!(redirect.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn the_proxy_s_header_stands_before_the_handshake() {
    each_worker_count(|workers| {
        let code = APP.replace("scheme = ctx.scheme", "ip = ctx.ip, scheme = ctx.scheme");
        let server = Server::from_source("app.lua", code)
            .workers(workers)
            .set("tls.self_signed", "true")
            .set("tls.redirect_port", "0")
            .set("trusted_proxies", "loopback")
            .set("proxy_protocol", "true");
        let app = App::start_server(server);
        let header = b"PROXY TCP4 192.0.2.7 192.0.2.9 56324 443\r\n";
        for protocols in [&["http/1.1"][..], &[]] {
            let mut tcp = TcpStream::connect(address(&app)).unwrap();
            tcp.set_read_timeout(Some(DEADLINE)).unwrap();
            tcp.write_all(header).unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let session = ClientConnection::new(offer(protocols, false, None), name).unwrap();
            let mut stream = StreamOwned::new(session, tcp);
            let (_, body) = ask(&mut stream, HOME).unwrap();
            let body = String::from_utf8(body).unwrap();
            assert!(body.contains(r#""ip":"192.0.2.7""#) && body.contains(r#""scheme":"https""#), "{body}");
        }
        // A handshake without the header before it is none, and what speaks plain HTTP behind the header is told so.
        assert!(connect(address(&app), &offer(&[], false, None), "localhost").is_err());
        let mut plain = TcpStream::connect(address(&app)).unwrap();
        plain.set_read_timeout(Some(DEADLINE)).unwrap();
        plain.write_all(&[&header[..], HOME.as_bytes()].concat()).unwrap();
        let mut rest = Vec::new();
        let _ = plain.read_to_end(&mut rest);
        assert!(rest.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&rest));
        // On the port that leads to https it stands as well.
        let mut client = app.connect();
        client.send([&header[..], b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n"].concat());
        let answer = client.answer();
        let location = format!("https://shop.example:{}/a", address(&app).port());
        assert_eq!((answer.status, answer.header("location")), (308, Some(location.as_str())));
    });
}

/// An authority, whose certificate is written to `file`.
fn authority(file: &Path) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let draft = file.with_extension("draft");
    fs::write(&draft, pem("CERTIFICATE", authority.der())).unwrap();
    fs::rename(draft, file).unwrap();
    authority
}

#[test]
fn a_session_does_not_outlive_the_authority_of_its_client() {
    let folder = folder("revoked");
    let (cert, key) = certificate(&folder, "site", &["localhost"]);
    let ca = folder.join("ca.pem");
    authority(&ca);
    let client_key = KeyPair::generate().unwrap();
    let server = Server::from_source("app.lua", APP)
        .workers(1)
        .set("tls.cert", &cert)
        .set("tls.key", &key)
        .set("tls.client_ca", ca.display().to_string())
        .set("tls.reload_interval", "20ms");
    let app = App::start_server(server);
    for only_old in [false, true] {
        let first = authority(&ca);
        let known = CertificateParams::new(vec!["client".to_owned()]).unwrap().signed_by(&client_key, &first).unwrap();
        let shown = (vec![known.der().to_vec().into()], PrivateKeyDer::try_from(client_key.serialize_der()).unwrap());
        let config = offer(&["http/1.1"], only_old, Some(shown));
        let visit = || {
            let mut stream = connect(address(&app), &config, "localhost").ok()?;
            ask(&mut stream, HOME).ok()?;
            stream.conn.handshake_kind()
        };
        wait_until(|| visit().is_some());
        assert_eq!(visit(), Some(HandshakeKind::Resumed), "as long as nothing changes");
        authority(&ca);
        // A session of before is refused, or begins anew and then shows a certificate that nobody vouches for.
        wait_until(|| visit().is_none());
        assert_eq!(visit(), None);
    }
}

#[test]
fn a_client_that_has_begun_to_shake_hands_is_answered_by_a_server_that_stops() {
    let server =
        Server::from_source("app.lua", APP).workers(1).set("tls.self_signed", "true").shutdown_timeout(DEADLINE);
    let mut app = App::start_server(server);
    let mut tcp = TcpStream::connect(address(&app)).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(offer(&["http/1.1"], false, None), name).unwrap();
    session.write_tls(&mut tcp).unwrap();
    // The server has said something, so it is in the middle of it.
    assert!(session.read_tls(&mut tcp).unwrap() > 0);
    app.begin_stop();
    // Nobody is let in any more: the stop has begun.
    wait_until(|| TcpStream::connect(address(&app)).is_err());
    session.process_new_packets().unwrap();
    let mut stream = StreamOwned::new(session, tcp);
    let (head, _) = ask(&mut stream, HOME).unwrap();
    // With `Connection: close`, unless the answer was on its way before the worker learned of the stop.
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    app.ended();
}
