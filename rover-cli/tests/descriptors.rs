//! Out of file descriptors: clients are refused first; operators, files and upstreams find what is kept for them; and what
//! cannot be opened is no file that is not there.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

mod process;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use process::{App, DEADLINE, Server};

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    ask(&mut stream, path, "close")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}

fn ask(stream: &mut TcpStream, path: &str, connection: &str) -> Option<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()
}

/// The status of the next answer on a connection that is kept, whose body is short.
fn status(stream: &mut TcpStream, path: &str) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    ask(stream, path, "keep-alive").unwrap();
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).split(' ').nth(1).unwrap().to_owned()
}

fn start(app: &App, ulimit: &str) -> Server {
    let mut command = Command::new("sh");
    let script = format!("{ulimit}; exec \"$0\" app.lua --port 0 --workers 1");
    command.current_dir(&app.0).args(["-c", &script, env!("CARGO_BIN_EXE_rover")]);
    Server::start(command)
}

const CODE: &str = "
    local api = rover.server { management = { port = 0 } }
    local held = {}
    function api.get() return 'home' end
    -- The limit is set while the program begins.
    local limit = 'n=0; until [ $(ulimit -Sn) = 40 ] || [ $n = 1000 ]; do n=$((n + 1)); done; ulimit -Sn; ulimit -Hn'
    function api.limit.get() return rover.exec { cmd = 'sh', args = { '-c', limit } }.stdout end
    function api.shell.get()
      local file = io.popen('ulimit -Sn; echo $1')
      local text = file:read('*a')
      file:close()
      return text .. select(3, os.execute('exit $(( $(ulimit -Sn) - 37 ))')) .. ' ' .. tostring(os.execute())
    end
    function api.hold.get()
      for n = 1, 1000 do held[n] = io.open('/dev/null') end
      return tostring(#held)
    end
    function api.free.get() for _, file in ipairs(held) do file:close() end held = {} return 'free' end
    function api.read.get() return select(2, rover.fs.read('app.lua')) or 'read' end
    local function outcome(res, err) return err or 'status ' .. res.status end
    function api.name.get() return outcome(rover.http.get('http://no-such-name.invalid/')) end
    function api.localhost.get() return outcome(rover.http.get('http://localhost:1/')) end
    function api.proxy.get(ctx) return ctx:proxy('http://127.0.0.1:1/') end
    function api.require.get() return select(2, pcall(require, 'another')) end
    api.files.static { dir = 'public' }
    return api";

fn app(name: &str) -> App {
    App::new(name, &[("app.lua", CODE), ("public/a.txt", "a")])
}

#[test]
fn clients_are_refused_before_descriptors_are_gone() {
    let app = app("refused");
    let mut server = start(&app, "ulimit -n 64");
    let address = server.listening();
    let told = server.logged("metrics and health on http://");
    let management = told.split_once("http://").unwrap().1.split([',', ' ', '"']).next().unwrap().parse().unwrap();

    let mut held: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    server.logged("nearly all descriptors are in use");
    let last = held.last_mut().unwrap();
    last.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut refusal = String::new();
    last.read_to_string(&mut refusal).unwrap();
    assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
    assert!(held.len() > 20);
    // Who is in is served in full, and operators are told.
    assert!(get(management, "/healthz").unwrap().starts_with("HTTP/1.1 200 "));
    let first = &mut held[0];
    assert_eq!(status(first, "/files/a.txt"), "200");
    assert_eq!(status(first, "/read"), "200");

    drop(held);
    let began = Instant::now();
    while !get(address, "/").is_some_and(|answer| answer.ends_with("home")) {
        assert!(began.elapsed() < DEADLINE, "the server serves again");
    }
    assert!(server.child.try_wait().unwrap().is_none());
}

#[test]
fn without_any_descriptor_operators_are_told_and_files_are_not_missing() {
    let app = app("none");
    let mut server = start(&app, "ulimit -n 64");
    let address = server.listening();
    let told = server.logged("metrics and health on http://");
    let management = told.split_once("http://").unwrap().1.split([',', ' ', '"']).next().unwrap().parse().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    // The app takes all that there are.
    assert_eq!(status(&mut client, "/hold"), "200");
    assert_eq!(status(&mut client, "/files/a.txt"), "503");
    assert_eq!(status(&mut client, "/files/none"), "503", "nobody knows");
    let answer = |client: &mut TcpStream, path: &str| {
        ask(client, path, "keep-alive").unwrap();
        let mut answer = [0; 4096];
        let length = client.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    assert!(answer(&mut client, "/read").ends_with("app.lua: Too many open files"));
    let required = answer(&mut client, "/require");
    assert!(
        required.contains("cannot look for module 'another': ") && required.contains("Too many open files"),
        "{required}"
    );
    assert!(answer(&mut client, "/name").ends_with("too many open files"));
    assert!(answer(&mut client, "/localhost").ends_with("too many open files"));
    assert_eq!(status(&mut client, "/proxy"), "503");
    for _ in 0..3 {
        assert!(get(management, "/healthz").unwrap().starts_with("HTTP/1.1 200 "));
    }
    // A tenth of a second at most of each further second, although clients wait.
    let waiting: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
    let refusal = "cannot accept a connection, trying again in 100 ms";
    server.logged(refusal);
    let (before, began) = (server.ticks(), Instant::now());
    while began.elapsed() < Duration::from_secs(1) {
        server.logged(refusal);
    }
    assert!(server.ticks() - before <= 10, "the server spins");

    assert_eq!(status(&mut client, "/free"), "200");
    assert_eq!(status(&mut client, "/files/a.txt"), "200");
    assert_eq!(status(&mut client, "/files/none"), "404");
    assert!(answer(&mut client, "/name").ends_with("name not found"));
    assert!(answer(&mut client, "/localhost").ends_with("connection refused"));
    assert_eq!(status(&mut client, "/proxy"), "502");
    drop(waiting);
    assert!(get(address, "/read").unwrap().ends_with("read"));
}

#[test]
fn the_soft_limit_is_raised_and_children_get_the_old_one() {
    let app = app("raised");
    let mut server = start(&app, "ulimit -Sn 40; ulimit -Hn 500");
    let address = server.listening();
    let held: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    let answer = get(address, "/limit").unwrap();
    assert!(answer.ends_with("40\n500\n"), "{answer}");
    let answer = get(address, "/shell").unwrap();
    assert!(answer.ends_with("40\n\n3 true"), "{answer}");
    drop(held);
}
