//! The real binary in a process of its own: an app for it, what it logs, and the signals that it gets.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod load;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Nothing here takes longer, on the slowest machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A folder with an app, removed at the end.
pub(crate) struct App(pub(crate) PathBuf);

impl App {
    pub(crate) fn new(name: &str, files: &[(&str, &str)]) -> App {
        let app = App(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", env!("CARGO_CRATE_NAME"))));
        let _ = fs::remove_dir_all(&app.0);
        for (name, text) in files {
            app.write(name, text);
        }
        app
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // As editors do: a reader sees the old file or the new one.
        let draft = path.with_extension("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, path).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.rover();
        command.arg("app.lua").args(arguments);
        command
    }

    /// The program without arguments, in the app's folder.
    pub(crate) fn rover(&self) -> Command {
        self.place(Command::new(env!("CARGO_BIN_EXE_rover")))
    }

    /// As a service manager starts it, which gives it so many sockets. Their descriptors are from 0 on, the only ones that
    /// can be placed without unsafe code.
    pub(crate) fn activated(&self, sockets: usize) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" app.lua", env!("CARGO_BIN_EXE_rover")]);
        command.env("LISTEN_FDS", sockets.to_string()).env("LISTEN_FDS_FIRST_FD", "0");
        self.place(command)
    }

    fn place(&self, mut command: Command) -> Command {
        command.current_dir(&self.0);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ROVER_") || name.to_string_lossy().starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        command
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server, and whatever succeeds it on the same stderr.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// The process that serves.
    pub(crate) process: u32,
    lines: mpsc::Receiver<String>,
    /// What it has logged, as far as somebody waited for it.
    pub(crate) seen: Vec<String>,
}

impl Server {
    pub(crate) fn start(mut command: Command) -> Server {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let process = child.id();
        let (line, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        Server { child, process, lines, seen: Vec::new() }
    }

    /// Waits for a line of the log with this text.
    pub(crate) fn logged(&mut self, text: &str) -> String {
        let began = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(began.elapsed());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{text:?} is not in the log: {:#?}", self.seen)
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits for the line that says where the server listens.
    pub(crate) fn listening(&mut self) -> SocketAddr {
        let line = self.logged("listening on http://");
        line.split_once("http://").unwrap().1.split([',', ' ', '"']).next().unwrap().parse().unwrap()
    }

    /// CPU time of the process so far, in clock ticks of 10 ms.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process)).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < DEADLINE, "the server does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Reads what it logs up to its end.
    pub(crate) fn read_on(&mut self) {
        self.seen.extend(self.lines.iter());
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process != self.child.id() && fs::exists(format!("/proc/{}", self.process)).unwrap_or(false) {
            self.signal("KILL");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to a server, on which nothing is waited for in vain.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Sends a request that is the connection's last, and reads all that comes.
pub(crate) fn ask(stream: &mut (impl Read + Write), path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
