//! Manages what the process has: threads for blocking work, turns, descriptors, bytes, randomness.

pub(crate) mod blocking; // blocking work
pub(crate) mod budget; // how many bytes may be in flight
pub(crate) mod execution; // a Lua function from wait to wait
pub(crate) mod random; // unpredictable bytes
pub(crate) mod resources; // limits of the system
pub(crate) mod turn; // how long functions may run on before others
