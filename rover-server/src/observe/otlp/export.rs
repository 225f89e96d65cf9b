//! Sends waiting spans to the collector, and logs when it does not take them.
//!
//! Comes in: batches of a [`SpanQueue`]. Goes out: requests of the worker's own client. Requests never wait for this: it is
//! a task of its own, and a full queue drops new spans.

use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::figures;
use super::message::{Envelope, partial_success};
use super::queue::{Batch, SpanQueue};
use crate::config::OtlpSettings;
use crate::log::{self, Level};
use crate::outbound::{Call, Client, Outgoing, RetryOptions, Settings, TlsOptions, parse_url};
use crate::runtime::blocking;

/// How often a batch is sent, as far as `otlp.timeout` lets it.
const ATTEMPTS: u32 = 5;
const BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The longest pause before a collector is asked again, whatever it demands.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How much of an answer is read.
const MOST_OF_ANSWER: u64 = 64 * 1024;

/// Below, compressing is not worth it.
const WORTH_COMPRESSING: usize = 1024;

/// The least time between two log lines about failures.
const SILENCE: Duration = Duration::from_secs(60);

/// Sends the spans of one queue.
pub(super) struct Exporter {
    queue: Rc<SpanQueue>,
    client: Client,
    url: Uri,
    headers: HeaderMap,
    envelope: Envelope,
    interval: Duration,
    timeout: Duration,
    compresses: bool,
    stop: watch::Receiver<bool>,
    told: LossLog,
}

/// What has been logged about lost spans.
#[derive(Default)]
struct LossLog {
    /// The log's last word is that it does not work.
    is_failing: bool,
    at: Option<Instant>,
    /// Not told of yet.
    lost: u64,
    /// How many were dropped in all, when the log was last told.
    dropped: u64,
}

/// Spans on their way. They are lost where the task ends before they have arrived.
struct OnTheWay(u64);

impl Drop for OnTheWay {
    fn drop(&mut self) {
        figures::count_dropped(self.0);
    }
}

/// Why a batch was not taken.
struct ExportRefusal {
    reason: String,
    /// How long the collector asks to be left alone.
    pause: Option<Duration>,
}

impl Exporter {
    /// # Errors
    /// The endpoint is no URL.
    pub(super) fn new(
        settings: &OtlpSettings,
        endpoint: &str,
        queue: &Rc<SpanQueue>,
        stop: watch::Receiver<bool>,
    ) -> Result<Exporter, String> {
        let url = parse_url(endpoint.as_bytes()).map_err(|problem| problem.to_string())?;
        let mut client = Settings::new("otlp");
        client.tls = TlsOptions { ca: settings.ca.as_ref().map(Into::into), ..TlsOptions::default() };
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            // The config has checked them.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        Ok(Exporter {
            queue: queue.clone(),
            client: Client::new(client, &Default::default()),
            compresses: settings.compression.unwrap_or_else(|| !is_here(&url)),
            url,
            headers,
            envelope: Envelope::new(settings),
            interval: settings.interval,
            timeout: settings.timeout,
            stop,
            told: LossLog { dropped: figures::dropped(), ..LossLog::default() },
        })
    }

    /// Sends what waits, every so often and when a batch is full, until it is to stop; then what is left.
    pub(super) async fn run(mut self) {
        loop {
            self.wait().await;
            while let Some(batch) = self.queue.take() {
                let pause = self.export(batch).await;
                if let Some(pause) = pause.filter(|_| !self.is_stopping()) {
                    let until = Instant::now() + pause.max(self.interval).min(LONGEST_PAUSE);
                    tokio::select! {
                        () = sleep_until(until) => {}
                        _ = self.stop.wait_for(|stop| *stop) => {}
                    }
                }
                // What has come meanwhile waits for the next time, unless it is a whole batch.
                if !self.queue.has_full() && !self.is_stopping() {
                    break;
                }
            }
            if self.is_stopping() {
                return;
            }
        }
    }

    /// Waits until there is a reason to send.
    async fn wait(&mut self) {
        let due = Instant::now() + self.interval;
        // It may be told of a batch that was taken long since.
        while !self.queue.has_full() {
            tokio::select! {
                () = self.queue.is_full.notified() => {}
                () = sleep_until(due) => return,
                // An error means that nobody can want it any more.
                _ = self.stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Sends a batch. On failure, returns how long to pause.
    async fn export(&mut self, batch: Batch) -> Option<Duration> {
        let spans = batch.spans as u64;
        let mut on_the_way = OnTheWay(spans);
        let sent = self.send(&batch).await;
        on_the_way.0 = 0;
        match sent {
            Ok(answer) => {
                let partial = partial_success(answer);
                let rejected = partial.rejected.min(spans);
                figures::count_exported(spans - rejected);
                figures::count_failed(rejected);
                self.told.succeeded(rejected, &partial.message, &self.url);
                None
            }
            Err(refusal) => {
                figures::count_failed(spans);
                self.told.failed(spans, &refusal.reason, &self.url);
                Some(refusal.pause.unwrap_or_default())
            }
        }
    }

    /// # Errors
    /// The collector did not take it within the time that there is.
    async fn send(&self, batch: &Batch) -> Result<Bytes, ExportRefusal> {
        let mut headers = self.headers.clone();
        let mut body = self.envelope.around(batch);
        if self.compresses && body.len() >= WORTH_COMPRESSING {
            // It would take the worker some milliseconds.
            let packed = blocking::run(move || gzip(&body)).await;
            body = packed.map_err(|refused| ExportRefusal { reason: refused.to_string(), pause: None })?;
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let deadline = Some(Instant::now() + self.timeout);
        let call = Call {
            method: Method::POST,
            url: self.url.clone(),
            headers,
            body: Some(Outgoing::Full(body.into())),
            deadline,
            connect_timeout: Some(self.timeout),
            redirects: 0,
            retry: Some(RetryOptions { attempts: ATTEMPTS, backoff: BACKOFF, max_backoff: MAX_BACKOFF }),
            // A collector that gets spans twice knows them by their ids.
            is_repeatable: true,
        };
        let refused = |problem: crate::outbound::Problem| ExportRefusal { reason: problem.to_string(), pause: None };
        let mut reply = self.client.send(call).await.map_err(refused)?;
        let status = reply.head.status;
        let pause = reply.head.headers.get(RETRY_AFTER).and_then(seconds);
        let answer = reply.body.collect(MOST_OF_ANSWER, deadline).await;
        match status.is_success() {
            true => Ok(answer.unwrap_or_default()),
            false => Err(ExportRefusal { reason: format!("status {}", status.as_u16()), pause }),
        }
    }
}

impl LossLog {
    fn failed(&mut self, spans: u64, reason: &str, url: &Uri) {
        self.lost += spans;
        if self.is_time() {
            self.is_failing = true;
            self.tell(Level::Warn, "traces cannot be exported", reason, url);
        }
    }

    fn succeeded(&mut self, rejected: u64, reason: &str, url: &Uri) {
        self.lost += rejected;
        let dropped = figures::dropped() - self.dropped;
        if std::mem::take(&mut self.is_failing) {
            self.tell(Level::Info, "traces are exported again", reason, url);
        } else if rejected > 0 || !reason.is_empty() {
            if self.is_time() {
                self.tell(Level::Warn, "the collector did not take all spans", reason, url);
            }
        } else if dropped > 0 && self.is_time() {
            self.tell(Level::Warn, "spans were dropped", "they come faster than the collector takes them", url);
        }
    }

    fn is_time(&self) -> bool {
        self.at.is_none_or(|at| at.elapsed() >= SILENCE)
    }

    fn tell(&mut self, level: Level, message: &str, reason: &str, url: &Uri) {
        let dropped = figures::dropped();
        let lost = std::mem::take(&mut self.lost) + (dropped - std::mem::replace(&mut self.dropped, dropped));
        self.at = Some(Instant::now());
        let url = url.to_string();
        let mut event = log::event(level, message).field("endpoint", url.as_str()).field("lost_spans", lost);
        if !reason.is_empty() {
            event = event.field("error", reason);
        }
        event.emit();
    }
}

/// Whether the collector is on this host, where bytes cost less than compressing them.
fn is_here(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
