//! What an app sees: how it is declared, the `rover` table, and the parts of `ctx` that wait.

pub(crate) mod app; // loads an app into a VM
pub(crate) mod websocket; // connections that speak WebSocket
pub(crate) mod proxy; // requests that go on to other servers
pub(crate) mod fetch; // `rover.http`
pub(crate) mod stream; // bodies that Lua functions make piece by piece
pub(crate) mod state; // rover.shared and rover.cache
pub(crate) mod tasks; // functions that run beside handlers
pub(crate) mod stdlib; // the `rover` table
