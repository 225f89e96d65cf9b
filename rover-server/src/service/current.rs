//! Holds the version of the app that answers a worker's next request.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};

use super::{Answer, Site};
use crate::exchange::context::Peer;
use crate::observe::record::Record;

/// The current version of the app. A connection asks for it at each request, so that it serves a new version with its
/// next request; requests that have begun end in their own version.
pub(crate) struct CurrentSite(RefCell<Rc<Site>>);

impl CurrentSite {
    /// Begins with `site`.
    pub(crate) fn new(site: Rc<Site>) -> Rc<CurrentSite> {
        Rc::new(CurrentSite(RefCell::new(site)))
    }

    /// The site of the next request.
    pub(crate) fn site(&self) -> Rc<Site> {
        self.0.borrow().clone()
    }

    /// Switches the next request to `site`.
    pub(crate) fn switch(&self, site: Rc<Site>) {
        self.0.replace(site);
    }

    /// Begins to answer `request`; `look` sees the head and the body first. The version cannot switch meanwhile,
    /// because that takes a task of its own.
    #[inline(always)]
    pub(crate) fn answer<B>(&self, request: Request<B>, peer: &Rc<Peer>, look: impl FnOnce(&Parts, &B)) -> Answer<B>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        self.0.borrow().answer(request, peer, look)
    }

    /// Writes the log line of a request that could not be read; `head` is what arrived of it.
    #[cold]
    pub(crate) fn record_refusal(&self, peer: &Peer, head: &[u8], status: StatusCode, bytes: u64) {
        let site = self.0.borrow();
        Record::unparsed(&site.config, site.tracer.as_ref(), peer, head, (status, bytes));
    }
}
