//! A WebSocket client that speaks in frames.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::{Answer, App};

/// The key of RFC 6455, section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The request for `target`, with further header lines.
pub fn handshake(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

/// A frame as a client sends it, masked. `first` is its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..=125 => frame.push(0x80 | n as u8),
        n @ 126..=65535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub struct WebSocket {
    stream: BufReader<TcpStream>,
}

impl WebSocket {
    /// Connects, and fails where the server does not switch.
    pub fn connect(app: &App, target: &str) -> WebSocket {
        WebSocket::open(app, handshake(target, ""))
    }

    /// As [`connect`](WebSocket::connect), with the bytes of the request, and of what follows it.
    pub fn open(app: &App, request: impl AsRef<[u8]>) -> WebSocket {
        WebSocket::to(app.address, request)
    }

    /// The same, to a server that is no [`App`].
    pub fn to(address: SocketAddr, request: impl AsRef<[u8]>) -> WebSocket {
        let mut socket = WebSocket { stream: BufReader::new(TcpStream::connect(address).expect("the server listens")) };
        let stream = socket.stream.get_ref();
        stream.set_read_timeout(Some(crate::support::DEADLINE)).expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        socket.raw(request);
        let answer = socket.head();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        socket
    }

    /// The connection itself, to write on from another thread.
    pub fn stream(&self) -> TcpStream {
        self.stream.get_ref().try_clone().expect("a second handle")
    }

    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("an answer");
            head.extend_from_slice(&byte);
        }
        String::from_utf8(head).expect("text")
    }

    pub fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Sends a whole message.
    pub fn send(&mut self, opcode: u8, payload: impl AsRef<[u8]>) {
        self.raw(frame(0x80 | opcode, payload.as_ref()));
    }

    pub fn text(&mut self, text: &str) {
        self.send(TEXT, text);
    }

    /// The next frame, whatever it is: its opcode and payload; `None` at the end of the connection.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).ok()?;
        assert_eq!(head[0] & 0x70, 0, "reserved bits");
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let length = match head[1] {
            126 => {
                let mut more = [0; 2];
                self.stream.read_exact(&mut more).ok()?;
                u64::from(u16::from_be_bytes(more))
            }
            127 => {
                let mut more = [0; 8];
                self.stream.read_exact(&mut more).ok()?;
                u64::from_be_bytes(more)
            }
            short => u64::from(short),
        };
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some((head[0] & 0x0f, payload))
    }

    /// The next message as text.
    pub fn read(&mut self) -> String {
        let (opcode, payload) = self.frame().expect("a message");
        assert_eq!(opcode, TEXT, "{}", String::from_utf8_lossy(&payload));
        String::from_utf8(payload).expect("text")
    }

    pub fn json(&mut self) -> Value {
        serde_json::from_str(&self.read()).expect("JSON")
    }

    /// The code and the reason of the close that is next.
    pub fn closed(&mut self) -> (u16, String) {
        let (opcode, payload) = self.frame().expect("a close");
        assert_eq!(opcode, CLOSE, "{}", String::from_utf8_lossy(&payload));
        let code = u16::from_be_bytes([payload[0], payload[1]]);
        (code, String::from_utf8(payload[2..].to_vec()).expect("text"))
    }

    /// The server has closed its side, and nothing lies before that.
    pub fn ended(&mut self) {
        let n = self.stream.read(&mut [0]).expect("the end of the connection");
        assert_eq!(n, 0, "bytes in place of the end");
    }

    /// Says good-bye and reads up to the end of the connection.
    pub fn close(&mut self) {
        self.send(CLOSE, [0x03, 0xe8]);
        while self.frame().is_some() {}
    }
}

/// What a handshake that is no WebSocket's is answered with.
pub fn refused(app: &App, request: &str) -> Answer {
    app.send(request)
}
