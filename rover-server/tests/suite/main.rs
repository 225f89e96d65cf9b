//! Tests through the socket, with literal bytes, against a real server on a port of its own.
//!
//! One binary, so that everything links once. Modules are named after what they test.

mod support;

mod accept;
mod http_body;
mod http_framing;
mod lifetime;
mod smoke;
