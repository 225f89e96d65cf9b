//! Serves one connection from its first byte to its last.
//!
//! Comes in: a transport. Goes out: bytes. hyper reads and frames the requests, [`Current`] answers them, and the
//! [`Socket`] is flushed once at the end of each turn. TLS has negotiated the version of HTTP, or the first bytes show
//! it.

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
use crate::message::body;
use crate::runtime::turn;
use crate::service::Current;
use crate::transport::lifecycle::{ConnectionSlot, Lifecycle};
use crate::transport::socket::{Agreed, Socket, SpareBuffers, Spoken, Transport};
use crate::transport::upgrade::{ShutdownNotice, Upgrade, Upgraded};

use requests::Client;
pub(crate) use tls::{Shaken, handshake, refuse_plain};
pub(crate) use watch::tick;
use watch::{Lapse, LastBytes, Watch};

/// How long a connection without a request stays open when the server stops. A request that arrives meanwhile is
/// answered, and its answer says that it is the last.
const LAST_CHANCE: Duration = Duration::from_millis(500);

/// How long a closing connection waits for its client to stop sending, at most.
const LINGER: Duration = Duration::from_secs(2);

/// A connection being served. Ends by itself.
pub(crate) struct Connection {
    http: Http,
    socket: Rc<Socket>,
    client: Rc<Client>,
    seat: ConnectionSlot,
    watch: Watch,
    stage: Stage,
    /// Nobody knows yet which HTTP the client speaks.
    is_opening: bool,
    /// The client has been told that no more requests are answered. HTTP/1 says so with the last response.
    is_spent: bool,
    /// The connection's place under the connection limits.
    permit: Option<ConnectionPermit>,
}

/// The version of HTTP. The second is boxed, so that a connection of the first, the usual one, takes no more memory
/// than it needs.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and saves an allocation")]
enum Http {
    One(http1::Connection),
    Two(Pin<Box<http2::Connection>>),
    /// The connection has left HTTP.
    Gone,
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
    Leaving(LastBytes),
    Closing(LastBytes),
    /// The upgraded protocol has ended. The client may never read the rest.
    Parting(Pin<Box<Sleep>>),
    Lingering(Pin<Box<Sleep>>),
    /// The client takes nothing: the connection is dropped.
    Gone,
}

/// What an upgraded connection does.
struct Switched {
    work: Pin<Box<dyn Future<Output = ()>>>,
    ending: ShutdownNotice,
}

impl Switched {
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
        current: Rc<Current>,
        lifecycle: &Rc<Lifecycle>,
        spare: Rc<SpareBuffers>,
    ) -> Connection {
        let agreed = if current.site().config.http2.enabled { agreed } else { Agreed::Http1 };
        let socket = Socket::new(transport, agreed, spare, current.site().config.connections.is_lenient);
        let client = Client::new(current, peer.over(&socket));
        let http = match agreed {
            Agreed::Http2 => Http::Two(http2::serve(&socket, &client)),
            Agreed::Http1 | Agreed::Nothing => Http::One(http1::serve(&socket, &client)),
        };
        Connection {
            http,
            socket,
            client,
            seat: Lifecycle::add(lifecycle),
            watch: Watch::default(),
            stage: Stage::Serving,
            is_opening: agreed != Agreed::Http1,
            is_spent: false,
            permit: None,
        }
    }

    /// Keeps `permit` for as long as the connection lasts.
    pub(crate) fn keeping(mut self, permit: ConnectionPermit) -> Connection {
        self.permit = Some(permit);
        self
    }

    /// Lets hyper go on.
    #[inline]
    fn poll_http(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match &mut self.http {
            Http::One(http) => Pin::new(http).poll(cx),
            Http::Two(http) => {
                let polled = http.as_mut().poll(cx);
                if polled.is_pending() && self.client.is_spent() && !self.is_spent {
                    self.is_spent = true;
                    http.as_mut().graceful_shutdown();
                    return http.as_mut().poll(cx);
                }
                polled
            }
            Http::Gone => Poll::Ready(Ok(())),
        }
    }

    /// Hands the connection over to its upgrade, after the 101 has been written.
    #[cold]
    fn switch(&mut self, upgrade: Upgrade) -> Stage {
        let unread = match std::mem::replace(&mut self.http, Http::Gone) {
            Http::One(http) => http.into_parts().read_buf,
            Http::Two(_) | Http::Gone => Bytes::new(),
        };
        let unread = match self.socket.take_rest() {
            rest if rest.is_empty() => unread,
            rest => [&unread[..], &rest].concat().into(),
        };
        self.seat.wake_at(u64::MAX);
        let ending = ShutdownNotice::default();
        let upgraded = Upgraded::new(self.socket.clone(), unread, ending.clone());
        Stage::Upgraded(Box::new(Switched { work: upgrade(upgraded), ending }))
    }

    /// The server stops. HTTP/2 can say so at any time, HTTP/1 only with a response.
    #[cold]
    fn begin_to_end(&mut self) {
        if let Http::Two(http) = &mut self.http {
            http.as_mut().graceful_shutdown();
            self.stage = Stage::Told;
        } else {
            self.stage = Stage::Ending(Box::pin(sleep(LAST_CHANCE)));
        }
    }

    /// Ends the connection with the responses in progress.
    #[cold]
    fn end_gracefully(&mut self) {
        match &mut self.http {
            Http::One(http) => Pin::new(http).graceful_shutdown(),
            Http::Two(http) => http.as_mut().graceful_shutdown(),
            Http::Gone => {}
        }
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
                self.stage = Stage::Closing(LastBytes::default());
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

    /// Ends what has taken too long; true when the stage is another one now.
    #[cold]
    fn look_around(&mut self) -> bool {
        let told_to_end = match self.stage {
            Stage::Serving | Stage::Ending(_) => false,
            Stage::Told => true,
            _ => return true,
        };
        let is_body_lying = self.client.peer.has_body_lying();
        if is_body_lying && self.socket.has_left() {
            // hyper would notice only when somebody read on.
            self.http = Http::Gone;
            self.stage = Stage::Closing(LastBytes::default());
            return true;
        }
        let is_http2 = matches!(self.http, Http::Two(_)) && !self.is_opening;
        let lapse = self.watch.look(&self.seat, &self.client, self.socket.traffic(), is_http2, told_to_end);
        match (lapse, &mut self.http) {
            (None, _) => {
                if is_body_lying {
                    self.seat.wake_at(self.seat.now() + 1);
                }
                return false;
            }
            (Some(Lapse::Head), Http::One(http)) => {
                http1::time_out(http, &self.socket, &self.client);
                self.stage = Stage::Closing(LastBytes::default());
            }
            (Some(Lapse::Unsure), Http::One(http)) => {
                if http1::time_out(http, &self.socket, &self.client) {
                    self.stage = Stage::Closing(LastBytes::default());
                }
            }
            (Some(Lapse::Unsure), _) => {}
            (Some(Lapse::Idle | Lapse::Body), Http::Two(http)) if !told_to_end => {
                http.as_mut().graceful_shutdown();
                self.stage = Stage::Told;
            }
            (Some(Lapse::Head | Lapse::Idle), _) => self.stage = Stage::Leaving(LastBytes::default()),
            (Some(Lapse::Body), _) => self.stage = Stage::Closing(LastBytes::default()),
            (Some(Lapse::Send), _) => self.stage = Stage::Gone,
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
                Stage::Serving | Stage::Ending(_) | Stage::Told => {
                    let is_signalled = this.seat.is_signalled(cx);
                    if is_signalled && matches!(this.stage, Stage::Serving) && this.seat.must_end() {
                        this.begin_to_end();
                    }
                    if let Stage::Ending(clock) = &mut this.stage
                        && clock.as_mut().poll(cx).is_ready()
                    {
                        this.stage = Stage::Told;
                        this.end_gracefully();
                    }
                    let has_ended = this.socket.has_ended();
                    if has_ended {
                        // What was noted on behalf of others.
                        body::take_working();
                    }
                    let served = this.poll_http(cx);
                    if has_ended {
                        this.socket.hold_end(cx, body::take_working());
                    }
                    if this.is_opening && this.open() {
                        continue;
                    }
                    if let Poll::Ready(Err(error)) = &served {
                        this.explain(error);
                    }
                    if let Http::Two(_) = this.http
                        && served.is_pending()
                        && http2::is_restless(&this.client)
                    {
                        http2::calm(&this.socket);
                        this.stage = Stage::Closing(LastBytes::default());
                        continue;
                    }
                    if let Poll::Ready(Err(_)) = this.socket.poll_flush(cx) {
                        return Poll::Ready(());
                    }
                    this.watch.note(&this.client, &this.socket);
                    if served.is_pending() && is_signalled && this.look_around() {
                        continue;
                    }
                    // hyper's errors here are caused by the client, and have been answered if HTTP has an answer.
                    let served = ready!(served);
                    // A client of HTTP/2 may still be about to say that it has had its last answer.
                    let is_told = matches!((&this.stage, &this.http), (Stage::Told, Http::One(_)));
                    this.stage = match this.client.peer.upgrade.take() {
                        Some(upgrade) if served.is_ok() => this.switch(upgrade),
                        _ if is_told && served.is_ok() => Stage::Leaving(LastBytes::default()),
                        _ => Stage::Closing(LastBytes::default()),
                    };
                }
                Stage::Upgraded(switched) => {
                    if this.seat.must_end() {
                        switched.ending.tell();
                    }
                    let ended = switched.poll(cx);
                    // The upgraded protocol learns of a failed write when it flushes or reads.
                    let _ = this.socket.poll_flush(cx);
                    ready!(ended);
                    this.stage = Stage::Parting(Box::pin(sleep(LINGER)));
                }
                Stage::Leaving(last) => {
                    let _ = ready!(last.poll_out(cx, &this.socket, &this.client));
                    // A request that crosses with the end is read, so that the client sees an end and no reset.
                    let _ = this.socket.poll_drain(cx);
                    return Poll::Ready(());
                }
                Stage::Closing(last) => {
                    if ready!(last.poll_out(cx, &this.socket, &this.client)).is_err() {
                        return Poll::Ready(());
                    }
                    this.stage = Stage::Lingering(Box::pin(sleep(LINGER)));
                }
                Stage::Parting(clock) => {
                    if clock.as_mut().poll(cx).is_ready() || ready!(this.socket.poll_shutdown(cx)).is_err() {
                        return Poll::Ready(());
                    }
                    return this.socket.poll_drain(cx);
                }
                Stage::Lingering(clock) => {
                    if clock.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(());
                    }
                    return this.socket.poll_drain(cx);
                }
                Stage::Gone => return Poll::Ready(()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
