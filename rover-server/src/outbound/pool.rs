//! The connections to one origin: those that wait for their next request, and the way to a new one.
//!
//! Within one worker and for one origin there is nothing to look up and nothing to lock, which is most of what a request
//! costs in a pool for everybody. A connection of HTTP/1.1 belongs to one request until the end of its answer's body
//! ([`Lease`]); one of HTTP/2 is shared.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::Problem;
use super::connect::Connector;
use super::interim::{Interims, Relay};
use super::outgoing::Outgoing;
use super::problem;
use super::url::host_of;

/// After so long without a sign of a server that owes an answer, it is asked over a shared connection whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// How long it has to say so; else the connection is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How many connections wait, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) connections: usize,
    pub(super) time: Duration,
}

/// See the module.
pub(super) struct ConnectionPool {
    connector: Connector,
    url: Uri,
    host: Option<HeaderValue>,
    patience: Patience,
    /// The longest waiting first.
    waiting: RefCell<Vec<WaitingCalls>>,
    shared: RefCell<Option<SharedConnection>>,
    /// The origin has spoken HTTP/2.
    is_shared: Cell<bool>,
    /// Whose turn it is to make the next connection that is shared.
    turn: Mutex<()>,
    /// A task closes what has waited for too long.
    is_swept: Cell<bool>,
}

struct WaitingCalls {
    connection: OwnConnection,
    since: Instant,
}

/// A connection of HTTP/1.1.
struct OwnConnection {
    requests: http1::SendRequest<Outgoing>,
    interims: Arc<Interims>,
}

impl OwnConnection {
    /// Lets the interim answers to `request` be counted, and shown to whoever wants to see them.
    fn count_interims(&self, request: &mut Request<Outgoing>) {
        self.interims.begin();
        let (interims, relay) = (self.interims.clone(), request.extensions().get::<Relay>().cloned());
        hyper::ext::on_informational(request, move |interim| {
            let is_fine = interims.note(interim.headers());
            if let Some(relay) = relay.as_ref().filter(|_| is_fine) {
                relay.push(interim.status(), interim.headers().clone());
            }
        });
    }
}

struct SharedConnection {
    connection: http2::SendRequest<Outgoing>,
    used: Instant,
}

enum PooledConnection {
    Own(OwnConnection),
    Shared(http2::SendRequest<Outgoing>),
}

/// Why there is no answer to one request.
pub(crate) struct SendFailure {
    pub(crate) problem: Problem,
    /// No byte of the request can have reached a server.
    pub(crate) is_unsent: bool,
    /// The connection had waited, so the server may have closed it before it saw the request.
    pub(crate) is_stale: bool,
    /// The server got the request, and says that it did nothing for it.
    pub(crate) is_unprocessed: bool,
}

impl SendFailure {
    pub(super) fn unsent(problem: Problem) -> SendFailure {
        SendFailure { problem, is_unsent: true, is_stale: false, is_unprocessed: false }
    }

    pub(super) fn sent(problem: Problem) -> SendFailure {
        SendFailure { problem, is_unsent: false, is_stale: false, is_unprocessed: false }
    }

    /// The answer broke off before the first byte of its body.
    pub(crate) fn broken_off(problem: Problem) -> SendFailure {
        SendFailure::sent(problem)
    }

    fn broken(error: &hyper::Error, has_waited: bool) -> SendFailure {
        let problem = match Problem::of(error) {
            // The system gave up a connection that had stood.
            Problem::ConnectTimeout => Problem::Timeout,
            problem => problem,
        };
        let is_stale = has_waited && matches!(problem, Problem::Closed | Problem::Reset);
        SendFailure { problem, is_unsent: false, is_stale, is_unprocessed: problem::is_unprocessed(error) }
    }
}

/// Whether the body is in a transfer coding that hyper does not undo and nobody asked for (RFC 9112, section 7.4).
fn is_coded(headers: &HeaderMap) -> bool {
    let is_known = |value: &HeaderValue| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"chunked") || value.eq_ignore_ascii_case(b"identity")
    };
    !headers.get_all(TRANSFER_ENCODING).iter().all(is_known)
}

/// A connection of HTTP/1.1 in use. Dropped, it is closed.
pub(super) struct Lease {
    connection: OwnConnection,
    pool: Weak<ConnectionPool>,
}

impl Lease {
    /// The answer is complete, so the next request may have the connection.
    pub(super) fn give_back(self) {
        if let Some(pool) = self.pool.upgrade() {
            ConnectionPool::keep(&pool, self.connection);
        }
    }
}

impl ConnectionPool {
    /// Connections to the origin of `url`; none is made yet.
    pub(super) fn new(connector: Connector, url: &Uri, patience: Patience) -> Rc<ConnectionPool> {
        Rc::new(ConnectionPool {
            connector,
            host: HeaderValue::try_from(host_of(url)).ok(),
            url: url.clone(),
            patience,
            waiting: RefCell::default(),
            shared: RefCell::default(),
            is_shared: Cell::new(false),
            turn: Mutex::new(()),
            is_swept: Cell::new(false),
        })
    }

    /// Sends a request, whose URI is a path and query, and waits for the head of its answer. With `is_fresh`, it gets a
    /// connection of its own that has not waited.
    ///
    /// # Errors
    /// There is no connection, or no answer.
    pub(super) async fn send(
        self: &Rc<ConnectionPool>,
        mut request: Request<Outgoing>,
        is_fresh: bool,
        connect_timeout: Option<Duration>,
    ) -> Result<(Response<Incoming>, Option<Lease>), SendFailure> {
        loop {
            let known = if is_fresh { None } else { self.take() };
            let (connection, has_waited) = match known {
                Some(connection) => (connection, true),
                // Boxed, for it is large, and most requests do without.
                None => {
                    let connecting = Box::pin(self.connect(is_fresh));
                    let connected = match connect_timeout {
                        Some(limit) => timeout(limit, connecting).await.unwrap_or(Err(Problem::ConnectTimeout)),
                        None => connecting.await,
                    };
                    connected.map_err(SendFailure::unsent)?
                }
            };
            let (sent, lease) = match connection {
                PooledConnection::Own(mut connection) => {
                    if let Some(host) = &self.host {
                        request.headers_mut().entry(HOST).or_insert_with(|| host.clone());
                    }
                    // hyper says nothing of a body that is not there (RFC 9110, section 8.6).
                    if matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH)
                        && request.body().is_end_stream()
                    {
                        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                    }
                    // It takes the body of such a method for none, too, where its length is not known.
                    if matches!(*request.method(), Method::GET | Method::HEAD | Method::CONNECT)
                        && !request.body().is_end_stream()
                        && request.body().size_hint().exact().is_none()
                    {
                        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                    }
                    connection.count_interims(&mut request);
                    let sent = connection.requests.try_send_request(request).await;
                    (sent, Some(Lease { connection, pool: Rc::downgrade(self) }))
                }
                PooledConnection::Shared(mut connection) => {
                    self.name_authority(&mut request);
                    if let Err(error) = connection.ready().await {
                        self.shared.take();
                        if has_waited {
                            continue;
                        }
                        return Err(SendFailure::broken(&error, false));
                    }
                    (connection.try_send_request(request).await, None)
                }
            };
            let mut error = match sent {
                Ok(response) if is_coded(response.headers()) => return Err(SendFailure::sent(Problem::Malformed)),
                Ok(response) => return Ok((response, lease)),
                Err(error) => error,
            };
            match error.take_message() {
                // It had been closed already, so nothing of the request went out.
                Some(unsent) if has_waited => request = unsent,
                _ => return Err(SendFailure::broken(&error.into_error(), has_waited)),
            }
        }
    }

    /// A connection that waits, or is shared.
    fn take(&self) -> Option<PooledConnection> {
        let mut waiting = self.waiting.borrow_mut();
        for n in (0..waiting.len()).rev() {
            let connection = &waiting[n].connection.requests;
            if connection.is_closed() {
                waiting.remove(n);
            } else if connection.is_ready() {
                // The one that was used last: those that are not needed may grow old.
                return Some(PooledConnection::Own(waiting.remove(n).connection));
            }
        }
        drop(waiting);
        let mut shared = self.shared.borrow_mut();
        let known = shared.as_mut().filter(|shared| !shared.connection.is_closed())?;
        known.used = Instant::now();
        Some(PooledConnection::Shared(known.connection.clone()))
    }

    /// A new connection, or one that another request has made meanwhile, which is told: where connections are shared, one is
    /// enough for all who wait.
    async fn connect(self: &Rc<ConnectionPool>, is_fresh: bool) -> Result<(PooledConnection, bool), Problem> {
        let mut _turn = None;
        if self.is_shared.get() && !is_fresh {
            _turn = Some(self.turn.lock().await);
            if let Some(known) = self.take() {
                return Ok((known, true));
            }
        }
        let stream = self.connector.connect(self.url.clone()).await.map_err(|error| Problem::of(&*error))?;
        let problem = |error: hyper::Error| Problem::of(&error);
        if stream.is_http2() {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            // Else everybody would wait in vain on a connection whose server is gone, up to the system's quarter of an hour.
            builder.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
            let (connection, work) = builder.handshake(TokioIo::new(stream)).await.map_err(problem)?;
            tokio::spawn(work);
            self.shared.replace(Some(SharedConnection { connection: connection.clone(), used: Instant::now() }));
            self.is_shared.set(true);
            self.sweep_later();
            return Ok((PooledConnection::Shared(connection), false));
        }
        self.is_shared.set(false);
        let mut builder = http1::Builder::new();
        // Who gets a response has to undo both (RFC 9112, sections 5.1 and 5.2).
        builder.allow_spaces_after_header_name_in_responses(true).allow_obsolete_multiline_headers_in_responses(true);
        let interims = stream.interims();
        let (requests, work) = builder.handshake(TokioIo::new(stream)).await.map_err(problem)?;
        tokio::spawn(work.with_upgrades());
        Ok((PooledConnection::Own(OwnConnection { requests, interims }), false))
    }

    /// Gives the request the URI that HTTP/2 wants; what is named by Host there is named by the authority here (RFC 9113,
    /// section 8.3.1).
    fn name_authority(&self, request: &mut Request<Outgoing>) {
        let named = request.headers_mut().remove(HOST);
        let named = named.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut parts = Parts::default();
        parts.scheme = Some(self.url.scheme().cloned().unwrap_or(Scheme::HTTPS));
        parts.authority = named.or_else(|| self.url.authority().cloned());
        parts.path_and_query = request.uri().path_and_query().cloned();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }

    fn keep(pool: &Rc<ConnectionPool>, connection: OwnConnection) {
        let mut waiting = pool.waiting.borrow_mut();
        if connection.requests.is_closed() || waiting.len() >= pool.patience.connections {
            return;
        }
        waiting.push(WaitingCalls { connection, since: Instant::now() });
        drop(waiting);
        pool.sweep_later();
    }

    fn sweep_later(self: &Rc<ConnectionPool>) {
        if self.is_swept.replace(true) {
            return;
        }
        let (pool, time) = (Rc::downgrade(self), self.patience.time);
        tokio::task::spawn_local(async move {
            let mut next = Some(Instant::now() + time);
            while let Some(at) = next {
                sleep_until(at).await;
                let Some(pool) = pool.upgrade() else { return };
                next = pool.sweep();
                pool.is_swept.set(next.is_some());
            }
        });
    }

    /// Closes what has waited for too long. Gives when the next one will have.
    fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let end = |since: Instant| since + self.patience.time;
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|one| end(one.since) > now && !one.connection.requests.is_closed());
        let mut shared = self.shared.borrow_mut();
        // Requests that share it go on.
        if shared.as_ref().is_some_and(|one| end(one.used) <= now || one.connection.is_closed()) {
            shared.take();
        }
        let first = waiting.first().map(|one| end(one.since));
        first.into_iter().chain(shared.as_ref().map(|one| end(one.used))).min()
    }
}
