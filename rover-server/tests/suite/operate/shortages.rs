//! What the system refuses for a while: threads, bytes in files, descriptors. The server goes on, and serves as before
//! once it is over.
//!
//! Each test runs in a process of its own, for limits hold for all of it, and as an ordinary user, for root has none.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rover_server::Server;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::support::apart::is_apart_as_nobody;
use crate::support::{App, DEADLINE, body};

/// Whether this process is the one for `test`; where it is not, runs one that is. `ulimit` is what the shell sets before.
fn is_apart(test: &str, ulimit: &str) -> bool {
    is_apart_as_nobody(&format!("operate::shortages::{test}"), ulimit)
}

/// A folder that the user may write in, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("rover-shortages-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Changes how much there is of a resource; gives how much there was.
fn limit(resource: Resource, most: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(resource);
    setrlimit(resource, Rlimit { current: Some(most), maximum }).expect("a lower limit");
    current.unwrap_or_else(|| maximum.unwrap_or(1 << 20))
}

/// Drops what the system has of a file in memory.
fn evict(path: &std::path::Path) {
    let file = fs::File::open(path).expect("a file");
    file.sync_all().expect("a disk");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
}

#[test]
fn threads_are_missing_for_a_while() {
    if !is_apart("threads_are_missing_for_a_while", "") {
        return;
    }
    let folder = Folder::new();
    let large = folder.0.join("large");
    fs::write(&large, vec![b'x'; 3_000_000]).expect("a file");
    let code = format!(
        "local api = rover.server {{ fs = {{ concurrency = 2 }}, exec = {{ concurrency = 2 }} }}
        local dir = '{}/'
        api.files.static {{ dir = dir }}
        function api.write.get(ctx) return {{ rover.fs.append(dir .. 'log', ctx:query().line .. '\\n') }} end
        function api.exec.get()
          local res, err = rover.exec {{ cmd = 'echo', args = {{ 'ran' }} }}
          return {{ res and res.stdout or err }}
        end
        function api.lookup.get(ctx)
          local res, err = rover.http.get('http://localhost:' .. ctx:query().port .. '/hello')
          return {{ res and res.body or err }}
        end
        function api.hello.get() return 'hello' end
        return api",
        folder.0.display()
    );
    let app = App::start(&code, 2);
    assert_eq!(app.get("/hello").text(), "hello");
    let before = limit(Resource::Nproc, 0);
    let port = app.address.port();
    for n in 0..10 {
        // A thread that was there before does it, one after the other.
        assert_eq!(body(&app, &format!("/write?line={n}")), json!([true]));
        assert_eq!(body(&app, "/exec"), json!(["echo: Resource temporarily unavailable"]));
        assert_eq!(body(&app, &format!("/lookup?port={port}")), json!(["hello"]));
        evict(&large);
        let answer = app.get("/files/large");
        assert_eq!((answer.status, answer.body.len()), (200, 3_000_000));
    }
    limit(Resource::Nproc, before);
    for _ in 0..4 {
        assert_eq!(body(&app, "/write?line=end"), json!([true]));
        assert_eq!(body(&app, "/exec"), json!(["ran\n"]));
        assert_eq!(body(&app, &format!("/lookup?port={port}")), json!(["hello"]));
    }
    let lines: Vec<String> = (0..10).map(|n| n.to_string()).chain(std::iter::repeat_n("end".to_owned(), 4)).collect();
    assert_eq!(fs::read_to_string(folder.0.join("log")).expect("a log"), lines.join("\n") + "\n");
}

#[test]
fn a_worker_is_lost_while_there_are_no_threads() {
    if !is_apart("a_worker_is_lost_while_there_are_no_threads", "") {
        return;
    }
    let code = "local api = rover.server {}
        function api.block.get() block() end
        function api.get() return 'on' end
        return api";
    let server = Server::from_source("app.lua", code).workers(1).worker_stall_limit(Duration::from_millis(100));
    let server = server.set("management.port", "0").function("block", |_, ()| {
        std::thread::sleep(DEADLINE);
        Ok(())
    });
    let app = App::start_server(server.handler_cpu_limit(Duration::ZERO));
    assert_eq!(app.get("/").text(), "on");
    let before = limit(Resource::Nproc, 0);
    let mut client = app.connect();
    client.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.rest(), "");
    // Nobody is there to answer. It takes some attempts until that changes.
    let mut waiting = app.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    for _ in 0..50 {
        assert!(app.told("/metrics").text().contains("rover_workers_replaced_total 0"));
    }
    limit(Resource::Nproc, before);
    assert_eq!(waiting.answer().text(), "on");
}

#[test]
fn a_file_becomes_larger_than_the_system_lets_it() {
    if !is_apart("a_file_becomes_larger_than_the_system_lets_it", "") {
        return;
    }
    let folder = Folder::new();
    let code = format!(
        "local api = rover.server {{}}
        local path = '{}/file'
        local function outcome(res, err) return {{ res or err }} end
        function api.write.get() return outcome(rover.fs.write(path, ('x'):rep(100001))) end
        function api.append.get() return outcome(rover.fs.append(path, 'more')) end
        function api.replace.get() return outcome(rover.fs.write(path, ('x'):rep(100001), {{ atomic = true }})) end
        function api.small.get() return outcome(rover.fs.write(path, 'small')) end
        function api.signals.get() return rover.exec {{ cmd = 'cat', args = {{ '/proc/self/status' }} }}.stdout end
        function api.child.get()
          return rover.exec {{ cmd = 'sh', args = {{ '-c', 'head -c 100001 /dev/zero > ' .. path .. '; kill -l $?' }} }}.stdout
        end
        return api",
        folder.0.display()
    );
    let app = App::start(&code, 2);
    limit(Resource::Fsize, 100_000);
    let too_large = json!([format!("{}/file: File too large", folder.0.display())]);
    for _ in 0..3 {
        assert_eq!(body(&app, "/write"), too_large);
        assert_eq!(body(&app, "/append"), too_large);
        assert_eq!(body(&app, "/replace"), too_large);
        assert_eq!(body(&app, "/small"), json!([true]));
    }
    let status = app.get("/signals");
    let mask = |name: &str| {
        let line = status.text().lines().find_map(|line| line.strip_prefix(name)).expect("a mask");
        u64::from_str_radix(line.trim(), 16).expect("in hex") >> (libc::SIGXFSZ - 1) & 1
    };
    assert_eq!((mask("SigIgn:"), mask("SigBlk:"), mask("SigCgt:")), (0, 0, 0), "what it starts is ended as usual");
    assert_eq!(app.get("/child").text(), "XFSZ\n");
}
