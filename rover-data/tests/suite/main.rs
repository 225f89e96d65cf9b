//! The engines, through the crate's own names.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's failure is its report")]

mod contract;
mod edges;
mod faults;
mod isolation;
mod migrations;
mod support;
