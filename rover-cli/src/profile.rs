//! Serves an app and writes a flame graph of its Lua code. Comes in: a configured server. Goes out: the SVG file. Must
//! not know: how it is recorded.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rover_server::Server;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::serve::{EarlyStop, Stop};

/// The longest recording, in seconds.
const LONGEST: u32 = 3600;

/// Serves until `seconds` are over, or until SIGINT or SIGTERM, and writes where the Lua code spent its time.
///
/// # Errors
/// As for `serve`; no Lua code ran; or the file cannot be written, which is tried before the app is loaded.
pub(crate) fn profile(server: Server, seconds: Option<u32>, output: &Path) -> anyhow::Result<()> {
    let is_new = try_to_write(output).with_context(|| cannot_write(output))?;
    let recorded = record(server, seconds);
    if is_new && recorded.is_err() {
        let _ = std::fs::remove_file(output);
    }
    std::fs::write(output, recorded?).with_context(|| cannot_write(output))?;
    crate::print(&format!("wrote {}\n", output.display()))
}

fn cannot_write(output: &Path) -> String {
    format!("cannot write {}", output.display())
}

/// Creates the file if there is none, and returns whether it did; otherwise checks whether it can be written.
fn try_to_write(output: &Path) -> io::Result<bool> {
    let is_there = output.exists();
    // Opening a pipe would wait for its reader.
    if !is_there || output.is_file() {
        OpenOptions::new().append(true).create(true).open(output)?;
    }
    Ok(!is_there)
}

fn record(server: Server, seconds: Option<u32>) -> anyhow::Result<String> {
    let early = EarlyStop::begin()?;
    let listening = server.bind()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut signals = Stop::new().context("cannot listen for signals")?;
        drop(early);
        // A recording covers one version of the app, in one process.
        let mut others = [signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?];
        let profiler = listening.profiler();
        let (stop, stopped) = oneshot::channel::<()>();
        let time = Duration::from_secs(seconds.unwrap_or(LONGEST).into());
        let record = async {
            let recorded = profiler
                .record_until(time, async {
                    let [reload, restart] = &mut others;
                    loop {
                        let name = tokio::select! {
                            _ = signals.next() => break,
                            _ = reload.recv() => "SIGHUP",
                            _ = restart.recv() => "SIGUSR2",
                        };
                        let _ = writeln!(io::stderr(), "rover: {name} is passed over while a profile is recorded");
                    }
                })
                .await;
            drop(stop);
            signals.end_at_next();
            recorded
        };
        let serve = listening.run_until(async { drop(stopped.await) });
        let (served, recorded) = tokio::join!(serve, record);
        served?;
        Ok(recorded?)
    })
}
