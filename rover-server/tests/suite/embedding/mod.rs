//! A Rust program that has the server as a library.

mod log;
mod names;
