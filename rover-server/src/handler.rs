//! Runs a handler from its first line to its response.
//!
//! Comes in: a request and the number of the function that answers it. Goes out: the response, at once when the handler
//! does not wait, else as a future. Handlers are coroutines from the VM's pool: one that waits is suspended, and the
//! worker serves others meanwhile. This module must not know how the request came in, nor how routes are found.

use std::ffi::c_int;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::Response;

use crate::app::App;
use crate::context::{self, Request, Ticket};
use crate::failure::Failure;
use crate::lua::{Coroutine, Resumed, Stack, Wait, traceback};
use crate::response::Body;

/// A handler that has begun.
pub(crate) enum Started {
    /// It has ended already, as most do.
    Done(Response<Body>),
    /// It waits for something.
    Waiting(Box<Running>),
}

/// Runs the function number `entry` on `request` until it ends or waits.
#[inline(always)]
pub(crate) fn start(app: &Rc<App>, entry: c_int, request: Request) -> Started {
    let ticket = app.contexts.requests.open(request);
    let mut coroutine = app.coroutines.take();
    let mut stack = coroutine.stack();
    stack.push_item(App::ENTRIES, entry);
    context::push(&mut stack, ticket, App::CONTEXT_META);
    match advance(app, &mut coroutine, 1) {
        Step::Returned => Started::Done(finish(app, coroutine, ticket, entry)),
        Step::Raised => Started::Done(fail(app, coroutine, ticket, entry)),
        Step::Waits(wait) => {
            Started::Waiting(Box::new(Running { app: app.clone(), entry, coroutine: Some(coroutine), ticket, wait }))
        }
    }
}

enum Step {
    Returned,
    /// The error is on top of the stack.
    Raised,
    Waits(Wait),
}

#[inline]
fn advance(app: &App, coroutine: &mut Coroutine, args: c_int) -> Step {
    app.waits.enter(&coroutine.stack());
    match coroutine.resume(args) {
        Resumed::Returned => Step::Returned,
        Resumed::Raised => Step::Raised,
        Resumed::Yielded => match app.waits.take() {
            Some(wait) => Step::Waits(wait),
            None => {
                push_stray_yield(&mut coroutine.stack());
                Step::Raised
            }
        },
    }
}

#[cold]
fn push_stray_yield(stack: &mut Stack<'_>) {
    let place = traceback(stack, 0).first().map(|frame| format!("{}:{}: ", frame.file, frame.line)).unwrap_or_default();
    let message = "coroutine.yield was called in a handler itself: only a coroutine of your own can yield";
    stack.push_bytes(format!("{place}{message}").as_bytes());
}

/// Sends what the handler returned.
#[inline]
fn finish(app: &App, mut coroutine: Coroutine, ticket: Ticket, entry: c_int) -> Response<Body> {
    let mut stack = coroutine.stack();
    let sent = app.contexts.requests.close(ticket, |request| {
        match app.responder.respond(&mut stack, App::BASE + 1, &app.contexts, &mut request.head.headers) {
            Ok(response) if request.id.is_none() => response,
            Ok(response) => with_id(response, request),
            Err(problem) => refuse(app, &problem, request, entry),
        }
    });
    app.coroutines.put_back(coroutine);
    sent.unwrap_or_else(|| crate::failure::answer(http::StatusCode::INTERNAL_SERVER_ERROR))
}

#[cold]
fn with_id(mut response: Response<Body>, request: &mut Request) -> Response<Body> {
    response.headers_mut().insert("x-request-id", request.id().clone());
    response
}

/// The handler returned what cannot be sent.
#[cold]
fn refuse(app: &App, problem: &str, request: &mut Request, entry: c_int) -> Response<Body> {
    let failure = Failure::at(&app.place_of(entry), &format!("the returned value cannot be sent: {problem}"));
    answer(app, failure, request)
}

/// The handler raised: the error is on top of its stack.
#[cold]
fn fail(app: &App, mut coroutine: Coroutine, ticket: Ticket, entry: c_int) -> Response<Body> {
    let mut stack = coroutine.stack();
    let frames = traceback(&stack, 0);
    let index = stack.top();
    let failure = Failure::read(&mut stack, index, app.coroutines.lua(), &app.contexts, &app.responder, frames)
        .placed(&app.place_of(entry));
    app.coroutines.discard(coroutine);
    let sent = app.contexts.requests.close(ticket, |request| answer(app, failure, request));
    sent.unwrap_or_else(|| crate::failure::answer(http::StatusCode::INTERNAL_SERVER_ERROR))
}

fn answer(app: &App, failure: Failure, request: &mut Request) -> Response<Body> {
    let id = request.id().clone();
    failure.log(request.head.method.as_str(), request.head.uri.path(), &id);
    with_id(failure.into_response(&id, app.debug()), request)
}

/// A handler that waits. Dropping it, as happens when the client goes away, ends the handler where it stands.
pub(crate) struct Running {
    app: Rc<App>,
    entry: c_int,
    /// `None` once it has ended.
    coroutine: Option<Coroutine>,
    ticket: Ticket,
    wait: Wait,
}

impl Future for Running {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        loop {
            let resume = ready!(self.wait.as_mut().poll(cx));
            let this = &mut *self;
            let Some(mut coroutine) = this.coroutine.take() else {
                return Poll::Ready(crate::failure::answer(http::StatusCode::INTERNAL_SERVER_ERROR));
            };
            let args = resume(&mut coroutine.stack());
            match advance(&this.app, &mut coroutine, args) {
                Step::Returned => return Poll::Ready(finish(&this.app, coroutine, this.ticket, this.entry)),
                Step::Raised => return Poll::Ready(fail(&this.app, coroutine, this.ticket, this.entry)),
                Step::Waits(wait) => {
                    this.coroutine = Some(coroutine);
                    this.wait = wait;
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(coroutine) = self.coroutine.take() {
            self.app.contexts.requests.close(self.ticket, |_| ());
            self.app.coroutines.discard(coroutine);
        }
    }
}

/// Runs a hook, a function without arguments, to its end.
///
/// # Errors
/// What the hook raised.
pub(crate) async fn run_hook(app: &Rc<App>, entry: c_int) -> Result<(), Failure> {
    let mut held = Held { app, coroutine: app.coroutines.take() };
    held.coroutine.stack().push_item(App::ENTRIES, entry);
    let mut args = 0;
    loop {
        match advance(app, &mut held.coroutine, args) {
            Step::Returned => return Ok(()),
            Step::Raised => {
                let mut stack = held.coroutine.stack();
                let frames = traceback(&stack, 0);
                let index = stack.top();
                let lua = app.coroutines.lua();
                let failure = Failure::read(&mut stack, index, lua, &app.contexts, &app.responder, frames);
                return Err(failure.placed(&app.place_of(entry)));
            }
            Step::Waits(wait) => args = wait.await(&mut held.coroutine.stack()),
        }
    }
}

/// The coroutine of a hook. Hooks are rare, so theirs is not used again.
struct Held<'a> {
    app: &'a Rc<App>,
    coroutine: Coroutine,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.app.coroutines.let_go(&self.coroutine);
    }
}
