//! x
mod lua;
