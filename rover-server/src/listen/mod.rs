//! Where clients come in: sockets, TLS, and who is let in.

pub(crate) mod handover; // sockets from one process to its successor
pub(crate) mod admission; // how many connections there may be
pub(crate) mod accept; // listens
pub(crate) mod tls; // certificates and keys
pub(crate) mod proxy_protocol; // what a proxy tells before the first byte
