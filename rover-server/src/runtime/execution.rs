//! Runs a Lua function from wait to wait.
//!
//! Comes in: a coroutine that holds a function, and whoever polls. Goes out: the coroutine with the results, or with the
//! error. This module must not know what the function is there for.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rover_lua::{Coroutine, Resume, Step, Wait, Waits};

use super::turn::Stint;
use crate::log::{self, Level};

/// A function in a coroutine of its own, from its first line to its end.
///
/// Dropping it leaves the coroutine to the garbage collector: whoever holds it may [`cancel`](Execution::cancel) the function
/// before.
pub(crate) struct Execution {
    /// `None` once it has ended.
    coroutine: Option<Coroutine>,
    /// `None` before it has begun.
    wait: Option<Wait>,
    args: c_int,
    stint: Stint,
}

/// What is next for a function: its beginning, or what its wait has brought.
pub(crate) struct Next<'a> {
    waits: &'a Waits,
    args: c_int,
    resume: Option<Resume>,
    /// The limit of CPU time that the function has passed.
    excess: Option<Duration>,
}

impl Next<'_> {
    /// Runs the function until it ends or waits.
    #[inline]
    pub(crate) fn run(self, coroutine: &mut Coroutine) -> Step {
        match self.resume {
            Some(resume) => self.waits.go_on(coroutine, resume, self.excess),
            None => self.waits.advance(coroutine, self.args),
        }
    }
}

impl Execution {
    /// The function below the `args` topmost values of `coroutine`. It begins when it is polled.
    pub(crate) fn new(coroutine: Coroutine, args: c_int) -> Execution {
        Execution { coroutine: Some(coroutine), wait: None, args, stint: Stint::default() }
    }

    /// A function that has begun, and waits.
    #[inline]
    pub(crate) fn waiting(coroutine: Coroutine, wait: Wait) -> Execution {
        Execution { coroutine: Some(coroutine), wait: Some(wait), args: 0, stint: Stint::default() }
    }

    /// The same function, which has ended for whoever had it.
    pub(crate) fn take(&mut self) -> Execution {
        let own = Execution { coroutine: None, wait: None, args: 0, stint: Stint::default() };
        std::mem::replace(self, own)
    }

    /// The coroutine of a function that has not ended.
    pub(crate) fn coroutine(&mut self) -> Option<&mut Coroutine> {
        self.coroutine.as_mut()
    }

    /// Polls what the function waits for, and runs it on for as long as that is there: `run` sets what is true while it runs,
    /// and runs what is [`Next`]. Never ready again once it has ended.
    ///
    /// # Errors
    /// The coroutine with the error on top of its stack.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        waits: &Waits,
        mut run: impl FnMut(&mut Coroutine, Next<'_>) -> Step,
    ) -> Poll<Result<Coroutine, Coroutine>> {
        loop {
            let resume = match &mut self.wait {
                Some(wait) => Some(ready!(self.stint.poll(cx, |cx| wait.as_mut().poll(cx)))),
                None => None,
            };
            let Some(mut coroutine) = self.coroutine.take() else { return Poll::Pending };
            let next = Next { waits, args: self.args, resume, excess: self.stint.excess() };
            match run(&mut coroutine, next) {
                Step::Waits(wait) => {
                    self.wait = Some(wait);
                    self.coroutine = Some(coroutine);
                }
                Step::Returned => return Poll::Ready(Ok(coroutine)),
                Step::Raised => return Poll::Ready(Err(coroutine)),
            }
        }
    }

    /// Gives the coroutine of a function that has not ended to `cancel`, with whether the function has begun; what it waited
    /// for is gone. `what` is how the log calls the function.
    #[cold]
    pub(crate) fn cancel(&mut self, what: &str, cancel: impl FnOnce(Coroutine, bool)) {
        let Some(coroutine) = self.coroutine.take() else { return };
        // First what it waits for, then itself.
        let has_begun = self.wait.take().is_some();
        if catch_unwind(AssertUnwindSafe(|| cancel(coroutine, has_begun))).is_err() {
            let message = format!("Rover panicked while it cancelled a {what}; this is a bug in Rover");
            log::event(Level::Error, &message).emit();
        }
    }
}
