//! Answers and limits that need no Lua, and files.

pub(crate) mod cors; // pages of other sites
pub(crate) mod load_shedding; // too much to do
pub(crate) mod rate_limit; // too often
pub(crate) mod security_headers; // what every answer carries
pub(crate) mod http_checks; // what HTTP itself refuses
pub(crate) mod assets; // files, where no route answers
pub(crate) mod compression; // a coding for it, where the client takes one
