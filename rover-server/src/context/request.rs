//! The requests of one worker that a handler may still ask about.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::HeaderValue;

use crate::lua::Raise;
use crate::route::{Params, RouteId};

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// `None` on a Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// "http", or "https" once TLS is in front.
    pub(crate) scheme: &'static str,
}

/// A request as its handler sees it.
pub(crate) struct Request {
    pub(crate) head: http::request::Parts,
    /// The collected body; `None` where there is none, or where the method has none to collect.
    pub(crate) body: Option<Bytes>,
    /// The route that matched, and where the path holds its parameters; `None` for the app's `not_found`.
    pub(crate) route: Option<(RouteId, Params)>,
    pub(crate) peer: Rc<Peer>,
    /// Set when somebody asked for it; sent back as `X-Request-ID`.
    pub(crate) id: Option<HeaderValue>,
}

impl Request {
    /// The request's id: the client's where it is a sane token, else a new random one.
    pub(crate) fn id(&mut self) -> &HeaderValue {
        let headers = &self.head.headers;
        self.id.get_or_insert_with(|| match headers.get("x-request-id") {
            Some(id) if is_sane_id(id.as_bytes()) => id.clone(),
            _ => new_id(),
        })
    }
}

/// The longest request id that is taken over from a client, in bytes.
const LONGEST_ID: usize = 128;

/// Letters, digits and `-_.:/+=@`: what ids are made of in practice, and nothing that a log could stumble on.
fn is_sane_id(id: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(b))
}

fn new_id() -> HeaderValue {
    let text = format!("{:032x}", fastrand::u128(..));
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// Names a request for as long as it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) slot: u32,
    pub(crate) serial: u64,
}

#[derive(Default)]
struct Slot {
    /// The serial number of the request in this slot; 0 while it is free.
    serial: u64,
    request: Option<Request>,
}

/// The open requests of one worker.
#[derive(Default)]
pub(crate) struct Requests {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    served: Cell<u64>,
}

impl Requests {
    /// Keeps `request` until its ticket is closed.
    #[inline(always)]
    pub(crate) fn open(&self, request: Request) -> Ticket {
        let serial = self.served.get() + 1;
        self.served.set(serial);
        let mut slots = self.slots.borrow_mut();
        let slot = match self.free.borrow_mut().pop() {
            Some(slot) => slot,
            None => {
                slots.push(Slot::default());
                (slots.len() - 1) as u32
            }
        };
        let filled = &mut slots[slot as usize];
        filled.serial = serial;
        filled.request = Some(request);
        Ticket { slot, serial }
    }

    /// Ends a request with a last look at it; `None` when it was closed before.
    ///
    /// `look` must not run Lua code: a context that asks for its request meanwhile is refused.
    #[inline(always)]
    pub(crate) fn close<R>(&self, ticket: Ticket, look: impl FnOnce(&mut Request) -> R) -> Option<R> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(ticket.slot as usize).filter(|slot| slot.serial == ticket.serial)?;
        let seen = slot.request.as_mut().map(look);
        slot.serial = 0;
        slot.request = None;
        self.free.borrow_mut().push(ticket.slot);
        seen
    }

    /// The request of `ticket`.
    ///
    /// # Errors
    /// Raises when the request is over.
    #[inline]
    pub(crate) fn get(&self, ticket: Ticket) -> Result<Ref<'_, Request>, Raise> {
        let slots = self.slots.try_borrow().map_err(|_| busy())?;
        Ref::filter_map(slots, |slots| {
            let slot = slots.get(ticket.slot as usize).filter(|slot| slot.serial == ticket.serial)?;
            slot.request.as_ref()
        })
        .map_err(|_| over())
    }

    /// As [`Requests::get`], to change it.
    pub(crate) fn get_mut(&self, ticket: Ticket) -> Result<RefMut<'_, Request>, Raise> {
        let slots = self.slots.try_borrow_mut().map_err(|_| busy())?;
        RefMut::filter_map(slots, |slots| {
            let slot = slots.get_mut(ticket.slot as usize).filter(|slot| slot.serial == ticket.serial)?;
            slot.request.as_mut()
        })
        .map_err(|_| over())
    }
}

#[cold]
fn over() -> Raise {
    Raise::mistake("this request is over: ctx can be used only until its response is sent")
}

/// A finalizer (`__gc`) that runs while its VM reads a request may find it borrowed.
#[cold]
fn busy() -> Raise {
    Raise::mistake("the request is in use: ctx cannot be used in a finalizer")
}
