//! The answer to one request: what there is at once, or what it still waits for.
//!
//! Comes in: a request that a [`Site`] has begun to answer. Goes out: its response, as a future.

use std::convert::Infallible;
use std::ffi::c_int;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{Site, UNMATCHED, panicked};
use crate::exchange::context::{ForwardedClient, Peer, RequestGuard};
use crate::exchange::failure;
use crate::message::body::Body;
use crate::message::collect::Collect;
use crate::message::unread::{Drain, Remainder, UnreadGuard};
use crate::observe::metrics::{Arrival, RequestMeter};
use crate::observe::record::Record;
use crate::policy::compression::Negotiation;
use crate::policy::http_checks;
use crate::route::RouteId;
use crate::service::handler::Running;
use crate::service::request_policy::PolicyPass;
use crate::transport::lifecycle;

/// The handler that answers a request.
#[derive(Clone, Copy)]
pub(super) struct HandlerCall {
    pub(super) entry: c_int,
    /// The function that runs: the entry's own, or the one that waits for the body between the hooks and the handler.
    pub(super) function: c_int,
    /// It is none of a route.
    pub(super) is_missing: bool,
    /// The connection ends with the response.
    pub(super) close: bool,
}

impl HandlerCall {
    /// The id of the route that answers, as a meter counts it.
    #[inline]
    pub(super) fn route(self) -> usize {
        if self.is_missing { UNMATCHED } else { self.entry as usize - 1 }
    }

    /// The last touch to what a handler answered.
    #[inline(always)]
    pub(super) fn finish(self, response: &mut Option<Response<Body>>) {
        if !self.close {
            return;
        }
        let Some(response) = response else { return };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            http_checks::close(response);
        }
    }
}

/// Where a request stands that has no response yet. What is rare is boxed, for the whole moves at every request.
pub(super) enum AnswerState<B> {
    Collecting(Box<CollectingBody<B>>),
    Running(Box<WaitingHandler>),
    /// What has arrived of a body that nobody has read is dropped, so that the connection can go on.
    Draining(Box<DrainingBody>),
    Over,
}

/// A response that waits for the rest of a body.
pub(super) struct DrainingBody {
    drain: Drain,
    response: Response<Body>,
    site: Rc<Site>,
    /// As [`Ending`] has it.
    pinned: bool,
}

impl DrainingBody {
    /// The response; another one where the body turned out to be wrong.
    fn end(self, is_drained: bool) -> Response<Body> {
        let DrainingBody { drain, mut response, site, pinned } = self;
        if is_drained {
            return response;
        }
        match drain.fault() {
            Some(fault) => {
                response = http_checks::broken_body(fault);
                site.security_headers.add(response.headers_mut(), pinned);
            }
            None => http_checks::close(&mut response),
        }
        response
    }
}

/// A request whose body is on the way.
pub(super) struct CollectingBody<B> {
    pub(super) collect: Collect<B>,
    pub(super) request: RequestGuard,
    pub(super) call: HandlerCall,
    pub(super) ending: Ending,
    pub(super) site: Rc<Site>,
    /// The connection has been asked for the body.
    pub(super) is_asked: bool,
}

/// A request whose handler waits.
pub(super) struct WaitingHandler {
    pub(super) running: Box<Running>,
    pub(super) call: HandlerCall,
    pub(super) ending: Ending,
    pub(super) site: Rc<Site>,
}

/// What the end of a request needs to know of its beginning.
pub(super) struct Ending {
    /// What the policies add to the response.
    pub(super) pass: Option<Box<PolicyPass>>,
    /// The response goes over TLS, to a host that browsers may bind to it.
    pub(super) pinned: bool,
    /// The request is HEAD: hyper leaves the length of a body out that has none.
    pub(super) is_head: bool,
    /// The request's body, where it was not collected before its handler.
    pub(super) unread: Option<UnreadGuard>,
}

/// A response to come. Dropping it ends the handler, if one waits.
pub(crate) struct Answer<B> {
    /// What most requests have at once.
    pub(super) response: Option<Response<Body>>,
    pub(super) stage: AnswerState<B>,
    notes: Option<Box<ResponseNotes>>,
}

/// What is noted of a request for its response; plain requests have none.
#[derive(Default)]
pub(super) struct ResponseNotes {
    pub(super) negotiation: Option<Negotiation>,
    /// Whose request it is, where the response may be compressed.
    pub(super) peer: Option<Rc<Peer>>,
    /// The response is none of a handler's.
    is_unaided: bool,
    pub(super) record: Option<Box<Record>>,
}

impl<B> Answer<B> {
    /// Nothing is known yet.
    #[inline(always)]
    pub(super) fn begin() -> Answer<B> {
        Answer { response: None, stage: AnswerState::Over, notes: None }
    }

    /// To note something.
    #[cold]
    pub(super) fn notes(&mut self) -> &mut ResponseNotes {
        self.notes.get_or_insert_default()
    }

    #[inline]
    fn record(&mut self) -> Option<&mut Record> {
        self.notes.as_mut().and_then(|notes| notes.record.as_deref_mut())
    }

    /// The handler waits. Meanwhile nothing is held of the connection's read buffer.
    #[cold]
    pub(super) fn wait(&mut self, waiting: WaitingHandler) {
        if let Some(record) = self.record() {
            record.let_go(waiting.running.uri());
        }
        self.stage = AnswerState::Running(Box::new(waiting));
    }

    /// Notes whom trusted proxies told of.
    #[cold]
    pub(super) fn came_from(&mut self, client: &Option<Rc<ForwardedClient>>) {
        if let Some(record) = self.record() {
            record.came_from(client.clone());
        }
    }

    /// Notes which route answers.
    #[cold]
    pub(super) fn routed(&mut self, route: Option<RouteId>) {
        if let (Some(record), Some(route)) = (self.record(), route) {
            record.routed(route);
        }
    }

    /// What is left of the request's body goes before the response: it is drained, or the connection ends.
    #[cold]
    pub(super) fn part(&mut self, unread: &UnreadGuard, site: &Rc<Site>, pinned: bool) {
        match unread.left() {
            Remainder::Nothing => {}
            Remainder::Unknown => {
                if let Some(response) = &mut self.response {
                    http_checks::close(response);
                }
            }
            Remainder::Some(drain) => {
                if let Some(response) = self.response.take() {
                    self.stage =
                        AnswerState::Draining(Box::new(DrainingBody { drain, response, site: site.clone(), pinned }));
                }
            }
        }
    }

    /// The response is a file on its way: the connection is busy until its last piece.
    #[cold]
    pub(super) fn unaided(&mut self, response: &mut Response<Body>, peer: &Rc<Peer>) {
        peer.send_whole(response.body_mut());
        if let Some(notes) = &mut self.notes {
            notes.is_unaided = true;
        }
    }

    /// Counts it when the request is over, where requests are counted.
    #[inline]
    pub(super) fn follow(&mut self, meter: Option<&Rc<RequestMeter>>, arrival: Option<Arrival>, route: usize) {
        if let (Some(meter), Some(arrival)) = (meter, arrival) {
            let record = self.notes().record.get_or_insert_with(Record::silent);
            record.follow(meter.follow(arrival, route));
        }
    }
}

impl ResponseNotes {
    /// Does to a response what was noted for it.
    #[cold]
    fn apply(self, response: Response<Body>) -> Response<Body> {
        let response = match (self.negotiation, self.peer) {
            (Some(negotiation), Some(peer)) => {
                let is_unaided = self.is_unaided || !matches!(response.body(), Body::Stream(_));
                let mut response = negotiation.apply(response);
                if is_unaided {
                    peer.send_whole(response.body_mut());
                }
                response
            }
            _ => response,
        };
        match self.record {
            Some(record) => record.at_end(response),
            None => response,
        }
    }
}

impl<B> Drop for Answer<B> {
    /// The client went away: where its handler waited is known as long as that is not cancelled.
    #[inline]
    fn drop(&mut self) {
        if let (AnswerState::Running(waiting), Some(notes)) = (&mut self.stage, &mut self.notes)
            && let Some(record) = &mut notes.record
        {
            record.waited(waiting.running.longest_wait());
        }
    }
}

impl<B> Answer<B> {
    /// The response is there, but for what every one carries.
    fn end(&mut self, site: &Rc<Site>, mut ending: Ending) {
        let (unread, pinned) = (ending.unread.take(), ending.pinned);
        if let Some(fault) = unread.as_ref().and_then(UnreadGuard::fault) {
            // Whatever the handler has made of it: nothing of the answer is on its way yet.
            self.response = Some(http_checks::broken_body(fault));
        }
        site.finish(&mut self.response, ending);
        if let Some(unread) = unread {
            self.part(&unread, site, pinned);
        }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin + Send + 'static> Answer<B> {
    /// Goes on where there is no response yet.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                AnswerState::Collecting(collecting) => {
                    let collected = match collecting.collect.poll(cx) {
                        Poll::Ready(collected) => Some(collected),
                        Poll::Pending if !collecting.is_late() => return Poll::Pending,
                        Poll::Pending if !std::mem::replace(&mut collecting.is_asked, true) => {
                            // Asked again when the connection has looked at what it has received.
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Poll::Pending => None,
                    };
                    let AnswerState::Collecting(collecting) = std::mem::replace(&mut self.stage, AnswerState::Over)
                    else {
                        return Poll::Ready(());
                    };
                    let is_late = collecting.is_late();
                    let CollectingBody { request, mut call, mut ending, site, collect, .. } = *collecting;
                    match collected {
                        Some(Ok(body)) => {
                            request.look(|request| request.receive(body, collect.is_coded()));
                        }
                        Some(Err(status)) if !is_late => {
                            let fault = request.look(|request| request.peer.faults()()).flatten();
                            self.response = Some(match fault.filter(|_| status == StatusCode::BAD_REQUEST) {
                                Some(fault) => http_checks::broken_body(fault),
                                None => http_checks::closing(failure::refusal(status)),
                            });
                        }
                        other => site.defer(&request, collect, other.and_then(Result::err), &mut call, &mut ending),
                    }
                    if self.response.is_none()
                        && let Some(running) = site.start(request, call, &mut self.response)
                    {
                        self.wait(WaitingHandler { running, call, ending, site });
                        continue;
                    }
                    self.end(&site, ending);
                    if self.response.is_some() {
                        return Poll::Ready(());
                    }
                }
                AnswerState::Running(waiting) => {
                    let running = Pin::new(&mut *waiting.running);
                    let mut response = match catch_unwind(AssertUnwindSafe(|| running.poll(cx))) {
                        Ok(Poll::Pending) => return Poll::Pending,
                        Ok(Poll::Ready(response)) => response,
                        Err(_) => Some(panicked()),
                    };
                    let AnswerState::Running(mut waiting) = std::mem::replace(&mut self.stage, AnswerState::Over)
                    else {
                        return Poll::Ready(());
                    };
                    waiting.call.finish(&mut response);
                    self.response = response;
                    self.end(&waiting.site, waiting.ending);
                    if let Some(record) = self.record() {
                        record.waited(waiting.running.longest_wait());
                    }
                }
                AnswerState::Draining(draining) => {
                    let is_drained = ready!(draining.drain.poll(cx));
                    let AnswerState::Draining(draining) = std::mem::replace(&mut self.stage, AnswerState::Over) else {
                        return Poll::Ready(());
                    };
                    self.response = Some(draining.end(is_drained));
                }
                AnswerState::Over => return Poll::Ready(()),
            }
        }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin + Send + 'static> Future for Answer<B> {
    type Output = Result<Response<Body>, Infallible>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.response.is_none() {
            ready!(self.poll_response(cx));
        }
        // In its place, for a response that is changed here would be moved once more.
        if lifecycle::is_ending()
            && let Some(response) = &mut self.response
        {
            http_checks::close(response);
        }
        if let Some(notes) = self.notes.take() {
            self.response = self.response.take().map(|response| notes.apply(response));
        }
        match self.response.take() {
            Some(response) => Poll::Ready(Ok(response)),
            None => Poll::Ready(Ok(failure::answer(StatusCode::INTERNAL_SERVER_ERROR))),
        }
    }
}
