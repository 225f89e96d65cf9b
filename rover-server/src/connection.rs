//! One connection from its first byte to its last.
//!
//! Comes in: a transport. Goes out: nothing but bytes. hyper reads and frames the requests, [`Current`] answers them, and
//! the [`Socket`] is flushed once at the end of each turn.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use tokio::time::{Sleep, sleep};

use crate::body::Body;
use crate::context::Peer;
use crate::lifecycle::{Lifecycle, Seat};
use crate::log::{self, Level};
use crate::service::{Answer, Current};
use crate::socket::{Socket, SocketHandle, SpareBuffers, Transport};
use crate::upgrade::{Ending, Upgrade, Upgraded};

/// How long a connection without a request stays open when the server stops. A request that is on its way meanwhile is
/// answered, and its answer says that it was the last.
const LAST_CHANCE: Duration = Duration::from_millis(500);

/// How long a closing connection waits for its client to stop sending, at most.
const LINGER: Duration = Duration::from_secs(2);

struct Requests {
    current: Rc<Current>,
    peer: Rc<Peer>,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer<Incoming>;

    #[inline]
    fn call(&self, request: Request<Incoming>) -> Answer<Incoming> {
        self.current.call(request, &self.peer)
    }
}

/// A connection being served. Ends by itself.
pub(crate) struct Connection {
    /// `None` once the connection has left HTTP.
    http: Option<http1::Connection<SocketHandle, Requests>>,
    socket: Rc<Socket>,
    peer: Rc<Peer>,
    seat: Seat,
    stage: Stage,
}

enum Stage {
    Serving,
    /// The server stops: the next response is the last, and the clock says how long one is waited for.
    Ending(Pin<Box<Sleep>>),
    /// hyper has been told to end.
    Told,
    /// The connection speaks something else.
    Upgraded(Box<Switched>),
    /// The server stops, and the client was not waiting for anything.
    Leaving,
    Closing,
    Lingering(Pin<Box<Sleep>>),
}

/// What an upgraded connection does.
struct Switched {
    work: Pin<Box<dyn Future<Output = ()>>>,
    ending: Ending,
}

impl Switched {
    /// Ready when the work is done. A panic costs this connection alone.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.work.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| {
            log::event(Level::Error, "Rover panicked on an upgraded connection; this is a bug in Rover").emit();
            Poll::Ready(())
        })
    }
}

impl Connection {
    /// Begins to serve `transport`.
    pub(crate) fn new(
        transport: Transport,
        peer: Peer,
        current: Rc<Current>,
        lifecycle: &Rc<Lifecycle>,
        spare: Rc<SpareBuffers>,
    ) -> Connection {
        let socket = Socket::new(transport, spare);
        // hyper decides once for a connection whether it copies head and body together. For small bodies that saves 500
        // instructions a response; 100 KB take 25 % more CPU with it.
        let keeps_bodies_apart = current.site().app.responder.sends_large();
        let peer = Rc::new(peer);
        let requests = Requests { current, peer: peer.clone() };
        let http =
            http1::Builder::new().writev(keeps_bodies_apart).serve_connection(SocketHandle(socket.clone()), requests);
        Connection { http: Some(http), socket, peer, seat: Lifecycle::sit(lifecycle), stage: Stage::Serving }
    }

    /// Hands the connection over; the 101 is written.
    #[cold]
    fn switch(&mut self, upgrade: Upgrade) -> Stage {
        let unread = self.http.take().map(|http| http.into_parts().read_buf).unwrap_or_default();
        let ending = Ending::default();
        let upgraded = Upgraded::new(self.socket.clone(), unread, ending.clone());
        Stage::Upgraded(Box::new(Switched { work: upgrade(upgraded), ending }))
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            match &mut this.stage {
                Stage::Serving | Stage::Ending(_) | Stage::Told => {
                    let Some(http) = &mut this.http else { return Poll::Ready(()) };
                    if matches!(this.stage, Stage::Serving) && this.seat.must_end(cx) {
                        this.stage = Stage::Ending(Box::pin(sleep(LAST_CHANCE)));
                    }
                    if let Stage::Ending(clock) = &mut this.stage
                        && clock.as_mut().poll(cx).is_ready()
                    {
                        this.stage = Stage::Told;
                        Pin::new(&mut *http).graceful_shutdown();
                    }
                    let served = Pin::new(http).poll(cx);
                    if let Poll::Ready(Err(_)) = this.socket.poll_flush(cx) {
                        return Poll::Ready(());
                    }
                    // What hyper reports here is the client's doing, and has been answered where HTTP has an answer.
                    let served = ready!(served);
                    let is_told = matches!(this.stage, Stage::Told);
                    this.stage = match this.peer.upgrade.take() {
                        Some(upgrade) if served.is_ok() => this.switch(upgrade),
                        _ if is_told && served.is_ok() => Stage::Leaving,
                        _ => Stage::Closing,
                    };
                }
                Stage::Upgraded(switched) => {
                    if this.seat.must_end(cx) {
                        switched.ending.tell();
                    }
                    let ended = switched.poll(cx);
                    // Who does the work learns of a failed write when it flushes, or reads.
                    let _ = this.socket.poll_flush(cx);
                    ready!(ended);
                    this.stage = Stage::Closing;
                }
                Stage::Leaving => {
                    let _ = ready!(this.socket.poll_shutdown(cx));
                    // A request that crosses with the end is read, so that the client sees an end and no reset.
                    let _ = this.socket.poll_drain(cx);
                    return Poll::Ready(());
                }
                Stage::Closing => {
                    if ready!(this.socket.poll_shutdown(cx)).is_err() {
                        return Poll::Ready(());
                    }
                    this.stage = Stage::Lingering(Box::pin(sleep(LINGER)));
                }
                Stage::Lingering(clock) => {
                    if clock.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(());
                    }
                    return this.socket.poll_drain(cx);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
