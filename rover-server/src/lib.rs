//! x
mod json;
mod lua;
#[doc(hidden)]
pub mod bench_support;
