//! HTTP/2: as clients use it, and by literal frames.

pub mod conformance;
mod deviations;
mod further;
mod requests;
