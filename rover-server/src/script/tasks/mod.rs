//! Runs functions beside the handler that started them: `rover.spawn`, `every`, `all` and `timeout`.
//!
//! Comes in: Lua functions. Goes out: what they return, to whoever waits for it. A [`Run`] is one function in a coroutine
//! of its own; dropping it cancels the function. Those of `all` and `timeout` lie within the wait of their caller, and so
//! end with it; spawned ones lie in the worker's [`Driver`]. This module must not know of routes or handlers.

mod functions;
mod run;
mod spawned;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::mem::take;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rover_lua::json::Vocabulary;
use rover_lua::{Coroutines, Raise, Stack, Waits, caller};

use crate::exchange::context::{Contexts, CurrentContext};
use crate::exchange::response::Responder;
use crate::observe::metrics::Samples;
use crate::observe::otlp::{TaskTrace, Tracing};
use crate::runtime::turn;
use crate::transport::upgrade::ShutdownNotice;

pub(crate) use functions::install;
pub(crate) use run::{Held, Run};
use spawned::Spawned;

/// How many functions one worker runs beside its handlers, at most.
const MOST_TASKS: usize = 50_000;

/// How deep functions may be nested in the waits of others: each takes some of the thread's stack.
const DEEPEST: u32 = 200;

/// What the tasks of one worker share.
pub(crate) struct Tasks {
    coroutines: Coroutines,
    waits: Rc<Waits>,
    contexts: Rc<Contexts>,
    responder: Rc<Responder>,
    /// Spawned since the driver last looked.
    incoming: RefCell<Vec<Spawned>>,
    driver: RefCell<Option<Waker>>,
    running: Cell<usize>,
    /// Timers between two calls.
    waiting: Cell<usize>,
    /// Coroutines that hold values, and run nothing.
    holding: Cell<u64>,
    is_stopping: Cell<bool>,
    ending: ShutdownNotice,
    keep_alive: Cell<Duration>,
    /// Held by streams and WebSockets, which serve a client after its request has ended.
    guests: Rc<()>,
    /// That of the function that runs; a handler has none of it.
    scope: RefCell<TaskScope>,
    tracing: Tracing,
}

/// A part of a VM, for whoever holds it weakly and has waited meanwhile.
///
/// # Errors
/// The VM has gone.
pub(crate) fn alive<T>(part: &Weak<T>) -> Result<Rc<T>, Raise> {
    part.upgrade().ok_or_else(|| Raise::mistake("this server has been shut down"))
}

/// Where the running native function was called: the line of the app, or `app`.
pub(crate) fn place_of_call(stack: &Stack<'_>) -> Rc<str> {
    caller(stack).map_or_else(|| "app".into(), |frame| format!("{}:{}", frame.file, frame.line).into())
}

/// Functions that run beside handlers, and the coroutines for them.
struct Counts {
    /// They run or wait, timers also for their next call.
    tasks: u64,
    /// Coroutines that are ready.
    idle: u64,
    /// That run or wait.
    busy: u64,
    /// That hold values: what a task has returned, the function of a timer or a stream.
    held: u64,
    /// Made so far.
    created: u64,
}

/// On whose behalf a function runs: handed on to every function that it starts. What it is, only its maker knows.
#[derive(Clone)]
pub(crate) struct Scope(Rc<Link>);

struct Link {
    own: Rc<dyn Any>,
    outer: Option<Scope>,
}

impl Scope {
    /// On behalf of `own`, and of that on whose behalf its maker runs.
    pub(crate) fn within(own: Rc<dyn Any>, outer: Option<Scope>) -> Scope {
        Scope(Rc::new(Link { own, outer }))
    }
}

/// What a function has from the one that has started it.
#[derive(Clone, Default)]
struct TaskScope {
    /// On whose behalf it runs.
    owner: Option<Scope>,
    /// Where it belongs in a trace.
    trace: TaskTrace,
    /// How deep it lies within the waits of others.
    depth: u32,
}

impl Tasks {
    /// # Errors
    /// Memory errors of mlua.
    pub(crate) fn new(
        lua: &mlua::Lua,
        waits: &Rc<Waits>,
        contexts: &Rc<Contexts>,
        responder: &Rc<Responder>,
        tracing: &Tracing,
    ) -> mlua::Result<Rc<Tasks>> {
        Ok(Rc::new(Tasks {
            coroutines: Coroutines::new(lua, Vec::new(), waits.marks())?,
            waits: waits.clone(),
            contexts: contexts.clone(),
            responder: responder.clone(),
            incoming: RefCell::default(),
            driver: RefCell::default(),
            running: Cell::new(0),
            waiting: Cell::new(0),
            holding: Cell::new(0),
            is_stopping: Cell::new(false),
            ending: ShutdownNotice::default(),
            keep_alive: Cell::new(Duration::from_secs(15)),
            guests: Rc::default(),
            scope: RefCell::default(),
            tracing: tracing.clone(),
        }))
    }

    fn counts(&self) -> Counts {
        let (idle, used, created) = self.coroutines.counts();
        let held = self.holding.get();
        let tasks = (self.running.get() + self.waiting.get()) as u64;
        Counts { tasks, idle, busy: used.saturating_sub(held), held, created }
    }

    /// Notes how many tasks there are, and the coroutines for them.
    fn count(&self, samples: &mut Samples) {
        let Counts { tasks, idle, busy, held, created } = self.counts();
        samples.gauge(
            "rover_tasks",
            "Functions that run beside handlers: rover.spawn, every, all, timeout.",
            &[],
            tasks as f64,
        );
        let help = "Coroutines by what they are for and whether they are in use.";
        samples.gauge("rover_coroutines", help, &[("pool", "tasks"), ("state", "idle")], idle as f64);
        samples.gauge("rover_coroutines", help, &[("pool", "tasks"), ("state", "busy")], busy as f64);
        samples.gauge("rover_coroutines", help, &[("pool", "tasks"), ("state", "held")], held as f64);
        let help = "Coroutines that were made because none was idle.";
        samples.gauge("rover_coroutines_created", help, &[("pool", "tasks")], created as f64);
    }

    /// Lets no more tasks be spawned.
    pub(crate) fn stop(&self) {
        self.is_stopping.set(true);
    }

    /// Asks streams of events and WebSockets, which never end by themselves, to end.
    pub(crate) fn ending(&self) -> &ShutdownNotice {
        &self.ending
    }

    /// After how long a silence a stream of events sends a comment.
    pub(crate) fn keep_alive(&self) -> Duration {
        self.keep_alive.get()
    }

    /// Sets what [`keep_alive`](Tasks::keep_alive) gives.
    pub(crate) fn set_keep_alive(&self, time: Duration) {
        self.keep_alive.set(time);
    }

    /// To be held by whatever serves a client on after its request has ended: streams and WebSockets.
    pub(crate) fn guest(&self) -> Rc<()> {
        self.guests.clone()
    }

    /// Whether a client is served on after its request has ended.
    pub(crate) fn has_guests(&self) -> bool {
        Rc::strong_count(&self.guests) > 1
    }

    /// On whose behalf the running function runs.
    pub(crate) fn scope(&self) -> Option<Scope> {
        self.scope.borrow().owner.clone()
    }

    /// The scope of what the running function starts beside itself.
    fn inherit(&self) -> TaskScope {
        TaskScope { owner: self.scope(), trace: self.tracing.inherit(), depth: 0 }
    }

    /// Has `run` run in `scope`: a task runs meanwhile, no handler does.
    fn within<R>(&self, scope: &TaskScope, run: impl FnOnce() -> R) -> R {
        self.contexts.requests.enter(CurrentContext::NONE);
        let outer = self.scope.replace(scope.clone());
        let trace = self.tracing.enter(scope.trace.clone());
        let result = run();
        self.tracing.enter(trace);
        self.scope.replace(outer);
        result
    }

    /// Those of one kind on whose behalf the running function runs, the innermost first.
    pub(crate) fn scopes<T: Any>(&self) -> impl Iterator<Item = Rc<T>> {
        let links = std::iter::successors(self.scope(), |scope| scope.0.outer.clone());
        links.filter_map(|scope| scope.0.own.clone().downcast().ok())
    }

    /// What JSON needs to know of this VM.
    pub(crate) fn vocabulary(&self) -> &Vocabulary {
        &self.contexts.vocabulary
    }

    /// How Lua code waits in this VM.
    pub(crate) fn waits(&self) -> &Rc<Waits> {
        &self.waits
    }

    fn add(&self, task: Spawned) {
        self.incoming.borrow_mut().push(task);
        let waker = self.driver.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Runs the spawned tasks of a worker; never ends by itself. Dropping it cancels them all.
pub(crate) struct Driver {
    tasks: Rc<Tasks>,
    crowd: FuturesUnordered<Spawned>,
}

impl Driver {
    /// There should be one for each worker.
    pub(crate) fn new(tasks: Rc<Tasks>) -> Driver {
        Driver { tasks, crowd: FuturesUnordered::new() }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        turn::begin();
        let this = &mut *self;
        let mut is_first = true;
        loop {
            if !take(&mut is_first) {
                // Tasks that start others must not keep the worker for themselves.
                ready!(turn::poll_more(cx));
            }
            *this.tasks.driver.borrow_mut() = Some(cx.waker().clone());
            let incoming = this.tasks.incoming.take();
            this.crowd.extend(incoming);
            let ended = matches!(this.crowd.poll_next_unpin(cx), Poll::Ready(Some(())));
            if !ended && this.tasks.incoming.borrow().is_empty() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.crowd.clear();
        drop(self.tasks.incoming.take());
    }
}
