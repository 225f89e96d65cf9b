//! `rover.spawn`, `rover.every`, `rover.all` and `rover.timeout`.

use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mlua::{Lua, Table};
use rover_lua::{Kind, Name, OwnedMeta, Raise, Returns, Shared, Stack, Waits, seconds};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::observe::metrics::Sources;

use super::run::{Held, Run};
use super::spawned::{Spawned, TaskEnd, TaskState};
use super::{MOST_TASKS, Tasks, alive, place_of_call};

/// How many functions `rover.all` takes: as many results as fit on a stack.
const MOST_AT_ONCE: usize = 4_000;

/// A task as Lua holds it.
struct Task(Rc<TaskState>);

struct TaskFunctions {
    tasks: Weak<Tasks>,
    waits: Rc<Waits>,
    handles: OwnedMeta<Task>,
}

impl TaskFunctions {
    fn tasks(&self, call: &str) -> Result<Rc<Tasks>, Raise> {
        if !self.waits.is_loaded() {
            return Err(Raise::Mistake(format!(
                "{call} cannot be called at the top level of the app: call it in a handler, a hook or a task"
            )));
        }
        alive(&self.tasks)
    }

    fn state(&self, stack: &mut Stack<'_>, call: &str) -> Result<Rc<TaskState>, Raise> {
        let task = self.handles.get(stack, 1).map(|task| task.0.clone());
        task.ok_or_else(|| Raise::Mistake(format!("call it with a colon: task:{call}()")))
    }
}

/// Adds the functions to `rover`, and what tells of tasks to `sources`.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn install(lua: &Lua, rover: &Table, tasks: &Rc<Tasks>, sources: &Sources) -> mlua::Result<()> {
    let counted = Rc::downgrade(tasks);
    sources.add(move |samples| {
        if let Some(tasks) = counted.upgrade() {
            tasks.count(samples);
        }
    });
    let meta = lua.create_table()?;
    let waits = &tasks.waits;
    let handles = OwnedMeta::new(lua, &meta)?;
    meta.raw_set("__name", "task")?;
    let functions = TaskFunctions { tasks: Rc::downgrade(tasks), waits: waits.clone(), handles };
    let shared = Shared::new(lua, Rc::new(functions))?;
    let methods = lua.create_table()?;
    methods.raw_set("join", waits.waiting(lua, shared.function(lua, join)?)?)?;
    methods.raw_set("cancel", shared.function(lua, cancel)?)?;
    meta.raw_set("__index", methods)?;
    meta.raw_set("__metatable", false)?;
    rover.raw_set("spawn", shared.function(lua, spawn)?)?;
    rover.raw_set("every", shared.function(lua, every)?)?;
    rover.raw_set("all", waits.waiting(lua, shared.function(lua, all)?)?)?;
    rover.raw_set("timeout", waits.waiting(lua, shared.function(lua, timeout)?)?)
}

fn expect_function(stack: &Stack<'_>, index: i32, call: &str) -> Result<(), Raise> {
    match stack.kind(index) {
        Kind::Function => Ok(()),
        kind => Err(Raise::Mistake(format!("{call} expects a function as argument {index}, not {}", kind.name()))),
    }
}

fn refuse_when_stopping(tasks: &Tasks, call: &str) -> Result<(), Raise> {
    match tasks.is_stopping.get() {
        true => Err(Raise::Mistake(format!("{call} starts nothing any more: the server stops"))),
        false => Ok(()),
    }
}

/// `spawn(fn, …)` → task.
fn spawn(stack: &mut Stack<'_>, functions: &TaskFunctions) -> Returns {
    let tasks = functions.tasks("rover.spawn")?;
    expect_function(stack, 1, "rover.spawn")?;
    refuse_when_stopping(&tasks, "rover.spawn")?;
    let place = place_of_call(stack);
    let last = stack.top();
    let run = Run::new(&tasks, stack, 1, last, &place)?.logged();
    start(stack, functions, &tasks, Rc::default(), async move {
        match run.await {
            Ok(held) => TaskEnd::Returned(held),
            Err(held) => TaskEnd::Raised(held),
        }
    })
}

/// `every(seconds, fn)` → task.
fn every(stack: &mut Stack<'_>, functions: &TaskFunctions) -> Returns {
    let tasks = functions.tasks("rover.every")?;
    let time = seconds(stack, 1, "rover.every")?;
    if time < Duration::from_millis(1) {
        return Err(Raise::mistake("rover.every expects at least 0.001 seconds"));
    }
    expect_function(stack, 2, "rover.every")?;
    refuse_when_stopping(&tasks, "rover.every")?;
    let place = place_of_call(stack);
    if tasks.running.get() + tasks.waiting.get() >= MOST_TASKS {
        return Err(Raise::Mistake(format!("{MOST_TASKS} tasks run in this worker: there is no room for another")));
    }
    let mut held = Held::copies(&tasks, stack, 2, 2)?;
    let (own, state) = (tasks.clone(), Rc::<TaskState>::default());
    let this = state.clone();
    start(stack, functions, &tasks, state, async move {
        let mut ticks = interval_at(Instant::now() + time, time);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let waiting = WaitingTimer::new(&own);
            ticks.tick().await;
            drop(waiting);
            // A tick that is late follows the one before without a wait, at which the task would have ended.
            if this.is_cancelled() {
                return TaskEnd::Cancelled;
            }
            // Where there is no room for it now, there may be at the next tick.
            if let Ok(run) = Run::again(&own, &mut held, &place) {
                let _ = run.logged().await;
            }
        }
    })
}

/// A timer that waits for its next call counts as a task.
struct WaitingTimer<'a>(&'a Tasks);

impl WaitingTimer<'_> {
    fn new(tasks: &Tasks) -> WaitingTimer<'_> {
        tasks.waiting.set(tasks.waiting.get() + 1);
        WaitingTimer(tasks)
    }
}

impl Drop for WaitingTimer<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

fn start(
    stack: &mut Stack<'_>,
    functions: &TaskFunctions,
    tasks: &Rc<Tasks>,
    state: Rc<TaskState>,
    work: impl Future<Output = TaskEnd> + 'static,
) -> Returns {
    tasks.add(Spawned::new(state.clone(), work));
    functions.handles.push(stack, Task(state));
    Ok(1)
}

/// `task:join()` → what it returned, or `nil, err`.
fn join(stack: &mut Stack<'_>, functions: &TaskFunctions) -> Returns {
    let state = functions.state(stack, "join")?;
    if state.has_ended() {
        stack.push_boolean(true);
        return state.push_results(stack).map(|n| n + 1);
    }
    if state.is_polled() {
        return Err(Raise::mistake("a task cannot wait for its own end"));
    }
    functions.waits.suspend(stack, Name::Own("task:join"), async move {
        state.ended().await;
        move |stack: &mut Stack<'_>| state.push_results(stack)
    })
}

/// `task:cancel()`.
fn cancel(stack: &mut Stack<'_>, functions: &TaskFunctions) -> Returns {
    functions.state(stack, "cancel")?.cancel();
    Ok(0)
}

/// `all { fn, fn }` → the first result of each, in order.
fn all(stack: &mut Stack<'_>, functions: &TaskFunctions) -> Returns {
    let tasks = functions.tasks("rover.all")?;
    if stack.kind(1) != Kind::Table {
        let kind = stack.kind(1).name();
        return Err(Raise::Mistake(format!("rover.all expects a table of functions, not {kind}")));
    }
    let n = stack.raw_len(1);
    if n > MOST_AT_ONCE {
        return Err(Raise::Mistake(format!("rover.all takes at most {MOST_AT_ONCE} functions")));
    }
    let place = place_of_call(stack);
    let crowd = FuturesUnordered::new();
    for n in 1..=n {
        stack.push_item(1, n as i32);
        let top = stack.top();
        if stack.kind(top) != Kind::Function {
            let kind = stack.kind(top).name();
            return Err(Raise::Mistake(format!("rover.all expects a table of functions, but its item {n} is {kind}")));
        }
        let run = Run::nested(&tasks, stack, top, top, &place)?;
        stack.pop(1);
        crowd.push(async move { (n - 1, run.await) });
    }
    functions.waits.suspend(stack, Name::Own("rover.all"), async move {
        let results = together(crowd, n).await;
        move |stack: &mut Stack<'_>| match results {
            Ok(results) => {
                if !stack.reserve(n as i32) {
                    return Err(Raise::mistake("too many results"));
                }
                for result in results {
                    match result {
                        Some(mut held) => held.push_first(stack),
                        None => stack.push_nil(),
                    }
                }
                Ok(n as i32)
            }
            Err(error) => raise(error, stack),
        }
    })
}

/// The results in order, or the first error; then the others are cancelled before this returns.
async fn together<F>(mut crowd: FuturesUnordered<F>, n: usize) -> Result<Vec<Option<Held>>, Held>
where
    F: Future<Output = (usize, Result<Held, Held>)>,
{
    let mut results: Vec<Option<Held>> = Vec::new();
    results.resize_with(n, || None);
    while let Some((n, result)) = crowd.next().await {
        results[n] = Some(result?);
    }
    Ok(results)
}

fn raise(mut error: Held, stack: &mut Stack<'_>) -> Returns {
    error.push_first(stack);
    Err(Raise::Value)
}

/// `timeout(seconds, fn, …)` → what it returned, or `nil, "timeout"`.
fn timeout(stack: &mut Stack<'_>, functions: &TaskFunctions) -> Returns {
    let tasks = functions.tasks("rover.timeout")?;
    let time = seconds(stack, 1, "rover.timeout")?;
    expect_function(stack, 2, "rover.timeout")?;
    let place = place_of_call(stack);
    let last = stack.top();
    let run = Run::nested(&tasks, stack, 2, last, &place)?;
    functions.waits.suspend(stack, Name::Own("rover.timeout"), async move {
        let result = tokio::time::timeout(time, run).await;
        move |stack: &mut Stack<'_>| match result {
            Ok(Ok(mut held)) => held.push_all(stack),
            Ok(Err(error)) => raise(error, stack),
            Err(_) => {
                stack.push_nil();
                stack.push_bytes(b"timeout");
                Ok(2)
            }
        }
    })
}
