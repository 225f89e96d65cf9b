//! Plays what a page says that WebSocket clients send and get.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Plays a transcript against `address`: `NAME> text` is sent, `NAME< text` must come. A client connects to `path` with its
/// name as the query when it is first named; `NAME< [close 1000 reason]` is the end. Gives the transcript as it really was.
pub(crate) fn play(path: &str, transcript: &str, address: &str) -> String {
    let mut clients: HashMap<String, TcpStream> = HashMap::new();
    let mut truth = String::new();
    for line in transcript.lines() {
        let at = line.find(['<', '>']).unwrap_or_else(|| panic!("{line}: neither sent nor got"));
        let (name, text) = (&line[..at], line[at + 1..].trim_start());
        let client = clients.entry(name.to_owned()).or_insert_with(|| connect(address, path, name));
        let got = if line[at..].starts_with('>') {
            client.write_all(&frame(text.as_bytes())).unwrap();
            text.to_owned()
        } else {
            read(client)
        };
        truth.push_str(&format!("{name}{} {got}\n", &line[at..=at]));
    }
    truth
}

fn connect(address: &str, path: &str, name: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(
        stream,
        "GET {path}?name={name} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend_from_slice(&byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// A text message of a client, masked with zeros.
fn frame(text: &[u8]) -> Vec<u8> {
    assert!(text.len() < 126, "a transcript has short messages");
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text].concat()
}

fn read(stream: &mut TcpStream) -> String {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert!(head[1] < 126, "a transcript has short messages");
    let mut payload = vec![0; head[1].into()];
    stream.read_exact(&mut payload).unwrap();
    match head[0] {
        0x88 => {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            format!("[close {code} {}]", String::from_utf8_lossy(&payload[2..]))
        }
        _ => String::from_utf8_lossy(&payload).into_owned(),
    }
}
