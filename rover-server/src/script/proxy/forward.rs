//! `forward`: passes one request on, from its checked arguments to the response of the upstream.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::response::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use percent_encoding::percent_decode_str;
use rover_lua::{Kind, Name, Raise, Returns, Stack};

use crate::exchange::context::{self, Peer, RequestKey};
use crate::log::{self, Level};
use crate::message::header_names;
use crate::message::unread::Unavailable;
use crate::observe::otlp::ClientSpan;
use crate::outbound::{Active, Inflow, Problem, SendFailure, is_idempotent};
use crate::script::tasks::alive;

use super::answer::{self, Through};
use super::claims::Forwarding;
use super::group::{Group, Turn, Upstream};
use super::headers;
use super::interim::Hints;
use super::request_body::RequestBody;
use super::{Options, Proxy, standstill, switch};

/// The arguments of `forward`, by their places.
mod argument {
    pub(super) const GROUP: i32 = 2;
    // Milliseconds; 0 is no limit.
    pub(super) const TIMEOUT: i32 = 3;
    pub(super) const CONNECT_TIMEOUT: i32 = 4;
    pub(super) const IDLE_TIMEOUT: i32 = 5;
    pub(super) const PRESERVES_HOST: i32 = 6;
    /// "replace", "append" or false.
    pub(super) const FORWARDED: i32 = 7;
    pub(super) const VIA: i32 = 8;
    /// A table of further headers, or nil.
    pub(super) const HEADERS: i32 = 9;
    pub(super) const TUNNEL_TIMEOUT: i32 = 10;
    /// An array of names, or nil.
    pub(super) const KEEP_HEADERS: i32 = 11;
}

/// A request that is being passed on.
struct Onward {
    method: Method,
    /// As the client sent it.
    target: PathAndQuery,
    /// What the route's last parameter matched, where it reaches to the end of the path.
    rest: Option<String>,
    headers: HeaderMap,
    upgrade: Option<HeaderValue>,
    body: RequestBody,
    peer: Rc<Peer>,
    /// Of the request, which keeps the answer until it is sent.
    request_key: RequestKey,
    hints: Option<Hints>,
}

/// The outcome.
enum ForwardOutcome {
    Answered(Box<(Parts, Inflow)>, Turn),
    Failed(Problem, Option<Rc<Upstream>>),
}

impl ForwardOutcome {
    /// Ends the span of the request.
    fn told(&self, mut span: ClientSpan) {
        match self {
            ForwardOutcome::Answered(answered, _) => span.answered(answered.0.status.as_u16()),
            ForwardOutcome::Failed(problem, _) => span.failed(&problem.to_string()),
        }
    }
}

/// See the module. The first argument is the context.
pub(super) fn forward(stack: &mut Stack<'_>, proxy: &Proxy) -> Returns {
    use argument::*;
    let time = |index| {
        let milliseconds = stack.number(index).max(0.0);
        (milliseconds > 0.0).then(|| Duration::from_secs_f64(milliseconds / 1000.0))
    };
    let options = Options {
        timeout: time(TIMEOUT),
        connect_timeout: time(CONNECT_TIMEOUT),
        idle_timeout: time(IDLE_TIMEOUT),
        tunnel_timeout: time(TUNNEL_TIMEOUT),
        preserves_host: stack.boolean(PRESERVES_HOST),
        forwarded: match stack.bytes(FORWARDED) {
            Some(b"append") => Forwarding::Append,
            Some(_) => Forwarding::Replace,
            None => Forwarding::Off,
        },
        via: stack.boolean(VIA),
    };
    let mut onward = onward(stack, proxy, &options)?;
    let mut span = proxy.tracing.pass_on(&mut onward.headers, &onward.method);
    change_headers(stack, &mut onward.headers)?;
    let Some(group) = proxy.groups.get(stack, GROUP).cloned() else {
        return Err(Raise::mistake("these upstreams are no longer there"));
    };
    let own = proxy.own.clone();
    proxy.waits.suspend(stack, Name::Own("ctx:proxy"), async move {
        let outcome = ask(&group, &onward, &options, &mut span).await;
        if let Some(span) = span {
            outcome.told(span);
        }
        move |stack: &mut Stack<'_>| push(stack, &*alive(&own)?, outcome, &onward, &options)
    })
}

/// Takes what is passed on from the request.
fn onward(stack: &mut Stack<'_>, proxy: &Proxy, options: &Options) -> Result<Onward, Raise> {
    let request_key = context::request_key(stack, &proxy.contexts, "proxy(url)")?;
    let kept = kept_headers(stack)?;
    let request = proxy.contexts.requests.get(request_key)?;
    let body = match (&request.body, &request.unread) {
        (None, Some(unread)) => match unread.pass(request.peer.passing()) {
            Ok(body) => RequestBody::unread(body),
            Err(Unavailable::Over) => RequestBody::Known(Bytes::new()),
            Err(Unavailable::Passed) => {
                return Err(Raise::mistake("the body of this request has been passed on already"));
            }
            Err(Unavailable::Begun) => {
                return Err(Raise::mistake("ctx:proxy cannot pass on a body of which some has been read"));
            }
        },
        (body, _) => RequestBody::Known(body.clone().unwrap_or_default()),
    };
    let head = &request.head;
    let host = head.headers.get(HOST).map(HeaderValue::as_bytes);
    let client = headers::Requester { ip: request.ip(), scheme: request.scheme(), host, version: head.version };
    let (headers, upgrade) = headers::onward(&head.headers, &client, options, &kept);
    let path = head.uri.path();
    let rest = request.route.as_ref().and_then(|(_, params)| {
        let &(begin, end) = params.spans().last()?;
        (end as usize == path.len()).then(|| path[begin as usize..].to_owned())
    });
    Ok(Onward {
        method: head.method.clone(),
        target: head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
        rest,
        headers,
        upgrade,
        body,
        peer: request.peer.clone(),
        request_key,
        hints: Hints::new(&request, request_key, proxy, options),
    })
}

/// The names in the array at [`argument::KEEP_HEADERS`].
fn kept_headers(stack: &mut Stack<'_>) -> Result<Vec<HeaderName>, Raise> {
    if stack.kind(argument::KEEP_HEADERS) != Kind::Table {
        return Ok(Vec::new());
    }
    let mut kept = Vec::new();
    for n in 1..=stack.raw_len(argument::KEEP_HEADERS) {
        stack.push_item(argument::KEEP_HEADERS, n as i32);
        kept.push(name_at(stack, stack.top())?);
        stack.pop(1);
    }
    Ok(kept)
}

/// The name of a header at a place of the stack.
fn name_at(stack: &Stack<'_>, index: i32) -> Result<HeaderName, Raise> {
    let written = stack.bytes(index).unwrap_or_default();
    HeaderName::from_bytes(written)
        .map_err(|_| Raise::Mistake(format!("{:?} is not a header name", String::from_utf8_lossy(written))))
}

/// Sets the fields of the table at [`argument::HEADERS`]; false removes one.
fn change_headers(stack: &mut Stack<'_>, headers: &mut HeaderMap) -> Result<(), Raise> {
    if stack.kind(argument::HEADERS) != Kind::Table {
        return Ok(());
    }
    stack.push_nil();
    while stack.next(argument::HEADERS) {
        let top = stack.top();
        let name = name_at(stack, top - 1)?;
        if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
            return Err(Raise::Mistake(format!("the header {name} is set by Rover and cannot be changed")));
        }
        let text = match stack.kind(top) {
            Kind::Boolean => None,
            Kind::Number => Some(stack.number_text(top).into_bytes()),
            _ => Some(stack.bytes(top).unwrap_or_default().to_vec()),
        };
        match text.map(|text| HeaderValue::from_bytes(&text)) {
            None => drop(headers.remove(&name)),
            Some(Ok(value)) => header_names::set(headers, name, value)
                .map_err(|too_many| Raise::Mistake(format!("the request has {too_many}")))?,
            Some(Err(_)) => {
                return Err(Raise::Mistake(format!("the value of the header {name} has a control character in it")));
            }
        }
        stack.pop(1);
    }
    Ok(())
}

/// Where on an upstream the request goes.
///
/// A URL without a path takes the request's. One that ends with a slash has the rest of the path behind it, where the
/// route ends with a parameter. Any other is the place itself. A query of the URL's own replaces the request's.
fn place(upstream: &Upstream, onward: &Onward) -> Result<PathAndQuery, Problem> {
    let url = &upstream.url;
    if !upstream.has_path && url.query().is_none() {
        return Ok(onward.target.clone());
    }
    let mut target = if upstream.has_path { url.path().to_owned() } else { onward.target.path().to_owned() };
    if let Some(rest) = onward.rest.as_deref().filter(|_| upstream.has_path && target.ends_with('/')) {
        if leads_out(rest) {
            return Err(Problem::BadUrl("its path leads out of the one that the upstream is given"));
        }
        target.push_str(rest);
    }
    if let Some(query) = url.query().or(onward.target.query()) {
        target.push('?');
        target.push_str(query);
    }
    PathAndQuery::try_from(target).map_err(|_| Problem::BadUrl("it cannot be understood"))
}

/// Whether an upstream may find a segment "." or ".." in the path (RFC 3986, section 5.2.4), in whatever way it reads
/// paths: some decode a slash, take a backslash for one, or cut a segment at a semicolon.
fn leads_out(path: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    let mut segments = decoded.split(|byte| b"/\\".contains(byte));
    segments.any(|segment| matches!(segment.split(|&byte| byte == b';').next(), Some(b"." | b"..")))
}

/// Sends the request to an upstream, and to another one if it did not reach the first.
async fn ask(group: &Rc<Group>, onward: &Onward, options: &Options, span: &mut Option<ClientSpan>) -> ForwardOutcome {
    let mut tried: Vec<Rc<Upstream>> = Vec::new();
    let mut last = Problem::Refused;
    while onward.body.is_whole() {
        let Some(turn) = group.pick(&tried) else { break };
        let target = match place(&turn.upstream, onward) {
            Ok(target) => target,
            Err(problem) => return ForwardOutcome::Failed(problem, Some(turn.upstream.clone())),
        };
        if let Some(span) = span {
            span.to(&turn.upstream.url, Some(&target));
        }
        let request = || {
            let mut request = Request::new(onward.body.outgoing());
            *request.method_mut() = onward.method.clone();
            *request.uri_mut() = Uri::from(target.clone());
            *request.headers_mut() = onward.headers.clone();
            if let Some(hints) = &onward.hints {
                request.extensions_mut().insert(hints.relay());
            }
            request
        };
        let expiry = async || {
            standstill(|| onward.body.progress(), options.timeout).await;
            // It is not the upstream's fault where the client holds its own request back.
            if onward.body.waits_for_client() { Problem::BodyBrokeOff } else { Problem::Timeout }
        };
        let origin = &turn.upstream.origin;
        let mut is_fresh = false;
        let can_repeat = |had_effect| can_repeat(onward, had_effect);
        let asking = origin.ask(request, &mut is_fresh, can_repeat, options.connect_timeout, expiry);
        let asked = match &onward.hints {
            Some(hints) => hints.pass(asking).await,
            None => asking.await,
        };
        let failure = match read_on(asked, &onward.method).await {
            Ok(answered) => {
                turn.succeeded();
                return ForwardOutcome::Answered(Box::new(answered), turn);
            }
            Err(failure) => failure,
        };
        let SendFailure { problem, is_unsent, .. } = failure;
        if !problem.is_of_client() && turn.failed() {
            log::event(Level::Warn, "an upstream is out of order")
                .field("upstream", turn.upstream.url.to_string().as_str())
                .field("error", problem.to_string().as_str())
                .emit();
        }
        tried.push(turn.upstream.clone());
        last = problem;
        if !is_unsent {
            break;
        }
    }
    ForwardOutcome::Failed(last, tried.pop())
}

/// Reads as much of an answer's body as has come with its head: one that is broken from the beginning is no answer.
async fn read_on(
    asked: Result<(Parts, Incoming, Active), SendFailure>,
    method: &Method,
) -> Result<(Parts, Inflow), SendFailure> {
    let (head, body, active) = asked?;
    let mut body = Inflow::plain(body, active);
    if !body.is_over() && head.status != StatusCode::SWITCHING_PROTOCOLS && *method != Method::HEAD {
        body.peek().await.map_err(SendFailure::broken_off)?;
    }
    Ok((head, body))
}

/// Whether it may be sent once more, where it may have `had_effect`.
fn can_repeat(onward: &Onward, had_effect: bool) -> bool {
    onward.body.is_whole() && (!had_effect || is_idempotent(&onward.method))
}

fn push(stack: &mut Stack<'_>, proxy: &Proxy, outcome: ForwardOutcome, onward: &Onward, options: &Options) -> Returns {
    let (answered, turn) = match outcome {
        ForwardOutcome::Answered(answered, turn) => (answered, turn),
        ForwardOutcome::Failed(problem, upstream) => {
            return answer::push_failure(stack, proxy, &problem, &answer::named(upstream.as_ref()));
        }
    };
    let (mut head, body) = *answered;
    let is_bodiless = onward.method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    let about = (is_bodiless, options);
    if is_bodiless && !headers::has_sound_length(&head.headers) {
        return answer::push_failure(stack, proxy, &Problem::Malformed, &answer::named(Some(&turn.upstream)));
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let upgrade = head.extensions.remove::<OnUpgrade>();
        let chosen =
            head.headers.get(UPGRADE).filter(|chosen| headers::lists(onward.upgrade.as_ref(), chosen)).cloned();
        let (Some(chosen), Some(upgrade)) = (chosen, upgrade) else {
            return answer::push_failure(stack, proxy, &Problem::Malformed, &answer::named(Some(&turn.upstream)));
        };
        let upgrade = switch::joined(upgrade, turn, body.into_active(), options.tunnel_timeout);
        return answer::push(stack, proxy, &head, about, Some(&chosen), |stack| {
            let about = (onward.peer.clone(), upgrade);
            proxy.responder.push_upgrade_of(stack, about, &proxy.contexts, onward.request_key);
        });
    }
    let through = Through::new(body, turn, options);
    answer::push(stack, proxy, &head, about, None, |stack| {
        proxy.responder.push_stream_of(stack, Box::pin(through), &proxy.contexts, onward.request_key);
    })
}
