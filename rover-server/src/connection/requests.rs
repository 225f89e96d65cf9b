//! Counts the requests of one connection, of any version of HTTP, against `requests_per_connection`.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use http::Request;
use http::request::Parts;

use crate::exchange::context::Peer;
use crate::service::{Answer, CurrentSite};

/// The client of a connection, and its requests.
pub(super) struct ConnectedClient {
    pub(super) current: Rc<CurrentSite>,
    pub(super) peer: Rc<Peer>,
    begun: Cell<u64>,
    /// The number of the request after which the connection ends.
    last: u64,
}

impl ConnectedClient {
    pub(super) fn new(current: Rc<CurrentSite>, peer: Peer) -> Rc<ConnectedClient> {
        let last = match current.site().config.connections.requests_per_connection {
            0 => u64::MAX,
            most => most,
        };
        Rc::new(ConnectedClient { current, peer: Rc::new(peer), begun: Cell::new(0), last })
    }

    /// How many requests have come.
    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Whether the connection has had all its requests.
    pub(super) fn is_spent(&self) -> bool {
        self.begun.get() >= self.last
    }

    /// Whether a request is being answered: each holds on to its peer.
    pub(super) fn is_busy(&self) -> bool {
        Rc::strong_count(&self.peer) > 1
    }

    /// Whether the answer to the last request is a switch to another protocol, or may become one.
    pub(super) fn may_switch(&self) -> bool {
        self.is_busy() || self.peer.upgrade.is_full()
    }

    /// Whether the body of a request is being passed on.
    #[inline]
    pub(super) fn is_passing(&self) -> bool {
        self.peer.is_passing()
    }

    /// Begins to answer a request, of which `look` sees the head and the body first.
    #[inline(always)]
    pub(super) fn answer<B>(&self, request: Request<B>, look: impl FnOnce(&Parts, &B)) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let number = self.begun.get() + 1;
        self.begun.set(number);
        if number >= self.last {
            self.peer.is_last.set(true);
        }
        self.current.answer(request, &self.peer, look)
    }
}
