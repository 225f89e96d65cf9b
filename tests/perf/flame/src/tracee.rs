//! Comes in: a command. Goes out: its process, whose running threads are stopped one by one and looked at. Must not
//! know: what a stack is.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::IoSliceMut;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A running child that this process may stop.
pub(crate) struct Tracee {
    pid: Pid,
    seized: HashSet<Pid>,
    signals: SignalFd,
    next: Instant,
    /// Whether a thread could be stopped once.
    allowed: bool,
    /// The program's exit code, once it has ended.
    code: Option<u8>,
}

/// A thread that stands still.
pub(crate) struct Thread {
    pub(crate) process: Pid,
    pub(crate) registers: user_regs_struct,
    name: String,
}

impl Tracee {
    /// Starts the program in a process group of its own, so that Ctrl-C reaches it once: through this process.
    pub(crate) fn start(command: &[OsString]) -> anyhow::Result<Tracee> {
        let child = Command::new(&command[0])
            .args(&command[1..])
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command[0].display()))?;
        // Only now: the child inherits what is blocked.
        let mut wanted = SigSet::empty();
        wanted.add(Signal::SIGINT);
        wanted.add(Signal::SIGTERM);
        wanted.thread_block().context("cannot block signals")?;
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot read signals")?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        Ok(Tracee { pid, seized: HashSet::new(), signals, next: Instant::now(), allowed: false, code: None })
    }

    /// Sleeps until the next sample is due, handing on signals. Gives the exit code once the program has ended.
    pub(crate) fn wait(&mut self, pause: Duration) -> anyhow::Result<Option<u8>> {
        std::thread::sleep(self.next.saturating_duration_since(Instant::now()));
        // A sample that was missed is not made up for.
        self.next = Instant::now() + pause;
        while let Some(info) = self.signals.read_signal().context("cannot read signals")? {
            let signal = Signal::try_from(info.ssi_signo as i32)?;
            let _ = kill(self.pid, signal);
        }
        // The end may have been heard of while a thread was to be stopped.
        while self.code.is_none() {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(status) => self.resume(status),
                Err(error) => return Err(error).context("cannot wait for the program"),
            }
        }
        Ok(self.code)
    }

    /// Lets a thread go on that has stopped: with the signal that it was about to get, or without.
    fn resume(&mut self, status: WaitStatus) {
        // A thread that is killed at this moment needs no resuming.
        let _ = match status {
            WaitStatus::Stopped(thread, signal) => ptrace::cont(thread, signal),
            WaitStatus::PtraceEvent(thread, _, _) => ptrace::cont(thread, None),
            WaitStatus::Exited(thread, code) => self.ended(thread, code as u8),
            WaitStatus::Signaled(thread, signal, _) => self.ended(thread, 128 + signal as u8),
            _ => Ok(()),
        };
    }

    /// Notes that a thread is gone; with the first one goes the program. `code` is as a shell has it.
    fn ended(&mut self, thread: Pid, code: u8) -> nix::Result<()> {
        self.seized.remove(&thread);
        if thread == self.pid {
            self.code = Some(code);
        }
        Ok(())
    }

    /// Stops each thread that runs, shows it, and lets it go on.
    ///
    /// # Errors
    /// The system forbids it. A program or a thread that ends meanwhile is no error: `wait` will hear of it.
    pub(crate) fn sample(&mut self, mut look: impl FnMut(&Thread)) -> anyhow::Result<()> {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid)) else { return Ok(()) };
        for entry in threads.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Some((name, true)) = state(self.pid, id) else { continue };
            let thread = Pid::from_raw(id);
            match self.stop(thread) {
                Ok(()) => {}
                // Later it is a thread that just ends.
                Err(Errno::EPERM) if !self.allowed => {
                    let _ = kill(self.pid, Signal::SIGKILL);
                    bail!("this system does not let a process trace its own child");
                }
                Err(_) => continue,
            }
            if let Ok(registers) = ptrace::getregs(thread) {
                look(&Thread { process: self.pid, registers, name });
            }
            let _ = ptrace::cont(thread, None);
        }
        Ok(())
    }

    fn stop(&mut self, thread: Pid) -> nix::Result<()> {
        if !self.seized.contains(&thread) {
            ptrace::seize(thread, ptrace::Options::empty())?;
            self.seized.insert(thread);
            self.allowed = true;
        }
        ptrace::interrupt(thread)?;
        loop {
            match waitpid(thread, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::PtraceEvent(..)) => return Ok(()),
                // A signal came first: the thread gets it, and the stop follows.
                Ok(WaitStatus::Stopped(_, signal)) => ptrace::cont(thread, signal)?,
                Ok(status) => {
                    self.resume(status);
                    return Err(Errno::ESRCH);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Thread {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Reads as much of `into` as there is at `address`.
    pub(crate) fn read(&self, address: u64, into: &mut [u8]) -> usize {
        let remote = RemoteIoVec { base: address as usize, len: into.len() };
        process_vm_readv(self.process, &mut [IoSliceMut::new(into)], &[remote]).unwrap_or(0)
    }
}

/// The thread's name and whether it runs.
fn state(process: Pid, thread: i32) -> Option<(String, bool)> {
    let stat = fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")).ok()?;
    let (start, rest) = stat.rsplit_once(") ")?;
    let (_, name) = start.split_once(" (")?;
    Some((name.to_owned(), rest.starts_with('R')))
}
