//! Tests through the socket, with literal bytes, against a real server on a port of its own.
//!
//! One binary, so that everything links once. Modules are named after what they test.
#![allow(unreachable_pub, reason = "nothing is outside of a test binary")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test's failure is its report")]

mod support;
mod upstream;

mod accept;
mod buffers;
mod c_stack;
#[cfg(feature = "otlp")]
mod collector;
mod connection_limits;
mod embedding;
mod examples;
mod http2;
mod http2_conformance;
mod http2_deviations;
mod http2_further;
mod http_body;
mod http_body_order;
mod http_cors;
mod http_compression;
mod http_framing;
mod http_load_shedding;
mod http_paths;
mod http_pipeline;
mod http_proxies;
mod http_strict;
mod http_rate_limits;
mod http_security_headers;
mod lifetime;
mod losses;
mod http_client_bodies;
mod http_client_faults;
mod http_client_http2;
mod http_client_resilience;
mod http_client_tls;
mod lua_body;
mod lua_cache;
mod lua_context;
mod lua_errors;
mod lua_guards;
mod lua_http;
mod lua_http_forms;
mod lua_files;
mod lua_json;
mod lua_lengths;
mod lua_load_mistakes;
mod lua_middleware;
mod lua_modules;
mod lua_proxy;
mod lua_proxy_framing;
mod lua_responses;
mod lua_responses_shared;
mod lua_routes;
mod lua_scheduler;
mod lua_shared;
mod lua_static;
mod lua_stdlib;
mod management;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
mod otlp_absent;
mod lua_streams;
mod lua_values;
mod lua_websockets;
mod lua_tasks;
mod shortages;
mod slices;
mod smoke;
mod takes_any;
mod turns;
mod tls;
mod tls_edge;
mod websocket_client;
mod websocket_protocol;
mod profile;
mod proxy_interim;
mod proxy_uploads;
mod reload;
mod vm_memory;
mod watchdog;
