//! Tests through the socket, with literal bytes, against a real server on a port of its own.
//!
//! One binary, so that everything links once. Modules are named after what they test.

mod support;

mod lua_body;
mod lua_context;
mod lua_errors;
mod lua_json;
mod lua_load_mistakes;
mod lua_middleware;
mod lua_modules;
mod lua_responses;
mod lua_routes;
mod lua_stdlib;
mod smoke;
