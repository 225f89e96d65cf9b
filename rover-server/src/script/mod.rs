//! Gives an app what it sees: its declaration, the `rover` table, and the parts of `ctx` that wait.

pub(crate) mod app; // loads an app into a VM
pub(crate) mod websocket; // connections that speak WebSocket
pub(crate) mod proxy; // `ctx:proxy` and `api.proxy`
pub(crate) mod fetch; // `rover.http`
pub(crate) mod stream; // bodies that Lua functions make piece by piece
pub(crate) mod state; // rover.shared and rover.cache
pub(crate) mod db; // `rover.db`
pub(crate) mod tasks; // `rover.spawn`, `every`, `all` and `timeout`
pub(crate) mod stdlib; // the `rover` table
pub(crate) mod vm; // a VM that the others add themselves to
