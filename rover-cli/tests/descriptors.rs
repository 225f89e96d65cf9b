//! Out of file descriptors: the server neither ends nor spins, says so, and serves again.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

mod process;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use process::{App, DEADLINE, Server};

fn get(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}

#[test]
fn without_descriptors_the_server_waits_and_goes_on() {
    let app =
        App::new("home", &[("app.lua", "local api = rover.server {} function api.get() return 'home' end return api")]);
    let mut command = Command::new("sh");
    command.current_dir(&app.0).args([
        "-c",
        "ulimit -n 40; exec \"$0\" app.lua --port 0 --workers 1",
        env!("CARGO_BIN_EXE_rover"),
    ]);
    let mut server = Server::start(command);
    let address = server.listening();

    let held: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    let refusal = "cannot accept a connection, trying again in 100 ms";
    server.logged(refusal);
    // A tenth of a second at most of each further second, although sixty clients wait.
    let (before, began) = (server.ticks(), Instant::now());
    while began.elapsed() < Duration::from_secs(1) {
        server.logged(refusal);
    }
    assert!(server.ticks() - before <= 10, "the server spins");

    drop(held);
    let began = Instant::now();
    while !get(address).is_some_and(|answer| answer.ends_with("home")) {
        assert!(began.elapsed() < DEADLINE, "the server serves again");
    }
    assert!(server.child.try_wait().unwrap().is_none());
}
