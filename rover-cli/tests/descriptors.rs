//! Out of file descriptors: the server neither ends nor spins, says so, and serves again.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU time of a process so far, in clock ticks of 10 ms.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

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
    let folder = std::env::temp_dir().join(format!("rover-descriptors-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let app = folder.join("app.lua");
    fs::write(&app, "local api = rover.server {} function api.get() return 'home' end return api").unwrap();
    let child = Command::new("sh")
        .args(["-c", "ulimit -n 40; exec \"$0\" \"$1\" --port 0 --workers 1"])
        .args([env!("CARGO_BIN_EXE_rover").as_ref(), app.as_os_str()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut server = Running(child);
    let (line, lines) = mpsc::channel();
    let errors = BufReader::new(server.0.stderr.take().unwrap());
    thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
    let started = lines.recv_timeout(DEADLINE).unwrap();
    let address = started.split("http://").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    let address: SocketAddr = address.parse().unwrap();

    let held: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    let refusal = "cannot accept a connection, trying again in 100 ms";
    while !lines.recv_timeout(DEADLINE).expect("the server says so").contains(refusal) {}
    // A tenth of a second at most of each further second, although sixty clients wait.
    let (before, began) = (ticks(server.0.id()), Instant::now());
    while began.elapsed() < Duration::from_secs(1) {
        lines.recv_timeout(DEADLINE).expect("the server tries again");
    }
    assert!(ticks(server.0.id()) - before <= 10, "the server spins");

    drop(held);
    let began = Instant::now();
    while !get(address).is_some_and(|answer| answer.ends_with("home")) {
        assert!(began.elapsed() < DEADLINE, "the server serves again");
    }
    assert!(server.0.try_wait().unwrap().is_none());
    let _ = fs::remove_dir_all(&folder);
}
