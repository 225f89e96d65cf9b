//! Answers and limits that need no Lua.

mod compression;
mod cors;
mod load_shedding;
mod rate_limits;
mod security_headers;
mod static_files;
