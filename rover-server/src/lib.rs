//! Rover: an application server for HTTP services written in Lua.
//!
//! This is the library behind the `rover` command. A Rust program can embed it to script a part of itself: see
//! [`Server`].
//!
//! The modules below stand in the order in which a request meets them; `ARCHITECTURE.md` tells the whole story.

// The way of a request.
mod accept; // listens, and deals connections out in turn
mod collect; // the request body
mod connection; // one connection, by hyper
mod context; // what the handler gets
mod edge; // what HTTP itself refuses
mod failure; // what went wrong, as a response
mod handler; // the handler's coroutine
mod lifecycle; // the connections of a worker as a whole
mod local;
mod response; // what it returned
#[doc(hidden)]
pub mod route; // method and path to handler
mod server; // the public face: start and stop
mod service; // one request through all stages
mod socket; // the bytes under it
mod worker; // one thread, one runtime, one Lua VM // an app without a socket

// What the stages stand on.
mod access_log;
mod app; // loads an app into a VM
mod config;
mod error;
mod header_names; // names that Lua writes, parsed once
mod json; // from and to the Lua stack
mod log;
mod lua; // the border to LuaJIT
mod stdlib; // the `rover` table

#[doc(hidden)]
pub mod bench_support;

pub use config::{ConfigKey, config_keys};
pub use error::Error;
pub use local::LocalApp;
pub use log::Level;
pub use mlua;
pub use server::{AppInfo, Listening, RouteInfo, Server};
