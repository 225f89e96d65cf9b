//! The requests of one connection, whichever HTTP they came by: what is counted and refused before they are answered.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, StatusCode};

use crate::context::Peer;
use crate::service::{Answer, Site};
use crate::{edge, failure};

/// Who is at the other end of a connection, and what it has asked.
pub(super) struct Client {
    pub(super) site: Rc<Site>,
    pub(super) peer: Rc<Peer>,
    begun: Cell<u64>,
    /// The number of the request after which the connection ends.
    last: u64,
    longest_target: usize,
    redirect: Option<u16>,
}

impl Client {
    pub(super) fn new(site: Rc<Site>, peer: Peer, redirect: Option<u16>) -> Rc<Client> {
        let settings = &site.config.connections;
        let last = match settings.requests_per_connection {
            0 => u64::MAX,
            most => most,
        };
        let longest_target = settings.uri_size_limit;
        Rc::new(Client { site, peer: Rc::new(peer), begun: Cell::new(0), last, longest_target, redirect })
    }

    /// How many requests have come.
    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// Whether the connection has had all the requests that it may bring.
    pub(super) fn is_spent(&self) -> bool {
        self.begun.get() >= self.last
    }

    /// Whether a request is being answered: each holds on to its peer.
    pub(super) fn is_busy(&self) -> bool {
        Rc::strong_count(&self.peer) > 1
    }

    /// Begins to answer a request.
    #[inline]
    pub(super) fn answer<B>(&self, request: Request<B>) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let number = self.begun.get() + 1;
        self.begun.set(number);
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if number >= self.last || target > self.longest_target || self.redirect.is_some() {
            return self.answer_specially(request, target);
        }
        self.site.call(request, &self.peer)
    }

    #[cold]
    fn answer_specially<B>(&self, request: Request<B>, target: usize) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let mut answer = if target > self.longest_target {
            let response = edge::closing(failure::answer(StatusCode::URI_TOO_LONG));
            self.site.refuse(&request, &self.peer, response)
        } else if let Some(port) = self.redirect {
            let response = edge::to_https(&request, port);
            self.site.refuse(&request, &self.peer, response)
        } else {
            self.site.call(request, &self.peer)
        };
        if self.is_spent() {
            answer.close();
        }
        answer
    }
}
