//! Requests to other servers: what `rover.http` and `ctx:proxy` stand on.
//!
//! Comes in: a [`Call`], or a request as it is. Goes out: the answer, with its body as it comes, or a [`Problem`]. HTTP/1.1
//! and HTTP/2 by hyper, TLS by rustls; each client has a pool of connections of its own, within one worker. Blocking work
//! (names, certificate files) runs on other threads. This module must not know of Lua, nor of requests that come in.

mod active;
mod breaker;
mod call;
mod client;
mod connect;
mod decode;
mod dns;
mod figures;
mod inflow;
mod interim;
mod limit;
mod outgoing;
mod pool;
mod problem;
mod redirect;
mod retry;
mod tls;
mod url;

pub(crate) use active::Active;
pub(crate) use breaker::BreakerOptions;
pub(crate) use call::Call;
pub(crate) use client::{Client, Origin, Reply, Settings};
pub(crate) use figures::{BreakerState, Figures, Row};
pub(crate) use inflow::Inflow;
pub(crate) use interim::Relay;
pub(crate) use limit::LimitOptions;
pub(crate) use outgoing::Outgoing;
pub(crate) use pool::SendFailure;
pub(crate) use problem::Problem;
pub(crate) use retry::{RetryOptions, is_idempotent};
pub(crate) use tls::TlsOptions;
pub(crate) use url::parse as parse_url;
