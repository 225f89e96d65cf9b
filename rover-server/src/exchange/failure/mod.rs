//! Turns errors of every kind into responses; the only place that does.
//!
//! Comes in: a status that Rover answers by itself, or an error that Lua raised. Goes out: the answer, and for
//! unforeseen errors a line in the log with the place in the Lua code. This module must not know of connections.

mod value;

use std::fmt::Write;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use rover_lua::json;
use rover_lua::{Coroutine, Frame, Kind, Stack, Stopped, traceback};

use crate::exchange::context::Contexts;
use crate::exchange::response::{Responder, name_status};
use crate::log::{self, Level};
use crate::message::body::Body;

/// Rover's own answer for a status: `{"error":"Not Found"}` with its reason phrase.
#[cold]
pub(crate) fn answer(status: StatusCode) -> Response<Body> {
    with_message(status, status.canonical_reason().unwrap_or("Error"))
}

/// Like [`answer`], with another message.
#[cold]
pub(crate) fn with_message(status: StatusCode, message: &str) -> Response<Body> {
    json_response(status, error_body(message).into())
}

/// The body of [`answer`].
#[cold]
pub(crate) fn body_of(status: StatusCode) -> Vec<u8> {
    error_body(status.canonical_reason().unwrap_or("Error"))
}

/// The body of [`with_message`].
#[cold]
pub(crate) fn error_body(message: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.len() + 16);
    body.extend_from_slice(b"{\"error\":");
    json::push_text(message.as_bytes(), &mut body);
    body.push(b'}');
    body
}

/// 308 to another path, with the same query. The path must not begin with `//`, which would name another host (RFC 3986,
/// section 4.2).
#[cold]
pub(crate) fn moved(path: &str, query: Option<&str>) -> Response<Body> {
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let Ok(location) = HeaderValue::try_from(target) else {
        return answer(StatusCode::NOT_FOUND);
    };
    let mut response = answer(StatusCode::PERMANENT_REDIRECT);
    response.headers_mut().insert(LOCATION, location);
    response
}

/// Marks a 503 that was sent because there was no room for the request's body, or for the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoRoom;

/// Like [`answer`]; 503 says that there is no room at the moment, and gets a `Retry-After`.
#[cold]
pub(crate) fn refusal(status: StatusCode) -> Response<Body> {
    let mut response = answer(status);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.extensions_mut().insert(NoRoom);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn json_response(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A call stack as text, a line for each level.
pub(crate) fn trace_text(frames: &[Frame]) -> String {
    let mut text = String::new();
    for frame in frames.iter().filter(|frame| frame.line > 0) {
        let _ = write!(text, "{}{frame}", if text.is_empty() { "" } else { "\n" });
    }
    text
}

/// An error that a handler or hook raised.
pub(crate) struct Failure {
    /// What the error says, with the file and line where it was raised.
    pub(crate) message: String,
    /// The Lua code that was active, innermost first.
    pub(crate) frames: Vec<Frame>,
    /// The answer that the error itself asks for.
    pub(crate) asked: Option<RaisedAnswer>,
    /// The answer's status if the error asks for none.
    status: StatusCode,
}

/// Whether a message begins with a file and a line, as one that comes from another coroutine does.
fn has_place(message: &str) -> bool {
    let place = message.split_once(": ").and_then(|(place, _)| place.rsplit_once(':'));
    place.is_some_and(|(file, line)| !file.is_empty() && line.parse::<u32>().is_ok())
}

/// An error that is an answer.
pub(crate) enum RaisedAnswer {
    /// `error { status = …, … }`: the table is the body, as JSON.
    Table(StatusCode, Bytes),
    /// `error(api:error(…))`, or another built response.
    Response(Response<Body>),
}

impl Failure {
    /// Reads the error at `index`, which was raised where `frames` say. No other Lua code has run since.
    pub(crate) fn read(
        stack: &mut Stack<'_>,
        index: i32,
        lua: &mlua::Lua,
        contexts: &Contexts,
        responder: &Responder,
        mut frames: Vec<Frame>,
    ) -> Failure {
        if let Some(stopped) = rover_lua::stopped() {
            return Failure::stopped(stopped);
        }
        let mut asked = None;
        let mut status = StatusCode::INTERNAL_SERVER_ERROR;
        let message = match stack.kind(index) {
            Kind::String => String::from_utf8_lossy(stack.bytes(index).unwrap_or_default()).into_owned(),
            Kind::Table if stack.metatable_identity(index) == responder.metatable => {
                let mut response = None;
                let sendable = responder.respond(stack, index, contexts, &mut HeaderMap::new(), &mut response).is_ok();
                asked = response.filter(|_| sendable).map(RaisedAnswer::Response);
                "a response was raised as an error".to_owned()
            }
            Kind::Table => match value::unavailable(stack, index) {
                Some(message) => {
                    status = StatusCode::SERVICE_UNAVAILABLE;
                    message
                }
                None => {
                    if let Some(status) = status_of(stack, index) {
                        let mut body = Vec::new();
                        if json::encode(stack, index, &contexts.vocabulary, &mut body).is_ok() {
                            asked = Some(RaisedAnswer::Table(status, body.into()));
                        }
                    }
                    value::told(stack, index, lua).unwrap_or_else(|| value::shown(stack, index, &contexts.vocabulary))
                }
            },
            Kind::Number => stack.number_text(index),
            _ => value::other(stack, index, lua),
        };
        if let Some(frame) = frames.first_mut() {
            frame.learn_line(&message);
        }
        frames.retain(|frame| frame.line > 0);
        let message = match frames.first() {
            // Only text knows where it was raised.
            Some(frame) if asked.is_none() && stack.kind(index) != Kind::String => {
                format!("{}:{}: {message}", frame.file, frame.line)
            }
            _ => message,
        };
        Failure { message, frames, asked, status }
    }

    /// Reads the error that a coroutine has raised, on top of its stack. `place` is what its function is known by, for where Lua
    /// knows no better place.
    #[cold]
    pub(crate) fn raised(
        coroutine: &mut Coroutine,
        place: &str,
        lua: &mlua::Lua,
        contexts: &Contexts,
        responder: &Responder,
    ) -> Failure {
        let mut stack = coroutine.stack();
        let frames = traceback(&stack, 0);
        let index = stack.top();
        Failure::read(&mut stack, index, lua, contexts, responder, frames).placed(place)
    }

    /// Lua code that was stopped because it ran for too long: 503.
    pub(crate) fn stopped(stopped: Stopped) -> Failure {
        let Stopped { message, frames } = stopped;
        Failure { message, frames, asked: None, status: StatusCode::SERVICE_UNAVAILABLE }
    }

    /// A failure outside of running Lua code, at a known place.
    pub(crate) fn at(place: &str, message: &str) -> Failure {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Failure { message: format!("{place}: {message}"), frames: Vec::new(), asked: None, status }
    }

    /// The same failure, at `place` if Lua knows no better one: a tail call removes its caller from the stack.
    pub(crate) fn placed(mut self, place: &str) -> Failure {
        if self.frames.is_empty() && self.asked.is_none() && !has_place(&self.message) {
            self.message = format!("{place}: {}", self.message);
        }
        self
    }

    /// The call stack, a line for each level.
    pub(crate) fn trace(&self) -> String {
        trace_text(&self.frames)
    }

    /// The message and, where it says more, the call stack below it.
    pub(crate) fn described(&self) -> String {
        match self.frames.len() {
            0 | 1 => self.message.clone(),
            _ => format!("{}\n  {}", self.message, self.trace().replace('\n', "\n  ")),
        }
    }

    /// Logs the failure, unless it asked for its answer.
    pub(crate) fn log(&self, method: &str, path: &str, request_id: &HeaderValue) {
        if self.asked.is_some() {
            return;
        }
        let trace = self.trace();
        log::event(Level::Error, &self.message)
            .field("method", method)
            .field("path", path)
            .field("request_id", &*String::from_utf8_lossy(request_id.as_bytes()))
            .field("traceback", &*trace)
            .emit();
    }

    /// The default answer. With `debug`, it shows the author what the log shows.
    pub(crate) fn into_response(self, request_id: &HeaderValue, debug: bool) -> Response<Body> {
        match self.asked {
            Some(RaisedAnswer::Response(response)) => response,
            Some(RaisedAnswer::Table(status, body)) => {
                let mut response = json_response(status, body);
                name_status(&mut response);
                response
            }
            None => {
                let mut body = Vec::new();
                let mut field = |before: &[u8], value: &[u8]| {
                    body.extend_from_slice(before);
                    json::push_text(value, &mut body);
                };
                let error = self.status.canonical_reason().unwrap_or("Error");
                field(b"{\"error\":", error.as_bytes());
                field(b",\"request_id\":", request_id.as_bytes());
                if debug {
                    field(b",\"message\":", self.message.as_bytes());
                    field(b",\"traceback\":", self.trace().as_bytes());
                }
                body.push(b'}');
                json_response(self.status, body.into())
            }
        }
    }
}

/// The `status` of an error table, if it is from 400 to 599.
fn status_of(stack: &mut Stack<'_>, index: i32) -> Option<StatusCode> {
    stack.push_bytes(b"status");
    stack.get_field(index);
    let top = stack.top();
    let status = (stack.kind(top) == Kind::Number).then(|| stack.number(top));
    stack.pop(1);
    let status = status.filter(|status| (400.0..=599.0).contains(status) && status.fract() == 0.0)?;
    StatusCode::from_u16(status as u16).ok()
}
