//! Clients that keep a server busy, and tell what became of their requests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::DEADLINE;

/// Clients that send one request after the other, and what became of them.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<Vec<Duration>>>,
}

impl Load {
    /// `kept` clients keep their connections, `fresh` ones open one for each request. A refused connection ends its
    /// client where `ends` says that the server may have ended, else it is a failure.
    pub(crate) fn start(address: SocketAddr, kept: usize, fresh: usize, ends: bool) -> Load {
        let (stop, answered, failures) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Load { stop, answered, failures, clients: Vec::new() };
        for n in 0..kept + fresh {
            let (stop, answered, failures) = (load.stop.clone(), load.answered.clone(), load.failures.clone());
            load.clients.push(thread::spawn(move || {
                let mut times = Vec::new();
                let mut connection: Option<TcpStream> = None;
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let stream = match connection.take() {
                        Some(stream) => stream,
                        None => match TcpStream::connect(address) {
                            Ok(stream) => stream,
                            Err(_) if ends => break,
                            Err(error) => {
                                failures.lock().unwrap().push(format!("connect: {error}"));
                                break;
                            }
                        },
                    };
                    match exchange(stream, n < kept) {
                        Ok(kept) => {
                            connection = kept;
                            times.push(began.elapsed());
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(problem) => failures.lock().unwrap().push(problem),
                    }
                    // The server shares the machine with its clients, and with other tests.
                    thread::sleep(Duration::from_micros(200));
                }
                times
            }));
        }
        load
    }

    /// Waits until so many more requests have been answered.
    pub(crate) fn more(&self, count: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        let began = Instant::now();
        while self.answered.load(Ordering::Relaxed) < before + count {
            assert!(began.elapsed() < DEADLINE, "the clients get no answers");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the clients; asserts that nothing failed; prints what they saw.
    pub(crate) fn end(self, what: &str, stop: bool) {
        self.stop.store(stop, Ordering::Relaxed);
        let mut times: Vec<Duration> = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        times.sort();
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{what}: {} of {} failed: {failures:#?}", failures.len(), times.len());
        let at = |share: usize| times[(times.len() - 1) * share / 1000];
        println!(
            "{what}: {} requests, 0 failed, p50 {:?}, p99 {:?}, max {:?}",
            times.len(),
            at(500),
            at(990),
            at(1000)
        );
    }
}

/// Sends a request and reads its answer; gives the connection back where it can be used again.
pub(crate) fn exchange(mut stream: TcpStream, keep: bool) -> Result<Option<TcpStream>, String> {
    let told = if keep { "" } else { "Connection: close\r\n" };
    let explain = |at: &str| {
        let at = at.to_owned();
        move |error: std::io::Error| format!("{at}: {error}")
    };
    stream.set_read_timeout(Some(DEADLINE)).map_err(explain("set up"))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: test\r\n{told}\r\n").as_bytes()).map_err(explain("send"))?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 1024];
    let head = loop {
        let n = stream.read(&mut chunk).map_err(explain("read"))?;
        if n == 0 {
            return Err(format!("the connection ended after {} bytes", bytes.len()));
        }
        bytes.extend_from_slice(&chunk[..n]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200 ") {
        return Err(format!("answer: {text}"));
    }
    let length: usize = text.split_once("content-length: ").unwrap().1.split("\r\n").next().unwrap().parse().unwrap();
    while bytes.len() < head + length {
        let n = stream.read(&mut chunk).map_err(explain("read the body"))?;
        if n == 0 {
            return Err("the connection ended within a body".to_owned());
        }
        bytes.extend_from_slice(&chunk[..n]);
    }
    Ok((!text.contains("connection: close")).then_some(stream))
}
