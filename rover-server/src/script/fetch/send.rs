//! `send`: makes one call of `rover.http`, from its checked arguments to the table of the answer.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, SET_COOKIE, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri};
use rover_lua::json;
use rover_lua::{Kind, Name, Raise, Returns, Stack, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::message::header_names::{self, MOST_FIELDS};
use crate::observe::otlp::ClientSpan;
use crate::outbound::{Call, Client, Inflow, Outgoing, Problem, Reply, RetryOptions, is_idempotent, parse_url};
use crate::runtime::turn::Stint;
use crate::script::tasks::{Held, Run, Tasks, alive};

use super::{Fetch, push_problem, reader};

/// The arguments of `send`, by their places.
mod argument {
    pub(super) const CLIENT: i32 = 1;
    pub(super) const METHOD: i32 = 2;
    pub(super) const URL: i32 = 3;
    /// Names and values in turn.
    pub(super) const HEADERS: i32 = 4;
    /// A string, a function that returns chunks, or nil.
    pub(super) const BODY: i32 = 5;
    // Milliseconds; 0 is no limit.
    pub(super) const TIMEOUT: i32 = 6;
    pub(super) const CONNECT_TIMEOUT: i32 = 7;
    pub(super) const REDIRECTS: i32 = 8;
    pub(super) const ATTEMPTS: i32 = 9;
    // Milliseconds.
    pub(super) const BACKOFF: i32 = 10;
    pub(super) const MAX_BACKOFF: i32 = 11;
    pub(super) const STREAM: i32 = 12;
    /// Bytes.
    pub(super) const LIMIT: i32 = 13;
    /// As messages name the call.
    pub(super) const NAME: i32 = 14;
}

/// What is known of an answer without its body.
struct Head {
    parts: Parts,
    /// Where it came from, after redirects.
    url: Uri,
    is_not_followed: bool,
}

/// What a call brought.
enum FetchOutcome {
    Collected(Head, Bytes),
    Streaming(Head, Box<Inflow>),
    Failed(Problem),
    /// The function that makes the request's body raised this.
    Raised(Option<Held>),
    /// It returned something that is no chunk.
    NoChunk(String),
}

impl FetchOutcome {
    /// Ends the span of the request.
    fn told(&self, mut span: ClientSpan) {
        match self {
            FetchOutcome::Collected(head, ..) | FetchOutcome::Streaming(head, ..) => {
                span.answered(head.parts.status.as_u16())
            }
            FetchOutcome::Failed(problem) => span.failed(&problem.to_string()),
            FetchOutcome::Raised(_) | FetchOutcome::NoChunk(_) => span.failed("request body broke off"),
        }
    }
}

/// See the module. Gives the table, or nil and why there is none.
pub(super) fn send(stack: &mut Stack<'_>, fetch: &Fetch) -> Returns {
    use argument::*;
    reader::sweep(fetch);
    let Some(client) = fetch.clients.get(stack, CLIENT).cloned() else {
        return Err(Raise::mistake("this client is no longer there"));
    };
    let method = method(stack)?;
    let mut headers = headers(stack)?;
    let url = match parse_url(stack.bytes(URL).unwrap_or_default()) {
        Ok(url) => url,
        Err(problem) => {
            stack.push_boolean(true);
            return push_problem(stack, &problem).map(|n| n + 1);
        }
    };
    let time = |index| Duration::from_secs_f64(stack.number(index).max(0.0) / 1000.0);
    let limited = |index| Some(time(index)).filter(|time| !time.is_zero());
    let (patience, connect_timeout) = (limited(TIMEOUT), limited(CONNECT_TIMEOUT));
    let attempts = stack.number(ATTEMPTS) as u32;
    let retry = RetryOptions { attempts, backoff: time(BACKOFF), max_backoff: time(MAX_BACKOFF) };
    let (limit, is_streamed) = (stack.number(LIMIT) as u64, stack.boolean(STREAM));
    let redirects = stack.number(REDIRECTS) as u32;
    let (body, feed) = body(stack, fetch)?;
    let deadline = patience.map(|time| Instant::now() + time);
    let is_repeatable = is_idempotent(&method);
    let mut span = fetch.tracing.ask(&mut headers, &method);
    if let Some(span) = &mut span {
        span.to(&url, None);
    }
    let call = Call {
        method,
        url,
        headers,
        body: Some(body),
        deadline,
        connect_timeout,
        redirects,
        retry: Some(retry).filter(|retry| retry.attempts > 1),
        is_repeatable,
    };
    let name = Name::Lent(String::from_utf8_lossy(stack.bytes(NAME).unwrap_or_default()).into());
    let exchange = exchange(client, call, limit, is_streamed);
    let shared = fetch.shared();
    fetch.waits.suspend(stack, name, async move {
        let outcome = match feed {
            Some(feed) => beside(feed, exchange, deadline).await,
            None => exchange.await,
        };
        if let Some(span) = span {
            outcome.told(span);
        }
        move |stack: &mut Stack<'_>| push(stack, &*alive(&shared)?, outcome, patience)
    })
}

/// Sends the call and waits for its answer, with its body unless that is to be streamed.
async fn exchange(client: Rc<Client>, call: Call, limit: u64, is_streamed: bool) -> FetchOutcome {
    let deadline = call.deadline;
    let Reply { head, mut body, url, is_not_followed } = match client.send(call).await {
        Ok(reply) => reply,
        Err(problem) => return FetchOutcome::Failed(problem),
    };
    let head = Head { parts: head, url, is_not_followed };
    if is_streamed {
        return FetchOutcome::Streaming(head, Box::new(body));
    }
    match body.collect(limit, deadline).await {
        Ok(body) => FetchOutcome::Collected(head, body),
        Err(problem) => FetchOutcome::Failed(problem),
    }
}

/// Makes the request's body while it is sent. One that raises ends the exchange.
async fn beside(
    feed: impl Future<Output = Result<(), FetchOutcome>>,
    exchange: impl Future<Output = FetchOutcome>,
    deadline: Option<Instant>,
) -> FetchOutcome {
    let (mut feed, mut exchange) = (pin!(feed), pin!(exchange));
    let outcome = tokio::select! {
        biased;
        fed = &mut feed => match fed {
            Ok(()) => return exchange.await,
            Err(problem) => return problem,
        },
        outcome = &mut exchange => outcome,
    };
    match outcome {
        // A server may answer while the rest of the request is still on its way, and stop reading.
        FetchOutcome::Streaming(..) => {
            let fed = match deadline {
                Some(deadline) => timeout_at(deadline, feed).await,
                None => Ok(feed.await),
            };
            match fed {
                Ok(Ok(())) => outcome,
                Ok(Err(problem)) => problem,
                Err(_) => FetchOutcome::Failed(Problem::Timeout),
            }
        }
        outcome => outcome,
    }
}

fn method(stack: &Stack<'_>) -> Result<Method, Raise> {
    let written = stack.bytes(argument::METHOD).unwrap_or_default();
    match Method::from_bytes(written) {
        Ok(Method::CONNECT) => Err(Raise::mistake("CONNECT is not a request that rover.http can make")),
        Ok(method) => Ok(method),
        Err(_) => Err(Raise::Mistake(format!("{:?} is not a method", String::from_utf8_lossy(written)))),
    }
}

/// The headers; what could end a field line, or frame the message otherwise than hyper does, is a mistake.
fn headers(stack: &mut Stack<'_>) -> Result<HeaderMap, Raise> {
    let last = stack.raw_len(argument::HEADERS) as i32;
    let mut headers = HeaderMap::with_capacity((last as usize / 2 + 2).min(MOST_FIELDS));
    for n in (1..last).step_by(2) {
        stack.push_item(argument::HEADERS, n);
        stack.push_item(argument::HEADERS, n + 1);
        let top = stack.top();
        let written = stack.bytes(top - 1).unwrap_or_default();
        let Ok(name) = HeaderName::from_bytes(written) else {
            return Err(Raise::Mistake(format!("{:?} is not a header name", String::from_utf8_lossy(written))));
        };
        if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
            return Err(Raise::Mistake(format!("the header {name} is set by Rover and cannot be changed")));
        }
        let Ok(value) = HeaderValue::from_bytes(stack.bytes(top).unwrap_or_default()) else {
            return Err(Raise::Mistake(format!("the value of the header {name} has a control character in it")));
        };
        stack.pop(2);
        header_names::append(&mut headers, name, value)
            .map_err(|too_many| Raise::Mistake(format!("the request has {too_many}")))?;
    }
    Ok(headers)
}

/// The body, and what makes it where a function does.
fn body(
    stack: &mut Stack<'_>,
    fetch: &Fetch,
) -> Result<(Outgoing, Option<impl Future<Output = Result<(), FetchOutcome>> + use<>>), Raise> {
    match stack.kind(argument::BODY) {
        Kind::Function => {
            let tasks = alive(&fetch.tasks)?;
            let held = Held::copies(&tasks, stack, argument::BODY, argument::BODY)?.nested(&tasks)?;
            // One chunk waits while another is sent, so a slow server holds its producer up.
            let (sender, chunks) = mpsc::channel(1);
            Ok((Outgoing::Chunks(chunks), Some(feed(tasks, held, sender))))
        }
        _ => match stack.bytes(argument::BODY) {
            Some(bytes) => Ok((Outgoing::Full(Bytes::copy_from_slice(bytes)), None)),
            None => Ok((Outgoing::Empty, None)),
        },
    }
}

/// Calls the function for chunk after chunk until it returns nil, or nobody wants more.
async fn feed(tasks: Rc<Tasks>, mut function: Held, sender: mpsc::Sender<Bytes>) -> Result<(), FetchOutcome> {
    enum Chunk {
        Some(Bytes),
        End,
        Other(&'static str),
    }
    let place: Rc<str> = "the body of a request".into();
    let mut stint = Stint::default();
    loop {
        let run = match Run::again(&tasks, &mut function, &place) {
            Ok(run) => run,
            Err(Raise::Mistake(message)) => return Err(FetchOutcome::NoChunk(message)),
            Err(_) => return Err(FetchOutcome::Raised(None)),
        };
        let mut returned = stint.wait(run).await.map_err(|error| FetchOutcome::Raised(Some(error)))?;
        let chunk = match returned.stack() {
            None => Chunk::End,
            Some(stack) => match stack.value(1) {
                Value::Nil => Chunk::End,
                Value::String(bytes) => Chunk::Some(Bytes::copy_from_slice(bytes)),
                _ => Chunk::Other(stack.kind(1).name()),
            },
        };
        drop(returned);
        match chunk {
            // To the connection an empty chunk means the end.
            Chunk::Some(bytes) if bytes.is_empty() => {
                if let Some(limit) = stint.excess() {
                    let seconds = limit.as_secs_f64();
                    let message =
                        format!("the function of a request's body took {seconds} s of CPU time without a chunk");
                    return Err(FetchOutcome::NoChunk(message));
                }
            }
            Chunk::Some(bytes) => {
                stint.rest();
                if sender.send(bytes).await.is_err() {
                    return Ok(());
                }
            }
            Chunk::End => {
                let _ = sender.send(Bytes::new()).await;
                return Ok(());
            }
            Chunk::Other(kind) => {
                let message = format!("the function of a request's body returned a {kind}, not a string or nil");
                return Err(FetchOutcome::NoChunk(message));
            }
        }
    }
}

/// What a result says that is a redirect, although redirects are followed.
const NOT_FOLLOWED: &[u8] = b"the body was made by a function, which cannot make it again";

/// Pushes what the call brought.
fn push(stack: &mut Stack<'_>, fetch: &Fetch, outcome: FetchOutcome, patience: Option<Duration>) -> Returns {
    let (head, body) = match outcome {
        FetchOutcome::Failed(problem) => return push_problem(stack, &problem),
        FetchOutcome::NoChunk(message) => return Err(Raise::Mistake(message)),
        FetchOutcome::Raised(error) => {
            match error {
                Some(mut error) => error.push_first(stack),
                None => stack.push_nil(),
            }
            return Err(Raise::Value);
        }
        FetchOutcome::Collected(head, body) => (head, Ok(body)),
        FetchOutcome::Streaming(head, inflow) => (head, Err(inflow)),
    };
    let Head { parts: head, url, is_not_followed } = head;
    stack.push_table(0, 6);
    let result = stack.top();
    stack.push_bytes(b"status");
    stack.push_number(f64::from(head.status.as_u16()));
    stack.set_field(result);
    stack.push_bytes(b"ok");
    stack.push_boolean(head.status.is_success());
    stack.set_field(result);
    stack.push_bytes(b"url");
    stack.push_bytes(url.to_string().as_bytes());
    stack.set_field(result);
    stack.push_bytes(b"headers");
    push_headers(stack, &head.headers, fetch.headers_meta);
    stack.set_field(result);
    if is_not_followed {
        stack.push_bytes(b"not_followed");
        stack.push_bytes(NOT_FOLLOWED);
        stack.set_field(result);
    }
    stack.push_anchored(fetch.result_meta);
    stack.set_metatable(result);
    match body {
        Ok(body) => {
            if is_json(&head.headers) && !body.is_empty() {
                stack.push_bytes(b"data");
                match json::decode(stack, &body, &fetch.vocabulary) {
                    Ok(()) => stack.set_field(result),
                    Err(_) => stack.truncate(result),
                }
            }
            stack.push_bytes(b"body");
            stack.push_bytes(&body);
        }
        Err(inflow) => {
            stack.push_bytes(b"body");
            reader::push(stack, fetch, *inflow, patience);
        }
    }
    stack.set_field(result);
    Ok(1)
}

/// Pushes a table of the headers; the lines of a repeated field are joined (RFC 9110, section 5.3). Those of Set-Cookie cannot
/// be, and are an array.
fn push_headers(stack: &mut Stack<'_>, headers: &HeaderMap, meta: i32) {
    stack.push_table(0, headers.keys_len());
    let table = stack.top();
    for name in headers.keys() {
        stack.push_bytes(name.as_str().as_bytes());
        let mut lines = headers.get_all(name).iter();
        if name == SET_COOKIE {
            stack.push_table(1, 0);
            let cookies = stack.top();
            for (n, line) in (1..).zip(lines) {
                stack.push_bytes(line.as_bytes());
                stack.set_item(cookies, n);
            }
            stack.set_field(table);
            continue;
        }
        let first = lines.next().map(HeaderValue::as_bytes).unwrap_or_default();
        match lines.next() {
            None => stack.push_bytes(first),
            Some(second) => {
                let mut joined = first.to_vec();
                for line in std::iter::once(second).chain(lines) {
                    joined.extend_from_slice(b", ");
                    joined.extend_from_slice(line.as_bytes());
                }
                stack.push_bytes(&joined);
            }
        }
        stack.set_field(table);
    }
    stack.push_anchored(meta);
    stack.set_metatable(table);
}

/// Whether the answer says that it is JSON (RFC 8259; RFC 6839 for `+json`).
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let value = value.as_bytes();
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    let essence = value[..end].trim_ascii().to_ascii_lowercase();
    essence == b"application/json" || essence.ends_with(b"+json")
}
