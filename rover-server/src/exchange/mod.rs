//! A request and its response, as Lua sees them.

pub(crate) mod failure; // errors as responses
pub(crate) mod response; // a handler's result as a response
pub(crate) mod context; // `ctx`
