//! HTTPS: handshakes, names, clients' certificates, reloading, and the way from http.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rover_server::Server;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned};

use crate::support::takes_any::TakesAny;
use crate::support::{App, DEADLINE, each_worker_count, wait_until};

pub const APP: &str = "local api = rover.server {} \
                   function api.get(ctx) return { scheme = ctx.scheme, host = ctx.host, version = ctx.version } end \
                   function api.big.get() return ('x'):rep(1000000) end \
                   function api.echo.post(ctx) return ctx:body():text() end return api";

/// A folder of its own for a test's files.
pub fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rover-tls-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes a certificate for `names` and its key, both as PEM; gives their paths.
pub fn certificate(folder: &Path, file: &str, names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (cert, key) = (folder.join(format!("{file}.pem")), folder.join(format!("{file}.key")));
    fs::write(&cert, pem("CERTIFICATE", made.cert.der())).unwrap();
    fs::write(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
    (cert.display().to_string(), key.display().to_string())
}

pub fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (n, part) in der.chunks(3).enumerate() {
        let bits = part.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - part.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit > part.len() { '=' } else { DIGITS[index as usize] as char });
        }
        if n % 16 == 15 {
            text.push('\n');
        }
    }
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", text.trim_end())
}

pub type Shown = Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>;

/// What a client offers.
pub fn offer(protocols: &[&str], only_old: bool, shown: Shown) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let versions = if only_old { &[&TLS12][..] } else { &[&TLS12, &TLS13] };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakesAny(provider)));
    let mut config = match shown {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

pub fn address(app: &App) -> SocketAddr {
    app.addresses.iter().find_map(|address| address.strip_prefix("https://")).expect("https").parse().unwrap()
}

/// Connects and shakes hands, asking for `name`.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Stream> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(DEADLINE))?;
    tcp.set_nodelay(true)?;
    let session = ClientConnection::new(config.clone(), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Sends a request and reads an answer that has a Content-Length.
pub fn ask(stream: &mut Stream, request: &str) -> std::io::Result<(String, Vec<u8>)> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

pub const HOME: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn own(stream: &Stream) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn https_is_served_by_every_worker() {
    each_worker_count(|workers| {
        let server = Server::from_source("app.lua", APP).workers(workers).set("tls.self_signed", "true");
        let app = App::start_server(server);
        let config = offer(&["h2", "http/1.1"], false, None);
        let agreed = connect(address(&app), &config, "localhost").unwrap();
        assert_eq!(agreed.conn.alpn_protocol(), Some(&b"h2"[..]));
        for only_old in [false, true] {
            let config = offer(&["http/1.1"], only_old, None);
            for _ in 0..3 {
                let mut stream = connect(address(&app), &config, "localhost").unwrap();
                let expected = if only_old { ProtocolVersion::TLSv1_2 } else { ProtocolVersion::TLSv1_3 };
                assert_eq!(stream.conn.protocol_version(), Some(expected));
                for _ in 0..2 {
                    let (head, body) = ask(&mut stream, HOME).unwrap();
                    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
                    let body = String::from_utf8(body).unwrap();
                    assert!(body.contains("\"scheme\":\"https\"") && body.contains("\"version\":\"1.1\""), "{body}");
                }
                let (_, body) = ask(&mut stream, "GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
                assert_eq!(body.len(), 1_000_000);
                let post =
                    format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n{}", "y".repeat(90_000));
                assert_eq!(ask(&mut stream, &post).unwrap().1.len(), 90_000);
            }
        }
    });
}

#[test]
fn sessions_are_resumed_on_any_worker() {
    let server = Server::from_source("app.lua", APP).workers(3).set("tls.self_signed", "true");
    let app = App::start_server(server);
    for only_old in [false, true] {
        let config = offer(&["http/1.1"], only_old, None);
        let mut kinds = Vec::new();
        for _ in 0..5 {
            let mut stream = connect(address(&app), &config, "localhost").unwrap();
            ask(&mut stream, HOME).unwrap();
            kinds.push(stream.conn.handshake_kind().unwrap());
        }
        assert_eq!(kinds[0], HandshakeKind::Full);
        assert!(kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed), "{kinds:?}");
    }
}

#[test]
fn the_name_decides_which_certificate_is_shown() {
    let folder = folder("sni");
    let (cert, key) = certificate(&folder, "first", &["first.example"]);
    let (other_cert, other_key) = certificate(&folder, "other", &["other.example", "*.wild.example"]);
    let code = format!(
        "local api = rover.server {{ tls = {{ cert = {cert:?}, key = {key:?}, \
         certificates = {{ {{ cert = {other_cert:?}, key = {other_key:?} }} }} }} }} return api"
    );
    let app = App::start_server(Server::from_source("app.lua", code).workers(1));
    let config = offer(&[], false, None);
    let shown = |name: &str| own(&connect(address(&app), &config, name).unwrap());
    let first = CertificateDer::from_pem_file(cert).unwrap().to_vec();
    let other = CertificateDer::from_pem_file(other_cert).unwrap().to_vec();
    assert_eq!(shown("first.example"), first);
    assert_eq!(shown("other.example"), other);
    assert_eq!(shown("a.wild.example"), other);
    assert_eq!(shown("unknown.example"), first);
}

#[test]
fn a_changed_certificate_is_loaded_and_no_connection_dropped() {
    let folder = folder("reload");
    let (cert, key) = certificate(&folder, "site", &["localhost"]);
    let server = Server::from_source("app.lua", APP)
        .workers(1)
        .set("tls.cert", &cert)
        .set("tls.key", &key)
        .set("tls.reload_interval", "20ms");
    let app = App::start_server(server);
    let config = offer(&["http/1.1"], false, None);
    let mut stays = connect(address(&app), &config, "localhost").unwrap();
    ask(&mut stays, HOME).unwrap();
    let old = own(&stays);
    let shown = || own(&connect(address(&app), &offer(&[], false, None), "localhost").unwrap());

    // Nonsense is not taken over, nor is a key that belongs to nothing.
    let (good_cert, good_key) = (fs::read(&cert).unwrap(), fs::read(&key).unwrap());
    fs::write(&cert, "nonsense").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(shown(), old);
    fs::write(&cert, &good_cert).unwrap();
    let (new_cert, new_key) = certificate(&folder, "new", &["localhost"]);
    fs::rename(new_key, &key).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(shown(), old);
    fs::rename(new_cert, &cert).unwrap();
    wait_until(|| shown() != old);
    assert_ne!(fs::read(&key).unwrap(), good_key);
    let (head, _) = ask(&mut stays, HOME).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "the connection from before goes on");
}

#[test]
fn clients_show_certificates_where_they_must() {
    let folder = folder("clients");
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let ca = folder.join("ca.pem");
    fs::write(&ca, pem("CERTIFICATE", authority.der())).unwrap();
    let client_key = KeyPair::generate().unwrap();
    let known = CertificateParams::new(vec!["client".to_owned()]).unwrap().signed_by(&client_key, &authority).unwrap();
    let stranger = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).unwrap();
    let shown = |cert: &[u8], key: &KeyPair| -> Shown {
        Some((vec![cert.to_vec().into()], PrivateKeyDer::try_from(key.serialize_der()).unwrap()))
    };
    for (mode, without) in [("required", false), ("optional", true)] {
        let server = Server::from_source("app.lua", APP)
            .workers(1)
            .set("tls.self_signed", "true")
            .set("tls.client_ca", ca.display().to_string())
            .set("tls.client_auth", mode);
        let app = App::start_server(server);
        let is_served = |shown: Shown| {
            let config = offer(&["http/1.1"], false, shown);
            connect(address(&app), &config, "localhost").and_then(|mut stream| ask(&mut stream, HOME)).is_ok()
        };
        assert!(is_served(shown(known.der(), &client_key)), "{mode}");
        assert!(!is_served(shown(stranger.cert.der(), &stranger.signing_key)), "{mode}");
        assert_eq!(is_served(None), without, "{mode}");
    }
}

#[test]
fn http2_is_spoken_where_it_was_agreed_on() {
    let server = Server::from_source("app.lua", APP).workers(1).set("tls.self_signed", "true");
    let app = App::start_server(server);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connector = tokio_rustls::TlsConnector::from(offer(&["h2"], false, None));
        let tcp = tokio::net::TcpStream::connect(address(&app)).await.unwrap();
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for (path, length) in [("/", None), ("/big", Some(1_000_000))] {
            let request = http::Request::get(format!("https://localhost{path}")).body(()).unwrap();
            client = client.ready().await.unwrap();
            let mut body = client.send_request(request, true).unwrap().0.await.unwrap().into_body();
            let mut bytes = Vec::new();
            while let Some(part) = body.data().await {
                let part = part.unwrap();
                body.flow_control().release_capacity(part.len()).unwrap();
                bytes.extend(part);
            }
            match length {
                Some(length) => assert_eq!(bytes.len(), length),
                None => {
                    let text = String::from_utf8(bytes).unwrap();
                    let parts = [r#""scheme":"https""#, r#""version":"2""#, r#""host":"localhost""#];
                    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
                }
            }
        }
    });
    // HTTP/1.1 where HTTP/2 was agreed on is no preface.
    let mut stream = connect(address(&app), &offer(&["h2"], false, None), "localhost").unwrap();
    stream.write_all(HOME.as_bytes()).unwrap();
    stream.flush().unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.ends_with(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "{rest:?}");
}

#[test]
fn the_least_version_is_kept() {
    let server =
        Server::from_source("app.lua", APP).workers(1).set("tls.self_signed", "true").set("tls.min_version", "1.3");
    let app = App::start_server(server);
    assert!(connect(address(&app), &offer(&[], true, None), "localhost").is_err());
    assert!(connect(address(&app), &offer(&[], false, None), "localhost").is_ok());
}

#[test]
fn a_handshake_that_does_not_come_ends() {
    let server = Server::from_source("app.lua", APP)
        .workers(1)
        .set("tls.self_signed", "true")
        .set("tls.handshake_timeout", "100ms");
    let app = App::start_server(server);
    let mut silent = TcpStream::connect(address(&app)).unwrap();
    silent.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0);
    // Neither is what is no HTTP.
    let mut other = TcpStream::connect(address(&app)).unwrap();
    other.set_read_timeout(Some(DEADLINE)).unwrap();
    other.write_all(b"\0\0\0\0\0\0\0\0").unwrap();
    let mut rest = Vec::new();
    let _ = BufReader::new(other).read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP"));
    assert!(connect(address(&app), &offer(&[], false, None), "localhost").is_ok());
}

#[test]
fn http_is_sent_to_https() {
    each_worker_count(|workers| {
        let server = Server::from_source("app.lua", APP)
            .workers(workers)
            .set("tls.self_signed", "true")
            .set("tls.redirect_port", "0");
        let app = App::start_server(server);
        let port = address(&app).port();
        assert_ne!(app.address.port(), port);
        for (host, location) in [
            ("localhost", format!("https://localhost:{port}/a%20b?c=d")),
            ("localhost:80", format!("https://localhost:{port}/a%20b?c=d")),
            ("[::1]:80", format!("https://[::1]:{port}/a%20b?c=d")),
        ] {
            let answer = app.send(format!("GET /a%20b?c=d HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!((answer.status, answer.header("location")), (308, Some(location.as_str())), "{host}");
            assert_eq!(answer.header("connection"), Some("close"));
        }
        let answer = app.send("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(answer.header("location"), Some(format!("https://localhost:{port}").as_str()));
        assert_eq!(app.send("GET http://user:pw@evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 400);
        assert_eq!(app.send("GET / HTTP/1.0\r\n\r\n").status, 400);
        assert_eq!(app.send("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n").status, 400);
    });
}

/// What is said about an app with these settings.
fn refusal(settings: &[(&str, &str)]) -> String {
    let mut server = Server::from_source("app.lua", APP).workers(1).port(0);
    for (key, value) in settings {
        server = server.set(*key, *value);
    }
    let checked = server.check().unwrap_err();
    assert!(checked.is_app());
    assert_eq!(server.bind().unwrap_err().to_string(), checked.to_string());
    checked.to_string()
}

#[test]
fn a_file_that_is_wrong_is_named_with_its_cure() {
    let folder = folder("wrong");
    let (cert, key) = certificate(&folder, "a", &["localhost"]);
    let (_, other_key) = certificate(&folder, "b", &["localhost"]);
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let empty = file("empty", "");
    let locked = file("locked", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let broken = file("broken", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let bad_key = file("bad.key", &pem("PRIVATE KEY", b"no key at all"));
    for (settings, expected) in [
        (&[("tls.cert", "/no/such.pem")][..], "/no/such.pem does not exist: paths are relative".to_owned()),
        (&[("tls.cert", cert.as_str())], format!("{cert} holds no private key: name the file that does as tls.key")),
        (&[("tls.cert", &key), ("tls.key", &cert)], format!("{key} holds a private key where a certificate should be")),
        (&[("tls.cert", &cert), ("tls.key", &cert)], format!("{cert} holds no private key")),
        (&[("tls.cert", &empty)], format!("{empty} holds no certificate")),
        (&[("tls.cert", &broken)], format!("{broken} is no sound PEM file")),
        (&[("tls.cert", &cert), ("tls.key", &empty)], format!("{empty} holds no private key")),
        (
            &[("tls.cert", &cert), ("tls.key", &locked)],
            format!("the key in {locked} is encrypted: decrypt it with openssl"),
        ),
        (&[("tls.cert", &cert), ("tls.key", &bad_key)], format!("the key in {bad_key} cannot be used")),
        (&[("tls.cert", &cert), ("tls.key", &other_key)], format!("the key in {other_key} does not belong to")),
        (&[("tls.self_signed", "yes"), ("tls.client_ca", &empty)], format!("{empty} holds no certificate")),
        (&[("tls.key", &key)], "tls.key needs tls.cert".to_owned()),
    ] {
        let refusal = refusal(settings);
        assert!(refusal.contains(&expected), "{expected} in {refusal}");
    }
}

#[test]
fn an_app_learns_of_its_client_s_certificate() {
    let folder = folder("client-names");
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let ca = folder.join("ca.pem");
    fs::write(&ca, pem("CERTIFICATE", authority.der())).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["alice.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "Example");
    params.distinguished_name.push(rcgen::DnType::CommonName, "alice");
    params.subject_alt_names.push(rcgen::SanType::URI("spiffe://example/alice".try_into().unwrap()));
    let alice = params.signed_by(&key, &authority).unwrap();
    let code = "local api = rover.server {}
        function api.get(ctx) return ctx:client_certificate() or 'nobody' end
        return api";
    let server = Server::from_source("app.lua", code)
        .workers(1)
        .set("tls.self_signed", "true")
        .set("tls.client_ca", ca.display().to_string())
        .set("tls.client_auth", "optional");
    let app = App::start_server(server);
    let shown: Shown = Some((vec![alice.der().to_vec().into()], PrivateKeyDer::try_from(key.serialize_der()).unwrap()));
    let config = offer(&["http/1.1"], false, shown);
    // The second session resumes the first.
    for _ in 0..2 {
        let mut stream = connect(address(&app), &config, "localhost").unwrap();
        let body: serde_json::Value = serde_json::from_slice(&ask(&mut stream, HOME).unwrap().1).unwrap();
        assert_eq!(body["subject"], "O=Example, CN=alice");
        assert_eq!(body["san"], serde_json::json!(["DNS:alice.example", "IP:10.0.0.1", "URI:spiffe://example/alice"]));
        assert_eq!((&body["verified"], body["fingerprint"].as_str().unwrap().len()), (&true.into(), 64));
    }
    let config = offer(&["http/1.1"], false, None);
    let mut stream = connect(address(&app), &config, "localhost").unwrap();
    assert_eq!(ask(&mut stream, HOME).unwrap().1, b"nobody");
}

#[test]
fn plain_http_on_the_port_of_tls_is_told_so() {
    let app = App::start_server(Server::from_source("app.lua", APP).workers(1).set("tls.self_signed", "true"));
    for (request, body) in [
        (HOME.to_owned(), r#"{"error":"this port speaks HTTPS: the request must come over TLS"}"#),
        (HOME.replace("GET", "HEAD"), ""),
        (
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n{}", "y".repeat(90_000)),
            r#"{"error":"this port speaks HTTPS: the request must come over TLS"}"#,
        ),
    ] {
        let mut stream = TcpStream::connect(address(&app)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        assert!(all.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"), "{all}");
        assert!(all.ends_with(&format!("\r\n\r\n{body}")), "{all}");
    }
}
