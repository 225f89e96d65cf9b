//! Turns an upstream's answer, or its failure, into a response for Lua.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use rover_lua::{Returns, Stack};

use crate::log::{self, Level};
use crate::message::body::Aborted;
use crate::outbound::{Inflow, Problem};

use super::group::Turn;
use super::{Options, Proxy, headers};

/// The kinds of responses that `app/response.lua` knows, as far as they are used here.
const JSON: f64 = 1.0;
const STREAM: f64 = 7.0;

/// A body on its way from an upstream to the client.
pub(super) struct Through {
    inflow: Inflow,
    turn: Turn,
}

impl Through {
    pub(super) fn new(mut inflow: Inflow, turn: Turn, options: &Options) -> Through {
        inflow.set_patience(options.idle_timeout);
        Through { inflow, turn }
    }
}

impl Body for Through {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = self.get_mut();
        this.inflow.poll_chunk(cx).map(|chunk| {
            Some(match chunk? {
                Ok(data) => Ok(Frame::data(data)),
                Err(problem) => {
                    this.turn.failed();
                    log::event(Level::Warn, "the upstream's answer broke off")
                        .field("upstream", this.turn.upstream.url.to_string().as_str())
                        .field("error", problem.to_string().as_str())
                        .emit();
                    Err(Aborted)
                }
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inflow.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.inflow.size_hint()
    }
}

/// Pushes a response `{ STREAM, status, value, headers }` around the value that `push_value` pushes. One that `is_bodiless`
/// tells the length of a body which does not come.
pub(super) fn push(
    stack: &mut Stack<'_>,
    proxy: &Proxy,
    head: &Parts,
    (is_bodiless, options): (bool, &Options),
    switching: Option<&http::HeaderValue>,
    push_value: impl FnOnce(&mut Stack<'_>),
) -> Returns {
    let response = push_response(stack, STREAM, head.status);
    push_value(stack);
    stack.set_item(response, 3);
    stack.push_table(head.headers.len() * 2, 0);
    let fields = stack.top();
    let mut n = 1;
    let mut add = |name: &[u8], value: &[u8]| {
        stack.push_bytes(name);
        stack.set_item(fields, n);
        stack.push_bytes(value);
        stack.set_item(fields, n + 1);
        n += 2;
    };
    headers::backward(&head.headers, head.version, options, is_bodiless, &mut add);
    if let Some(protocol) = switching {
        add(b"connection", b"upgrade");
        add(b"upgrade", protocol.as_bytes());
    }
    stack.set_item(response, 4);
    finish(stack, proxy, response)
}

/// Pushes the response that tells the client that there is no answer, and logs why.
pub(super) fn push_failure(stack: &mut Stack<'_>, proxy: &Proxy, problem: &Problem, upstream: &str) -> Returns {
    let status = match problem {
        Problem::Timeout | Problem::ConnectTimeout => StatusCode::GATEWAY_TIMEOUT,
        Problem::CircuitOpen | Problem::QueueFull | Problem::Shortage(_) => StatusCode::SERVICE_UNAVAILABLE,
        Problem::BodyBrokeOff => StatusCode::REQUEST_TIMEOUT,
        Problem::BodyCut => client_went_away(),
        // The URLs of the app were looked at when it was loaded.
        Problem::BadUrl(_) | Problem::BodyMalformed => StatusCode::BAD_REQUEST,
        _ => StatusCode::BAD_GATEWAY,
    };
    let reason = problem.to_string();
    // The client's failures are not the upstream's.
    let (level, message) = match problem.is_of_client() {
        true => (Level::Debug, "the client did not send the whole of its request"),
        false => (Level::Warn, "the upstream gave no answer"),
    };
    log::event(level, message).field("upstream", upstream).field("error", reason.as_str()).emit();
    let response = push_response(stack, JSON, status);
    stack.push_table(0, 2);
    let body = stack.top();
    for (key, value) in [("error", status.canonical_reason().unwrap_or("Error")), ("reason", reason.as_str())] {
        stack.push_bytes(key.as_bytes());
        stack.push_bytes(value.as_bytes());
        stack.set_field(body);
    }
    stack.set_item(response, 3);
    stack.push_boolean(false);
    stack.set_item(response, 4);
    finish(stack, proxy, response)
}

/// What logs show for a request whose client went away before its answer, which it does not see.
fn client_went_away() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

fn push_response(stack: &mut Stack<'_>, kind: f64, status: StatusCode) -> i32 {
    stack.push_table(4, 0);
    let response = stack.top();
    stack.push_number(kind);
    stack.set_item(response, 1);
    stack.push_number(f64::from(status.as_u16()));
    stack.set_item(response, 2);
    response
}

fn finish(stack: &mut Stack<'_>, proxy: &Proxy, response: i32) -> Returns {
    stack.push_anchored(proxy.responder.anchor);
    stack.set_metatable(response);
    Ok(1)
}

/// The name of an upstream in log lines.
pub(super) fn named(turn: Option<&Rc<super::group::Upstream>>) -> String {
    turn.map(|upstream| upstream.url.to_string()).unwrap_or_default()
}
