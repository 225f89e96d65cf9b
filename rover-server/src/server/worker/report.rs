//! The figures of a worker, for the management pages.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use crate::observe::metrics::Samples;
use crate::runtime::budget::Kind;
use crate::script::app::App;

use super::WorkerHandle;
use super::state::{WorkerState, with_worker};

/// The state of a worker at one moment.
#[derive(Clone)]
pub(crate) struct WorkerFigures {
    pub(crate) worker: usize,
    pub(crate) connections: usize,
    pub(crate) accepted: u64,
    pub(crate) in_flight: u64,
    /// Versions of the app before a reload that still have requests.
    pub(crate) retired: usize,
    /// Bytes that the VM of the version that serves holds.
    pub(crate) lua_bytes: u64,
    pub(crate) lag: Duration,
    /// CPU time of the worker's thread so far.
    pub(crate) cpu: Duration,
    /// The worker's metrics.
    pub(crate) samples: Arc<Samples>,
}

/// Asks the worker; `None` if it has ended.
pub(crate) async fn report(worker: &WorkerHandle) -> Option<WorkerFigures> {
    let (reply, replied) = oneshot::channel();
    worker.handle.spawn(async move {
        with_worker(|this| {
            let _ = reply.send(figures(this));
        });
    });
    replied.await.ok()
}

fn figures(this: &WorkerState) -> WorkerFigures {
    let site = this.current.site();
    let app = &site.app;
    let (mut samples, in_flight) = this.archive.samples();
    this.retired.borrow_mut().retain(|task| !task.is_finished());
    let retired = this.retired.borrow().len();
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    let cpu = Duration::new(u64::try_from(cpu.tv_sec).unwrap_or(0), u32::try_from(cpu.tv_nsec).unwrap_or(0));
    let figures = WorkerFigures {
        worker: this.number,
        connections: this.lifecycle.count(),
        accepted: this.accepted.get(),
        in_flight,
        retired,
        lua_bytes: app.coroutines.heap(),
        lag: this.lag.last(),
        cpu,
        samples: Arc::default(),
    };

    let number = this.number.to_string();
    let worker = [("worker", number.as_str())];
    samples.gauge("rover_connections", "Open connections.", &worker, figures.connections as f64);
    let help = "Connections that were accepted.";
    samples.counter("rover_connections_accepted_total", help, &worker, figures.accepted as f64);
    samples.gauge("rover_requests_in_flight", "Requests that have no answer yet.", &worker, in_flight as f64);
    let (received, sent) = this.spare.traffic();
    samples.counter("rover_received_bytes_total", "Bytes that clients sent.", &worker, received as f64);
    samples.counter("rover_sent_bytes_total", "Bytes that clients got.", &worker, sent as f64);
    let help = "Bytes that the Lua VM holds, garbage included.";
    samples.gauge("rover_lua_memory_bytes", help, &worker, figures.lua_bytes as f64);
    let limit = site.config.limits.memory_limit;
    if limit > 0 {
        let help = "Bytes that the Lua VM may hold.";
        samples.gauge("rover_lua_memory_limit_bytes", help, &worker, limit as f64);
    }
    let help = "Rounds that the garbage collector has finished in the VM that serves.";
    samples.gauge("rover_lua_gc_rounds", help, &worker, app.gc_rounds() as f64);
    let help = "Seconds that the worker's thread has computed.";
    samples.counter("rover_worker_cpu_seconds_total", help, &worker, figures.cpu.as_secs_f64());
    let help = "Versions of the app before a reload that still have requests.";
    samples.gauge("rover_retired_versions", help, &worker, retired as f64);
    let (idle, busy, created) = app.coroutines.counts();
    let help = "Coroutines by what they are for and whether they are in use.";
    samples.gauge("rover_coroutines", help, &[("pool", "handlers"), ("state", "idle")], idle as f64);
    samples.gauge("rover_coroutines", help, &[("pool", "handlers"), ("state", "busy")], busy as f64);
    let help = "Coroutines that were made because none was idle.";
    samples.gauge("rover_coroutines_created", help, &[("pool", "handlers")], created as f64);
    if this.number == 1 {
        of_all_workers(app, &mut samples);
    }
    this.lag.write(&mut samples, &number);
    app.sources.write(&mut samples);
    if let Some(tracer) = &site.tracer {
        tracer.write(&mut samples);
    }
    WorkerFigures { samples: Arc::new(samples), ..figures }
}

/// Figures that all workers share, written by one of them.
fn of_all_workers(app: &App, samples: &mut Samples) {
    let in_flight = app.in_flight();
    let help = "Bytes of large request bodies and answers that are held.";
    for (kind, name) in [(Kind::Request, "request"), (Kind::Answer, "answer")] {
        samples.gauge("rover_buffered_bytes", help, &[("kind", name)], in_flight.bytes(kind) as f64);
    }
    let help = "Request bodies and answers for which there was no room.";
    samples.counter("rover_buffers_refused_total", help, &[], in_flight.refused() as f64);
}
