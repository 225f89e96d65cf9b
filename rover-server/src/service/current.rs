//! The version of the app that a worker's next request goes to.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};

use super::{Answer, Site};
use crate::exchange::context::Peer;
use crate::observe::record::Record;

/// The version of the app that requests go to from now on. A connection asks for it at each request, so that it serves
/// the next version with its next request; what has begun ends in the version where it began.
pub(crate) struct Current(RefCell<Rc<Site>>);

impl Current {
    /// Begins with `site`.
    pub(crate) fn new(site: Rc<Site>) -> Rc<Current> {
        Rc::new(Current(RefCell::new(site)))
    }

    /// The site of the next request.
    pub(crate) fn site(&self) -> Rc<Site> {
        self.0.borrow().clone()
    }

    /// Lets the next request go to `site`.
    pub(crate) fn switch(&self, site: Rc<Site>) {
        self.0.replace(site);
    }

    /// Begins to answer `request`, of which `look` sees the head and the body first. Nothing switches meanwhile, for that takes a task of its own.
    #[inline(always)]
    pub(crate) fn answer<B>(&self, request: Request<B>, peer: &Rc<Peer>, look: impl FnOnce(&Parts, &B)) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        self.0.borrow().answer(request, peer, look)
    }

    /// Writes the line of a request that did not become one: `head` is what came of it.
    #[cold]
    pub(crate) fn record_refusal(&self, peer: &Peer, head: &[u8], status: StatusCode, bytes: u64) {
        let site = self.0.borrow();
        Record::unparsed(&site.config, site.tracer.as_ref(), peer, head, (status, bytes));
    }
}
