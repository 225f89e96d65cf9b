//! Connections: where they are accepted, and which worker gets them.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rover_server::Server;
use socket2::{Domain, SockFilter, Socket, Type};

use crate::support::{App, read_all, wait_until};

const WHO: &str = "local api = rover.server {} function api.get(ctx) return rover.worker.id .. ' of ' .. rover.worker.count end \
                   function api.ip.get(ctx) return ctx.ip end return api";

const CLOSING: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

#[test]
fn connections_go_to_the_workers_in_turn() {
    let app = App::start(WHO, 4);
    let mut clients: Vec<_> = (0..64).map(|_| app.connect()).collect();
    let mut counts = HashMap::new();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let worker = client.answer().text().to_owned();
        assert_eq!(client.answer().text(), worker, "a connection stays with its worker");
        *counts.entry(worker).or_insert(0) += 1;
    }
    let expected = ["1 of 4", "2 of 4", "3 of 4", "4 of 4"].map(|worker| (worker.to_owned(), 16));
    assert_eq!(counts, HashMap::from(expected));
}

#[test]
fn localhost_is_both_loopbacks_on_one_port() {
    let app = App::start_server(Server::from_source("app.lua", WHO).workers(1).host("localhost"));
    let port = app.address.port();
    assert_eq!(app.addresses, [format!("http://127.0.0.1:{port}"), format!("http://[::1]:{port}")]);
    for (host, ip) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let mut stream = TcpStream::connect((host, port)).expect("the loopback");
        stream.write_all(b"GET /ip HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        assert!(read_all(&mut stream).ends_with(ip), "{host}");
    }
}

/// The path of a socket in a folder of its own.
fn socket_path(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rover-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder.join("app.sock")
}

fn unix(path: &Path) -> Server {
    Server::from_source("app.lua", WHO).workers(1).host(format!("unix:{}", path.display()))
}

#[test]
fn a_unix_socket_is_served_and_removed() {
    let path = socket_path("served");
    let app = App::start_server(unix(&path));
    assert_eq!(app.addresses, [format!("unix:{}", path.display())]);
    for (target, expected) in [("/", "1 of 1"), ("/ip", "\r\n\r\n")] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream
            .write_all(format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes())
            .unwrap();
        assert!(read_all(&mut stream).ends_with(expected));
    }
    drop(app);
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_that_belongs_to_another_server_is_not_removed() {
    let path = socket_path("replaced");
    let first = App::start_server(unix(&path));
    fs::remove_file(&path).unwrap();
    let second = App::start_server(unix(&path));
    drop(first);
    let mut stream = UnixStream::connect(&path).expect("the second one listens");
    stream.write_all(CLOSING).unwrap();
    assert!(read_all(&mut stream).ends_with("1 of 1"));
    drop(second);
    assert!(!path.exists());
}

#[test]
fn an_abandoned_unix_socket_is_replaced_and_a_living_one_is_not() {
    let path = socket_path("abandoned");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let app = App::start_server(unix(&path));
    let error = unix(&path).bind().unwrap_err();
    assert!(error.is_io());
    assert_eq!(
        error.to_string(),
        format!("cannot listen on unix:{}: another program listens there, or a file is in the way", path.display())
    );
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(CLOSING).unwrap();
    assert!(read_all(&mut stream).ends_with("1 of 1"));
    drop(app);
    fs::write(&path, "a file").unwrap();
    assert!(unix(&path).bind().is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
}

#[test]
fn a_port_in_use_is_named() {
    let app = App::start(WHO, 1);
    let error = Server::from_source("app.lua", WHO).port(app.address.port()).bind().unwrap_err();
    let expected = "the address is in use by another program: end it, or choose another port";
    assert_eq!(error.to_string(), format!("cannot listen on http://{}: {expected}", app.address));
}

#[test]
fn accepted_connections_send_small_answers_at_once() {
    // Without TCP_NODELAY the second of two answers would wait for the client's delayed acknowledgement.
    let app = App::start(WHO, 1);
    let mut client = app.connect();
    let mut bytes = [0; 1];
    for _ in 0..50 {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    client.socket().set_nonblocking(true).unwrap();
    assert!(client.socket().read(&mut bytes).is_err(), "nothing is left to read");
}

/// Whether the kernel waits for the end of a handshake that `client` has begun.
fn is_half_open(client: SocketAddr) -> bool {
    let port = format!(":{:04X}", client.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table
        .lines()
        .map(|row| row.split_ascii_whitespace().collect::<Vec<_>>())
        .any(|row| row[2].ends_with(&port) && row[3] == "03")
}

#[test]
fn who_shakes_hands_when_the_server_stops_is_served() {
    let mut app = App::start(WHO, 1);
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // The kernel's SYN-ACK does not reach the client: `BPF_RET` with no byte to keep.
    client.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).unwrap();
    client.set_nonblocking(true).unwrap();
    let _ = client.connect(&app.address.into());
    let own = client.local_addr().unwrap().as_socket().unwrap();
    wait_until(|| is_half_open(own));
    app.begin_stop();
    // The next SYN-ACK, about a second later, does.
    client.detach_filter().unwrap();
    wait_until(|| client.peer_addr().is_ok());
    client.set_nonblocking(false).unwrap();
    let mut client = TcpStream::from(client);
    client.write_all(CLOSING).unwrap();
    let answer = read_all(&mut client);
    assert!(answer.ends_with("\r\n\r\n1 of 1"), "{answer}");
    app.ended();
}

#[test]
fn a_unix_socket_has_the_permissions_that_are_set() {
    use std::os::unix::fs::MetadataExt;
    let path = socket_path("permissions");
    let group = fs::metadata(path.parent().unwrap()).unwrap().gid();
    for (mode, expected) in [("0660", 0o660), ("600", 0o600), ("0777", 0o777)] {
        let app = App::start_server(unix(&path).set("socket_mode", mode).set("socket_group", group.to_string()));
        let meta = fs::symlink_metadata(&path).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.gid()), (expected, group));
        drop(app);
    }
    for (key, value, problem) in [
        (
            "socket_group",
            "no-such-group",
            "socket_group \"no-such-group\": /etc/group has no such group; give its number",
        ),
        ("socket_mode", "0999", "set must be octal digits"),
    ] {
        let Err(error) = unix(&path).set(key, value).log_level(rover_server::Level::Off).bind() else {
            panic!("{key}")
        };
        let error = error.to_string();
        assert!(error.contains(problem) || error.contains("socket_mode must be octal digits"), "{error}");
        assert!(!path.exists());
    }
}
