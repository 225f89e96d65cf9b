//! Comes in: a configured server. Goes out: it has served, and a flame graph of its Lua code is written. Must not know:
//! how it is recorded.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rover_server::Server;
use tokio::sync::oneshot;

use crate::serve::{EarlyStop, Stop};

/// The longest recording, in seconds.
const LONGEST: u32 = 3600;

/// Serves until `seconds` are over, or until SIGINT or SIGTERM, and writes where the Lua code spent its time.
///
/// # Errors
/// As for `serve`; no Lua code ran; or the file cannot be written.
pub(crate) fn profile(server: Server, seconds: Option<u32>, output: &Path) -> anyhow::Result<()> {
    let early = EarlyStop::begin()?;
    let listening = server.bind()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut signals = Stop::new().context("cannot listen for signals")?;
        drop(early);
        let profiler = listening.profiler();
        let (stop, stopped) = oneshot::channel::<()>();
        let time = Duration::from_secs(seconds.unwrap_or(LONGEST).into());
        let record = async {
            let recorded = profiler
                .record_until(time, async {
                    let _ = signals.next().await;
                })
                .await;
            drop(stop);
            signals.end_at_next();
            recorded
        };
        let serve = listening.run_until(async { drop(stopped.await) });
        let (served, recorded) = tokio::join!(serve, record);
        served?;
        std::fs::write(output, recorded?).with_context(|| format!("cannot write {}", output.display()))?;
        crate::print(&format!("wrote {}\n", output.display()))
    })
}
