//! Who sends a worker's requests: the other end of a connection, and the client behind trusted proxies.
//!
//! Comes in: what the listener and the socket know of a connection. Goes out: what its requests ask about it. Must not
//! know: how a request is answered.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::ClientCertificate;
use crate::message::body::Body;
use crate::message::unread::Unread;
use crate::runtime::budget;
use crate::transport::socket::{Fault, Socket};
use crate::transport::upgrade;

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// `None` on a Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// "http", or "https" once TLS is in front.
    pub(crate) scheme: &'static str,
    /// What the connection becomes after a 101.
    pub(crate) upgrade: upgrade::UpgradeSlot,
    /// The request that comes next, or is being answered, is the connection's last.
    pub(crate) is_last: Cell<bool>,
    /// What is known to be wrong with the body of the request that is being begun.
    pub(crate) body_fault: Cell<Option<&'static str>>,
    /// Where every request is sent, on a connection that only leads to https.
    pub(crate) https_port: Option<u16>,
    /// What the client has shown by TLS.
    pub(crate) certificate: Option<Rc<ClientCertificate>>,
    /// Bodies of requests that are passed on hold on to it; made for the first one. They may be in other tasks.
    passing: OnceCell<Arc<()>>,
    /// The body of the request that is being answered, where nobody has read it before its handler.
    unread: RefCell<Weak<Unread>>,
    /// See [`take_pending_body`](Peer::take_pending_body).
    has_pending_body: Cell<bool>,
    /// The bytes that its requests and their answers hold.
    held: OnceCell<budget::Connection>,
    /// What the connection's bytes go over; not there for requests without a connection.
    socket: Weak<Socket>,
}

impl Peer {
    /// The other end of a connection that speaks HTTP.
    pub(crate) fn new(ip: Option<IpAddr>, scheme: &'static str) -> Peer {
        let (upgrade, passing) = (upgrade::UpgradeSlot::default(), OnceCell::new());
        let (is_last, body_fault) = (Cell::new(false), Cell::new(None));
        Peer {
            ip,
            scheme,
            upgrade,
            is_last,
            body_fault,
            https_port: None,
            certificate: None,
            passing,
            socket: Weak::new(),
            unread: RefCell::default(),
            has_pending_body: Cell::new(false),
            held: OnceCell::new(),
        }
    }

    /// What counts the bytes that the connection holds.
    pub(crate) fn held(&self) -> &budget::Connection {
        self.held.get_or_init(budget::Connection::default)
    }

    /// How often there was no room for a body on the connection, since there last was.
    #[inline]
    pub(crate) fn refused_in_a_row(&self) -> usize {
        self.held.get().map_or(0, budget::Connection::refused_in_a_row)
    }

    /// A request of the connection has a body that is left for whoever asks.
    pub(crate) fn leave(&self, unread: &Rc<Unread>) {
        self.unread.replace(Rc::downgrade(unread));
    }

    /// Whether such a body lies unread while its request is being answered.
    pub(crate) fn has_body_lying(&self) -> bool {
        self.unread.borrow().upgrade().is_some_and(|unread| unread.lies())
    }

    /// `body` is made by Rover itself, without a handler, from a file or from bytes that are here: a client that has closed
    /// its side still gets all of it, and the connection is busy until then.
    pub(crate) fn send_whole(self: &Rc<Peer>, body: &mut Body) {
        body.keep(self.clone(), |peer| peer.has_pending_body.set(true));
    }

    /// Whether such a body had nothing yet when hyper asked it, since this was last asked.
    pub(crate) fn take_pending_body(&self) -> bool {
        self.has_pending_body.take()
    }

    /// The same, reached over `socket`.
    pub(crate) fn over(mut self, socket: &Rc<Socket>) -> Peer {
        self.socket = Rc::downgrade(socket);
        self
    }

    /// Sends an interim answer (1xx) to a client of HTTP/1.1 that waits for its answer. It is left out where the client has
    /// yet to take the answer to an earlier request.
    pub(crate) fn interject(&self, bytes: &[u8]) {
        if let Some(socket) = self.socket.upgrade() {
            socket.interject(bytes);
        }
    }

    /// Tells what is wrong with the body of the request being answered, as far as it has come. HTTP/1 has one at a time.
    pub(crate) fn faults(&self) -> impl Fn() -> Option<&'static str> + 'static {
        let socket = self.socket.clone();
        move || socket.upgrade()?.body_fault().map(Fault::text)
    }

    /// What the body of a request has to keep that is passed on: it may outlast the response.
    pub(crate) fn passing(&self) -> Arc<()> {
        self.passing.get_or_init(Arc::default).clone()
    }

    /// Whether the body of a request is being passed on.
    #[inline]
    pub(crate) fn is_passing(&self) -> bool {
        self.passing.get().is_some_and(|passing| Arc::strong_count(passing) > 1)
    }
}

/// The client behind trusted proxies, as they tell of it.
#[derive(Debug)]
pub(crate) struct ForwardedClient {
    /// `None` on a Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// "http" or "https".
    pub(crate) scheme: &'static str,
    /// The host that it asked for, where that is another one than the request itself says.
    pub(crate) host: Option<Box<str>>,
}
