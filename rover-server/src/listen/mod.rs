//! Lets clients in: sockets, TLS, connection limits.

pub(crate) mod handover; // sockets from one process to its successor
pub(crate) mod admission; // connection limits
pub(crate) mod accept; // listens
pub(crate) mod tls; // certificates and keys
pub(crate) mod proxy_protocol; // the PROXY protocol
