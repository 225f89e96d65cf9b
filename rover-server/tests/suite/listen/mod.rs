//! Where connections come in: sockets, TLS, proxies in front, and the limits of one client.

mod accept;
mod connection_limits;
mod proxies;
pub mod tls;
mod tls_edge;
