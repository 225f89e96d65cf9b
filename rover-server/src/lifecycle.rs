//! The connections of one worker as a whole: how many there are, and how they learn that they must end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use slab::Slab;
use tokio::sync::Notify;

thread_local! {
    /// The worker of this thread ends. Asked at every response, which knows of no lifecycle.
    static ENDING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the connections of this thread's worker are to end with their next response.
#[inline]
pub(crate) fn is_ending() -> bool {
    ENDING.get()
}

/// Counts a worker's connections and ends them.
#[derive(Default)]
pub(crate) struct Lifecycle {
    draining: Cell<bool>,
    /// The task of each connection, once it has been polled.
    seats: RefCell<Slab<Option<Waker>>>,
    left: Notify,
}

impl Lifecycle {
    /// Counts a connection in, until its seat is dropped.
    pub(crate) fn sit(lifecycle: &Rc<Lifecycle>) -> Seat {
        let number = lifecycle.seats.borrow_mut().insert(None);
        Seat { lifecycle: lifecycle.clone(), number, is_known: false }
    }

    /// How many connections there are.
    pub(crate) fn count(&self) -> usize {
        self.seats.borrow().len()
    }

    /// Tells every connection to end with the response that it is about to send, and waits until all have.
    pub(crate) async fn drain(&self) {
        self.draining.set(true);
        ENDING.set(true);
        for waker in self.seats.borrow().iter().filter_map(|(_, waker)| waker.as_ref()) {
            waker.wake_by_ref();
        }
        while !self.seats.borrow().is_empty() {
            self.left.notified().await;
        }
    }
}

/// One connection's place in its worker's [`Lifecycle`].
pub(crate) struct Seat {
    lifecycle: Rc<Lifecycle>,
    number: usize,
    is_known: bool,
}

impl Seat {
    /// Whether the connection has to end. The first call says which task to wake when that changes.
    #[inline]
    pub(crate) fn must_end(&mut self, cx: &Context<'_>) -> bool {
        if !self.is_known {
            self.is_known = true;
            if let Some(seat) = self.lifecycle.seats.borrow_mut().get_mut(self.number) {
                *seat = Some(cx.waker().clone());
            }
        }
        self.lifecycle.draining.get()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lifecycle.seats.borrow_mut().try_remove(self.number);
        self.lifecycle.left.notify_waiters();
    }
}
