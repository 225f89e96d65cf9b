//! `rover.exec`: runs a program beside the server.
//!
//! Comes in: a command and its options. Goes out: how it ended and what it wrote, or `nil, err`. If nobody waits for a
//! program any more, it is killed, with all processes that it has started.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join3;
use mlua::{Lua, Table};
use rover_lua::{Kind, Name, Raise, Returns, Shared, Stack, Waits, seconds};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use super::blocking::{TOO_MANY, words};
use super::options::{are_options, as_text, bytes, push_option, text};
use crate::runtime::blocking;
use crate::runtime::resources;
use crate::store::{Stores, Turn};

/// The most that a program may write to either output where nothing else is asked for, in bytes.
const USUAL_LIMIT: usize = 1024 * 1024;

const CALL: &str = "rover.exec";

struct ExecFunctions {
    waits: Rc<Waits>,
    stores: Arc<Stores>,
}

/// Adds the function to `rover`.
pub(super) fn install(lua: &Lua, rover: &Table, waits: &Rc<Waits>, stores: &Arc<Stores>) -> mlua::Result<()> {
    let functions = ExecFunctions { waits: waits.clone(), stores: stores.clone() };
    let exec = Shared::new(lua, Rc::new(functions))?.function(lua, exec)?;
    rover.raw_set("exec", waits.waiting(lua, exec)?)
}

/// What to run.
struct Order {
    command: Command,
    /// As messages call it.
    name: String,
    /// The folder that it runs in, where that is not the server's.
    folder: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    limit: usize,
}

/// What came of it.
struct Finished {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// `exec { cmd, args, stdin, timeout, cwd, env, limit }` → `{ code, signal, stdout, stderr }`.
fn exec(stack: &mut Stack<'_>, functions: &ExecFunctions) -> Returns {
    if stack.kind(1) != Kind::Table {
        return Err(Raise::Mistake(format!("{CALL} expects a table, not {}", stack.kind(1).name())));
    }
    are_options(stack, 1, CALL, &["cmd", "args", "stdin", "timeout", "cwd", "env", "limit"])?;
    let order = order(stack)?;
    let timeout = timeout(stack)?;
    let stores = functions.stores.clone();
    functions.waits.suspend(stack, Name::Own(CALL), async move {
        let running = run(&stores, order);
        let ended = match timeout {
            Some(time) => tokio::time::timeout(time, running).await.unwrap_or_else(|_| Err("timeout".to_owned())),
            None => running.await,
        };
        move |stack: &mut Stack<'_>| push(stack, ended)
    })
}

/// Reads the command and its options from the table at index 1.
fn order(stack: &mut Stack<'_>) -> Result<Order, Raise> {
    let Some(cmd) = text(stack, 1, "cmd", CALL)? else {
        return Err(Raise::Mistake(format!("{CALL} needs cmd, the program to run")));
    };
    let name = String::from_utf8_lossy(&cmd).into_owned();
    let mut command = Command::new(OsString::from_vec(cmd));
    arguments(stack, &mut command)?;
    environment(stack, &mut command)?;
    let folder = text(stack, 1, "cwd", CALL)?.map(|folder| PathBuf::from(OsString::from_vec(folder)));
    if let Some(folder) = &folder {
        command.current_dir(folder);
    }
    let stdin = text(stack, 1, "stdin", CALL)?;
    let limit = bytes(stack, 1, "limit", CALL)?.unwrap_or(USUAL_LIMIT);
    command
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, which can be ended as a whole.
        .process_group(0)
        .kill_on_drop(true);
    Ok(Order { command, name, folder, stdin, limit })
}

fn arguments(stack: &mut Stack<'_>, command: &mut Command) -> Result<(), Raise> {
    let table = push_option(stack, 1, "args");
    match stack.kind(table) {
        Kind::Nil => {}
        Kind::Table => {
            for n in 1..=stack.raw_len(table) {
                stack.push_item(table, i32::try_from(n).unwrap_or(i32::MAX));
                let item = stack.top();
                let Some(argument) = as_text(stack, item) else {
                    let kind = stack.kind(item).name();
                    return Err(Raise::Mistake(format!("{CALL}: args[{n}] must be a string, not {kind}")));
                };
                command.arg(OsString::from_vec(argument));
                stack.pop(1);
            }
        }
        kind => return Err(Raise::Mistake(format!("{CALL}: args must be a table of strings, not {}", kind.name()))),
    }
    stack.pop(1);
    Ok(())
}

fn environment(stack: &mut Stack<'_>, command: &mut Command) -> Result<(), Raise> {
    let table = push_option(stack, 1, "env");
    match stack.kind(table) {
        Kind::Nil => {}
        Kind::Table => {
            stack.push_nil();
            while stack.next(table) {
                let value = stack.top();
                let name = stack.bytes(value - 1).filter(|name| !name.is_empty() && !name.contains(&b'='));
                let Some(name) = name.map(|name| OsString::from_vec(name.to_vec())) else {
                    return Err(Raise::Mistake(format!("{CALL}: env must have names of variables as keys")));
                };
                match as_text(stack, value) {
                    Some(text) => {
                        command.env(name, OsString::from_vec(text));
                    }
                    None if stack.kind(value) == Kind::Boolean && !stack.boolean(value) => {
                        command.env_remove(name);
                    }
                    None => {
                        let (name, kind) = (name.to_string_lossy(), stack.kind(value).name());
                        return Err(Raise::Mistake(format!(
                            "{CALL}: env.{name} must be a string or false, not {kind}"
                        )));
                    }
                }
                stack.pop(1);
            }
        }
        kind => return Err(Raise::Mistake(format!("{CALL}: env must be a table, not {}", kind.name()))),
    }
    stack.pop(1);
    Ok(())
}

fn timeout(stack: &mut Stack<'_>) -> Result<Option<Duration>, Raise> {
    let index = push_option(stack, 1, "timeout");
    let time = match stack.kind(index) {
        Kind::Nil => None,
        _ => Some(seconds(stack, index, "rover.exec: timeout")?),
    };
    stack.pop(1);
    Ok(time)
}

/// A running program. Dropping it kills it and its group.
struct Running {
    child: Child,
    _turn: Turn,
}

impl Drop for Running {
    fn drop(&mut self) {
        // There is a number only until its end has been noticed, so it is nobody else's.
        let group = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Why nothing can run in this folder, if it is for want of the folder.
fn folder_problem(folder: &Path) -> Option<String> {
    let problem = match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => return None,
        Ok(_) => io::Error::from_raw_os_error(rustix::io::Errno::NOTDIR.raw_os_error()),
        Err(error) => error,
    };
    Some(format!("cwd {}: {}", folder.display(), words(&problem)))
}

async fn run(stores: &Stores, order: Order) -> Result<Finished, String> {
    let Order { mut command, name, folder, stdin, limit } = order;
    let Some(turn) = stores.processes().enter().await else { return Err(TOO_MANY.to_owned()) };
    // Starting a program may wait for a disk.
    let program = name.clone();
    let runtime = Handle::current();
    let started = blocking::run(move || {
        // Whose events tell of its end and of what it writes.
        let _within = runtime.enter();
        match command.spawn() {
            Ok(child) => {
                if let Some(process) = child.id() {
                    resources::restore(process);
                }
                Ok(Running { child, _turn: turn })
            }
            // The system does not say which of the two is missing.
            Err(error) => Err(match folder.and_then(|folder| folder_problem(&folder)) {
                Some(problem) => problem,
                None => format!("{program}: {}", words(&error)),
            }),
        }
    });
    let mut running = started.await.map_err(|refused| format!("{name}: {refused}"))??;
    let child = &mut running.child;
    let (input, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let (Some(mut pipe), Some(stdin)) = (input, stdin) {
            // A program need not read all of it.
            let _ = pipe.write_all(&stdin).await;
        }
        Ok(())
    };
    let ((), stdout, stderr) =
        try_join3(write, read(stdout, limit, "stdout", &name), read(stderr, limit, "stderr", &name)).await?;
    let status = running.child.wait().await.map_err(|error| format!("{name}: {}", words(&error)))?;
    Ok(Finished { status, stdout, stderr })
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: usize, which: &str, name: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    if let Some(pipe) = pipe {
        let read = pipe.take(limit as u64 + 1).read_to_end(&mut out).await;
        read.map_err(|error| format!("{name}: {}", words(&error)))?;
    }
    if out.len() > limit { Err(format!("{name}: more than {limit} bytes of {which}")) } else { Ok(out) }
}

fn push(stack: &mut Stack<'_>, ended: Result<Finished, String>) -> Returns {
    let ended = match ended {
        Ok(ended) => ended,
        Err(message) => {
            stack.push_nil();
            stack.push_bytes(message.as_bytes());
            return Ok(2);
        }
    };
    stack.push_table(0, 3);
    let table = stack.top();
    for (name, number) in [("code", ended.status.code()), ("signal", ended.status.signal())] {
        if let Some(number) = number {
            stack.push_bytes(name.as_bytes());
            stack.push_number(f64::from(number));
            stack.set_field(table);
        }
    }
    for (name, output) in [("stdout", ended.stdout), ("stderr", ended.stderr)] {
        stack.push_bytes(name.as_bytes());
        stack.push_bytes(&output);
        stack.set_field(table);
    }
    Ok(1)
}
