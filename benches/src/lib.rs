//! What the baseline servers of `tests/perf` share: the answers that Rover's test app gives, and how connections
//! reach their workers. Nothing here knows of Rover itself.

pub mod answers;
pub mod connections;
