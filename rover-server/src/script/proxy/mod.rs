//! `ctx:proxy` and `api.proxy`: pass a request on to another server, and stream its answer back.
//!
//! Comes in: a request and where it should go. Goes out: a response whose body streams, or one that says why there is none.
//! Neither body is collected here. This module must not know of routes, nor of the connection that the request came on.

mod answer;
mod claims;
mod forward;
mod group;
mod headers;
mod interim;
mod request_body;
mod switch;

use std::cell::RefCell;
use std::future::pending;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use mlua::{Function, Table};
use rover_lua::{OwnedMeta, Shared, Waits, times};
use tokio::time::sleep;

use self::group::Group;
use crate::exchange::context::Contexts;
use crate::exchange::response::Responder;
use crate::log::{self, Level};
use crate::observe::otlp::Tracing;
use crate::outbound::{Client, Figures, Settings, TlsOptions};
use crate::script::vm::Vm;

/// The most ways of speaking TLS whose clients are remembered.
const MOST_CLIENTS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// What the functions of this module share in one VM.
struct Proxy {
    contexts: Rc<Contexts>,
    responder: Rc<Responder>,
    waits: Rc<Waits>,
    /// By how they speak TLS.
    clients: RefCell<LruCache<TlsOptions, Rc<Client>>>,
    figures: Arc<Figures>,
    tracing: Tracing,
    groups: OwnedMeta<Rc<Group>>,
    own: std::rc::Weak<Proxy>,
}

impl Proxy {
    /// The client that speaks TLS so, always in HTTP/1.1: in HTTP/2 there are no upgrades, and no Host beside the one that
    /// is connected to.
    fn client(&self, tls: TlsOptions) -> Rc<Client> {
        let mut clients = self.clients.borrow_mut();
        let new = || {
            let mut settings = Settings::new("proxy");
            settings.tls = TlsOptions { http1_only: true, ..tls.clone() };
            Rc::new(Client::new(settings, &self.figures))
        };
        clients.get_or_insert(tls.clone(), new).clone()
    }
}

/// Settings of one call that are not those of its group of upstreams.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// Until the head of the answer is there, as long as nothing moves.
    timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    /// Between two pieces of the answer's body.
    idle_timeout: Option<Duration>,
    /// Between two pieces of what passes, either way, once the connection has left HTTP.
    tunnel_timeout: Option<Duration>,
    preserves_host: bool,
    forwarded: claims::Forwarding,
    via: bool,
}

/// Ends when `movement` has stayed the same for so long, at most twice as long; never without a limit.
async fn standstill(movement: impl Fn() -> u64, timeout: Option<Duration>) {
    let Some(timeout) = timeout else { return pending().await };
    loop {
        let before = movement();
        sleep(timeout).await;
        if movement() == before {
            return;
        }
    }
}

/// Adds `proxy` to the methods of `ctx` and to the builders.
///
/// `native.proxies` becomes the table of the handlers that leave the body of their request unread.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn install(vm: &Vm) -> mlua::Result<()> {
    let (lua, waits) = (&vm.lua, &vm.waits);
    let meta = lua.create_table()?;
    meta.raw_set("__metatable", false)?;
    let groups = OwnedMeta::new(lua, &meta)?;
    let proxy = Rc::new_cyclic(|own| Proxy {
        contexts: vm.contexts().clone(),
        responder: vm.responder.clone(),
        waits: waits.clone(),
        clients: RefCell::new(LruCache::new(MOST_CLIENTS)),
        figures: vm.figures.clone(),
        tracing: vm.tracing.clone(),
        groups,
        own: own.clone(),
    });
    let shared = Shared::new(lua, proxy)?;
    let own = lua.create_table()?;
    own.raw_set("forward", waits.waiting(lua, shared.function(lua, forward::forward)?)?)?;
    own.raw_set("group", shared.function(lua, group::group)?)?;
    let times = times(lua, |message| log::event(Level::Warn, message).emit())?;
    let (method, builder, proxies): (Function, Function, Table) =
        vm.file("proxy", include_str!("proxy.lua"))?.call((own, &vm.mistake, times))?;
    vm.context.methods.raw_set("proxy", method)?;
    vm.builders.raw_set("proxy", builder)?;
    vm.native.raw_set("proxies", proxies)
}
