//! A log that may not grow any further: the server goes on without it, and with it again once there is room.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

mod process;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use process::{App, DEADLINE};

#[test]
fn the_server_outlives_a_log_that_may_not_grow() {
    let code = "local api = rover.server { port = 0 }
        function api.get() rover.log.warn(('x'):rep(1000)) return 'on' end return api";
    let app = App::new("log", &[("app.lua", code)]);
    let path = app.0.join("log");
    let log = File::options().create(true).append(true).open(&path).unwrap();
    let mut command = Command::new("sh");
    // In blocks of 512 or 1024 bytes, as the shell has it.
    let script = "ulimit -f 20; exec \"$0\" app.lua --workers 1";
    command.current_dir(&app.0).args(["-c", script, env!("CARGO_BIN_EXE_rover")]).stderr(Stdio::from(log));
    let mut child = command.spawn().unwrap();
    let logged = || fs::read_to_string(&path).unwrap_or_default();
    let wait_until = |what: &str, is: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < DEADLINE, "{what}");
        }
    };
    wait_until("it listens", &|| logged().contains("listening on http://"));
    let text = logged();
    let address = text.split_once("listening on http://").unwrap().1.split([',', ' ', '"']).next().unwrap().to_owned();
    let get = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("on"), "{answer}");
    };
    for _ in 0..60 {
        get();
    }
    assert!(logged().len() <= 20 * 1024);
    // As logrotate does with copytruncate.
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    wait_until("it is told what was lost", &|| {
        get();
        let text = logged();
        if text.len() > 15_000 {
            File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        }
        text.contains("log lines were lost")
    });
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}
