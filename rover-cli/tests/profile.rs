//! `rover profile`: the file that it writes, and the signals that end it.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

mod process;

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use process::{App, Server, connect};

fn profile(app: &App, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rover"));
    command.args(["profile", "app.lua", "--port", "0", "--workers", "1"]).args(arguments).current_dir(&app.0);
    command
}

#[test]
fn a_profile_is_written() {
    let code = "local api = rover.server {}
local function busy() local n = 0 for i = 1, 2e6 do n = n + #tostring(i) end return n end
function api.on_start() rover.every(0.01, busy) end
return api";
    let app = App::new("profile", &[("app.lua", code)]);
    let output = profile(&app, &["--seconds", "2", "--output", "out.svg"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "wrote out.svg\n");
    let svg = fs::read_to_string(app.0.join("out.svg")).unwrap();
    assert!(svg.contains("(hooks and tasks)") && svg.contains("app.lua:2"), "{svg}");
}

#[test]
fn a_profile_outlives_the_signals_of_reloads() {
    let code = "local api = rover.server {}
local function busy() local n = 0 for i = 1, 1e5 do n = n + #tostring(i) end return n end
function api.on_start() rover.every(0.01, busy) end
function api.on_ready() rover.sleep(1) rover.log.info('busy for a second') end
return api";
    let app = App::new("profile-signals", &[("app.lua", code)]);
    let mut server = Server::start(profile(&app, &[]));
    server.listening();
    for name in ["HUP", "USR2"] {
        server.signal(name);
        server.logged(&format!("rover: SIG{name} is passed over while a profile is recorded"));
    }
    server.logged("busy for a second");
    server.signal("INT");
    assert_eq!(server.exit_code(), Some(0));
    assert!(fs::read_to_string(app.0.join("profile.svg")).unwrap().contains("app.lua:2"));
}

#[test]
fn a_file_that_cannot_be_written_is_told_at_the_start() {
    let app = App::new("profile-file", &[("app.lua", "error('this is not loaded')")]);
    let output = profile(&app, &["--output", "none/out.svg"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(told, "rover: cannot write none/out.svg: No such file or directory (os error 2)\n");
    let output = profile(&app, &["--output", "out.svg"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!app.0.join("out.svg").exists(), "nothing is left where nothing was recorded");
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let code = "local api = rover.server { shutdown_timeout = 600 }
function api.get() return 'on' end
function api.wait.get() rover.sleep(1000) end
return api";
    let app = App::new("signals", &[("app.lua", code)]);
    let mut server = Server::start(profile(&app, &[]));
    let mut waiting = connect(server.listening()).unwrap();
    waiting.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert_ne!(waiting.read(&mut [0; 256]).unwrap(), 0);
    waiting.write_all(b"GET /wait HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    server.signal("INT");
    server.logged("the server stops");
    assert!(server.child.try_wait().unwrap().is_none(), "the request goes on");
    server.signal("INT");
    assert_eq!(server.exit_code(), Some(128 + 2));
}
