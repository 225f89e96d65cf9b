//! The machine's clock jumps, by a day forward and by a year back: the log and the Lua author see the new time, and
//! nothing that waits or counts takes notice.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

mod process;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::process::Command;

use process::{App, Server, connect};

const APP: &str = r#"
local api = rover.server { port = 0, workers = 2, idle_timeout = 30, handler_timeout = 20 }
local computed = 0

rover.shared.seen:set("here", "yes", 600)

api.limited.limit { rate = "1/h", burst = 1 }
function api.limited.get() return "in" end

function api.time.get() return string.format("%d %d", rover.time(), os.time()) end
function api.kept.get()
  local value = rover.cache.kept:get_or("one", 600, function() return rover.shared.runs:incr("runs", 1, 0) end)
  return rover.shared.seen:get("here") .. " " .. value
end
function api.sleep.get()
  local began = rover.now()
  rover.sleep(0.3)
  local slept = rover.now() - began
  return slept >= 0.3 and slept < 15 and "slept" or "slept " .. slept
end

return api
"#;

const DAY: i64 = 86_400;

/// Sends a request on a connection that stays, and reads its answer.
fn get(client: &mut TcpStream, path: &str) -> (u16, String) {
    write!(client, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let mut byte = [0];
    let whole = loop {
        client.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            let length = head.split_once("content-length: ").unwrap().1.split("\r\n").next().unwrap();
            break bytes.len() + length.parse::<usize>().unwrap();
        }
    };
    let head = bytes.len();
    bytes.resize(whole, 0);
    client.read_exact(&mut bytes[head..]).unwrap();
    let status = String::from_utf8_lossy(&bytes[9..12]).parse().unwrap();
    (status, String::from_utf8_lossy(&bytes[head..]).into_owned())
}

#[test]
fn a_clock_that_jumps_disturbs_nothing() {
    let app = App::new("jumping", &[("app.lua", APP)]);
    let (library, file) = (app.0.join("jumping.so"), app.0.join("offset"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clock/jumping.c");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.unwrap().success());
    fs::write(&file, 0_i64.to_ne_bytes()).unwrap();
    let clock = fs::OpenOptions::new().write(true).open(&file).unwrap();
    let real = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().cast_signed();

    let mut command = app.command(&[]);
    command.env("LD_PRELOAD", &library).env("JUMPING_CLOCK", &file);
    let mut server = Server::start(command);
    let address = server.listening();
    let mut client = connect(address).unwrap();

    assert_eq!(get(&mut client, "/limited").0, 200);
    for (step, offset) in [0, DAY, -365 * DAY, 400 * DAY, 0].into_iter().enumerate() {
        // A request waits while the clock jumps.
        let mut waiting = connect(address).unwrap();
        write!(waiting, "GET /sleep HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(get(&mut client, "/sleep"), (200, "slept".to_owned()));
        clock.write_all_at(&offset.to_ne_bytes(), 0).unwrap();
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\nslept"), "{answer}");

        let (_, times) = get(&mut client, "/time");
        for time in times.split(' ') {
            let off = time.parse::<i64>().unwrap() - real() - offset;
            assert!(off.abs() < 100, "step {step}: {off} s");
        }
        assert_eq!(get(&mut client, "/kept"), (200, "yes 1".to_owned()), "step {step}");
        assert_eq!(get(&mut client, "/limited").0, 429, "step {step}");
    }
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
    server.read_on();
    let later = server.seen.iter().filter(|line| line.contains("\"path\":\"/kept\"")).map(|line| &line[9..13]);
    let years: Vec<i32> = later.map(|year| year.parse().unwrap()).collect();
    assert!(years[3] > years[2] && years[2] < years[4], "the log has the time as it is: {years:?}");
    assert!(!server.seen.iter().any(|line| line.contains("lost")), "{:#?}", server.seen);
}
