//! Serves until a signal asks to stop. Comes in: a configured server and signals. Must not know: how it serves, reloads
//! an app, or hands its sockets over.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::thread;

use anyhow::Context;
use listenfd::ListenFd;
use rover_server::{Control, Server};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::program;
use crate::watch::Watch;

/// Returns the sockets that a service manager has bound for this process, which `LISTEN_PID` names. Call it while the
/// process has one thread, because it removes the variables from the environment.
///
/// # Errors
/// One of them is not a TCP or Unix socket.
pub(crate) fn given_sockets() -> anyhow::Result<Vec<OwnedFd>> {
    // Without the process id, the other variables may have been inherited from another process.
    let named = std::env::var("LISTEN_PID").ok().and_then(|number| number.parse().ok());
    if named != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for n in 0..given.len() {
        let tcp = given.take_tcp_listener(n).ok().flatten().map(OwnedFd::from);
        let socket = match tcp {
            Some(socket) => Some(socket),
            None => given.take_unix_listener(n).context("a given socket cannot be used")?.map(OwnedFd::from),
        };
        sockets.extend(socket);
    }
    Ok(sockets)
}

/// Serves until a signal says otherwise: SIGINT and SIGTERM let running requests finish for the config's
/// `shutdown_timeout`, and a second one ends the process at once, with 130 or 143 as a shell expects. SIGHUP reloads
/// the app, and so does a change of its files with `watch`. SIGUSR2 starts the program again and lets it take over.
///
/// # Errors
/// The app has mistakes, its address cannot be bound, or serving fails.
pub(crate) fn serve(server: Server, watch: bool) -> anyhow::Result<()> {
    let program = program::find().context("cannot tell where this program is")?;
    // Until the app is loaded a signal ends the process by itself: there is no request to finish yet.
    let early = EarlyStop::begin()?;
    let listening = server.bind()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let signals = Signals::new().context("cannot listen for signals")?;
        drop(early);
        let control = listening.control();
        if watch {
            let watch = Watch::start(control.clone()).context("cannot watch the app's files")?;
            tokio::spawn(watch.run());
        }
        tell_manager(&[NotifyState::Ready]);
        listening.run_until(obey(signals, control, program)).await?;
        Ok(())
    })
}

/// Acts on signals until one asks for the end, which cancels work in progress. A signal that arrives while its work is
/// in progress is acted on once more afterwards, however often it comes.
async fn obey(mut signals: Signals, control: Control, program: PathBuf) {
    let (mut reload, mut restart) = (Work::new(), Work::new());
    loop {
        tokio::select! {
            _ = signals.stop.next() => break,
            _ = signals.reload.recv(), if reload.is_idle() => reload.begin(load_anew(control.clone())),
            _ = signals.restart.recv(), if restart.is_idle() => {
                restart.begin(start_successor(control.clone(), program.clone()));
            }
            () = reload.ended() => {}
            successor = restart.ended() => {
                if let Some(process) = successor {
                    // The service does not stop: another process is the main one from here on.
                    tell_manager(&[NotifyState::MainPid(process)]);
                    return signals.stop.end_at_next();
                }
            }
        }
    }
    tell_manager(&[NotifyState::Stopping]);
    signals.stop.end_at_next();
}

async fn load_anew(control: Control) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell_manager(&[NotifyState::Reloading, now]);
    }
    // What goes wrong is in the log.
    let _ = control.reload().await;
    tell_manager(&[NotifyState::Ready]);
}

/// Returns the id of the process that has taken over; `None` if none has.
async fn start_successor(control: Control, program: PathBuf) -> Option<u32> {
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1).collect::<Vec<OsString>>());
    // What goes wrong is in the log.
    control.restart(command).await.ok()
}

/// Work that runs once at a time.
struct Work<T>(Option<Pin<Box<dyn Future<Output = T>>>>);

impl<T> Work<T> {
    fn new() -> Work<T> {
        Work(None)
    }

    fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    fn begin(&mut self, work: impl Future<Output = T> + 'static) {
        self.0 = Some(Box::pin(work));
    }

    /// Waits for the end of the running work; for ever if there is none.
    async fn ended(&mut self) -> T {
        let done = match &mut self.0 {
            Some(work) => work.await,
            None => std::future::pending().await,
        };
        self.0 = None;
        done
    }
}

/// Notifies systemd, if it started the service and wants notifications (`Type=notify`).
fn tell_manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        let _ = writeln!(io::stderr(), "rover: cannot tell the service manager: {error}");
    }
}

/// The signals that a server acts on.
struct Signals {
    stop: Stop,
    reload: Signal,
    restart: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            stop: Stop::new()?,
            reload: signal(SignalKind::hangup())?,
            restart: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Lets stop signals end the process before the server has bound. Process 1 of a container needs this, because it gets
/// no signal that it does not handle. Works until it is dropped.
pub(crate) struct EarlyStop {
    _over: Option<oneshot::Sender<()>>,
}

impl EarlyStop {
    /// # Errors
    /// The system refuses a thread, or to let this process handle signals.
    pub(crate) fn begin() -> anyhow::Result<EarlyStop> {
        if std::process::id() != 1 {
            return Ok(EarlyStop { _over: None });
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
        let mut stop = {
            let _entered = runtime.enter();
            Stop::new().context("cannot listen for signals")?
        };
        let (over, is_over) = oneshot::channel::<()>();
        let wait = async move {
            tokio::select! {
                biased;
                _ = is_over => {}
                number = stop.next() => std::process::exit(128 + number),
            }
        };
        let spawned = thread::Builder::new().name("rover-start".to_owned()).spawn(move || runtime.block_on(wait));
        spawned.context("cannot start a thread that waits for signals")?;
        Ok(EarlyStop { _over: Some(over) })
    }
}

/// The signals that ask for the end.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// # Errors
    /// The system does not let this process handle them.
    pub(crate) fn new() -> io::Result<Stop> {
        Ok(Stop { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal, and returns its number.
    pub(crate) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }

    /// From here on the next signal ends the process at once, as a shell expects. Call it in a runtime.
    pub(crate) fn end_at_next(mut self) {
        tokio::spawn(async move {
            let number = self.next().await;
            std::process::exit(128 + number);
        });
    }
}
