//! Serves one connection from its first byte to its last.
//!
//! Comes in: a transport. Goes out: bytes. hyper reads and frames the requests, [`CurrentSite`] answers them, and the
//! [`Socket`] is flushed once at the end of each turn. TLS has negotiated the version of HTTP, or the first bytes show
//! it.

mod final_flush;
mod http1;
mod http2;
mod refusal;
mod requests;
mod tls;
mod watch;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Sleep, sleep};

use crate::exchange::context::Peer;
use crate::listen::admission::ConnectionPermit;
use crate::log::{self, Level};
use crate::runtime::turn;
use crate::service::CurrentSite;
use crate::transport::lifecycle::{ConnectionSlot, Lifecycle};
use crate::transport::socket::{Agreed, Socket, SpareBuffers, Spoken, Transport};
use crate::transport::upgrade::{ShutdownNotice, Upgrade, Upgraded};

use requests::ConnectedClient;
pub(crate) use tls::{HandshakeOutcome, handshake, refuse_plain};
pub(crate) use watch::tick;
use watch::{ExpiredTimeout, TimeoutWatch};

/// How long a connection without a request stays open when the server stops. A request that arrives meanwhile is
/// answered, and its answer says that it is the last.
const LAST_CHANCE: Duration = Duration::from_millis(500);

/// A connection being served. Ends by itself.
pub(crate) struct Connection {
    http: Http,
    socket: Rc<Socket>,
    client: Rc<ConnectedClient>,
    stage: Stage,
    slot: ConnectionSlot,
    watch: TimeoutWatch,
    /// Nobody knows yet which HTTP the client speaks.
    is_opening: bool,
    /// The connection's place under the connection limits.
    permit: Option<ConnectionPermit>,
}

/// The version of HTTP. The second is boxed, so that a connection of the first, the usual one, takes no more memory
/// than it needs.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and saves an allocation")]
enum Http {
    One(http1::Http1),
    Two(http2::Http2),
    /// The connection has left HTTP, or its client has left.
    Ended,
}

enum Stage {
    Serving,
    /// The server stops: the next response is the last, and the clock says how long a request is waited for.
    LastRequest(Pin<Box<Sleep>>),
    /// hyper has been told to end with the responses in progress.
    Draining,
    /// The connection speaks something else.
    Upgraded(Box<UpgradedConnection>),
    /// The last bytes are sent; see [`final_flush`].
    FinalFlush(Pin<Box<dyn Future<Output = ()>>>),
    /// The client takes nothing: the connection is dropped.
    Aborted,
}

/// What an upgraded connection does.
struct UpgradedConnection {
    work: Pin<Box<dyn Future<Output = ()>>>,
    shutdown: ShutdownNotice,
}

impl UpgradedConnection {
    /// Ready when the work is done. A panic ends only this connection.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.work.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| {
            log::event(Level::Error, "Rover panicked on an upgraded connection; this is a bug in Rover").emit();
            Poll::Ready(())
        })
    }
}

impl Connection {
    /// Begins to serve `transport`, on which the client has agreed to speak a certain HTTP, or nothing yet.
    pub(crate) fn new(
        transport: Transport,
        peer: Peer,
        agreed: Agreed,
        current: Rc<CurrentSite>,
        lifecycle: &Rc<Lifecycle>,
        spare: Rc<SpareBuffers>,
    ) -> Connection {
        let agreed = if current.site().config.http2.enabled { agreed } else { Agreed::Http1 };
        let socket = Socket::new(transport, agreed, spare, current.site().config.connections.is_lenient);
        let client = ConnectedClient::new(current, peer.over(&socket));
        let http = match agreed {
            Agreed::Http2 => Http::Two(http2::serve(&socket, &client)),
            Agreed::Http1 | Agreed::Nothing => Http::One(http1::serve(&socket, &client)),
        };
        Connection {
            http,
            socket,
            client,
            stage: Stage::Serving,
            slot: Lifecycle::add(lifecycle),
            watch: TimeoutWatch::default(),
            is_opening: agreed != Agreed::Http1,
            permit: None,
        }
    }

    /// Keeps `permit` for as long as the connection lasts.
    pub(crate) fn keeping(mut self, permit: ConnectionPermit) -> Connection {
        self.permit = Some(permit);
        self
    }

    /// Serves HTTP. Ready when the connection is at another stage, or hyper is to be asked again.
    #[inline]
    fn poll_serving(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_signalled = self.slot.is_signalled(cx);
        if is_signalled && matches!(self.stage, Stage::Serving) && self.slot.must_end() {
            self.begin_drain();
        }
        if let Stage::LastRequest(clock) = &mut self.stage
            && clock.as_mut().poll(cx).is_ready()
        {
            self.drain();
        }
        let is_half_closed = self.socket.has_ended();
        if is_half_closed {
            // Forgets what was noted while the client was still sending.
            self.client.peer.take_pending_body();
        }
        let served = self.poll_http(cx);
        if is_half_closed {
            self.socket.hold_end(cx, self.client.peer.take_pending_body());
        }
        if self.is_opening && self.open() {
            return Poll::Ready(());
        }
        if let Poll::Ready(Err(error)) = &served {
            self.explain(error);
        }
        if let Http::Two(_) = self.http
            && served.is_pending()
            && http2::is_flooding(&self.client)
        {
            http2::refuse_flood(&self.socket);
            self.close();
            return Poll::Ready(());
        }
        if let Poll::Ready(Err(_)) = self.socket.poll_flush(cx) {
            self.stage = Stage::Aborted;
            return Poll::Ready(());
        }
        self.watch.note(&self.client, &self.socket);
        if served.is_pending() && is_signalled && self.look_around() {
            return Poll::Ready(());
        }
        served.map(|served| self.end_http(served.is_ok()))
    }

    /// Lets hyper go on.
    #[inline]
    fn poll_http(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match &mut self.http {
            Http::One(http) => Pin::new(http).poll(cx),
            Http::Two(http) => http.poll(cx, &self.client),
            Http::Ended => Poll::Ready(Ok(())),
        }
    }

    /// Lets the upgraded protocol go on. Ready when it has ended.
    fn poll_upgraded(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Upgraded(upgraded) = &mut self.stage else { return Poll::Ready(()) };
        if self.slot.must_end() {
            upgraded.shutdown.tell();
        }
        let ended = upgraded.poll(cx);
        // The upgraded protocol learns of a failed write when it flushes or reads.
        let _ = self.socket.poll_flush(cx);
        ready!(ended);
        self.stage = Stage::FinalFlush(Box::pin(final_flush::close_upgraded(self.socket.clone())));
        Poll::Ready(())
    }

    /// hyper is done, with success if `is_ok`. Its errors are caused by the client, and have been answered if HTTP has an
    /// answer.
    #[cold]
    fn end_http(&mut self, is_ok: bool) {
        // A client of HTTP/2 may still be about to say that it has had its last answer.
        let was_drained = matches!((&self.stage, &self.http), (Stage::Draining, Http::One(_)));
        match self.client.peer.upgrade.take() {
            Some(upgrade) if is_ok => self.switch(upgrade),
            _ if was_drained && is_ok => self.leave(),
            _ => self.close(),
        }
    }

    /// Hands the connection over to its upgrade, after the 101 has been written.
    #[cold]
    fn switch(&mut self, upgrade: Upgrade) {
        let unread = match std::mem::replace(&mut self.http, Http::Ended) {
            Http::One(http) => http.into_parts().read_buf,
            Http::Two(_) | Http::Ended => Bytes::new(),
        };
        let unread = match self.socket.take_rest() {
            rest if rest.is_empty() => unread,
            rest => [&unread[..], &rest].concat().into(),
        };
        self.slot.wake_at(u64::MAX);
        let shutdown = ShutdownNotice::default();
        let upgraded = Upgraded::new(self.socket.clone(), unread, shutdown.clone());
        self.stage = Stage::Upgraded(Box::new(UpgradedConnection { work: upgrade(upgraded), shutdown }));
    }

    /// The server stops. HTTP/2 can say so at any time, HTTP/1 only with a response.
    #[cold]
    fn begin_drain(&mut self) {
        match self.http {
            Http::Two(_) => self.drain(),
            Http::One(_) | Http::Ended => self.stage = Stage::LastRequest(Box::pin(sleep(LAST_CHANCE))),
        }
    }

    /// Ends HTTP with the responses in progress.
    #[cold]
    fn drain(&mut self) {
        self.stage = Stage::Draining;
        match &mut self.http {
            Http::One(http) => Pin::new(http).graceful_shutdown(),
            Http::Two(http) => http.graceful_shutdown(),
            Http::Ended => {}
        }
    }

    /// Sends what is left, and ends the connection when the client has taken it.
    #[cold]
    fn close(&mut self) {
        let flush = final_flush::flush_and_linger(self.socket.clone(), self.send_timeout());
        self.stage = Stage::FinalFlush(Box::pin(flush));
    }

    /// As [`close`](Connection::close), where the client was not waiting for anything.
    #[cold]
    fn leave(&mut self) {
        let flush = final_flush::flush_and_leave(self.socket.clone(), self.send_timeout());
        self.stage = Stage::FinalFlush(Box::pin(flush));
    }

    fn send_timeout(&self) -> Duration {
        self.client.current.site().config.connections.send_timeout
    }

    /// Looks at the first bytes, if they have arrived; true if another protocol reads on.
    #[cold]
    fn open(&mut self) -> bool {
        match (self.socket.spoken(), &self.http) {
            (None, _) => false,
            (Some(Spoken::Http2), Http::One(_)) => {
                self.is_opening = false;
                self.http = Http::Two(http2::serve(&self.socket, &self.client));
                true
            }
            (Some(Spoken::Neither), _) => {
                self.is_opening = false;
                self.socket.edit(http2::refuse_preface);
                self.close();
                true
            }
            (Some(_), _) => {
                self.is_opening = false;
                false
            }
        }
    }

    /// Explains to the client and the log what hyper could not parse.
    #[cold]
    fn explain(&mut self, error: &hyper::Error) {
        if let Http::One(http) = &mut self.http
            && error.is_parse()
        {
            http1::explain(http, &self.socket, &self.client, error);
        }
    }

    /// Ends what has taken too long; true when the stage is another one now, or hyper is to be asked again.
    #[cold]
    fn look_around(&mut self) -> bool {
        let is_draining = matches!(self.stage, Stage::Draining);
        let is_body_lying = self.client.peer.has_body_lying();
        if is_body_lying && self.socket.has_left() {
            // hyper would notice only when somebody read on.
            self.http = Http::Ended;
            self.close();
            return true;
        }
        let is_http2 = matches!(self.http, Http::Two(_)) && !self.is_opening;
        let expired = self.watch.look(&self.slot, &self.client, self.socket.traffic(), is_http2, is_draining);
        match (expired, &mut self.http) {
            (None, _) => {
                if is_body_lying {
                    self.slot.wake_at(self.slot.now() + 1);
                }
                return false;
            }
            (Some(ExpiredTimeout::Head), Http::One(http)) => {
                http1::time_out(http, &self.socket, &self.client);
                self.close();
            }
            (Some(ExpiredTimeout::Unsure), Http::One(http)) => {
                if http1::time_out(http, &self.socket, &self.client) {
                    self.close();
                }
            }
            (Some(ExpiredTimeout::Unsure), _) => {}
            (Some(ExpiredTimeout::Idle | ExpiredTimeout::Body), Http::Two(_)) if !is_draining => self.drain(),
            (Some(ExpiredTimeout::Head | ExpiredTimeout::Idle), _) => self.leave(),
            (Some(ExpiredTimeout::Body), _) => self.close(),
            (Some(ExpiredTimeout::Send), _) => self.stage = Stage::Aborted,
        }
        true
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        turn::begin();
        let this = &mut *self;
        loop {
            match &mut this.stage {
                Stage::Serving | Stage::LastRequest(_) | Stage::Draining => ready!(this.poll_serving(cx)),
                Stage::Upgraded(_) => ready!(this.poll_upgraded(cx)),
                Stage::FinalFlush(flush) => return flush.as_mut().poll(cx),
                Stage::Aborted => return Poll::Ready(()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
