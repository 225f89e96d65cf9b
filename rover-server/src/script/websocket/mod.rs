//! WebSockets: connections that have left HTTP, with a Lua handler for each type of message.
//!
//! Comes in: a request whose handler is an endpoint's. Goes out: a 101, then messages in both directions, until either
//! side closes. The protocol is tungstenite's; `websocket.lua` holds what an app declares; `crowd` and `hub` bring a
//! message to many clients, of this worker and of the others. This module must not know of routes, or how requests are
//! answered.

mod client;
mod crowd;
mod functions;
mod handshake;
mod hub;
mod session;
mod wire;

use std::cell::{OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crate::config::WebSocketConfig;
use crate::exchange::context::Contexts;
use crate::exchange::response::Responder;
use crate::observe::metrics::Samples;
use crate::script::tasks::Tasks;

pub(crate) use functions::install;
pub(crate) use hub::Hub;
use rover_lua::Waits;

use client::Client;
use crowd::Crowd;

/// The functions of `websocket.lua` that sessions call, as registry references.
#[derive(Clone, Copy)]
struct Handlers {
    join: i32,
    message: i32,
    leave: i32,
}

/// The WebSockets of one VM.
struct Sockets {
    tasks: Weak<Tasks>,
    contexts: Rc<Contexts>,
    responder: Rc<Responder>,
    waits: Rc<Waits>,
    crowd: Rc<Crowd>,
    handlers: OnceCell<Handlers>,
    settings: RefCell<Rc<WebSocketConfig>>,
}

impl Sockets {
    /// WebSockets whose clients hear of those of other workers through `hub`.
    fn new(
        tasks: &Rc<Tasks>,
        contexts: &Rc<Contexts>,
        responder: &Rc<Responder>,
        waits: &Rc<Waits>,
        hub: Arc<Hub>,
    ) -> Rc<Sockets> {
        Rc::new(Sockets {
            tasks: Rc::downgrade(tasks),
            contexts: contexts.clone(),
            responder: responder.clone(),
            waits: waits.clone(),
            crowd: Crowd::new(hub),
            handlers: OnceCell::new(),
            settings: RefCell::default(),
        })
    }

    /// Sets what was settled after the app had loaded.
    fn settle(&self, settings: &WebSocketConfig) {
        *self.settings.borrow_mut() = Rc::new(settings.clone());
    }

    /// Notes how many clients there are, and what has passed between them and the app.
    fn count(&self, samples: &mut Samples) {
        let totals = &self.crowd.totals;
        samples.gauge("rover_websockets", "WebSockets that are open.", &[], self.crowd.len() as f64);
        for (name, help, total) in [
            ("rover_websockets_opened_total", "WebSockets that were opened.", &totals.opened),
            (
                "rover_websockets_dropped_total",
                "WebSockets that were closed because the client was too slow.",
                &totals.late,
            ),
        ] {
            samples.counter(name, help, &[], total.get() as f64);
        }
        let (name, help) = ("rover_websocket_messages_total", "Messages of WebSockets, from clients and to them.");
        samples.counter(name, help, &[("direction", "in")], totals.received.get() as f64);
        samples.counter(name, help, &[("direction", "out")], totals.sent.get() as f64);
    }

    /// The client whose handler runs, or a task that it started.
    fn current(&self) -> Option<Rc<Client>> {
        self.tasks.upgrade()?.scopes().next()
    }
}
