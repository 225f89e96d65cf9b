//! A flame graph of a running server's Lua code.

use std::time::Duration;

use rover_server::{Level, Server};
use tokio::sync::oneshot;

use crate::support::each_worker_count;

/// Runs the server with a client that asks for `target` all the time, and records meanwhile.
fn record(code: &str, workers: usize, target: &str) -> Result<String, rover_server::Error> {
    let server = Server::from_source("app.lua", format!("local api = rover.server {{}}\n{code}\nreturn api"));
    let listening = server.workers(workers).port(0).log_level(Level::Off).bind().unwrap();
    let address = listening.addresses()[0].strip_prefix("http://").unwrap().to_owned();
    let profiler = listening.profiler();
    let (stop, stopped) = oneshot::channel::<()>();
    let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let client = std::thread::spawn(move || {
        use std::io::{Read, Write};
        while !stop.is_closed() {
            let Ok(mut stream) = std::net::TcpStream::connect(&address) else { return };
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let recorded = runtime.block_on(async {
        let (end, ended) = oneshot::channel::<()>();
        let record = async {
            let second = async {
                let error = profiler.record(Duration::from_millis(1)).await.unwrap_err();
                assert_eq!(error.to_string(), "a profile is being recorded already");
            };
            let (recorded, ()) = tokio::join!(profiler.record(Duration::from_secs(2)), second);
            drop(end);
            recorded
        };
        let (served, recorded) = tokio::join!(listening.run_until(async { drop(ended.await) }), record);
        served.unwrap();
        recorded
    });
    drop(stopped);
    client.join().unwrap();
    recorded
}

#[test]
fn functions_stand_under_their_routes() {
    let code = "local function inner(n)
  local sum = 0
  for i = 1, n do sum = sum + #tostring(i) end
  return sum
end
function api.sums.p_n.get(ctx)
  local sum = inner(ctx:params().n)
  return sum
end";
    each_worker_count(|workers| {
        let svg = record(code, workers, "/sums/200000").unwrap();
        assert!(svg.starts_with("<?xml"), "{svg}");
        for frame in ["GET /sums/{n}", "function app.lua:7", "inner app.lua:2", "app.lua:4"] {
            assert!(svg.contains(&format!("<title>{frame} (")), "{frame}: {svg}");
        }
    });
}
