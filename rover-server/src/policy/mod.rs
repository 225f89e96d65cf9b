//! Answers and limits that need no Lua, and files.

pub(crate) mod cors; // which other sites may read answers
pub(crate) mod load_shedding; // refusing requests under overload
pub(crate) mod rate_limit; // limits of requests for each client
pub(crate) mod security_headers; // headers for browsers on every answer
pub(crate) mod http_checks; // requests that HTTP itself refuses
pub(crate) mod assets; // static files
pub(crate) mod compression; // compressed responses
