//! Requests of an app to other servers: `rover.http`.

mod bodies;
mod faults;
mod forms;
mod http2;
mod requests;
mod resilience;
pub mod tls;
