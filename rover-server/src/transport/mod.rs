//! Carries the bytes of connections.

pub(crate) mod lifecycle; // the connections of a worker as a whole
pub(crate) mod upgrade; // connections that leave HTTP after a 101
pub(crate) mod socket; // the byte stream of a connection
