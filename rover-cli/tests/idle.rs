//! A server without anything to do does not wake up.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

mod process;

use std::fs;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use process::{App, Server, connect};

const CODE: &str = "local api = rover.server {} function api.get() return 'home' end return api";

/// How often the threads of the server have been woken so far.
fn wakes(server: &Server) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.process)).unwrap();
    let statuses = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let switches = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    statuses.map(|status| switches(&status)).sum()
}

/// The server wakes up no more often than `most` times in two seconds, once it has come to rest.
fn rests(server: &Server, most: u64) {
    let mut seen = Vec::new();
    for _ in 0..10 {
        let before = wakes(server);
        thread::sleep(Duration::from_secs(2));
        seen.push(wakes(server) - before);
        if seen.last().is_some_and(|count| *count <= most) {
            return;
        }
    }
    panic!("it wakes up all the time: {seen:?}");
}

#[test]
fn an_idle_server_sleeps() {
    let app = App::new("idle", &[("app.lua", CODE)]);
    for management in ["", "127.0.0.1:0"] {
        let mut command = app.command(&["--port", "0", "--workers", "2"]);
        if !management.is_empty() {
            command.env("ROVER_MANAGEMENT", management);
        }
        let mut server = Server::start(command);
        let address = server.listening();
        rests(&server, 0);
        let mut client = connect(address).unwrap();
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
            let mut answer = [0; 17];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK\r\n");
            while client.read(&mut [0; 1]).unwrap() == 1 && !ended(&mut client) {}
            // One connection waits for its next request, and is looked at now and then.
            rests(&server, 4);
        }
        drop(client);
        rests(&server, 0);
    }
}

/// Whether all that has come has been read.
fn ended(client: &mut std::net::TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let is_empty = client.peek(&mut [0; 1]).is_err();
    client.set_nonblocking(false).unwrap();
    is_empty
}
