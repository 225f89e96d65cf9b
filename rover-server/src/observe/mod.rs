//! What is noted of a request: its log line, its figures, its span.

pub(crate) mod record; // what is noted of it
pub(crate) mod access_log; // the line about it
#[cfg(feature = "otlp")]
pub(crate) mod otlp; // traces
#[cfg(not(feature = "otlp"))]
#[path = "otlp/absent.rs"]
pub(crate) mod otlp;
pub(crate) mod metrics; // and its figures
