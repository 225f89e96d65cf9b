//! Restarts and socket activation of the real binary where it speaks TLS: each port keeps its part, and no client is
//! turned away.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};

/// Nothing here takes longer, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A client that takes any certificate.
#[derive(Debug)]
struct TakesAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TakesAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

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

/// A server, and what it logs.
struct Running {
    child: Child,
    /// The process that serves.
    process: u32,
    lines: mpsc::Receiver<String>,
    folder: PathBuf,
}

impl Running {
    /// Serves an app with this config; `sockets` are what a service manager lends.
    fn start(name: &str, config: &str, sockets: Vec<TcpListener>) -> Running {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("restart-tls-{name}"));
        fs::create_dir_all(&folder).unwrap();
        let app = format!(
            "local api = rover.server {{ workers = 2, access_log = false, {config} }}\n\
             function api.get(ctx) return ctx.scheme end\nreturn api\n"
        );
        fs::write(folder.join("app.lua"), app).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rover"));
        command.arg("app.lua").current_dir(&folder).stderr(Stdio::piped());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ROVER_")) {
            command.env_remove(name);
        }
        // Descriptors from 0 on: the only ones that can be placed without unsafe code.
        command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDS_FIRST_FD", "0");
        let mut sockets = sockets.into_iter().map(|socket| Stdio::from(OwnedFd::from(socket)));
        if let Some(first) = sockets.next() {
            command.stdin(first);
        } else {
            command.env_remove("LISTEN_FDS");
        }
        if let Some(second) = sockets.next() {
            command.stdout(second);
        }
        let mut child = command.spawn().unwrap();
        let process = child.id();
        let (line, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        Running { child, process, lines, folder }
    }

    /// Waits for a line of the log with this text.
    fn logged(&self, text: &str) -> String {
        let began = Instant::now();
        let mut seen = Vec::new();
        loop {
            let left = DEADLINE.saturating_sub(began.elapsed());
            let Ok(line) = self.lines.recv_timeout(left) else { panic!("{text:?} is not in the log: {seen:#?}") };
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
    }

    /// Where it speaks TLS, and where it leads there.
    fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let line = self.logged(" listening on ");
        let after = |scheme: &str| line.split_once(scheme).unwrap().1.split([',', ' ', '"']).next().unwrap();
        (after("https://").parse().unwrap(), after("http://").parse().unwrap())
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.process.to_string()]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.process != self.child.id() && fs::exists(format!("/proc/{}", self.process)).unwrap_or(false) {
            self.signal("KILL");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn restarts_under_load_lose_no_handshake_and_both_ports_keep_their_part() {
    let config = r#"port = 0, shutdown_timeout = 20, tls = { self_signed = true, redirect_port = 0 }"#;
    let mut server = Running::start("usr2", config, Vec::new());
    let (https, http) = server.addresses();
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
        let mut server = Running::start("activation", &config, sockets);
        let (https, http) = (https.local_addr().unwrap(), http.local_addr().unwrap());
        assert_eq!(server.addresses(), (https, http));
        assert!(secure(&client(), https).unwrap().ends_with("https"));
        let location = format!("location: https://shop.example:{}/", https.port());
        assert!(plain(http).contains(&location));
        server.signal("TERM");
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    }
    // Without a socket for the redirect, Rover binds its port by itself.
    let config = "port = 1, tls = { self_signed = true, redirect_port = 0 }";
    let server = Running::start("activation-one", config, vec![first.try_clone().unwrap()]);
    let (https, _) = server.addresses();
    assert_eq!(https, first.local_addr().unwrap());
    assert!(secure(&client(), https).unwrap().ends_with("https"));
    server.signal("TERM");
}
