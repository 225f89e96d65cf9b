//! A server under test and a client that speaks in bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use rover_server::{Control, Error, Level, Server};
use tokio::sync::oneshot;

#[cfg(feature = "otlp")]
pub mod collector;
pub mod takes_any;
pub mod upstream;
pub mod websocket;

/// Nothing here takes longer, on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(if cfg!(vm_on_system_memory) { 120 } else { 20 });

/// The JSON that `target` answers.
pub fn body(app: &App, target: &str) -> serde_json::Value {
    let answer = app.get(target);
    serde_json::from_str(answer.text()).unwrap_or_else(|_| panic!("no JSON: {}", answer.text()))
}

/// The field `message` of the JSON that `target` answers.
pub fn message(app: &App, target: &str) -> String {
    body(app, target)["message"].as_str().expect("a message").to_owned()
}

/// Runs a test of the Lua surface with one worker and with several.
pub fn each_worker_count(test: impl Fn(usize)) {
    for workers in [1, 3] {
        test(workers);
    }
}

/// A running server. Dropping it stops it in good order.
pub struct App {
    /// The first TCP address; unspecified where there is none.
    pub address: SocketAddr,
    /// As the server names them.
    pub addresses: Vec<String>,
    /// Where it tells of itself, if it does.
    pub management: Option<SocketAddr>,
    pub control: Control,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl App {
    /// Serves `code` with so many workers.
    pub fn start(code: &str, workers: usize) -> App {
        App::start_server(Server::from_source("app.lua", code).workers(workers))
    }

    /// Serves what a test has prepared, on a port of its own.
    pub fn start_server(server: Server) -> App {
        let listening = server.port(0).log_level(Level::Nope).bind().expect("the app loads");
        let addresses = listening.addresses();
        let address = addresses.iter().find_map(|address| address.strip_prefix("http://")?.parse().ok());
        let address = address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        let management =
            listening.management_addresses().iter().find_map(|address| address.strip_prefix("http://")?.parse().ok());
        let control = listening.control();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(listening.run_until(async {
                let _ = stopped.await;
            }))
        });
        App { address, addresses, management, control, stop: Some(stop), thread: Some(thread) }
    }

    /// Asks the server to stop, without waiting.
    pub fn begin_stop(&mut self) {
        self.stop.take();
    }

    /// Waits until the server has ended in good order.
    pub fn ended(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server thread did not panic").expect("the server ended in good order");
        }
    }

    /// Whether the server has ended.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// A connection of its own.
    pub fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).expect("the server listens"))
    }

    /// Sends a request on a connection of its own.
    pub fn get(&self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// Asks the management listener.
    pub fn told(&self, path: &str) -> Answer {
        self.told_to(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// As [`told`](App::told), by the literal bytes of a request.
    pub fn told_to(&self, request: &str) -> Answer {
        let address = self.management.expect("the management listener is on");
        let mut client = Client::new(TcpStream::connect(address).expect("the server tells of itself"));
        client.send(request);
        client.answer()
    }

    /// Loads the app anew.
    pub fn reload(&self) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(self.control.reload())
    }

    /// Sends a body as JSON on a connection of its own.
    pub fn post(&self, target: &str, body: &str) -> Answer {
        self.send(format!(
            "POST {target} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Sends literal bytes on a connection of its own, and reads one answer.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect();
        client.send(bytes);
        client.answer()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("the server thread did not panic").expect("the server ended in good order");
            }
        }
    }
}

/// One connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn new(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        Client { stream: BufReader::new(stream) }
    }

    /// The socket itself.
    pub fn socket(&mut self) -> &mut TcpStream {
        self.stream.get_mut()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Reads the next answer, framed by its Content-Length or by chunks; fails when the connection ends first.
    pub fn answer(&mut self) -> Answer {
        self.read_answer(true)
    }

    /// Reads the answer to a HEAD request.
    pub fn head_answer(&mut self) -> Answer {
        self.read_answer(false)
    }

    fn read_answer(&mut self, with_body: bool) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let n = self.stream.read_until(b'\n', &mut head).expect("an answer in time");
            assert_ne!(n, 0, "the connection ended within {:?}", String::from_utf8_lossy(&head));
        }
        let head = String::from_utf8(head).expect("a head in ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default().to_owned();
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap_or((line, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer = Answer { status_line, status, headers, body: Vec::new() };
        let bodiless = !with_body || status < 200 || status == 204 || status == 304;
        if !bodiless {
            answer.body = self.read_body(&answer);
        }
        answer
    }

    fn read_body(&mut self, answer: &Answer) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some(length) = answer.header("content-length") {
            body.resize(length.parse().expect("a length"), 0);
            self.stream.read_exact(&mut body).expect("the whole body");
        } else if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                body.extend(chunk);
            }
        } else {
            self.stream.read_to_end(&mut body).expect("a body up to the end of the connection");
        }
        body
    }

    /// The next chunk of a body in chunks; `None` at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a chunk size");
        let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk size in hex");
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).expect("a whole chunk");
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// Everything until the server closes the connection.
    pub fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("the server closes the connection");
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// A response as it came over the wire.
#[derive(Debug)]
pub struct Answer {
    pub status_line: String,
    pub status: u16,
    /// Names as sent.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }
}

/// Everything up to the end of a connection.
pub fn read_all(stream: &mut impl Read) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the server closes the connection");
    String::from_utf8_lossy(&all).into_owned()
}

/// Waits until something is true, and fails when that takes too long.
pub fn wait_until(mut is: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is() {
        assert!(began.elapsed() < DEADLINE, "it did not happen in time");
        std::thread::yield_now();
    }
}
