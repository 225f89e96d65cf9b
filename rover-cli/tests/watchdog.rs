//! What an operator sees of code that runs for too long: the log, the time it takes, the exit code; and a full disk.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's failure is its report")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

/// A file of its own for one test.
fn app(name: &str, code: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rover-watchdog-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("app.lua");
    fs::write(&file, code).unwrap();
    file
}

struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    address: String,
}

impl Running {
    fn start(file: &Path, limit: &str) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rover"))
            .arg("app.lua")
            .args(["--port", "0", "--workers", "1"])
            .current_dir(file.parent().unwrap())
            .env("ROVER_HANDLER_CPU_LIMIT", limit)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (line, lines) = mpsc::channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        let started = lines.recv_timeout(DEADLINE).unwrap();
        let address = started.split("http://").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned();
        Running { child, lines, address }
    }

    fn get(&self, target: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        ask(&mut stream, target)
    }

    /// Waits for a line of the log that holds `text`.
    fn line(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).expect(text);
            if line.contains(text) {
                return line;
            }
        }
    }

    /// CPU time of the process so far, in clock ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(stream: &mut (impl Read + Write), target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const BUSY: &str = "local api = rover.server {}
local function deep(n)
  while true do n = n + 1 end
end
function api.busy.get()
  pcall(deep, 1)
  return 'never'
end
function api.get() return 'home' end
return api
";

#[test]
fn the_log_tells_where_the_code_was() {
    let server = Running::start(&app("log", BUSY), "100ms");
    let answer = server.get("/busy");
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    let line = server.line("stopped after 0.1 s of CPU time without a wait");
    assert!(line.contains("app.lua:3: "), "{line}");
    for part in [r#""path":"/busy""#, r#""traceback":"app.lua:3\napp.lua:6""#] {
        assert!(line.contains(part) || server.line(part).contains(part), "{part}: {line}");
    }
    assert!(server.get("/").ends_with("home"));
}

#[test]
fn it_is_stopped_within_50_ms_of_the_limit() {
    let server = Running::start(&app("time", BUSY), "1s");
    server.get("/");
    // CPU time, which a busy machine does not stretch: of the code, the watchdog and everything else together.
    let taken: Vec<u64> = (0..3)
        .map(|_| {
            let before = server.ticks();
            assert!(server.get("/busy").starts_with("HTTP/1.1 503 "));
            server.ticks() - before
        })
        .collect();
    assert!(taken.iter().all(|ticks| (98..=106).contains(ticks)), "{taken:?} ticks of 10 ms");
}

/// A debugger, a container that is paused, a machine that moves: what nobody could use does not count.
#[test]
fn time_in_which_the_process_stood_still_is_no_stall() {
    let code = "local api = rover.server { worker_stall_limit = 1 }
                function api.get() os.execute('sleep 0.5') return 'on' end
                return api";
    let server = Running::start(&app("standstill", code), "1s");
    let signal = |name: &str| {
        let id = server.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    };
    let mut client = TcpStream::connect(&server.address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    // In the middle of the call.
    thread::sleep(Duration::from_millis(200));
    signal("STOP");
    thread::sleep(Duration::from_millis(1500));
    signal("CONT");
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("on"), "{answer}");
}

#[test]
fn an_endless_top_level_ends_the_start() {
    let file = app("load", "local api = rover.server {}\nwhile true do end\nreturn api");
    let output = Command::new(env!("CARGO_BIN_EXE_rover"))
        .arg("app.lua")
        .current_dir(file.parent().unwrap())
        .env("ROVER_HANDLER_CPU_LIMIT", "20ms")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors, "rover: app.lua:2: stopped after 0.2 s of CPU time without a wait\n");
}

#[test]
fn a_full_disk_under_the_log_stops_nothing() {
    let file = app("full", "local api = rover.server {} function api.get() error('to the log') end return api");
    let socket = file.with_file_name("socket");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rover"))
        .args(["app.lua", "--workers", "1", "--host"])
        .arg(&socket)
        .current_dir(file.parent().unwrap())
        .stderr(full)
        .spawn()
        .unwrap();
    let began = Instant::now();
    let connect = || loop {
        if let Ok(stream) = UnixStream::connect(&socket) {
            break stream;
        }
        assert!(began.elapsed() < DEADLINE, "the server listens");
        thread::yield_now();
    };
    for _ in 0..1000 {
        assert!(ask(&mut connect(), "/").starts_with("HTTP/1.1 500 "));
    }
    assert!(child.try_wait().unwrap().is_none());
    let _ = child.kill();
    let _ = child.wait();
}
