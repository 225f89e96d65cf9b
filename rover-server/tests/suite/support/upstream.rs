//! A server for tests of what Rover asks other servers: it answers what a test says, and misbehaves as told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::DEADLINE;

/// A request as the server got it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What a handler does with a connection after a request.
#[derive(PartialEq, Eq)]
pub enum Then {
    Keep,
    Close,
}

/// A server on a port of its own, a thread for each connection.
pub struct Upstream {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    /// Connections that are open.
    pub open: Arc<AtomicUsize>,
    /// Connections ever accepted.
    pub accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Upstream {
    pub fn start(handler: impl Fn(&Asked, &mut TcpStream) -> Then + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let upstream = Upstream {
            address: listener.local_addr().expect("an address"),
            asked: Arc::default(),
            open: Arc::default(),
            accepted: Arc::default(),
            stop: Arc::default(),
        };
        let handler = Arc::new(handler);
        let (asked, open, accepted, stop) =
            (upstream.asked.clone(), upstream.open.clone(), upstream.accepted.clone(), upstream.stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                accepted.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let (handler, asked, open) = (handler.clone(), asked.clone(), open.clone());
                std::thread::spawn(move || {
                    serve(stream, &*handler, &asked);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        upstream
    }

    /// Answers every request with 200 and this text.
    pub fn says(text: &'static str) -> Upstream {
        Upstream::start(move |_, stream| answer(stream, "200 OK", "", text.as_bytes()))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    stream: TcpStream,
    handler: &(impl Fn(&Asked, &mut TcpStream) -> Then + ?Sized),
    asked: &Mutex<Vec<Asked>>,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(3 * DEADLINE)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let request = read_request(&mut reader, &mut writer)?;
        asked.lock().expect("no panic").push(request.clone());
        if handler(&request, &mut writer) == Then::Close {
            return None;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>, writer: &mut TcpStream) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut words = lines.first()?.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let mut asked = Asked { method, target, headers, body: Vec::new() };
    // Such a request is answered before its body has come.
    if asked.target.starts_with("/early") {
        return Some(asked);
    }
    if asked.header("expect").is_some() {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    if let Some(length) = asked.header("content-length") {
        let length: usize = length.parse().ok()?;
        asked.body.resize(length, 0);
        reader.read_exact(&mut asked.body).ok()?;
    } else if asked.header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            asked.body.extend_from_slice(&chunk[..size]);
        }
    }
    Some(asked)
}

/// Sends a whole answer; `headers` are lines that end with CRLF.
pub fn answer(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> Then {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    if sent.is_ok() { Then::Keep } else { Then::Close }
}

/// Sends bytes as they are.
pub fn raw(stream: &mut TcpStream, bytes: &[u8]) -> Then {
    if stream.write_all(bytes).is_ok() { Then::Keep } else { Then::Close }
}

/// Ends the connection with a reset instead of in good order.
pub fn reset(stream: &mut TcpStream) -> Then {
    let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
    Then::Close
}

/// Waits until the other side closes the connection.
pub fn never(stream: &mut TcpStream) -> Then {
    let mut rest = [0; 64];
    while stream.read(&mut rest).is_ok_and(|n| n > 0) {}
    Then::Close
}

/// An address that refuses connections.
pub fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}
