//! Runs a handler from its first line to its response.
//!
//! Comes in: a request and the number of the function that answers it. Goes out: the response, at once when the handler
//! does not wait, else as a future. Handlers are coroutines from the VM's pool: one that waits is suspended, and the
//! worker serves others meanwhile. This module must not know how the request came in, nor how routes are found.

use std::ffi::c_int;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{Method, Response, StatusCode};
use tokio::time::{Sleep, sleep};

use crate::app::App;
use crate::body::{self, Body};
use crate::context::{self, Current, Open, Request};
use crate::failure::{self, Failure};
use crate::log::{self, Level};
use crate::lua::{Cancelled, Coroutine, Resume, Step, Wait, traceback};

/// A handler being called.
#[derive(Clone, Copy)]
struct Call {
    /// Its number among the app's entries.
    entry: c_int,
    /// Where the stack holds its results, once it has returned.
    results: c_int,
    current: Current,
}

/// Runs the function number `entry` on the request until it ends or waits.
///
/// Most handlers end without having waited: their response is then in `response`, where it need not be moved again.
#[inline(always)]
pub(crate) fn start(
    app: &Rc<App>,
    entry: c_int,
    request: Open,
    response: &mut Option<Response<Body>>,
) -> Option<Box<Running>> {
    let mut coroutine = app.coroutines.take();
    let mut stack = coroutine.stack();
    let (current, args) = if app.takes_context(entry) {
        // The copy below the function keeps the context alive, whatever the handler does with its own.
        let current = context::push(&mut stack, request.ticket(), App::CONTEXT_META);
        stack.push_item(App::ENTRIES, entry);
        stack.push_copy(App::BASE + 1);
        (current, 1)
    } else {
        stack.push_item(App::ENTRIES, entry);
        (Current::NONE, 0)
    };
    let call = Call { entry, results: App::BASE + 1 + args, current };
    match advance(app, &mut coroutine, current, args) {
        Step::Returned => finish(app, coroutine, &request, call, response),
        Step::Raised => *response = fail(app, coroutine, &request, call),
        Step::Waits(wait) => {
            let (app, coroutine) = (app.clone(), Some(coroutine));
            return Some(Box::new(Running { app, call, coroutine, request, wait, clock: None, is_late: false }));
        }
    }
    None
}

#[inline]
fn advance(app: &App, coroutine: &mut Coroutine, current: Current, args: c_int) -> Step {
    app.contexts.requests.enter(current);
    app.waits.advance(coroutine, args)
}

/// Lets a handler go on with what its wait brought.
fn go_on(app: &App, coroutine: &mut Coroutine, current: Current, resume: Resume) -> Step {
    app.contexts.requests.enter(current);
    app.waits.go_on(coroutine, resume)
}

/// Sends what the handler returned.
#[inline]
fn finish(app: &App, mut coroutine: Coroutine, request: &Open, call: Call, response: &mut Option<Response<Body>>) {
    let mut stack = coroutine.stack();
    request.look(|request| {
        let headers = &mut request.head.headers;
        if let Err(problem) = app.responder.respond(&mut stack, call.results, &app.contexts, headers, response) {
            *response = Some(refuse(app, &problem, request, call.entry));
        }
        let Some(response) = response else { return };
        if let Some(id) = &request.id {
            response.headers_mut().insert("x-request-id", id.clone());
        }
        if let Body::Stream(_) = response.body() {
            stream(request, response);
        }
    });
    app.coroutines.put_back(coroutine);
}

/// A response that streams: HEAD gets only its head, and the connection is busy for as long as it lasts.
#[cold]
fn stream(request: &Request, response: &mut Response<Body>) {
    if request.head.method == Method::HEAD {
        *response.body_mut() = Body::Stream(body::nothing());
        return;
    }
    let body = std::mem::take(response.body_mut());
    *response.body_mut() = body.keeping(request.peer.clone());
}

/// The handler returned what cannot be sent.
#[cold]
fn refuse(app: &App, problem: &str, request: &mut Request, entry: c_int) -> Response<Body> {
    // No 101 goes out: the connection stays what it is.
    drop(request.peer.upgrade.take());
    let failure = Failure::at(&app.place_of(entry), &format!("the returned value cannot be sent: {problem}"));
    answer(app, failure, request)
}

/// The handler raised: the error is on top of its stack.
#[cold]
fn fail(app: &App, mut coroutine: Coroutine, request: &Open, call: Call) -> Option<Response<Body>> {
    let mut stack = coroutine.stack();
    let frames = traceback(&stack, 0);
    let index = stack.top();
    let failure = Failure::read(&mut stack, index, app.coroutines.lua(), &app.contexts, &app.responder, frames)
        .placed(&app.place_of(call.entry));
    app.coroutines.discard(coroutine);
    request.look(|request| answer(app, failure, request))
}

fn answer(app: &App, failure: Failure, request: &mut Request) -> Response<Body> {
    let id = request.id().clone();
    failure.log(request.head.method.as_str(), request.head.uri.path(), &id);
    let mut response = failure.into_response(&id, app.debug());
    response.headers_mut().insert("x-request-id", id);
    response
}

/// A handler that waits. Dropping it, as happens when the client goes away, cancels the handler: its wait raises, and
/// it runs to its end.
pub(crate) struct Running {
    app: Rc<App>,
    call: Call,
    /// `None` once it has ended.
    coroutine: Option<Coroutine>,
    request: Open,
    wait: Wait,
    /// Runs from the first wait on, where handlers have only so much time.
    clock: Option<Pin<Box<Sleep>>>,
    is_late: bool,
}

impl Running {
    /// Whether the handler has had all its time.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.app.handler_timeout();
        if limit.is_zero() {
            return Poll::Pending;
        }
        self.clock.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx)
    }
}

impl Future for Running {
    /// `None` where the request was gone.
    type Output = Option<Response<Body>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Response<Body>>> {
        loop {
            let this = &mut *self;
            let Poll::Ready(resume) = this.wait.as_mut().poll(cx) else {
                ready!(this.poll_late(cx));
                this.is_late = true;
                this.end();
                return Poll::Ready(Some(failure::answer(StatusCode::SERVICE_UNAVAILABLE)));
            };
            let Some(mut coroutine) = this.coroutine.take() else { return Poll::Ready(None) };
            match go_on(&this.app, &mut coroutine, this.call.current, resume) {
                Step::Returned => {
                    let mut response = None;
                    finish(&this.app, coroutine, &this.request, this.call, &mut response);
                    return Poll::Ready(response);
                }
                Step::Raised => return Poll::Ready(fail(&this.app, coroutine, &this.request, this.call)),
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
        self.end();
    }
}

impl Running {
    /// Cancels the handler, unless it has ended.
    fn end(&mut self) {
        let Some(coroutine) = self.coroutine.take() else { return };
        // First what it waits for, then itself.
        self.wait = Box::pin(std::future::pending());
        let (app, call, request, is_late) = (&self.app, self.call, &self.request, self.is_late);
        if catch_unwind(AssertUnwindSafe(|| cancel(app, coroutine, request, call, is_late))).is_err() {
            log::event(Level::Error, "Rover panicked while it cancelled a handler; this is a bug in Rover").emit();
        }
    }
}

/// The client of a handler that waits has gone away, or its time is over: the handler finds an error at its wait, and may
/// clean up.
#[cold]
fn cancel(app: &App, mut coroutine: Coroutine, request: &Open, call: Call, is_late: bool) {
    app.contexts.requests.enter(call.current);
    let cancelled = app.waits.cancel(&mut coroutine);
    let place = app.place_of(call.entry);
    let about = |level: Level, message: &str| {
        request.look(|request| {
            log::event(level, message)
                .field("method", request.head.method.as_str())
                .field("path", request.head.uri.path())
                .field("handler", place.as_str())
                .emit();
        });
    };
    let (level, reason) = match is_late {
        true => (Level::Warn, "a handler was cancelled, for its handler_timeout was over"),
        false => (Level::Debug, "the client went away while its handler waited"),
    };
    match cancelled {
        Cancelled::Returned => {
            about(level, reason);
            return app.coroutines.put_back(coroutine);
        }
        Cancelled::Through => about(level, reason),
        Cancelled::Stuck => about(Level::Warn, "a cancelled handler went on to wait, and was ended where it stood"),
        Cancelled::Raised => {
            let mut stack = coroutine.stack();
            let frames = traceback(&stack, 0);
            let index = stack.top();
            let failure = Failure::read(&mut stack, index, app.coroutines.lua(), &app.contexts, &app.responder, frames)
                .placed(&place);
            request.look(|request| {
                let id = request.id().clone();
                failure.log(request.head.method.as_str(), request.head.uri.path(), &id);
            });
        }
    }
    app.coroutines.discard(coroutine);
}

/// Runs a hook, a function without arguments, to its end.
///
/// # Errors
/// What the hook raised.
pub(crate) async fn run_hook(app: &Rc<App>, entry: c_int) -> Result<(), Failure> {
    let mut held = Held { app, coroutine: app.coroutines.take() };
    held.coroutine.stack().push_item(App::ENTRIES, entry);
    let mut step = advance(app, &mut held.coroutine, Current::NONE, 0);
    loop {
        match step {
            Step::Returned => return Ok(()),
            Step::Raised => {
                let mut stack = held.coroutine.stack();
                let frames = traceback(&stack, 0);
                let index = stack.top();
                let lua = app.coroutines.lua();
                let failure = Failure::read(&mut stack, index, lua, &app.contexts, &app.responder, frames);
                return Err(failure.placed(&app.place_of(entry)));
            }
            Step::Waits(wait) => step = go_on(app, &mut held.coroutine, Current::NONE, wait.await),
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
