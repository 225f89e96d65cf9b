//! HTTP/1: messages, connections, and what is refused.

mod body;
mod body_order;
mod framing;
mod paths;
mod pipeline;
mod strict;
mod targets;
