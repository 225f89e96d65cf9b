//! x
#[doc(hidden)]
pub mod bench_support;
mod json;
mod lua;
