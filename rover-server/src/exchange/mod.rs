//! A request and its response, as Lua sees them.

pub(crate) mod failure; // what went wrong, as a response
pub(crate) mod response; // what it returned
pub(crate) mod context; // what the handler gets
