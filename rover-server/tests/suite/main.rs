//! Tests through the socket, with literal bytes, against a real server on a port of its own.
//!
//! One binary, so that everything links once. Folders and modules are named after what they test.
#![allow(unreachable_pub, reason = "nothing is outside of a test binary")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test's failure is its report")]

mod support;

mod client;
mod data;
mod embedding;
mod examples;
mod http;
mod http2;
mod listen;
mod live;
mod lua;
mod operate;
mod policy;
mod proxy;
mod smoke;
