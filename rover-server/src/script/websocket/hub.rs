//! Sends messages to the clients of other workers: one mailbox for each worker that has any.
//!
//! The hub belongs to a server, not to the process. A message is encoded once, put into each mailbox, and handed to the
//! clients there by the worker itself: one hop for each worker, however many clients it has.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::client::Outgoing;

/// How many messages may wait for one worker. One that is this far behind is stuck.
const MOST_WAITING: usize = 10_000;

/// The recipients of a message.
#[derive(Clone, Debug)]
pub(super) enum Audience {
    /// Every client of the endpoint of this number.
    Endpoint(u32),
    /// Every client that has subscribed.
    Topic(Arc<[u8]>),
}

/// A message on its way to many.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) target: Audience,
    /// The client that does not get it; 0 where all do.
    pub(super) except: u64,
    pub(super) message: Outgoing,
}

/// What the workers of one server share.
#[derive(Default)]
pub(crate) struct Hub {
    mailboxes: RwLock<Vec<Arc<Mailbox>>>,
    last_client: AtomicU64,
}

impl Hub {
    /// A number for a client that no other client of the server has; never 0.
    pub(super) fn next_client(&self) -> u64 {
        self.last_client.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn add(&self, mailbox: Arc<Mailbox>) {
        self.mailboxes.write().push(mailbox);
    }

    pub(super) fn remove(&self, mailbox: &Arc<Mailbox>) {
        let mut mailboxes = self.mailboxes.write();
        mailboxes.retain(|other| !Arc::ptr_eq(other, mailbox));
    }

    /// Puts the message into every mailbox but `own`; false where one is full.
    pub(super) fn post(&self, delivery: &Delivery, own: &Arc<Mailbox>) -> bool {
        let mailboxes = self.mailboxes.read();
        let mut has_room = true;
        for mailbox in mailboxes.iter().filter(|mailbox| !Arc::ptr_eq(mailbox, own)) {
            has_room &= mailbox.put(delivery);
        }
        has_room
    }
}

/// The messages that wait for one worker.
#[derive(Default)]
pub(super) struct Mailbox {
    waiting: Mutex<Undelivered>,
    /// How many clients the worker has: with none, nothing is put.
    clients: AtomicUsize,
}

#[derive(Default)]
struct Undelivered {
    deliveries: VecDeque<Delivery>,
    waker: Option<Waker>,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Undelivered> {
        self.waiting.lock()
    }

    pub(super) fn set_clients(&self, clients: usize) {
        self.clients.store(clients, Ordering::Relaxed);
    }

    fn put(&self, delivery: &Delivery) -> bool {
        if self.clients.load(Ordering::Relaxed) == 0 {
            return true;
        }
        let mut waiting = self.lock();
        if waiting.deliveries.len() >= MOST_WAITING {
            return false;
        }
        waiting.deliveries.push_back(delivery.clone());
        let waker = waiting.waker.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Wakes whoever waits for a message.
    pub(super) fn wake(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next message for the worker.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Delivery> {
        let mut waiting = self.lock();
        match waiting.deliveries.pop_front() {
            Some(delivery) => Poll::Ready(delivery),
            None => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
