//! Bytes under a connection.

pub(crate) mod lifecycle; // the connections of a worker as a whole
pub(crate) mod upgrade; // what it becomes after a 101
pub(crate) mod socket; // the bytes under it
