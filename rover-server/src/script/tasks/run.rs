//! Runs one Lua function in a coroutine of its own.

use std::ffi::c_int;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use rover_lua::{Cancelled, Coroutine, Raise, Returns, Stack, label};

use crate::exchange::failure::Failure;
use crate::log::{self, Level};
use crate::runtime::execution::Execution;

use super::{DEEPEST, MOST_TASKS, Scope, TaskScope, Tasks};

/// The number under which a profiler counts tasks; entries of the app count from 1.
const TASK: u32 = 0;

/// Values that are kept on a stack of their own until somebody takes copies.
pub(crate) struct Held {
    /// Not stronger: what a task returned may be held by the VM that the tasks belong to.
    tasks: Weak<Tasks>,
    coroutine: Option<Coroutine>,
    /// That of a function that they hold.
    scope: TaskScope,
}

impl Held {
    fn of(tasks: &Rc<Tasks>, coroutine: Coroutine, scope: TaskScope) -> Held {
        tasks.holding.set(tasks.holding.get() + 1);
        Held { tasks: Rc::downgrade(tasks), coroutine: Some(coroutine), scope }
    }

    /// The values `first..=last` of `stack`.
    pub(crate) fn copies(tasks: &Rc<Tasks>, stack: &mut Stack<'_>, first: c_int, last: c_int) -> Result<Held, Raise> {
        let mut held = Held::of(tasks, tasks.coroutines.take(), tasks.inherit());
        let copied = held.coroutine.as_mut().is_some_and(|own| stack.copy_to(first, last, &mut own.stack()));
        if copied { Ok(held) } else { Err(Raise::mistake("too many values")) }
    }

    /// The same, for a function that runs within a wait of the one that runs now.
    ///
    /// # Errors
    /// Too many lie within each other.
    pub(crate) fn nested(mut self, tasks: &Tasks) -> Result<Held, Raise> {
        self.scope.depth = tasks.scope.borrow().depth + 1;
        if self.scope.depth > DEEPEST {
            return Err(Raise::Mistake(format!(
                "more than {DEEPEST} functions wait for each other, each within the last"
            )));
        }
        Ok(self)
    }

    /// The stack that holds them, from index 1.
    pub(crate) fn stack(&mut self) -> Option<Stack<'_>> {
        self.coroutine.as_mut().map(Coroutine::stack)
    }

    /// Pushes copies of all values and says how many.
    pub(crate) fn push_all(&mut self, stack: &mut Stack<'_>) -> Returns {
        let Some(coroutine) = &mut self.coroutine else { return Ok(0) };
        let mut own = coroutine.stack();
        let n = own.top();
        if own.copy_to(1, n, stack) { Ok(n) } else { Err(Raise::mistake("too many results")) }
    }

    /// Pushes a copy of the first value, or nil.
    pub(crate) fn push_first(&mut self, stack: &mut Stack<'_>) {
        let copied = self.coroutine.as_mut().is_some_and(|coroutine| {
            let mut own = coroutine.stack();
            own.top() > 0 && own.copy_to(1, 1, stack)
        });
        if !copied {
            stack.push_nil();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let (Some(coroutine), Some(tasks)) = (self.coroutine.take(), self.tasks.upgrade()) {
            tasks.holding.set(tasks.holding.get() - 1);
            tasks.coroutines.put_back(coroutine);
        }
    }
}

/// A function being run. Dropping it cancels the function, which cleans up before this returns.
pub(crate) struct Run {
    tasks: Rc<Tasks>,
    execution: Execution,
    /// Where it was started.
    place: Rc<str>,
    /// Its error is logged: nobody may ask for it.
    is_logged: bool,
    scope: TaskScope,
}

impl Run {
    /// Prepares the function at `first` of `stack` with the arguments up to `last`, which is to run within a wait of the
    /// function that runs now. It begins when it is polled.
    ///
    /// # Errors
    /// The worker runs too many, or too many lie within each other.
    pub(crate) fn nested(
        tasks: &Rc<Tasks>,
        stack: &mut Stack<'_>,
        first: c_int,
        last: c_int,
        place: &Rc<str>,
    ) -> Result<Run, Raise> {
        let held = Held::copies(tasks, stack, first, last)?.nested(tasks)?;
        Run::of(tasks, held, last - first, place)
    }

    /// As [`Run::nested`], for a function that runs beside the one that runs now.
    ///
    /// # Errors
    /// The worker runs too many.
    pub(crate) fn new(
        tasks: &Rc<Tasks>,
        stack: &mut Stack<'_>,
        first: c_int,
        last: c_int,
        place: &Rc<str>,
    ) -> Result<Run, Raise> {
        let held = Held::copies(tasks, stack, first, last)?;
        Run::of(tasks, held, last - first, place)
    }

    fn of(tasks: &Rc<Tasks>, mut held: Held, args: c_int, place: &Rc<str>) -> Result<Run, Raise> {
        if tasks.running.get() >= MOST_TASKS {
            return Err(Raise::Mistake(format!("{MOST_TASKS} tasks run in this worker: there is no room for another")));
        }
        let Some(coroutine) = held.coroutine.take() else { return Err(Raise::mistake("nothing to run")) };
        tasks.holding.set(tasks.holding.get() - 1);
        Ok(Run::with(tasks, coroutine, args, place, std::mem::take(&mut held.scope)))
    }

    /// Prepares the function that `push` pushes, with as many arguments behind it as it says. `None` where the worker runs
    /// too many.
    pub(crate) fn prepare(
        tasks: &Rc<Tasks>,
        place: &Rc<str>,
        push: impl FnOnce(&mut Stack<'_>) -> c_int,
    ) -> Option<Run> {
        (tasks.running.get() < MOST_TASKS).then(|| Run::prepare_anyway(tasks, place, push))
    }

    /// As [`prepare`](Run::prepare), however many run: for what has to run, and whose number has a bound of its own.
    pub(crate) fn prepare_anyway(
        tasks: &Rc<Tasks>,
        place: &Rc<str>,
        push: impl FnOnce(&mut Stack<'_>) -> c_int,
    ) -> Run {
        let mut coroutine = tasks.coroutines.take();
        let args = push(&mut coroutine.stack());
        let scope = TaskScope { owner: tasks.scope(), ..TaskScope::default() };
        Run::with(tasks, coroutine, args, place, scope)
    }

    fn with(tasks: &Rc<Tasks>, coroutine: Coroutine, args: c_int, place: &Rc<str>, scope: TaskScope) -> Run {
        tasks.running.set(tasks.running.get() + 1);
        let execution = Execution::new(coroutine, args);
        Run { tasks: tasks.clone(), execution, place: place.clone(), is_logged: false, scope }
    }

    /// The same, on behalf of `owner`, as is everything that it starts.
    pub(crate) fn within(mut self, owner: Scope) -> Run {
        self.scope.owner = Some(owner);
        self
    }

    /// As [`Run::new`], for the function that `held` holds.
    pub(crate) fn again(tasks: &Rc<Tasks>, held: &mut Held, place: &Rc<str>) -> Result<Run, Raise> {
        match &mut held.coroutine {
            Some(coroutine) => {
                let mut run = Run::new(tasks, &mut coroutine.stack(), 1, 1, place)?;
                run.scope.clone_from(&held.scope);
                Ok(run)
            }
            None => Err(Raise::mistake("nothing to run")),
        }
    }

    /// The same, with its error logged.
    pub(crate) fn logged(mut self) -> Run {
        self.is_logged = true;
        self
    }

    fn raised(&mut self, mut coroutine: Coroutine) -> Held {
        let mut stack = coroutine.stack();
        let error = stack.top();
        let held = Held::copies(&self.tasks, &mut stack, error, error);
        if self.is_logged {
            self.log(&mut coroutine);
        }
        self.tasks.coroutines.discard(coroutine);
        let tasks = Rc::downgrade(&self.tasks);
        held.unwrap_or_else(|_| Held { tasks, coroutine: None, scope: TaskScope::default() })
    }

    /// Logs the error on top of the stack, where it was raised and where its function was started.
    fn log(&self, coroutine: &mut Coroutine) {
        let tasks = &self.tasks;
        let lua = tasks.coroutines.lua();
        let failure = Failure::raised(coroutine, &self.place, lua, &tasks.contexts, &tasks.responder);
        log::event(Level::Error, &failure.message)
            .field("task", &*self.place)
            .field("traceback", failure.trace().as_str())
            .emit();
    }

    #[cold]
    fn cancelled(&self, mut coroutine: Coroutine) {
        let tasks = &self.tasks;
        match tasks.within(&self.scope, || tasks.waits.cancel(&mut coroutine)) {
            Cancelled::Returned => return tasks.coroutines.put_back(coroutine),
            Cancelled::Through => {}
            Cancelled::Raised => self.log(&mut coroutine),
            Cancelled::Stuck => {
                log::event(Level::Warn, "a cancelled task went on to wait, and was ended where it stood")
                    .field("task", &*self.place)
                    .emit();
            }
        }
        tasks.coroutines.discard(coroutine);
    }
}

impl Future for Run {
    /// What the function returned, or what it raised.
    type Output = Result<Held, Held>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Held, Held>> {
        let this = &mut *self;
        let (tasks, scope) = (&this.tasks, &this.scope);
        let ended = ready!(this.execution.poll(cx, &tasks.waits, |coroutine, next| {
            label(TASK);
            tasks.within(scope, || next.run(coroutine))
        }));
        Poll::Ready(match ended {
            Ok(coroutine) => Ok(Held::of(tasks, coroutine, TaskScope::default())),
            Err(coroutine) => Err(this.raised(coroutine)),
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.tasks.running.set(self.tasks.running.get() - 1);
        let mut execution = self.execution.take();
        execution.cancel("task", |coroutine, has_begun| match has_begun {
            true => self.cancelled(coroutine),
            false => self.tasks.coroutines.put_back(coroutine),
        });
    }
}
