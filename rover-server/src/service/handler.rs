//! Runs a handler from its first line to its response.
//!
//! Comes in: a request and the number of the function that answers it. Goes out: the response, at once when the handler
//! does not wait, else as a future. Handlers are coroutines from the VM's pool: one that waits is suspended, and the
//! worker serves others meanwhile. This module must not know how the request came in, nor how routes are found.

use std::ffi::c_int;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{Method, Response, StatusCode};
use rover_lua::{Cancelled, Coroutine, Frame, Stack, Step, label, traceback};
use tokio::task::coop;
use tokio::time::{Sleep, sleep};

use crate::exchange::context::{self, CurrentContext, Request, RequestGuard};
use crate::exchange::failure::{self, Failure, trace_text};
use crate::log::{self, Level};
use crate::message::body::{self, Body};
use crate::runtime::budget;
use crate::runtime::execution::{Execution, Next};
use crate::script::app::App;

/// A handler being called.
#[derive(Clone, Copy)]
struct Call {
    /// Its number among the app's entries.
    entry: c_int,
    /// Where the stack holds its results, once it has returned.
    results: c_int,
    current: CurrentContext,
}

/// Runs a function on the request until it ends or waits: the entry's own, or another one on its behalf.
///
/// Most handlers end without having waited: their response is then in `response`, where it need not be moved again.
#[inline(always)]
pub(crate) fn start(
    app: &Rc<App>,
    (entry, function): (c_int, c_int),
    request: RequestGuard,
    response: &mut Option<Response<Body>>,
) -> Option<Box<Running>> {
    let mut coroutine = app.coroutines.take();
    let mut stack = coroutine.stack();
    let (current, args) = if app.takes_context(function) {
        // The copy below the function keeps the context alive, whatever the handler does with its own.
        let current = context::push(&mut stack, request.request_key(), App::CONTEXT_META);
        stack.push_item(App::ENTRIES, function);
        stack.push_copy(App::BASE + 1);
        (current, 1)
    } else {
        stack.push_item(App::ENTRIES, function);
        (CurrentContext::without_context(request.request_key()), 0)
    };
    let call = Call { entry, results: App::BASE + 1 + args, current };
    match advance(app, &mut coroutine, entry, current, args) {
        Step::Returned => finish(app, coroutine, &request, call, response),
        Step::Raised => *response = fail(app, coroutine, &request, call),
        Step::Waits(wait) => {
            request.look(Request::detach);
            let longest = app.watches_waits().then(Longest::begin);
            return Some(Box::new(Running {
                app: app.clone(),
                call,
                execution: Execution::waiting(coroutine, wait),
                request,
                clock: None,
                left: None,
                is_late: false,
                longest,
            }));
        }
    }
    None
}

#[inline]
fn advance(app: &App, coroutine: &mut Coroutine, entry: c_int, current: CurrentContext, args: c_int) -> Step {
    label(entry.cast_unsigned());
    app.contexts.requests.enter(current);
    app.waits.advance(coroutine, args)
}

/// Runs a function on: a hook, or a handler that has waited.
fn go_on(app: &App, coroutine: &mut Coroutine, entry: c_int, current: CurrentContext, next: Next<'_>) -> Step {
    label(entry.cast_unsigned());
    app.contexts.requests.enter(current);
    next.run(coroutine)
}

/// As [`finish`], for a handler that has waited: out of the way of those that have not.
#[inline(never)]
fn finish_late(app: &Rc<App>, coroutine: Coroutine, request: &RequestGuard, call: Call) -> Option<Response<Body>> {
    let mut response = None;
    finish(app, coroutine, request, call, &mut response);
    response
}

/// Sends what the handler returned.
#[inline(always)]
fn finish(
    app: &Rc<App>,
    mut coroutine: Coroutine,
    request: &RequestGuard,
    call: Call,
    response: &mut Option<Response<Body>>,
) {
    let mut stack = coroutine.stack();
    request.look_last(|request| {
        let headers = &mut request.head.headers;
        if let Err(problem) = app.responder.respond(&mut stack, call.results, &app.contexts, headers, response) {
            *response = Some(refuse(app, &problem, request, call.entry));
        }
        let Some(response) = response else { return };
        if let Some(id) = &request.id {
            response.headers_mut().insert("x-request-id", id.clone());
        }
        if let Some(told) = request.told.take() {
            response.headers_mut().extend(*told);
        }
        if let Some(guarded) = &request.guarded
            && guarded.is_missing
            && response.status().is_success()
        {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        if response.body().len() > budget::SMALL as u64 {
            keep(app, request, response);
        } else if let Body::Stream(_) = response.body() {
            stream(app, request, response);
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(upgrade) = request.peer.upgrade.take()
        {
            let app = app.clone();
            request.peer.upgrade.put(Box::new(move |upgraded| {
                let work = upgrade(upgraded);
                Box::pin(async move {
                    let _kept = app;
                    work.await;
                })
            }));
        }
    });
    app.coroutines.put_back(coroutine);
}

/// Keeps the connection busy and the app in use until the last piece of a stream, even if another version has taken
/// over. HEAD gets only the head.
#[cold]
fn stream(app: &Rc<App>, request: &Request, response: &mut Response<Body>) {
    let Body::Stream(stream) = response.body_mut() else { return };
    let own = std::mem::replace(stream, body::nothing());
    if request.head.method != Method::HEAD {
        *stream = body::keeping(own, (app.clone(), request.peer.clone()));
    }
}

/// Counts a large answer until it has been sent. Without room for it, the client gets 503.
#[cold]
fn keep(app: &App, request: &Request, response: &mut Response<Body>) {
    let (Some(budget), Body::Full(bytes)) = (app.budget(), response.body_mut()) else { return };
    match budget.keep(request.peer.held(), std::mem::take(bytes)) {
        Some(kept) => *bytes = kept,
        None => {
            log::event(
                Level::Warn,
                "there is no room for an answer: buffer_limit or buffer_limit_per_connection is reached",
            )
            .field("method", request.head.method.as_str())
            .field("path", request.head.uri.path())
            .emit();
            *response = failure::refusal(StatusCode::SERVICE_UNAVAILABLE);
        }
    }
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
fn fail(app: &App, mut coroutine: Coroutine, request: &RequestGuard, call: Call) -> Option<Response<Body>> {
    let failure = app.failure(&mut coroutine, call.entry);
    app.coroutines.discard(coroutine);
    request.look(|request| answer(app, failure, request))
}

fn answer(app: &App, failure: Failure, request: &mut Request) -> Response<Body> {
    let id = request.id().clone();
    failure.log(request.head.method.as_str(), request.head.uri.path(), &id);
    let mut response = failure.into_response(&id, app.debug());
    if response.body().len() > budget::SMALL as u64 {
        keep(app, request, &mut response);
    }
    response.headers_mut().insert("x-request-id", id);
    if let Some(told) = request.told.take() {
        response.headers_mut().extend(*told);
    }
    response
}

/// A handler that waits, as a future. Dropping it, for example because the client went away, cancels the handler: its
/// wait raises, and it runs to its end.
pub(crate) struct Running {
    app: Rc<App>,
    call: Call,
    execution: Execution,
    request: RequestGuard,
    /// Set at the first wait, if there is a `handler_timeout`.
    clock: Option<Pin<Box<Sleep>>>,
    /// The rest of that time while the handler waits for its client, which has its own timeout.
    left: Option<Duration>,
    is_late: bool,
    /// Noted only where slow requests are logged.
    longest: Option<Longest>,
}

/// The longest wait of a handler.
struct Longest {
    /// When the wait began that it is in.
    since: Instant,
    wait: Duration,
    /// The call stack in the longest one.
    place: Vec<Frame>,
}

impl Longest {
    #[cold]
    fn begin() -> Longest {
        Longest { since: Instant::now(), wait: Duration::ZERO, place: Vec::new() }
    }

    /// A wait is over, or seen from outside.
    #[cold]
    fn note(&mut self, coroutine: &mut Coroutine) {
        let wait = self.since.elapsed();
        if wait > self.wait {
            self.wait = wait;
            self.place = traceback(&coroutine.stack(), 0);
        }
    }
}

impl Running {
    /// Whether the handler has had all its time.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.app.handler_timeout(self.call.entry);
        if limit.is_zero() {
            return Poll::Pending;
        }
        if self.request.look(|request| request.is_receiving()).unwrap_or_default() {
            let clock = self.clock.take();
            self.left =
                clock.map(|clock| clock.deadline().saturating_duration_since(Instant::now().into())).or(self.left);
            return Poll::Pending;
        }
        let left = self.left.take().unwrap_or(limit);
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(left))).as_mut();
        // Also when the wait has used up the task's budget.
        pin!(coop::unconstrained(clock)).poll(cx)
    }

    /// The target of the request, which holds nothing of the connection's.
    pub(crate) fn uri(&self) -> Option<http::Uri> {
        self.request.look(|request| request.head.uri.clone())
    }

    /// The handler's longest wait, and the call stack there. `None` unless slow requests are logged.
    pub(crate) fn longest_wait(&mut self) -> Option<(Duration, String)> {
        let longest = self.longest.as_mut()?;
        if let Some(coroutine) = self.execution.coroutine() {
            longest.note(coroutine);
        }
        Some((longest.wait, trace_text(&longest.place)))
    }
}

impl Future for Running {
    /// `None` where the request was gone.
    type Output = Option<Response<Body>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Response<Body>>> {
        let this = &mut *self;
        let (app, call, longest) = (&this.app, this.call, &mut this.longest);
        let polled = this.execution.poll(cx, &app.waits, |coroutine, next| {
            if let Some(longest) = longest {
                longest.note(coroutine);
            }
            let step = go_on(app, coroutine, call.entry, call.current, next);
            if let Some(longest) = longest {
                longest.since = Instant::now();
            }
            step
        });
        match polled {
            Poll::Ready(Ok(coroutine)) => Poll::Ready(finish_late(app, coroutine, &this.request, call)),
            Poll::Ready(Err(coroutine)) => Poll::Ready(fail(app, coroutine, &this.request, call)),
            Poll::Pending => {
                ready!(this.poll_late(cx));
                this.is_late = true;
                if let (Some(longest), Some(coroutine)) = (&mut this.longest, this.execution.coroutine()) {
                    longest.note(coroutine);
                }
                this.end();
                Poll::Ready(Some(failure::answer(StatusCode::SERVICE_UNAVAILABLE)))
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
        let (app, call, request, is_late) = (&self.app, self.call, &self.request, self.is_late);
        self.execution.cancel("handler", |coroutine, _| cancel(app, coroutine, request, call, is_late));
    }
}

/// Cancels a handler whose client has gone away or whose time is over: its wait raises, and it may clean up.
#[cold]
fn cancel(app: &App, mut coroutine: Coroutine, request: &RequestGuard, call: Call, is_late: bool) {
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
            let failure = app.failure(&mut coroutine, call.entry);
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
    run_to_end(app, entry, |_, _| ()).await
}

/// Runs a hook, and reads what it returned: `read` is given where the stack holds its results.
///
/// # Errors
/// What the hook raised.
pub(crate) async fn run_to_end<R>(
    app: &Rc<App>,
    entry: c_int,
    read: impl FnOnce(&mut Stack<'_>, c_int) -> R,
) -> Result<R, Failure> {
    let mut coroutine = app.coroutines.take();
    coroutine.stack().push_item(App::ENTRIES, entry);
    let mut hook = Hook { app, entry, execution: Execution::new(coroutine, 0) };
    let run = |coroutine: &mut Coroutine, next: Next<'_>| go_on(app, coroutine, entry, CurrentContext::NONE, next);
    match poll_fn(|cx| hook.execution.poll(cx, &app.waits, run)).await {
        Ok(mut coroutine) => Ok(read(&mut coroutine.stack(), App::BASE + 1)),
        Err(mut coroutine) => Err(app.failure(&mut coroutine, entry)),
    }
}

/// A hook that runs. Hooks are rare, so the coroutine of one is not used again. Dropping it while it waits cancels the hook,
/// as happens when the server stops or the hook takes too long.
struct Hook<'a> {
    app: &'a Rc<App>,
    entry: c_int,
    execution: Execution,
}

impl Drop for Hook<'_> {
    fn drop(&mut self) {
        let (app, entry) = (self.app, self.entry);
        self.execution.cancel("hook", |coroutine, has_begun| {
            if has_begun {
                cancel_hook(app, coroutine, entry);
            }
        });
    }
}

#[cold]
fn cancel_hook(app: &App, mut coroutine: Coroutine, entry: c_int) {
    app.contexts.requests.enter(CurrentContext::NONE);
    match app.waits.cancel(&mut coroutine) {
        Cancelled::Returned | Cancelled::Through => {}
        Cancelled::Stuck => {
            log::event(Level::Warn, "a cancelled hook went on to wait, and was ended where it stood")
                .field("hook", app.place_of(entry).as_str())
                .emit();
        }
        Cancelled::Raised => {
            let failure = app.failure(&mut coroutine, entry);
            log::event(Level::Error, &failure.message)
                .field("hook", app.place_of(entry).as_str())
                .field("traceback", failure.trace().as_str())
                .emit();
        }
    }
}
