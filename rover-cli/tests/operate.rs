//! Stopping, reloading and restarting the real binary while clients keep it busy: no request that was accepted is lost.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

mod process;

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use process::load::{Load, exchange};
use process::{App, DEADLINE, Server, ask, connect};

/// Serves `app` with these arguments.
fn serve(app: &App, arguments: &[&str]) -> Running {
    Running::start(app.command(arguments))
}

/// A server, and where it listens.
struct Running {
    server: Server,
    address: SocketAddr,
}

impl Deref for Running {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

impl Running {
    fn start(command: Command) -> Running {
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut running = Running { server: Server::start(command), address };
        running.address = running.listening();
        running
    }

    fn get(&self, path: &str) -> Option<String> {
        let answer = ask(&mut connect(self.address).ok()?, path).ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    }
}

const APP: &str = "local api = rover.server { port = 0, workers = 2, access_log = false, shutdown_timeout = 20 }\n\
                   function api.get(ctx) return \"version 0\" end\nreturn api\n";

fn version(n: usize) -> String {
    APP.replace("version 0", &format!("version {n}"))
}

#[test]
fn a_stop_under_load_loses_no_accepted_request() {
    let app = App::new("stop", &[("app.lua", APP)]);
    for _ in 0..3 {
        let mut server = serve(&app, &[]);
        let load = Load::start(server.address, 16, 8, true);
        load.more(2000);
        server.signal("TERM");
        load.end("stop", false);
        assert_eq!(server.exit_code(), Some(0));
    }
}

#[test]
fn connections_that_are_open_when_the_server_stops_are_still_answered() {
    let app = App::new("backlog", &[("app.lua", APP)]);
    let mut server = serve(&app, &["--log-level", "info"]);
    let mut open: Vec<TcpStream> = (0..200).map(|_| connect(server.address).unwrap()).collect();
    server.signal("TERM");
    server.logged("the server stops");
    // Each is used until an answer says that it is the last.
    while !open.is_empty() {
        open = open.into_iter().filter_map(|client| exchange(client, true).unwrap()).collect();
    }
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn the_drain_delay_goes_on_accepting() {
    let app = App::new("delay", &[("app.lua", &APP.replace("port = 0", "port = 0, drain_delay = 1"))]);
    let mut server = serve(&app, &[]);
    server.signal("TERM");
    server.logged("the server stops");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        assert_eq!(server.get("/").as_deref(), Some("version 0"));
    }
    assert_eq!(server.exit_code(), Some(0));
    assert!(began.elapsed() >= Duration::from_millis(900));
}

#[test]
fn fifty_reloads_under_load_lose_no_request() {
    let app = App::new("reload", &[("app.lua", APP)]);
    let mut server = serve(&app, &[]);
    let load = Load::start(server.address, 12, 4, false);
    for n in 1..=50 {
        app.write("app.lua", &version(n));
        server.signal("HUP");
        server.logged("the app has been reloaded");
        assert_eq!(server.get("/"), Some(format!("version {n}")));
        load.more(20);
    }
    load.end("50 reloads", true);
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn five_restarts_under_load_lose_no_request() {
    let app = App::new("restart", &[("app.lua", APP)]);
    let mut server = serve(&app, &[]);
    let load = Load::start(server.address, 12, 4, false);
    for n in 1..=5 {
        app.write("app.lua", &version(n));
        let old = succeed(&mut server);
        let began = Instant::now();
        while fs::read_to_string(format!("/proc/{old}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(began.elapsed() < DEADLINE, "the predecessor does not end");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(server.get("/"), Some(format!("version {n}")));
        load.more(200);
    }
    load.end("5 restarts", true);
    server.signal("TERM");
    server.logged("the server stops");
}

#[test]
fn the_management_listener_is_handed_over_too() {
    let app =
        App::new("restart-management", &[("app.lua", &APP.replace("port = 0", "port = 0, management = { port = 0 }"))]);
    let mut server = serve(&app, &[]);
    let line = server.logged("metrics and health on http://");
    let address = line.split_once("http://").unwrap().1.split('"').next().unwrap().to_owned();
    let first = succeed(&mut server);
    assert_eq!(server.exit_code(), Some(0));
    assert_ne!(first, server.process);
    // The two processes write to the same stderr, in any order.
    let told = format!("metrics and health on http://{address}");
    if server.seen.iter().filter(|line| line.contains(&told)).count() < 2 {
        server.logged(&told);
    }
    let mut client = TcpStream::connect(&address).unwrap();
    client.write_all(b"GET /readyz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("{\"ready\":true}\n"), "{answer}");
    server.signal("TERM");
}

/// Has another process take over, and gives the number of the one before.
fn succeed(server: &mut Server) -> u32 {
    server.signal("USR2");
    let line = server.logged("another process has taken over");
    let process = line.split_once("\"pid\":").unwrap().1.split([',', '}']).next().unwrap().parse().unwrap();
    std::mem::replace(&mut server.process, process)
}

#[test]
fn once_another_process_has_taken_over_nobody_finds_the_one_before() {
    let code = |name: &str| {
        format!(
            "local api = rover.server {{ port = 0, workers = 1, drain_delay = 2, shutdown_timeout = 60,
                                         management = {{ port = 0 }} }}
             function api.get() return '{name}' end
             function api.held.get() rover.log.info('held') while not io.open('go') do rover.sleep(0.01) end return '{name}' end
             return api"
        )
    };
    let app = App::new("restart-alone", &[("app.lua", &code("before"))]);
    let mut server = serve(&app, &[]);
    let line = server.logged("metrics and health on http://");
    let told = line.split_once("http://").unwrap().1.split('"').next().unwrap().parse().unwrap();
    let mut client = connect(server.address).unwrap();
    let held = thread::spawn(move || ask(&mut client, "/held").unwrap());
    server.logged("\"held\"");
    app.write("app.lua", &code("after"));
    succeed(&mut server);
    // The one before waits for its request, and would have accepted for two seconds more.
    for _ in 0..100 {
        assert_eq!(server.get("/").as_deref(), Some("after"));
        let answer = ask(&mut connect(told).unwrap(), "/readyz").unwrap();
        assert!(answer.ends_with("{\"ready\":true}\n"), "{answer}");
    }
    assert!(server.child.try_wait().unwrap().is_none());
    app.write("go", "");
    assert!(held.join().unwrap().ends_with("before"));
    assert_eq!(server.exit_code(), Some(0));
    server.signal("TERM");
}

#[test]
fn a_restart_with_another_address_leaves_nothing_of_the_one_before() {
    let code = |host: &str| APP.replace("port = 0", &format!("host = '{host}'"));
    let app = App::new("restart-elsewhere", &[("app.lua", &code("unix:old.sock"))]);
    let mut server = Server::start(app.command(&[]));
    server.logged("listening on unix:old.sock");
    app.write("app.lua", &code("unix:new.sock"));
    succeed(&mut server);
    assert_eq!(server.exit_code(), Some(0));
    assert!(!app.0.join("old.sock").exists());
    let mut client = UnixStream::connect(app.0.join("new.sock")).unwrap();
    assert!(ask(&mut client, "/").unwrap().ends_with("version 0"));
}

#[test]
fn a_restart_with_another_port_loses_no_request() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let code = || APP.replace("port = 0", &format!("port = {}", free()));
    let app = App::new("restart-port", &[("app.lua", &code())]);
    let mut server = serve(&app, &[]);
    for _ in 0..3 {
        // A client that comes after the end is refused.
        let load = Load::start(server.address, 4, 12, true);
        load.more(200);
        app.write("app.lua", &code());
        succeed(&mut server);
        load.end("another port", false);
        let told = "listening on http://";
        let line = match server.seen.iter().rfind(|line| line.contains(told)) {
            Some(line) if !line.contains(&server.address.to_string()) => line.clone(),
            _ => server.logged(told),
        };
        server.address = line.split_once("http://").unwrap().1.split([',', ' ']).next().unwrap().parse().unwrap();
    }
    assert_eq!(server.get("/").as_deref(), Some("version 0"));
    server.signal("TERM");
}

#[test]
fn a_restart_follows_the_link_by_which_the_program_was_called() {
    let app = App::new("restart-link", &[("app.lua", APP)]);
    for name in ["rover-1", "rover-2"] {
        fs::hard_link(env!("CARGO_BIN_EXE_rover"), app.0.join(name)).unwrap();
    }
    let link = |name: &str| {
        symlink(name, app.0.join("rover.new")).unwrap();
        fs::rename(app.0.join("rover.new"), app.0.join("rover")).unwrap();
    };
    let runs = |server: &Running| fs::read_link(format!("/proc/{}/exe", server.process)).unwrap();
    for called in ["./rover", "rover"] {
        link("rover-1");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("PATH=.:$PATH exec {called} app.lua")]).current_dir(&app.0);
        let mut server = Running::start(command);
        assert!(runs(&server).ends_with("rover-1"), "{called}");
        link("rover-2");
        succeed(&mut server);
        assert!(runs(&server).ends_with("rover-2"), "{:?}", runs(&server));
        assert_eq!(server.exit_code(), Some(0));
        // The successor knows the link too.
        link("rover-1");
        succeed(&mut server);
        assert!(runs(&server).ends_with("rover-1"));
    }
}

#[test]
fn the_service_manager_hears_of_a_successor_and_of_no_stop() {
    let app = App::new("restart-told", &[("app.lua", APP)]);
    let socket = UnixDatagram::bind(app.0.join("notify.sock")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let hear = || {
        let mut told = [0; 1024];
        let size = socket.recv(&mut told).unwrap();
        String::from_utf8_lossy(&told[..size]).trim().to_owned()
    };
    let mut command = app.command(&[]);
    command.env("NOTIFY_SOCKET", app.0.join("notify.sock"));
    let mut server = Running::start(command);
    assert_eq!(hear(), "READY=1");
    succeed(&mut server);
    assert_eq!(server.exit_code(), Some(0));
    let mut told = [hear(), hear()];
    told.sort();
    assert_eq!(told, [format!("MAINPID={}", server.process), "READY=1".to_owned()]);
    server.signal("TERM");
    // Of the successor, which stops: the one before said nothing of the kind.
    server.logged("the server stops");
    wait_until(|| !fs::exists(format!("/proc/{}/exe", server.process)).unwrap_or(false));
    assert_eq!(hear(), "STOPPING=1");
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err(), "it is said once");
}

/// The server as the first process of a container.
fn in_container(app: &App) -> Server {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"])
        .arg(env!("CARGO_BIN_EXE_rover"))
        .arg("app.lua")
        .current_dir(&app.0);
    let mut server = Server::start(command);
    let outer = server.process;
    wait_until(|| child_of(outer).is_some());
    server.process = child_of(outer).unwrap();
    server
}

#[test]
#[ignore = "needs a namespace of processes; ./dev test runs it where it may make one"]
fn process_1_obeys_a_stop_while_it_starts() {
    let code =
        APP.replace("return api", "function api.on_start() rover.log.info('begins') rover.sleep(1000) end return api");
    let app = App::new("process-1-starts", &[("app.lua", &code)]);
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut server = in_container(&app);
        server.logged("begins");
        server.signal(signal);
        assert_eq!(server.exit_code(), Some(code));
    }
}

#[test]
#[ignore = "needs a namespace of processes; ./dev test runs it where it may make one"]
fn process_1_has_no_successor() {
    let app = App::new("process-1", &[("app.lua", APP)]);
    let mut server = in_container(&app);
    let address = server.listening();
    server.signal("USR2");
    let line = server.logged("no other process took over, this one serves on");
    assert!(line.contains("process 1 cannot be succeeded: start a new container"), "{line}");
    assert!(ask(&mut connect(address).unwrap(), "/").unwrap().ends_with("version 0"));
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_successor_that_fails_leaves_the_server_as_it_is() {
    let app = App::new("restart-fails", &[("app.lua", APP)]);
    let mut server = serve(&app, &[]);
    app.write("app.lua", "local api = rover.server {\n");
    server.signal("USR2");
    server.logged("no other process took over, this one serves on");
    assert_eq!(server.get("/").as_deref(), Some("version 0"));
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
}

/// Waits for ever in `on_start` once the file beside it is there.
const WAITS: &str = "local api = rover.server { port = 0, workers = 1, reload_timeout = '500ms' }
function api.on_start()
  rover.log.info('on_start')
  if io.open('wait') then rover.sleep(1000) end
end
function api.get() return 'on' end
return api
";

/// The process whose parent is `parent`, while there is one.
fn child_of(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let all = fs::read_dir(format!("/proc/{parent}/task")).ok()?.filter_map(Result::ok);
    let others = all.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    others.chain([children]).find_map(|list| list.split_whitespace().next()?.parse().ok())
}

fn wait_until(is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < DEADLINE, "it does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_successor_that_is_never_ready_is_given_up() {
    let app = App::new("restart-waits", &[("app.lua", WAITS)]);
    let mut server = serve(&app, &[]);
    app.write("wait", "");
    server.signal("USR2");
    let line = server.logged("no other process took over, this one serves on");
    assert!(line.contains("the new process was not ready in time"), "{line}");
    assert_eq!(child_of(server.process), None, "nothing is left of it");
    assert_eq!(server.get("/").as_deref(), Some("on"));
    // Neither does the next reload wait for it.
    server.signal("HUP");
    let line = server.logged("the app could not be reloaded, the version before serves on");
    assert!(line.contains("on_start has not ended within 0.5 s (reload_timeout)"), "{line}");
    assert_eq!(server.get("/").as_deref(), Some("on"));
}

#[test]
fn a_stop_ends_a_reload_and_a_successor_on_its_way() {
    let app = App::new("stop-waits", &[("app.lua", &WAITS.replace("500ms", "1h"))]);
    let mut server = serve(&app, &[]);
    app.write("wait", "");
    server.signal("HUP");
    server.logged("on_start");
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));

    fs::remove_file(app.0.join("wait")).unwrap();
    let mut server = serve(&app, &["--port", "0"]);
    app.write("wait", "");
    server.signal("USR2");
    server.logged("on_start");
    let successor = child_of(server.process).unwrap();
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    wait_until(|| !fs::read_to_string(format!("/proc/{successor}/cmdline")).is_ok_and(|line| line.contains("app.lua")));
}

#[test]
fn a_burst_of_reloads_is_one_or_two() {
    let slow = "local api = rover.server { port = 0, workers = 1 }
                function api.on_start() rover.sleep(0.3) end
                function api.get() return 'on' end
                return api";
    let app = App::new("burst", &[("app.lua", slow)]);
    let mut server = serve(&app, &[]);
    for _ in 0..20 {
        server.signal("HUP");
    }
    server.logged("the app has been reloaded");
    server.logged("the app has been reloaded");
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    server.read_on();
    let reloads = server.seen.iter().filter(|line| line.contains("the app has been reloaded")).count();
    assert!(reloads <= 3, "{reloads} reloads");
}

#[test]
fn a_version_that_does_not_load_leaves_the_old_one_serving_and_says_why() {
    let app = App::new("mistake", &[("app.lua", APP)]);
    let mut server = serve(&app, &[]);
    let broken = [
        ("local api = rover.server {}\nlocal x = = 1\nreturn api", "app.lua:2: unexpected symbol near '='"),
        ("local api = rover.server { prot = 1 }\nreturn api", "unknown config key"),
        ("local api = rover.server {}\nfunction api.on_start() error('no database') end\nreturn api", "no database"),
    ];
    for (code, why) in broken {
        app.write("app.lua", code);
        server.signal("HUP");
        let line = server.logged("the app could not be reloaded, the version before serves on");
        assert!(line.contains(why), "{line}");
        assert_eq!(server.get("/").as_deref(), Some("version 0"));
    }
    app.write("app.lua", &version(1).replace("port = 0", "port = 1"));
    server.signal("HUP");
    server.logged("port has changed, which takes effect when the server is restarted");
    server.logged("the app has been reloaded");
    assert_eq!(server.get("/").as_deref(), Some("version 1"));
}

#[test]
fn requests_end_in_the_version_where_they_began() {
    let slow = "local api = rover.server { port = 0, workers = 1 }\n\
                function api.get() return 'version 0' end\n\
                function api.slow.get() rover.log.info('slow') rover.sleep(1) return 'old' end\n\
                function api.on_start() rover.every(0.01, function() end) end\n\
                function api.on_ready() rover.log.info('version 0 is ready') end\n\
                function api.on_shutdown() rover.log.info('version 0 is over') end\nreturn api";
    let app = App::new("begun", &[("app.lua", slow)]);
    let mut server = serve(&app, &[]);
    server.logged("version 0 is ready");
    let address = server.address;
    let begun = thread::spawn(move || {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    });
    server.logged("\"msg\":\"slow\"");
    app.write("app.lua", &slow.replace("version 0", "version 1").replace("'old'", "'new'"));
    server.signal("HUP");
    server.logged("version 1 is ready");
    assert_eq!(server.get("/").as_deref(), Some("version 1"));
    assert!(!begun.is_finished());
    assert!(begun.join().unwrap().ends_with("old"));
    server.logged("version 0 is over");
    server.signal("TERM");
    server.logged("version 1 is over");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn what_workers_share_survives_a_reload() {
    let code = |version: &str| {
        format!(
            "local api = rover.server {{ port = 0, workers = 2 }}\n\
             function api.get() return '{version} ' .. rover.shared.visits:incr('all', 1, 0) end\n\
             function api.on_ready() rover.log.info('{version} is ready') end\nreturn api"
        )
    };
    let app = App::new("shared", &[("app.lua", &code("first"))]);
    let mut server = serve(&app, &[]);
    server.logged("first is ready");
    assert_eq!(server.get("/").as_deref(), Some("first 1"));
    app.write("app.lua", &code("second"));
    server.signal("HUP");
    server.logged("second is ready");
    assert_eq!(server.get("/").as_deref(), Some("second 2"));
}

#[test]
fn changed_files_reload_the_app_with_watch() {
    let code = "local api = rover.server { port = 0, workers = 2 }\nlocal part = require 'lib.part'\n\
                function api.get() return part.text end\nreturn api";
    let app = App::new("watch", &[("app.lua", code), ("lib/part.lua", "return { text = 'one' }")]);
    let mut server = serve(&app, &["--watch"]);
    assert_eq!(server.get("/").as_deref(), Some("one"));
    app.write("lib/part.lua", "return { text = 'two' }");
    server.logged("the app has been reloaded");
    assert_eq!(server.get("/").as_deref(), Some("two"));
    app.write("lib/part.lua", "return {");
    server.logged("the app could not be reloaded");
    assert_eq!(server.get("/").as_deref(), Some("two"));
    app.write("lib/part.lua", "return { text = require 'deep.other' }");
    server.logged("the app could not be reloaded");
    app.write("deep/other.lua", "return 'three'");
    app.write("lib/part.lua", "return { text = require 'deep.other' }  ");
    server.logged("the app has been reloaded");
    assert_eq!(server.get("/").as_deref(), Some("three"));
    app.write("deep/other.lua", "return 'four'");
    server.logged("the app has been reloaded");
    assert_eq!(server.get("/").as_deref(), Some("four"));
}

/// An app on a port that it shares with its versions, which answers `text`.
fn watched(text: &str) -> String {
    format!("local api = rover.server {{ port = 0, workers = 1 }} function api.get() return {text} end return api")
}

#[test]
fn folders_that_are_made_again_or_later_are_watched() {
    let app = App::new("watch-folders", &[("lib/part.lua", "return 'one'")]);
    app.write("app.lua", &format!("local part = require 'lib.part' {}", watched("part")));
    let mut server = serve(&app, &["--watch"]);
    let path = |name: &str| app.0.join(name);
    fs::remove_dir_all(path("lib")).unwrap();
    server.logged("the app could not be reloaded");
    for text in ["two", "three"] {
        app.write("lib/part.lua", &format!("return '{text}'"));
        wait_until(|| server.get("/").as_deref() == Some(text));
    }
    app.write("lib.new/part.lua", "return 'four'");
    fs::rename(path("lib"), path("lib.old")).unwrap();
    fs::rename(path("lib.new"), path("lib")).unwrap();
    wait_until(|| server.get("/").as_deref() == Some("four"));
    app.write("lib/part.lua", "return 'five'");
    wait_until(|| server.get("/").as_deref() == Some("five"));
    app.write("lib/part.lua", "return require 'deep.down.other'");
    server.logged("deep.down.other");
    app.write("deep/down/other.lua", "return 'six'");
    wait_until(|| server.get("/").as_deref() == Some("six"));
}

#[test]
fn links_and_what_they_lead_to_are_watched() {
    let app = App::new("watch-links", &[]);
    for (name, text) in [("..v1/app.lua", "one"), ("..v2/app.lua", "two")] {
        app.write(name, &watched(&format!("'{text}'")));
    }
    symlink("..v1", app.0.join("..data")).unwrap();
    symlink("..data/app.lua", app.0.join("app.lua")).unwrap();
    let server = serve(&app, &["--watch"]);
    assert_eq!(server.get("/").as_deref(), Some("one"));
    symlink("..v2", app.0.join("..data.new")).unwrap();
    fs::rename(app.0.join("..data.new"), app.0.join("..data")).unwrap();
    wait_until(|| server.get("/").as_deref() == Some("two"));
    app.write("..v2/app.lua", &watched("'three'"));
    wait_until(|| server.get("/").as_deref() == Some("three"));
}

#[test]
fn an_app_of_any_name_is_watched() {
    let app = App::new("watch-name", &[("run", &watched("'one'"))]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_rover"));
    command.args(["./run", "--watch"]).current_dir(&app.0);
    let server = Running::start(command);
    app.write("run", &watched("'two'"));
    wait_until(|| server.get("/").as_deref() == Some("two"));
}

#[test]
fn two_hundred_reloads_give_their_memory_back() {
    let code = "local api = rover.server { port = 0, workers = 2, access_log = false }\nlocal kept = {}\n\
                for i = 1, 20000 do kept[i] = { i } end\n\
                function api.get() return #kept end\nreturn api";
    let app = App::new("memory", &[("app.lua", code)]);
    let mut server = serve(&app, &[]);
    let mut sizes = VecDeque::new();
    for n in 1..=200 {
        server.signal("HUP");
        server.logged("the app has been reloaded");
        assert_eq!(server.get("/").as_deref(), Some("20000"));
        if n % 20 == 0 {
            sizes.push_back(server.resident());
        }
    }
    println!("resident KiB after each 20 of 200 reloads: {sizes:?}");
    // One version more, of 1.5 MiB in each worker, may be on its way out at any time.
    let (first, last) = (sizes[0], *sizes.back().unwrap());
    assert!(last < first + 8 * 1024, "memory grows: {sizes:?}");
}

/// The server as a service manager starts it, which has bound its socket.
fn activated(app: &App, listener: TcpListener) -> Command {
    let mut command = app.activated(1);
    command.stdin(Stdio::from(OwnedFd::from(listener)));
    command
}

#[test]
fn a_socket_that_no_service_manager_gives_to_this_process_is_not_served() {
    let app = App::new("activation-none", &[("app.lua", APP)]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = app.command(&[]);
    let theirs: OwnedFd = listener.try_clone().unwrap().into();
    command.stdin(Stdio::from(theirs)).env("LISTEN_FDS", "1").env("LISTEN_FDS_FIRST_FD", "0");
    let server = Running::start(command);
    assert_ne!(server.address, listener.local_addr().unwrap());
    assert_eq!(server.get("/").as_deref(), Some("version 0"));
}

#[test]
fn a_socket_of_the_service_manager_is_served_and_stays_open() {
    let app = App::new("activation", &[("app.lua", APP)]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = Running::start(activated(&app, listener.try_clone().unwrap()));
    assert_eq!(server.address, address);
    assert_eq!(server.get("/").as_deref(), Some("version 0"));
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    // A client that comes between two runs waits for the next one.
    let mut early = TcpStream::connect(address).unwrap();
    early.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let server = Running::start(activated(&app, listener));
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("version 0"), "{answer}");
    server.signal("TERM");
}

#[test]
fn no_line_of_the_log_is_of_any_length() {
    let code = "local api = rover.server { port = 0, workers = 1 }
                rover.log.info('of fields', { text = ('\\0'):rep(3e6), wide = ('é'):rep(1e5), list = { ('x'):rep(1e6) }, small = 'é' })
                rover.log.info(('m'):rep(1e6))
                return api";
    let app = App::new("log-lines", &[("app.lua", code)]);
    let mut server = serve(&app, &[]);
    let line = server.seen.iter().find(|line| line.contains("of fields")).unwrap();
    // A byte of the text takes six in JSON.
    assert!(line.len() < 6 * 32 * 1024 + 2 * 32 * 1024 + 1024, "{} bytes", line.len());
    let told: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(told["text"].as_str().map(str::len), Some(32 * 1024));
    assert_eq!(told["wide"].as_str(), Some("é".repeat(16 * 1024).as_str()));
    assert!(told["list"].as_str().is_some_and(|list| list.starts_with("[\"xxx") && list.len() == 32 * 1024));
    assert_eq!(told["small"], "é");
    assert!(server.seen.iter().all(|line| line.len() < 300_000));
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_variable_that_looks_like_a_key_s_is_told() {
    let app = App::new("variable", &[("app.lua", APP)]);
    let mut command = app.command(&[]);
    command.env("ROVER_BODY_LIMIT", "5").env("ROVER_SERVICE_HOST", "10.0.0.1");
    let mut server = Running::start(command);
    let told = "the variable ROVER_BODY_LIMIT sets nothing; did you mean ROVER_BODY_SIZE_LIMIT?";
    let warnings: Vec<_> = server.seen.iter().filter(|line| line.contains("\"warn\"")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains(told), "{warnings:?}");
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    let mut check = Command::new(env!("CARGO_BIN_EXE_rover"));
    let output = check.args(["check", "app.lua"]).current_dir(&app.0).env("ROVER_BODY_LIMIT", "5").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains(&format!("warning: {told}\n")), "{shown}");
}
