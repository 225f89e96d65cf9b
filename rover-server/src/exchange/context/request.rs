//! The requests of one worker that a handler may still ask about.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::ffi::c_void;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Response};
use rover_lua::Raise;

use super::{ForwardedClient, Peer};
use crate::message::body::Body;
use crate::message::unread::Unread;
use crate::route::{NamedValue, Params, RouteId};

/// What guards a path beyond that which its route says.
#[derive(Default)]
pub(crate) struct Guarded {
    /// The places whose hooks run, as `chain.lua` knows them.
    pub(crate) key: String,
    /// The values of their parameters.
    pub(crate) values: Vec<NamedValue>,
    /// What is answered if they let the request pass and no handler answers it.
    pub(crate) response: Option<Response<Body>>,
    /// Nothing is there, as far as hooks have let the request pass: an answer that names no status has 404.
    pub(crate) is_missing: bool,
}

/// A request as its handler sees it.
pub(crate) struct Request {
    pub(crate) head: http::request::Parts,
    /// The collected body; `None` where there is none, or as long as it is unread.
    pub(crate) body: Option<Bytes>,
    /// The body of a request that was not collected before its handler.
    pub(crate) unread: Option<Rc<Unread>>,
    /// The route that matched, and where the path holds its parameters; `None` for the app's `not_found`.
    pub(crate) route: Option<(RouteId, Params)>,
    /// What is known of the hooks of its path, where that depends on the path.
    pub(crate) guarded: Option<Box<Guarded>>,
    pub(crate) peer: Rc<Peer>,
    /// Set where trusted proxies told of somebody behind the peer.
    pub(crate) client: Option<Rc<ForwardedClient>>,
    /// Set when somebody asked for it; sent back as `X-Request-ID`.
    pub(crate) id: Option<HeaderValue>,
    /// What the answer carries besides, whoever makes it.
    pub(crate) told: Option<Box<HeaderMap>>,
    /// What its handler has opened.
    opened: Option<Box<OpenedResources>>,
}

/// Something that a handler opens for its request, such as a connection to an upstream: it ends with the request, unless
/// it has become part of the answer.
pub(crate) trait Close {
    /// Lets go of it. Must not run Lua code.
    fn close(&self);
}

/// What is to be closed when this is dropped.
struct OpenedResources(Vec<Rc<dyn Close>>);

impl Drop for OpenedResources {
    fn drop(&mut self) {
        self.0.iter().for_each(|one| one.close());
    }
}

impl Request {
    /// The client's address; `None` on a Unix socket.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.client.as_ref().map_or(self.peer.ip, |client| client.ip)
    }

    /// "http" or "https", as the client speaks it.
    #[inline]
    pub(crate) fn scheme(&self) -> &'static str {
        self.client.as_ref().map_or(self.peer.scheme, |client| client.scheme)
    }

    /// The request's id: the client's where it is a sane token, else a new random one.
    pub(crate) fn id(&mut self) -> &HeaderValue {
        let headers = &self.head.headers;
        self.id.get_or_insert_with(|| sent_id(headers).cloned().unwrap_or_else(new_id))
    }
}

impl Request {
    /// Has `one` closed when the request is over.
    #[cold]
    pub(crate) fn opens(&mut self, one: Rc<dyn Close>) {
        self.opened.get_or_insert_with(|| Box::new(OpenedResources(Vec::new()))).0.push(one);
    }

    /// Copies what lies in the connection's read buffer, so that the buffer is free again while a handler waits: it is
    /// 8 KB large, the part of the head that is copied mostly a few hundred bytes, and hyper takes another one when this
    /// one is in use. Measured with 10 000 handlers asleep.
    #[cold]
    pub(crate) fn detach(&mut self) {
        let uri = &mut self.head.uri;
        if uri.authority().is_none()
            && let Some(target) = uri.path_and_query()
            && let Ok(own) = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(target.as_str().as_bytes()))
        {
            *uri = own.into();
        }
        let values = self.head.headers.values();
        let mut copy = Vec::with_capacity(values.map(HeaderValue::len).sum());
        self.head.headers.values().for_each(|value| copy.extend_from_slice(value.as_bytes()));
        let mut copy = Bytes::from(copy);
        for value in self.head.headers.values_mut() {
            // What hyper has let through may not pass here; then it stays where it is.
            if let Ok(own) = HeaderValue::from_maybe_shared(copy.split_to(value.len())) {
                *value = own;
            }
        }
        if let Some(body) = self.body.as_mut().filter(|body| body.len() <= MOST_COPIED) {
            *body = Bytes::copy_from_slice(body);
        }
    }
}

impl Request {
    /// Takes over the body that was collected while a handler waited for it; `is_coded` as it came.
    pub(crate) fn collected(&mut self, body: Bytes, is_coded: bool) {
        let body = match body.len() {
            0 => None,
            1..=MOST_COPIED => Some(Bytes::copy_from_slice(&body)),
            _ => Some(body),
        };
        self.receive(body, is_coded);
    }

    /// Takes over the body. The handler gets plain bytes, and may get another number of them than were sent.
    pub(crate) fn receive(&mut self, body: Option<Bytes>, is_coded: bool) {
        self.body = body;
        if is_coded {
            self.head.headers.remove(CONTENT_ENCODING);
            self.head.headers.remove(CONTENT_LENGTH);
        }
    }

    /// Whether the client is being waited for, to send more of the body.
    pub(crate) fn is_receiving(&self) -> bool {
        self.unread.as_ref().is_some_and(|unread| unread.is_awaited())
    }
}

/// The largest body that is copied out of the read buffer, where only small ones lie.
const MOST_COPIED: usize = 8 * 1024;

/// The longest request id that is taken over from a client, in bytes.
const LONGEST_ID: usize = 128;

/// Letters, digits and `-_.:/+=@`: what ids are made of in practice, and nothing that a log could stumble on.
fn is_sane_id(id: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(b))
}

/// The id that the client gave its request, where that is a sane token.
pub(crate) fn sent_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get("x-request-id").filter(|id| is_sane_id(id.as_bytes()))
}

/// A random id for a request.
pub(crate) fn new_id() -> HeaderValue {
    let text = format!("{:032x}", fastrand::u128(..));
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// Names a request for as long as it lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestKey {
    pub(crate) slot: u32,
    pub(crate) serial: u64,
}

#[derive(Default)]
struct RequestSlot {
    /// The serial number of the request in this slot; 0 while it is free.
    serial: u64,
    request: Option<Request>,
}

/// The context of the handler that runs at the moment, by its identity, and the request behind it.
///
/// The handler's coroutine holds the object, so its identity is nobody else's as long as it stands here.
#[derive(Clone, Copy)]
pub(crate) struct CurrentContext {
    pub(super) context: *const c_void,
    pub(super) request_key: RequestKey,
}

impl CurrentContext {
    /// A handler without a context, or no handler at all.
    pub(crate) const NONE: CurrentContext =
        CurrentContext { context: std::ptr::null(), request_key: RequestKey { slot: 0, serial: 0 } };

    /// A handler that takes no context.
    #[inline]
    pub(crate) fn without_context(request_key: RequestKey) -> CurrentContext {
        CurrentContext { context: std::ptr::null(), request_key }
    }
}

/// The open requests of one worker.
pub(crate) struct Requests {
    slots: RefCell<Vec<RequestSlot>>,
    free: RefCell<Vec<u32>>,
    served: Cell<u64>,
    current: Cell<CurrentContext>,
    /// The body of the request whose answer is being made: nobody else can look at the request meanwhile.
    answered: RefCell<Option<(RequestKey, Bytes)>>,
}

impl Default for Requests {
    fn default() -> Requests {
        Requests {
            slots: RefCell::default(),
            free: RefCell::default(),
            served: Cell::default(),
            current: Cell::new(CurrentContext::NONE),
            answered: RefCell::default(),
        }
    }
}

impl Requests {
    /// Keeps a request until what this gives is dropped. `prepare` gets its head there first.
    ///
    /// The request is put together in its slot, for each move of it costs.
    #[inline(always)]
    pub(crate) fn open(
        self: &Rc<Self>,
        head: Parts,
        peer: &Rc<Peer>,
        prepare: impl FnOnce(&mut Parts),
    ) -> RequestGuard {
        let serial = self.served.get() + 1;
        self.served.set(serial);
        let mut slots = self.slots.borrow_mut();
        let slot = match self.free.borrow_mut().pop() {
            Some(slot) => slot,
            None => {
                slots.push(RequestSlot::default());
                (slots.len() - 1) as u32
            }
        };
        let filled = &mut slots[slot as usize];
        filled.serial = serial;
        filled.request = Some(Request {
            head,
            body: None,
            unread: None,
            route: None,
            guarded: None,
            peer: peer.clone(),
            client: None,
            id: None,
            told: None,
            opened: None,
        });
        // What `insert` gives would be put together elsewhere first.
        if let Some(request) = &mut filled.request {
            prepare(&mut request.head);
        }
        RequestGuard { requests: self.clone(), request_key: RequestKey { slot, serial } }
    }

    /// Says whose handler runs from now on.
    #[inline]
    pub(crate) fn enter(&self, current: CurrentContext) {
        self.current.set(current);
    }

    /// Looks at the request whose handler runs. `None` where what runs is no handler.
    #[cfg(feature = "otlp")]
    pub(crate) fn running<R>(&self, look: impl FnOnce(&Request) -> R) -> Option<R> {
        let request = self.get(self.current.get().request_key).ok()?;
        Some(look(&request))
    }

    /// The request of the running handler, if `context` is the identity of its context.
    #[inline]
    pub(super) fn current(&self, context: *const c_void) -> Option<RequestKey> {
        let current = self.current.get();
        (current.context == context && !context.is_null()).then_some(current.request_key)
    }

    /// The request of `request_key`.
    ///
    /// # Errors
    /// Raises when the request is over.
    #[inline]
    pub(crate) fn get(&self, request_key: RequestKey) -> Result<Ref<'_, Request>, Raise> {
        let slots = self.slots.try_borrow().map_err(|_| busy())?;
        Ref::filter_map(slots, |slots| {
            let slot = slots.get(request_key.slot as usize).filter(|slot| slot.serial == request_key.serial)?;
            slot.request.as_ref()
        })
        .map_err(|_| over())
    }

    /// The body of the request of `request_key`; `None` once the request is over.
    pub(super) fn body(&self, request_key: RequestKey) -> Option<Bytes> {
        if let Ok(slots) = self.slots.try_borrow() {
            let slot = slots.get(request_key.slot as usize).filter(|slot| slot.serial == request_key.serial)?;
            return slot.request.as_ref()?.body.clone();
        }
        let answered = self.answered.try_borrow().ok()?;
        answered.as_ref().filter(|(known, _)| *known == request_key).map(|(_, body)| body.clone())
    }

    /// As [`Requests::get`], to change it.
    #[inline]
    pub(crate) fn get_mut(&self, request_key: RequestKey) -> Result<RefMut<'_, Request>, Raise> {
        let slots = self.slots.try_borrow_mut().map_err(|_| busy())?;
        RefMut::filter_map(slots, |slots| {
            let slot = slots.get_mut(request_key.slot as usize).filter(|slot| slot.serial == request_key.serial)?;
            slot.request.as_mut()
        })
        .map_err(|_| over())
    }
}

/// A request in its slot. Dropping it ends the request: a context that was kept finds nothing from then on.
pub(crate) struct RequestGuard {
    requests: Rc<Requests>,
    request_key: RequestKey,
}

impl RequestGuard {
    /// What the request's context knows it by.
    #[inline]
    pub(crate) fn request_key(&self) -> RequestKey {
        self.request_key
    }

    /// Looks at the request for the last time, while its answer is made of what its handler returned: its body may be part
    /// of that.
    #[inline(always)]
    pub(crate) fn look_last<R>(&self, look: impl FnOnce(&mut Request) -> R) -> Option<R> {
        self.look(|request| {
            let _lent = request.body.take().map(|body| LentBody::new(&self.requests, self.request_key, body));
            look(request)
        })
    }

    /// Looks at the request, or changes it.
    ///
    /// `look` must not run Lua code: a context that asks for its request meanwhile is refused.
    #[inline(always)]
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Request) -> R) -> Option<R> {
        let mut request = self.requests.get_mut(self.request_key).ok()?;
        Some(look(&mut request))
    }
}

impl Drop for RequestGuard {
    #[inline]
    fn drop(&mut self) {
        // Nobody looks at a request while it is dropped; if somebody did, its slot would only stay taken.
        let Ok(mut slots) = self.requests.slots.try_borrow_mut() else { return };
        let mut opened = None;
        if let Some(slot) = slots.get_mut(self.request_key.slot as usize) {
            slot.serial = 0;
            opened = slot.request.as_mut().and_then(|request| request.opened.take());
            slot.request = None;
            self.requests.free.borrow_mut().push(self.request_key.slot);
        }
        // Whatever that sets off finds the requests in order.
        drop(slots);
        drop(opened);
    }
}

/// The body of a request while its answer is made. Dropped, it is gone.
struct LentBody<'a>(&'a Requests);

impl LentBody<'_> {
    fn new(requests: &Requests, request_key: RequestKey, body: Bytes) -> LentBody<'_> {
        requests.answered.replace(Some((request_key, body)));
        LentBody(requests)
    }
}

impl Drop for LentBody<'_> {
    fn drop(&mut self) {
        self.0.answered.take();
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
