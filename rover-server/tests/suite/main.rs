//! Tests through the socket, with literal bytes, against a real server on a port of its own.
//!
//! One binary, so that everything links once. Modules are named after what they test.
#![allow(unreachable_pub, reason = "nothing is outside of a test binary")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test's failure is its report")]

mod support;

mod accept;
mod connection_limits;
mod embedding;
mod examples;
mod http2;
mod http2_conformance;
mod http_body;
mod http_framing;
mod http_pipeline;
mod lifetime;
mod lua_body;
mod lua_context;
mod lua_errors;
mod lua_json;
mod lua_load_mistakes;
mod lua_middleware;
mod lua_modules;
mod lua_responses;
mod lua_routes;
mod lua_scheduler;
mod lua_stdlib;
mod lua_streams;
mod smoke;
mod tls;
