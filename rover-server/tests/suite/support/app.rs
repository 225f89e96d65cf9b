//! A server under test, on a port of its own.

use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use rover_server::{Control, Error, Level, Server};
use tokio::sync::oneshot;

use super::{Answer, Client};

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
        App::start_logging(server.log_level(Level::Off))
    }

    /// As [`start_server`](App::start_server), with a log of whatever level the server has.
    pub fn start_logging(server: Server) -> App {
        let listening = server.port(0).bind().expect("the app loads");
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
