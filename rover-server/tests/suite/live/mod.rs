//! Connections that stay open: streams, server-sent events, WebSockets.

mod streams;
mod websocket_protocol;
mod websockets;
