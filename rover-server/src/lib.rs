//! x

#[doc(hidden)]
pub mod route;
