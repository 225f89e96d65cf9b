//! What an operator sees of code that runs for too long: the log, the time it takes, the exit code; and a full disk.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

mod process;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use process::{App, DEADLINE, Server, ask, connect};

/// Serves `app` with one worker whose code may run for so long.
fn serve(app: &App, limit: &str) -> (Server, SocketAddr) {
    let mut command = app.command(&["--port", "0", "--workers", "1"]);
    command.env("ROVER_HANDLER_CPU_LIMIT", limit);
    let mut server = Server::start(command);
    let address = server.listening();
    (server, address)
}

/// The answer on a connection of its own.
fn get(address: SocketAddr, path: &str) -> String {
    ask(&mut connect(address).unwrap(), path).unwrap()
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
    let app = App::new("log", &[("app.lua", BUSY)]);
    let (mut server, address) = serve(&app, "100ms");
    let answer = get(address, "/busy");
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    let line = server.logged("stopped after 0.1 s of CPU time without a wait");
    assert!(line.contains("app.lua:3: "), "{line}");
    for part in [r#""path":"/busy""#, r#""traceback":"app.lua:3\napp.lua:6""#] {
        assert!(line.contains(part) || server.logged(part).contains(part), "{part}: {line}");
    }
    assert!(get(address, "/").ends_with("home"));
}

#[test]
fn it_is_stopped_within_50_ms_of_the_limit() {
    let app = App::new("time", &[("app.lua", BUSY)]);
    let (server, address) = serve(&app, "1s");
    get(address, "/");
    // CPU time, which a busy machine does not stretch: of the code, the watchdog and everything else together.
    let taken: Vec<u64> = (0..3)
        .map(|_| {
            let before = server.ticks();
            assert!(get(address, "/busy").starts_with("HTTP/1.1 503 "));
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
    let app = App::new("standstill", &[("app.lua", code)]);
    let (server, address) = serve(&app, "1s");
    let mut client = connect(address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    // In the middle of the call.
    thread::sleep(Duration::from_millis(200));
    server.signal("STOP");
    thread::sleep(Duration::from_millis(1500));
    server.signal("CONT");
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("on"), "{answer}");
}

#[test]
fn an_endless_top_level_ends_the_start() {
    let app = App::new("load", &[("app.lua", "local api = rover.server {}\nwhile true do end\nreturn api")]);
    let output = app.command(&[]).env("ROVER_HANDLER_CPU_LIMIT", "20ms").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(errors, "rover: app.lua:2: stopped after 0.2 s of CPU time without a wait\n");
}

#[test]
fn a_top_level_without_end_ends_the_check_too() {
    let app = App::new("check", &[("app.lua", "local api = rover.server {}\nwhile true do end\nreturn api")]);
    for task in ["check", "routes"] {
        let output = app.rover().args([task, "app.lua"]).env("ROVER_HANDLER_CPU_LIMIT", "20ms").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{task}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("app.lua:2: stopped after 0.2 s of CPU time without a wait"), "{errors}");
    }
    let greedy = "local api = rover.server {}\nlocal t = {} while true do t[#t + 1] = { #t } end\nreturn api";
    let app = App::new("greedy", &[("app.lua", greedy)]);
    let mut command = app.rover();
    command.args(["check", "app.lua"]).env("ROVER_MEMORY_LIMIT", "32MB").env("ROVER_HANDLER_CPU_LIMIT", "0");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("not enough memory"), "{errors}");
}

#[test]
fn a_full_disk_under_the_log_stops_nothing() {
    let code = "local api = rover.server {} function api.get() error('to the log') end return api";
    let app = App::new("full", &[("app.lua", code)]);
    // The path of a socket is short.
    let socket = std::env::temp_dir().join(format!("rover-full-{}", std::process::id()));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = app.command(&["--workers", "1", "--host"]).arg(&socket).stderr(full).spawn().unwrap();
    let began = Instant::now();
    let reach = || loop {
        if let Ok(stream) = UnixStream::connect(&socket) {
            break stream;
        }
        assert!(began.elapsed() < DEADLINE, "the server listens");
        thread::yield_now();
    };
    for _ in 0..1000 {
        assert!(ask(&mut reach(), "/").unwrap().starts_with("HTTP/1.1 500 "));
    }
    assert!(child.try_wait().unwrap().is_none());
    let _ = child.kill();
    let _ = child.wait();
    let _ = fs::remove_file(socket);
}

#[test]
fn the_log_does_not_say_that_a_lost_worker_s_clients_had_answers() {
    let code = "local api = rover.server { worker_stall_limit = '300ms' }
        function api.stuck.get() os.execute('sleep 2') return 'nobody will ever see this text' end
        return api";
    let app = App::new("lost", &[("app.lua", code)]);
    let (mut server, address) = serve(&app, "10s");
    assert_eq!(get(address, "/stuck"), "");
    server.logged("worker 1 is lost");
    let line = server.logged(r#""path":"/stuck""#);
    assert!(line.contains(r#""status":499,"bytes":0"#), "{line}");
}
