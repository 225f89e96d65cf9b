//! Runs the `rover` binary as a user does: exit codes, messages, and signals with requests in flight.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

const ROVER: &str = env!("CARGO_BIN_EXE_rover");

const APP: &str = r#"
local api = rover.server { port = 0, workers = 2, shutdown_timeout = 5 }

function api.get(ctx) return "home" end

function api.slow.post(ctx)
  return ctx:body()
end

function api.users.p_id.delete(ctx) end

return api
"#;

/// A directory with an `app.lua`, removed at the end.
struct App(PathBuf);

impl App {
    fn new(name: &str, source: &str) -> App {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("app.lua"), source).unwrap();
        App(dir)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(ROVER);
        command.args(arguments).current_dir(&self.0);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ROVER_") {
                command.env_remove(name);
            }
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn serve(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "no start-up message");
            if let Some((_, rest)) = line.split_once("listening on http://") {
                break rest.split([',', ' ', '"']).next().unwrap().to_owned();
            }
        };
        Running { child, log, address }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server, ended with the test whatever happens.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
    address: String,
}

impl Running {
    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.unwrap().success());
    }

    /// Sends a request; `answer` reads what comes back.
    fn ask(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream
    }

    /// Sends a request except for its body, which is "done", and waits until the server asks for that.
    fn begin(&self) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let head = "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream
    }

    /// Waits until the server accepts no connections any more.
    fn stopped_listening(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&self.address).is_ok() {
            assert!(Instant::now() < end, "the server still listens");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The exit code, waiting for it.
    fn code(&mut self) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asserts a failure with code 1 and one message, and gives that.
fn failure(output: &Output) -> String {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.starts_with("rover: "), "{message}");
    assert!(!message.contains("panicked") && !message.contains("backtrace"));
    message
}

#[test]
fn version_and_help() {
    let app = App::new("version", APP);
    let version = app.run(&["--version"]);
    assert_eq!(stdout(&version), format!("rover {}\n", env!("CARGO_PKG_VERSION")));
    let help = stdout(&app.run(&["--help"]));
    assert!(help.contains("rover app.lua --port 3000"), "{help}");
    assert!(help.contains("ROVER_BODY_SIZE_LIMIT"), "{help}");
}

#[test]
fn mistakes_of_usage_exit_with_2() {
    let app = App::new("usage", APP);
    for arguments in [&["app.lua", "--prot", "1"][..], &["--port", "1"], &[]] {
        let output = app.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_missing_file() {
    let app = App::new("missing", APP);
    assert!(failure(&app.run(&["nowhere.lua"])).contains("nowhere.lua"));
    assert!(failure(&app.run(&["check", "nowhere.lua"])).contains("nowhere.lua"));
}

#[test]
fn a_syntax_error_names_its_line() {
    let app = App::new("syntax", "local api = rover.server {}\nfunction (\n");
    assert!(failure(&app.run(&["app.lua"])).contains("app.lua:2:"));
}

#[test]
fn a_port_in_use_is_named() {
    let app = App::new("port", APP);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let message = failure(&app.run(&["app.lua", "--port", &port]));
    assert!(message.contains(&port), "{message}");
}

#[test]
fn check_accepts_a_good_app() {
    let app = App::new("check", APP);
    let output = app.run(&["check", "app.lua"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "app.lua: ok, 3 routes\n");
}

#[test]
fn check_reports_all_mistakes_at_once() {
    let source = "local api = rover.server { prot = 1, workers = 0 }\napi.users.get = 7\nreturn api\n";
    let app = App::new("mistakes", source);
    let mut command = app.command(&["check", "app.lua"]);
    let message = failure(&command.env("ROVER_PORT", "abc").output().unwrap());
    for part in [
        "app.lua:1: unknown config key \"prot\", did you mean \"port\"?",
        "app.lua:1: workers must be a whole number from 1 to 1024, got 0",
        "ROVER_PORT must be a whole number from 0 to 65535, got \"abc\"",
        "app.lua:2:",
    ] {
        assert!(message.contains(part), "{part} is not in:\n{message}");
    }
}

#[test]
fn routes_as_a_table_and_as_json() {
    let app = App::new("routes", APP);
    let table = stdout(&app.run(&["routes", "app.lua"]));
    assert!(table.starts_with("METHOD  PATH         HANDLER\n"), "{table}");
    assert!(table.contains("DELETE  /users/{id}  app.lua:10\n"), "{table}");
    let json = stdout(&app.run(&["routes", "app.lua", "--json"]));
    let routes: serde_json::Value = serde_json::from_str(&json).unwrap();
    let routes = routes.as_array().unwrap();
    assert_eq!(routes.len(), 3);
    let expected = serde_json::json!({"method": "GET", "path": "/", "file": "app.lua", "line": 4});
    assert!(routes.contains(&expected), "{json}");
}

#[test]
fn a_signal_lets_the_running_request_finish() {
    let app = App::new("signal", APP);
    for name in ["TERM", "INT"] {
        let mut server = app.serve(&["app.lua"]);
        assert!(answer(server.ask("/")).ends_with("\r\n\r\nhome"));
        let mut slow = server.begin();
        server.signal(name);
        server.stopped_listening();
        slow.write_all(b"done").unwrap();
        assert!(answer(slow).ends_with("\r\n\r\ndone"), "{name}");
        assert_eq!(server.code(), Some(0), "{name}");
    }
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let app = App::new("second", APP);
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let mut server = app.serve(&["app.lua"]);
        let _slow = server.begin();
        server.signal(name);
        server.stopped_listening();
        server.signal(name);
        assert_eq!(server.code(), Some(code), "{name}");
    }
}

#[test]
fn the_log_off_a_terminal_is_json_and_has_a_line_for_each_request() {
    let app = App::new("log", APP);
    let mut server = app.serve(&["app.lua"]);
    answer(server.ask("/?q=%22"));
    server.signal("TERM");
    assert_eq!(server.code(), Some(0));
    let mut log = String::new();
    server.log.read_to_string(&mut log).unwrap();
    let lines = log.lines().map(serde_json::from_str::<serde_json::Value>);
    let lines: Vec<_> = lines.collect::<Result<_, _>>().unwrap();
    let request = lines.iter().find(|line| line["msg"] == "request").unwrap();
    assert_eq!(request["path"], "/");
    assert_eq!(request["status"], 200);
    assert_eq!(request["bytes"], 4);
}

#[test]
fn the_line_of_a_refused_request_has_its_method_and_path() {
    let app = App::new("refused", APP);
    let mut server = app.serve(&["app.lua"]);
    let requests: [(&str, &str); 12] = [
        ("POST /double HTTP/1.1", "Host: x\r\nContent-Length: 1\r\nContent-Length: 2"),
        ("POST /coded HTTP/1.0", "Host: x\r\nTransfer-Encoding: chunked"),
        ("GET /coded/too HTTP/1.0", "Host: x\r\nTransfer-Encoding: chunked\r\nUser-Agent: something-of-some-length"),
        ("GET /gzip HTTP/1.1", "Host: x\r\nTransfer-Encoding: gzip"),
        ("DELETE /length HTTP/1.1", "Host: x\r\nContent-Length: x"),
        ("PUT /field HTTP/1.1", "Host : x"),
        ("GET /lf HTTP/1.1\nHost: x", "A: b"),
        ("GET /fragment#b HTTP/1.1", "Host: x"),
        (&format!("DELETE /{} HTTP/1.1", "long/".repeat(300)), "Host: x\r\nTransfer-Encoding: gzip"),
        (&format!("GET /{}?q#b HTTP/1.1", "long/".repeat(300)), "Host: x"),
        ("POST http://host/absolute HTTP/1.1", "Host: x\r\nContent-Length: x"),
        ("M-SEARCH /search HTTP/1.1", "Host: x\r\nContent-Length: x"),
    ];
    for (line, fields) in requests {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(format!("{line}\r\n{fields}\r\n\r\n").as_bytes()).unwrap();
        assert!(answer(stream).starts_with("HTTP/1.1 400 "), "{line}");
    }
    server.signal("TERM");
    assert_eq!(server.code(), Some(0));
    let mut log = String::new();
    server.log.read_to_string(&mut log).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let lines: Vec<_> = lines.filter(|line| line["msg"] == "request").collect();
    // Two workers write them, in any order.
    let mut written: Vec<_> =
        lines.iter().map(|line| format!("{} {} {}", line["method"], line["path"], line["status"])).collect();
    let mut expected: Vec<_> = requests
        .iter()
        .map(|(line, _)| {
            let (method, rest) = line.split_once(' ').unwrap();
            let path = rest.split([' ', '#', '?']).next().unwrap();
            format!("{method:?} {:?} 400", path.strip_prefix("http://host").unwrap_or(path))
        })
        .collect();
    written.sort();
    expected.sort();
    assert_eq!(written, expected);
}

#[test]
fn variables_win_over_the_app_and_flags_over_variables() {
    let app = App::new("precedence", &APP.replace("port = 0", "host = \"two words\""));
    let message = failure(&app.run(&["check", "app.lua"]));
    assert!(message.contains("app.lua:2: host must be"), "{message}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let app = App::new("precedence", &APP.replace("port = 0", "port = 1"));
    let mut command = app.command(&["app.lua", "--port", &port]);
    let output = command.env("ROVER_PORT", "2").output().unwrap();
    assert!(failure(&output).contains(&port));
}

#[test]
fn a_self_signed_certificate_needs_no_file() {
    let app = App::new("self-signed", APP);
    let mut child = app.command(&["app.lua", "--tls-self-signed"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let _ = child.kill();
    let _ = child.wait();
    assert!(line.contains("listening on https://127.0.0.1:"), "{line}");
}
