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
//! The modules below stand in the order in which a request meets them; `ARCHITECTURE.md` tells the whole story, and
//! `tests/layering.rs` holds who may import whom.

// The way of a request.
mod server; // the public face: start and stop
mod management; // where it tells of itself
mod handover; // sockets from one process to its successor
mod crew; // the workers as a whole, and who takes a lost one's place
mod workers; // whose turn it is
mod admission; // how many connections there may be
mod accept; // listens
mod tls; // certificates and keys
mod worker; // one thread, one runtime, one Lua VM
mod version; // one version of the app in a worker
mod profile; // where Lua code spends its time
mod watchdog; // stops code that runs for too long
mod lifecycle; // the connections of a worker as a whole
mod connection; // one connection, by hyper
mod socket; // the bytes under it
mod upgrade; // what it becomes after a 101
mod proxy_protocol; // what a proxy tells before the first byte
mod local; // instead of the above: an app without a socket
mod service; // one request through all stages
mod guard; // what is refused or answered by configuration
mod forwarded; // what proxies tell of the client
mod cors; // pages of other sites
mod shed; // too much to do
mod rate_limit; // too often
mod security_headers; // what every answer carries
mod edge; // what HTTP itself refuses
#[doc(hidden)]
pub mod route; // method and path to handler
mod assets; // files, where no route answers
mod collect; // the request body, all of it
mod unread; // the request body, as long as nobody has asked for it
mod handler; // the handler's coroutine
mod readiness; // whether the app is ready
mod context; // what the handler gets
mod response; // what it returned
mod compression; // a coding for it, where the client takes one
mod body; // its bytes, at once or over time
mod budget; // how many bytes may be in flight
mod coding; // how bytes may be compressed for a client
mod failure; // what went wrong, as a response
mod record; // what is noted of it
mod access_log; // the line about it
mod metrics; // and its figures

// What the stages stand on.
mod app; // loads an app into a VM
mod websocket; // connections that speak WebSocket
mod proxy; // requests that go on to other servers
mod fetch; // `rover.http`
mod stream; // bodies that Lua functions make piece by piece
mod state; // rover.shared and rover.cache
mod tasks; // functions that run beside handlers
mod turn; // how long they go on before others have theirs
mod stdlib; // the `rover` table
#[cfg(feature = "otlp")]
mod otlp; // traces
#[cfg(not(feature = "otlp"))]
#[path = "otlp/absent.rs"]
mod otlp;
mod outbound; // requests to other servers
mod decode; // content codings of bodies that come in
mod store; // what all workers share
mod blocking; // work that blocks a thread
mod random; // bytes that nobody can foresee
mod resources; // what the system lets the process have
mod json; // from and to the Lua stack
mod wildcard; // names with a star
mod header_names; // names that Lua writes, parsed once
mod lua; // the border to LuaJIT
mod config;
mod log;
mod error;

#[doc(hidden)]
pub mod bench_support;

pub use config::{ConfigKey, config_keys};
pub use error::Error;
pub use local::LocalApp;
pub use log::Level;
pub use mlua;
pub use profile::Profiler;
pub use server::{AppInfo, Control, Listening, RouteInfo, Server};

/// The README's Rust code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
