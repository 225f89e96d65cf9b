//! Comes in: a configured server. Goes out: it has served until a signal asked it to stop. Must not know: how it serves.

use std::future::poll_fn;
use std::task::Poll;

use anyhow::Context;
use rover_server::Server;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Serves until SIGINT or SIGTERM, then lets running requests finish for the config's `shutdown_timeout`. A second
/// signal ends the process at once, with 130 or 143 as a shell expects.
///
/// # Errors
/// The app has mistakes, its address cannot be bound, or serving fails.
pub(crate) fn serve(server: Server) -> anyhow::Result<()> {
    // Until the app is loaded a signal ends the process by itself: there is no request to finish yet.
    let listening = server.bind()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut signals = Signals::new().context("cannot listen for signals")?;
        let stop = async move {
            signals.next().await;
            tokio::spawn(async move {
                let number = signals.next().await;
                std::process::exit(128 + number);
            });
        };
        listening.run_until(stop).await?;
        Ok(())
    })
}

/// The signals that ask a server to stop.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// # Errors
    /// The system does not let this process handle them.
    pub(crate) fn new() -> std::io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one and gives its number.
    pub(crate) async fn next(&mut self) -> i32 {
        poll_fn(|context| {
            if self.interrupt.poll_recv(context).is_ready() {
                return Poll::Ready(SignalKind::interrupt().as_raw_value());
            }
            let terminate = self.terminate.poll_recv(context);
            terminate.map(|_| SignalKind::terminate().as_raw_value())
        })
        .await
    }
}
