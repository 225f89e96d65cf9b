//! A server as its operator sees it: starts, stops, reloads, what it tells, and what it survives.

mod lifetime;
mod losses;
mod management;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
mod otlp_absent;
mod profile;
mod reload;
mod shortages;
mod slices;
mod watchdog;
