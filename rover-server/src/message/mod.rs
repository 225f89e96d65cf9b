//! Bytes of messages, free of Lua and of sockets.

pub(crate) mod unread; // the request body, as long as nobody has asked for it
pub(crate) mod collect; // the request body, all of it
pub(crate) mod body; // its bytes, at once or over time
pub(crate) mod decode; // content codings of bodies that come in
pub(crate) mod coding; // how bytes may be compressed for a client
pub(crate) mod wildcard; // names with a star
pub(crate) mod header_names; // names that Lua writes, parsed once
