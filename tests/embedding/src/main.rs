//! Serves an app, and asks it for a loop that never ends: the watchdog ends it, with LuaJIT's compiler on, in the VM that goes
//! on to serve.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rover_server::Server;

const APP: &str = r#"
local api = rover.server {}
local requests = 0

function api.before.count()
  requests = requests + 1
end

function api.get()
  assert(jit.status(), "the compiler is on")
  return { requests = requests }
end

function api.endless.get()
  while true do end
end

return api
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limit = Duration::from_millis(100);
    let listening = Server::from_source("app.lua", APP).port(0).workers(1).handler_cpu_limit(limit).bind()?;
    let address = listening.addresses()[0].replace("http://", "");

    let asked = tokio::task::spawn_blocking(move || {
        expect(&address, "/", "HTTP/1.1 200 OK", r#"{"requests":1}"#)?;
        expect(&address, "/endless", "HTTP/1.1 503 Service Unavailable", "")?;
        expect(&address, "/", "HTTP/1.1 200 OK", r#"{"requests":3}"#)
    });
    let mut answers = Ok(());
    let stop = async { answers = asked.await.unwrap_or_else(|error| Err(error.into())) };
    listening.run_until(stop).await?;
    answers?;
    println!("compiled code was stopped, and the app serves on");
    Ok(())
}

/// Asks for a path, on a connection of its own.
fn expect(address: &str, path: &str, status: &str, body: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with(status) && answer.contains(body) {
        return Ok(());
    }
    Err(io::Error::other(format!("{path}: {status} and {body} were expected, but this came: {answer}")))
}
