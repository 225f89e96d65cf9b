//! What an app sees and does in Lua.

mod body;
mod buffers;
mod c_stack;
mod cache;
mod context;
mod errors;
mod files;
mod guards;
mod json;
mod lengths;
mod load_mistakes;
mod middleware;
pub mod modules;
mod responses;
mod responses_shared;
mod routes;
mod scheduler;
mod shared;
mod stdlib;
mod tasks;
mod turns;
mod values;
mod vm_memory;
