//! Restarts and socket activation of the real binary where it speaks TLS: each port keeps its part, and no client is
//! turned away.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

mod process;
#[path = "../../rover-server/tests/suite/support/takes_any.rs"]
mod takes_any;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};

use process::{App, DEADLINE, Server};
use takes_any::TakesAny;

fn client() -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let verifier = Arc::new(TakesAny(provider));
    Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";

/// The answer over TLS, on a connection of its own.
fn secure(config: &Arc<ClientConfig>, address: SocketAddr) -> Result<String, String> {
    let tcp = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    let session = ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, tcp);
    stream.write_all(GET).map_err(|error| format!("send: {error}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| format!("read: {error} after {answer:?}"))?;
    Ok(answer)
}

/// The answer in clear text.
fn plain(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(GET).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Serves an app with this config; `sockets` are what a service manager lends.
fn start(name: &str, config: &str, sockets: Vec<TcpListener>) -> (Server, App) {
    let code = format!(
        "local api = rover.server {{ workers = 2, access_log = false, {config} }}\n\
         function api.get(ctx) return ctx.scheme end\nreturn api\n"
    );
    let app = App::new(name, &[("app.lua", &code)]);
    let mut command = if sockets.is_empty() { app.command(&[]) } else { app.activated(sockets.len()) };
    let mut sockets = sockets.into_iter().map(|socket| Stdio::from(OwnedFd::from(socket)));
    if let Some(first) = sockets.next() {
        command.stdin(first);
    }
    if let Some(second) = sockets.next() {
        command.stdout(second);
    }
    (Server::start(command), app)
}

/// Where a server speaks TLS, and where it leads there.
fn addresses(server: &mut Server) -> (SocketAddr, SocketAddr) {
    let line = server.logged(" listening on ");
    let after = |scheme: &str| line.split_once(scheme).unwrap().1.split([',', ' ', '"']).next().unwrap();
    (after("https://").parse().unwrap(), after("http://").parse().unwrap())
}

#[test]
fn restarts_under_load_lose_no_handshake_and_both_ports_keep_their_part() {
    let config = r#"port = 0, shutdown_timeout = 20, tls = { self_signed = true, redirect_port = 0 }"#;
    let (mut server, _app) = start("usr2", config, Vec::new());
    let (https, http) = addresses(&mut server);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    // A full handshake each time: the most that a restart can cut off.
                    match secure(&client(), https) {
                        Ok(answer) if answer.ends_with("https") => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        other => failures.push(other),
                    }
                }
                failures
            })
        })
        .collect();
    let more = |count: usize| {
        let (before, began) = (answered.load(Ordering::Relaxed), Instant::now());
        while answered.load(Ordering::Relaxed) < before + count {
            assert!(began.elapsed() < DEADLINE, "the clients get no answers");
            thread::sleep(Duration::from_millis(5));
        }
    };
    for _ in 0..3 {
        more(100);
        server.signal("USR2");
        let line = server.logged("another process has taken over");
        server.process = line.split_once("\"pid\":").unwrap().1.split([',', '}']).next().unwrap().parse().unwrap();
        more(100);
        let answer = plain(http);
        let location = format!("location: https://shop.example:{}/", https.port());
        assert!(answer.starts_with("HTTP/1.1 308 ") && answer.contains(&location), "{answer}");
    }
    stop.store(true, Ordering::Relaxed);
    let failures: Vec<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert!(failures.is_empty(), "{} of {answered:?}: {failures:#?}", failures.len());
    server.signal("TERM");
    server.logged("the server stops");
}

#[test]
fn of_the_service_manager_s_sockets_the_one_with_the_redirect_s_port_leads_to_https() {
    let (first, second) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    for (https, http) in [(&first, &second), (&second, &first)] {
        let port = http.local_addr().unwrap().port();
        let config = format!("port = 1, tls = {{ self_signed = true, redirect_port = {port} }}");
        let sockets = vec![first.try_clone().unwrap(), second.try_clone().unwrap()];
        let (mut server, _app) = start("activation", &config, sockets);
        let (https, http) = (https.local_addr().unwrap(), http.local_addr().unwrap());
        assert_eq!(addresses(&mut server), (https, http));
        assert!(secure(&client(), https).unwrap().ends_with("https"));
        let location = format!("location: https://shop.example:{}/", https.port());
        assert!(plain(http).contains(&location));
        server.signal("TERM");
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    }
    // Without a socket for the redirect, Rover binds its port by itself.
    let config = "port = 1, tls = { self_signed = true, redirect_port = 0 }";
    let (mut server, _app) = start("activation-one", config, vec![first.try_clone().unwrap()]);
    let (https, _) = addresses(&mut server);
    assert_eq!(https, first.local_addr().unwrap());
    assert!(secure(&client(), https).unwrap().ends_with("https"));
    server.signal("TERM");
}
