//! A task of the worker, and the state that it shares with its handle in Lua.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rover_lua::{Returns, Stack};
use tokio::sync::Notify;

use crate::log::{self, Level};

use super::run::Held;

/// How a task ended.
pub(super) enum TaskEnd {
    Returned(Held),
    Raised(Held),
    Cancelled,
}

/// What a task and its handle share.
#[derive(Default)]
pub(super) struct TaskState {
    ended: RefCell<Option<TaskEnd>>,
    is_cancelled: Cell<bool>,
    /// The task itself is what runs.
    is_polled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    done: Notify,
}

impl TaskState {
    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.get()
    }

    pub(super) fn is_polled(&self) -> bool {
        self.is_polled.get()
    }

    /// Asks the task to end; it does at its wait.
    pub(super) fn cancel(&self) {
        self.is_cancelled.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until the task has ended.
    pub(super) async fn ended(&self) {
        while !self.has_ended() {
            self.done.notified().await;
        }
    }

    /// Pushes what the task returned, or nil and why not.
    pub(super) fn push_results(&self, stack: &mut Stack<'_>) -> Returns {
        match &mut *self.ended.borrow_mut() {
            Some(TaskEnd::Returned(held)) => held.push_all(stack),
            Some(TaskEnd::Raised(held)) => {
                stack.push_nil();
                held.push_first(stack);
                Ok(2)
            }
            Some(TaskEnd::Cancelled) | None => {
                stack.push_nil();
                stack.push_bytes(b"cancelled");
                Ok(2)
            }
        }
    }

    fn end(&self, ended: TaskEnd) {
        self.ended.borrow_mut().get_or_insert(ended);
        self.done.notify_waiters();
    }
}

/// A task in the worker's driver. Dropping it cancels it.
pub(super) struct Spawned {
    state: Rc<TaskState>,
    /// `None` once it has ended.
    work: Option<Pin<Box<dyn Future<Output = TaskEnd>>>>,
}

impl Spawned {
    pub(super) fn new(state: Rc<TaskState>, work: impl Future<Output = TaskEnd> + 'static) -> Spawned {
        Spawned { state, work: Some(Box::pin(work)) }
    }
}

impl Future for Spawned {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(work) = &mut this.work else { return Poll::Ready(()) };
        *this.state.waker.borrow_mut() = Some(cx.waker().clone());
        let mut ended = Some(TaskEnd::Cancelled);
        if !this.state.is_cancelled.get() {
            this.state.is_polled.set(true);
            let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
            this.state.is_polled.set(false);
            match polled {
                Ok(Poll::Pending) => ended = None,
                Ok(Poll::Ready(how)) => ended = Some(how),
                Err(_) => log::event(Level::Error, "Rover panicked while it ran a task; this is a bug in Rover").emit(),
            }
        }
        match ended {
            Some(ended) => {
                this.work = None;
                this.state.end(ended);
                Poll::Ready(())
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.work.take().is_some() {
            self.state.end(TaskEnd::Cancelled);
        }
    }
}
