//! Records requests: log lines, metrics, spans.

pub(crate) mod record; // collects what is recorded of a request
pub(crate) mod access_log; // its log line
#[cfg(feature = "otlp")]
pub(crate) mod otlp; // traces
#[cfg(not(feature = "otlp"))]
#[path = "otlp/absent.rs"]
pub(crate) mod otlp;
pub(crate) mod metrics; // its metrics
