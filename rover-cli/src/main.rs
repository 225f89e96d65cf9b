//! `rover`: parse, run, exit code. Comes in: the command line and signals. Goes out: a running server or a report, and
//! 0 for success, 1 for a failure (one message on stderr), 2 for a mistake of usage.
//! Must not know: anything of the library but its public names.

#![forbid(unsafe_code)]

mod args;
mod database;
mod profile;
mod program;
mod routes;
mod serve;
mod watch;

use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::Context;

use args::{Request, Task};

#[global_allocator]
static ALLOCATOR: rover_lua::Allocator = rover_lua::Allocator;

fn main() -> ExitCode {
    // An idle server is half as large without. Where that is refused, it is larger.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let request = Request::read();
    // Before any thread is started.
    let outcome = serve::given_sockets().and_then(|sockets| run(&request, sockets));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed, nobody can be told.
            let _ = writeln!(io::stderr(), "rover: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(request: &Request, sockets: Vec<OwnedFd>) -> anyhow::Result<()> {
    let server = request.server();
    match &request.task {
        Task::Serve => serve::serve(server.inherit(sockets)?.take_over()?, request.watch),
        Task::Profile { seconds, output } => profile::profile(server.inherit(sockets)?, *seconds, output),
        Task::Check => {
            let app = server.check()?;
            let count = app.routes().len();
            let noun = if count == 1 { "route" } else { "routes" };
            let mut text = format!("{}: ok, {count} {noun}\n", request.app.display());
            for warning in app.warnings() {
                text.push_str(&format!("warning: {warning}\n"));
            }
            print(&text)
        }
        Task::Database { name, action } => print(&database::look_after(&server, name, action)?),
        Task::Routes { json: false } => print(&routes::table(server.check()?.routes())),
        Task::Routes { json: true } => print(&routes::json(server.check()?.routes())),
    }
}

/// Prints to stdout. A reader that closes early, such as `head`, is not a failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}
