//! The sending side of one client: a bounded queue, which its connection empties.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::Notify;
use tungstenite::Utf8Bytes;

/// A message that goes out. Copies share its bytes.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// Nothing follows.
    Close(u16, Utf8Bytes),
}

impl Outgoing {
    /// The cost of a waiting message in bytes, including its place in the queue.
    fn cost(&self) -> usize {
        const PLACE: usize = 128;
        PLACE
            + match self {
                Outgoing::Text(text) => text.len(),
                Outgoing::Binary(bytes) => bytes.len(),
                Outgoing::Close(..) => 0,
            }
    }
}

/// The result of sending a message.
pub(super) enum Pushed {
    Waits,
    /// There is no room. The message comes back.
    Full(Outgoing),
    /// The client is gone, or has been told to go.
    Closed,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Outgoing>,
    bytes: usize,
}

/// A client.
pub(super) struct Client {
    /// Unique within the server.
    pub(super) id: u64,
    /// The number of its endpoint.
    pub(super) endpoint: u32,
    /// How many bytes may wait.
    most: usize,
    queue: RefCell<Queue>,
    is_closed: Cell<bool>,
    /// It did not keep up with what was sent to many.
    is_late: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    room: Notify,
    pub(super) topics: RefCell<HashSet<Rc<[u8]>>>,
}

impl Client {
    pub(super) fn new(id: u64, endpoint: u32, most: u64) -> Rc<Client> {
        Rc::new(Client {
            id,
            endpoint,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            queue: RefCell::default(),
            is_closed: Cell::new(false),
            is_late: Cell::new(false),
            waker: RefCell::default(),
            room: Notify::new(),
            topics: RefCell::default(),
        })
    }

    /// Puts a message into the queue. A message that is larger than the whole queue may wait alone.
    pub(super) fn push(&self, message: Outgoing) -> Pushed {
        if self.is_closed.get() {
            return Pushed::Closed;
        }
        let mut queue = self.queue.borrow_mut();
        let bytes = queue.bytes + message.cost();
        let is_last = matches!(message, Outgoing::Close(..));
        if !queue.waiting.is_empty() && bytes > self.most && !is_last {
            return Pushed::Full(message);
        }
        queue.bytes = bytes;
        queue.waiting.push_back(message);
        drop(queue);
        if is_last {
            self.is_closed.set(true);
            self.room.notify_waiters();
        }
        self.wake();
        Pushed::Waits
    }

    /// As [`push`](Client::push), for a message to many: a client without room for it is given up.
    pub(super) fn offer(&self, message: Outgoing) {
        if let Pushed::Full(_) = self.push(message) {
            self.is_late.set(true);
            self.shut();
            self.wake();
        }
    }

    /// The next message to send.
    pub(super) fn pop(&self) -> Option<Outgoing> {
        let mut queue = self.queue.borrow_mut();
        let message = queue.waiting.pop_front()?;
        queue.bytes = queue.bytes.saturating_sub(message.cost());
        if queue.waiting.is_empty() {
            // An idle client holds no memory for messages.
            *queue = Queue::default();
        }
        drop(queue);
        self.room.notify_waiters();
        Some(message)
    }

    /// Takes no more messages, and forgets those that wait.
    pub(super) fn shut(&self) {
        self.is_closed.set(true);
        self.queue.take();
        self.room.notify_waiters();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Tells a dropped client so, right after a message that is half sent already.
    pub(super) fn close_late(&self) {
        self.queue.borrow_mut().waiting.push_back(Outgoing::Close(1013, Utf8Bytes::from_static("too slow")));
    }

    /// Whether the client has been given up; true once.
    pub(super) fn take_late(&self) -> bool {
        self.is_late.take()
    }

    /// Waits until there is room for `message`, and puts it into the queue; false where the client is gone.
    pub(super) async fn push_in_turn(&self, mut message: Outgoing) -> bool {
        loop {
            let room = self.room.notified();
            match self.push(message) {
                Pushed::Waits => return true,
                Pushed::Closed => return false,
                Pushed::Full(back) => message = back,
            }
            room.await;
        }
    }

    /// Says which task sends what waits.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut own = self.waker.borrow_mut();
        if own.as_ref().is_none_or(|own| !own.will_wake(waker)) {
            *own = Some(waker.clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}
