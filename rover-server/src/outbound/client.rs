//! A client: sends requests over a pool of connections, under the rules that it was made with.
//!
//! Comes in: a [`Call`]. Goes out: the head of the answer, and its body as it comes. Dropping the future of a call, or the
//! body before its end, gives up the request and its connection.

use std::cell::RefCell;
use std::future::{Future, pending};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, HeaderValue, RANGE, USER_AGENT};
use http::response::Parts;
use http::{Request, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use lru::LruCache;
use tokio::time::{Instant, sleep, sleep_until};

use super::Problem;
use super::active::Active;
use super::breaker::{Breaker, BreakerOptions};
use super::call::Call;
use super::connect::Connector;
use super::decode::ACCEPTED;
use super::figures::{Figures, OriginFigures, add};
use super::inflow::Inflow;
use super::limit::{LimitOptions, RequestLimit};
use super::outgoing::Outgoing;
use super::pool::{ConnectionPool, Patience, SendFailure};
use super::redirect::{self, Redirected};
use super::retry;
use super::tls::{ClientTls, TlsOptions};
use super::url::origin_of;

/// The most origins whose breaker and queue one client remembers.
const MOST_ORIGINS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// How often a request is sent at most, that the rules for retries do not speak of.
const MOST_TRIES: u32 = 3;

/// Bodies up to this many bytes are read to their end where nobody wants them, so that their connection can be used again.
const WORTH_DRAINING: u64 = 16 * 1024;

/// How long it is waited for: mostly it has come with its head.
const DRAIN_PATIENCE: Duration = Duration::from_millis(100);

static AGENT: HeaderValue = HeaderValue::from_static(concat!("rover/", env!("CARGO_PKG_VERSION")));
static CODINGS: HeaderValue = HeaderValue::from_static(ACCEPTED);

/// What a client is made with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What its figures are counted under.
    pub(crate) name: Arc<str>,
    pub(crate) tls: TlsOptions,
    pub(crate) breaker: Option<BreakerOptions>,
    pub(crate) limit: Option<LimitOptions>,
    /// Connections to one origin that may wait for their next request.
    pub(crate) idle: usize,
    /// How long they wait.
    pub(crate) idle_timeout: Duration,
}

impl Settings {
    /// 128 idle connections to an origin, for a minute each; neither breaker nor limit.
    pub(crate) fn new(name: impl Into<Arc<str>>) -> Settings {
        Settings {
            name: name.into(),
            tls: TlsOptions::default(),
            breaker: None,
            limit: None,
            idle: 128,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// An answer whose body is still to come.
pub(crate) struct Reply {
    pub(crate) head: Parts,
    pub(crate) body: Inflow,
    /// Where it came from, after redirects.
    pub(crate) url: Uri,
    /// It is a redirect that was to be followed, with a body that could be sent only once.
    pub(crate) is_not_followed: bool,
}

/// See the module.
pub(crate) struct Client {
    connector: Connector,
    settings: Settings,
    figures: Arc<Figures>,
    origins: RefCell<LruCache<Box<str>, Rc<Origin>>>,
}

/// What a client keeps of one origin.
pub(crate) struct Origin {
    pool: Rc<ConnectionPool>,
    breaker: Option<Rc<Breaker>>,
    gate: Option<Rc<RequestLimit>>,
    figures: Arc<OriginFigures>,
}

impl Client {
    /// Nothing is connected yet. The client must be used within one tokio runtime.
    pub(crate) fn new(settings: Settings, figures: &Arc<Figures>) -> Client {
        let connector = Connector::new(ClientTls::new(settings.tls.clone()), settings.name.clone(), figures.clone());
        let origins = RefCell::new(LruCache::new(MOST_ORIGINS));
        Client { connector, settings, figures: figures.clone(), origins }
    }

    /// The name that the client's figures are counted under.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    /// What is kept of the origin of `url`.
    pub(crate) fn origin(&self, url: &Uri) -> Rc<Origin> {
        let name = origin_of(url);
        let mut origins = self.origins.borrow_mut();
        if let Some(origin) = origins.get(name.as_str()) {
            return origin.clone();
        }
        let figures = self.figures.of(&self.settings.name, &name);
        let breaker = self.settings.breaker.map(|options| Breaker::new(options, name.as_str().into(), figures.clone()));
        let gate = self.settings.limit.map(|options| RequestLimit::new(options, figures.clone()));
        let patience = Patience { connections: self.settings.idle, time: self.settings.idle_timeout };
        let pool = ConnectionPool::new(self.connector.clone(), url, patience);
        let origin = Rc::new(Origin { pool, breaker, gate, figures });
        origins.put(name.into_boxed_str(), origin.clone());
        origin
    }

    /// Sends a request, again where the rules say so, and follows redirects.
    ///
    /// # Errors
    /// There is no answer, and why.
    pub(crate) async fn send(&self, mut call: Call) -> Result<Reply, Problem> {
        call.headers.entry(USER_AGENT).or_insert_with(|| AGENT.clone());
        // A part of a coded body could not be decoded.
        let decodes = !call.headers.contains_key(ACCEPT_ENCODING) && !call.headers.contains_key(RANGE);
        if decodes {
            call.headers.insert(ACCEPT_ENCODING, CODINGS.clone());
        }
        let mut followed = 0;
        loop {
            let (mut head, body, active) = self.patiently(&mut call).await?;
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                // What comes behind it is no HTTP, and nobody here reads it.
                return Err(Problem::Malformed);
            }
            let mut is_not_followed = false;
            match redirect::follow(&head, &mut call)? {
                Redirected::No => {}
                Redirected::Cannot => is_not_followed = true,
                Redirected::Yes if followed >= call.redirects => return Err(Problem::TooManyRedirects),
                Redirected::Yes => {
                    followed += 1;
                    drain(Inflow::plain(body, active)).await;
                    continue;
                }
            }
            let body = match decodes {
                true => Inflow::decoded(body, &mut head.headers, active),
                false => Inflow::plain(body, active),
            };
            return Ok(Reply { head, body, url: call.url, is_not_followed });
        }
    }

    /// Sends the request until there is an answer that is none to try again for.
    async fn patiently(&self, call: &mut Call) -> Result<(Parts, Incoming, Active), Problem> {
        let origin = self.origin(&call.url);
        let is_whole = call.body.as_ref().is_some_and(|body| body.again().is_some());
        let can_repeat = call.is_repeatable && is_whole;
        let may_repeat = |had_effect: bool| is_whole && (can_repeat || !had_effect);
        let retry = call.retry.filter(|_| can_repeat);
        let (mut attempt, mut is_fresh) = (1, false);
        let (deadline, connect_timeout) = (call.deadline, call.connect_timeout);
        let expiry = async || {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
            Problem::Timeout
        };
        loop {
            let asked = origin.ask(|| call.request(), &mut is_fresh, may_repeat, connect_timeout, expiry).await;
            let outcome = asked.map_err(|failure| failure.problem);
            let Some(retry) = retry.filter(|retry| attempt < retry.attempts) else { return outcome };
            let wait = match &outcome {
                Ok((head, ..)) if retry::is_passing(head.status) => {
                    retry.wait(attempt).max(retry::asked_wait(&head.headers).unwrap_or_default())
                }
                Err(problem) if problem.is_passing() => retry.wait(attempt),
                _ => return outcome,
            };
            // A server may ask for any number of seconds, also for more than a clock can hold.
            let at = Instant::now().checked_add(wait);
            if deadline.is_some_and(|deadline| at.is_none_or(|at| at >= deadline)) {
                return outcome;
            }
            if let Ok((_, body, active)) = outcome {
                drain(Inflow::plain(body, active)).await;
            }
            sleep(wait).await;
            attempt += 1;
            add(&origin.figures.retries);
        }
    }
}

/// Reads what nobody wants, where that is little and there already. What is not costs its connection.
async fn drain(mut body: Inflow) {
    let _ = body.collect(WORTH_DRAINING, Some(Instant::now() + DRAIN_PATIENCE)).await;
}

impl Origin {
    /// Sends a request, whose URI is a path and query, and waits for the head of its answer as long as `expiry` lasts.
    ///
    /// It is made and sent again where the server says that it did nothing for it, and, on a fresh connection, where it may
    /// have crossed with the server's end of an idle one (RFC 9112, section 9.3.1). `can_repeat` is asked before, and told
    /// whether the request may have had its effect. Once `is_fresh` is set, what the same call sends later goes to fresh
    /// connections too.
    ///
    /// # Errors
    /// There is no answer, or `expiry` came first.
    pub(crate) async fn ask(
        &self,
        mut request: impl FnMut() -> Request<Outgoing>,
        is_fresh: &mut bool,
        can_repeat: impl Fn(bool) -> bool,
        connect_timeout: Option<Duration>,
        expiry: impl AsyncFn() -> Problem,
    ) -> Result<(Parts, Incoming, Active), SendFailure> {
        let mut left = MOST_TRIES;
        loop {
            let failure = match self.once(request(), *is_fresh, connect_timeout, expiry()).await {
                Ok(answered) => return Ok(answered),
                Err(failure) => failure,
            };
            left -= 1;
            let is_again = left > 0
                && match failure.is_unprocessed {
                    true => can_repeat(false),
                    false => failure.is_stale && can_repeat(true),
                };
            if !is_again {
                return Err(failure);
            }
            // A shared connection may come to its end once more; one of its own has room for one request.
            *is_fresh |= !failure.is_unprocessed || left == 1;
        }
    }

    async fn once(
        &self,
        request: Request<Outgoing>,
        is_fresh: bool,
        connect_timeout: Option<Duration>,
        expiry: impl Future<Output = Problem>,
    ) -> Result<(Parts, Incoming, Active), SendFailure> {
        let mut expiry = pin!(expiry);
        let entered = tokio::select! {
            biased;
            entered = self.enter() => entered,
            problem = &mut expiry => Err(problem),
        };
        let mut active = entered.map_err(SendFailure::unsent)?;
        let answered = tokio::select! {
            biased;
            answered = self.pool.send(request, is_fresh, connect_timeout) => answered,
            problem = expiry => Err(SendFailure::sent(problem)),
        };
        match answered {
            Ok((response, lease)) => {
                active.answered(response.status());
                let (head, body) = response.into_parts();
                // What has left HTTP comes back to nobody.
                active.lease = lease.filter(|_| head.status != StatusCode::SWITCHING_PROTOCOLS);
                if body.is_end_stream() {
                    active.give_back();
                }
                Ok((head, body, active))
            }
            Err(failure) => {
                if !failure.is_unprocessed {
                    active.failed(&failure.problem);
                }
                Err(failure)
            }
        }
    }

    /// Waits for a turn.
    async fn enter(&self) -> Result<Active, Problem> {
        let reject = |problem| {
            add(&self.figures.rejected);
            problem
        };
        if self.breaker.as_ref().is_some_and(|breaker| breaker.refuses()) {
            return Err(reject(Problem::CircuitOpen));
        }
        let turn = match &self.gate {
            Some(gate) => Some(gate.enter().await.map_err(reject)?),
            None => None,
        };
        let pass = match &self.breaker {
            Some(breaker) => Some(breaker.admit().map_err(reject)?),
            None => None,
        };
        Ok(Active::begin(&self.figures, turn, pass))
    }
}
