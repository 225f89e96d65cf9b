//! Rover: an application server for HTTP services written in Lua.
//!
//! This is the library behind the `rover` command. A Rust program embeds it to let a script decide what its HTTP API
//! answers, with functions of the program at hand:
//!
//! ```
//! use rover_server::{Error, Server};
//!
//! const APP: &str = r#"
//!     local api = rover.server {}
//!     function api.double.p_n.get(ctx)
//!       return { doubled = double(ctx:params().n) }
//!     end
//!     return api
//! "#;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let server = Server::from_source("app.lua", APP).port(0).function("double", |_, n: i64| Ok(2 * n));
//! let listening = server.bind()?;
//! println!("serving on {}", listening.addresses()[0]);
//! # let ctrl_c = async {};
//! // Any future can be what stops the server, for example `tokio::signal::ctrl_c()`.
//! listening.run_until(ctrl_c).await
//! # }
//! ```
//!
//! The server has threads of its own: a worker for each core, each with a Lua VM that runs the whole app. [`Server`]
//! says what can be configured and lent to the script, [`Listening`] how it runs and stops. [`Server::load`] answers
//! requests without a socket, for tests of an app:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), rover_server::Error> {
//! let code = "local api = rover.server {} function api.hello.get() return 'hi' end return api";
//! let app = rover_server::Server::from_source("app.lua", code).load()?;
//! let answer = app.request(http::Request::get("/hello").body("").unwrap()).await;
//! assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"hi"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! The wings below stand in the order in which a request meets them, and import only what stands below, as well as the
//! crate `rover-lua`, the border to LuaJIT; `ARCHITECTURE.md`
//! tells the whole story, and `tests/layering.rs` holds who may import whom.

#![forbid(unsafe_code)]

mod server; // starts, stops, reloads, supervises, tells of itself
mod connection; // one connection: HTTP/1, HTTP/2, their limits and ends
mod service; // one request through its stages, in order
mod listen; // sockets, TLS, who gets in
mod script; // what an app sees: its declaration, `rover.*`, what waits
mod policy; // answers and limits that need no Lua; files
mod observe; // what is noted of a request
mod exchange; // a request and its response as Lua sees them
#[doc(hidden)]
pub mod route; // method and path to handler
mod outbound; // requests to other servers
mod message; // bodies and other bytes of messages
mod transport; // bytes under a connection
mod store; // what all workers share
mod runtime; // what the process has to give: threads, turns, descriptors, bytes
mod config; // what can be configured
mod spelling; // the name that an author meant
mod log; // lines, written by a thread of their own
mod error; // what stops a server from starting

#[cfg(feature = "bench_support")]
#[doc(hidden)]
pub mod bench_support;

pub use config::{ConfigKey, config_keys};
pub use error::Error;
pub use log::{Level, LogRecord};
pub use mlua;
pub use rover_data;
pub use server::databases::AppDatabase;
pub use server::local::LocalApp;
pub use server::profile::Profiler;
pub use server::{AppInfo, Control, Listening, RouteInfo, Server};

/// The README's Rust code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// So does that of the docs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
struct Embedding;

#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding-log.md")]
struct EmbeddingLog;
