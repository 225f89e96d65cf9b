//! The clients of one worker, by endpoint and by topic.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::client::Client;
use super::hub::{Audience, Delivery, Hub, Mailbox};

type Group = HashMap<u64, Rc<Client>, foldhash::fast::FixedState>;

/// How many messages from other workers are handed on before connections get their turn.
const MOST_AT_ONCE: usize = 32;

/// What has happened since the app was loaded.
#[derive(Default)]
pub(super) struct Totals {
    /// Clients that have come.
    pub(super) opened: Cell<u64>,
    /// Messages from clients, and to them.
    pub(super) received: Cell<u64>,
    pub(super) sent: Cell<u64>,
    /// Clients that were given up because they did not keep up.
    pub(super) late: Cell<u64>,
}

/// Adds one.
pub(super) fn count(total: &Cell<u64>) {
    total.set(total.get() + 1);
}

/// The clients of one worker.
pub(super) struct Crowd {
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
    is_started: Cell<bool>,
    count: Cell<usize>,
    pub(super) totals: Totals,
    endpoints: RefCell<HashMap<u32, Group, foldhash::fast::FixedState>>,
    topics: RefCell<HashMap<Rc<[u8]>, Group, foldhash::fast::RandomState>>,
}

impl Crowd {
    pub(super) fn new(hub: Arc<Hub>) -> Rc<Crowd> {
        Rc::new(Crowd {
            hub,
            mailbox: Arc::default(),
            is_started: Cell::new(false),
            count: Cell::new(0),
            totals: Totals::default(),
            endpoints: RefCell::default(),
            topics: RefCell::default(),
        })
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Lets `client` in, until the seat is dropped. Must be called within the worker's runtime.
    pub(super) fn enter(crowd: &Rc<Crowd>, client: Rc<Client>) -> Seat {
        if !crowd.is_started.replace(true) {
            crowd.hub.add(crowd.mailbox.clone());
            let mailbox = crowd.mailbox.clone();
            tokio::task::spawn_local(Postman { crowd: Rc::downgrade(crowd), mailbox });
        }
        count(&crowd.totals.opened);
        crowd.set_count(crowd.count.get() + 1);
        crowd.endpoints.borrow_mut().entry(client.endpoint).or_default().insert(client.id, client.clone());
        Seat { crowd: crowd.clone(), client }
    }

    /// How many clients there are.
    pub(super) fn len(&self) -> usize {
        self.count.get()
    }

    fn set_count(&self, count: usize) {
        self.count.set(count);
        self.mailbox.set_clients(count);
    }

    pub(super) fn subscribe(&self, client: &Rc<Client>, topic: &[u8]) {
        let mut topics = self.topics.borrow_mut();
        let name = match topics.get_key_value(topic) {
            Some((name, _)) => name.clone(),
            None => Rc::from(topic),
        };
        topics.entry(name.clone()).or_default().insert(client.id, client.clone());
        client.topics.borrow_mut().insert(name);
    }

    pub(super) fn unsubscribe(&self, client: &Client, topic: &[u8]) {
        if client.topics.borrow_mut().remove(topic) {
            leave(&mut self.topics.borrow_mut(), topic, client.id);
        }
    }

    /// Sends to the target's clients of all workers; false where a worker has no room for the message.
    pub(super) fn send(&self, delivery: &Delivery) -> bool {
        self.hand_out(delivery);
        self.hub.post(delivery, &self.mailbox)
    }

    /// Sends to this worker's clients.
    fn hand_out(&self, delivery: &Delivery) {
        let give = |group: Option<&Group>| {
            for client in group.into_iter().flat_map(HashMap::values) {
                if client.id != delivery.except {
                    client.offer(delivery.message.clone());
                }
            }
        };
        match &delivery.target {
            Audience::Endpoint(number) => give(self.endpoints.borrow().get(number)),
            Audience::Topic(name) => give(self.topics.borrow().get(&name[..])),
        }
    }
}

/// Takes a client out of a group, and the group with its last client.
fn leave<K, Q, S>(groups: &mut HashMap<K, Group, S>, key: &Q, id: u64)
where
    K: Hash + Eq + std::borrow::Borrow<Q>,
    Q: Hash + Eq + ?Sized,
    S: std::hash::BuildHasher,
{
    if let Some(group) = groups.get_mut(key) {
        group.remove(&id);
        if group.is_empty() {
            groups.remove(key);
        }
    }
}

/// A client's place in the crowd.
pub(super) struct Seat {
    crowd: Rc<Crowd>,
    client: Rc<Client>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (crowd, client) = (&self.crowd, &self.client);
        client.shut();
        crowd.set_count(crowd.count.get() - 1);
        leave(&mut crowd.endpoints.borrow_mut(), &client.endpoint, client.id);
        let mut topics = crowd.topics.borrow_mut();
        for topic in client.topics.take() {
            leave(&mut topics, &topic, client.id);
        }
    }
}

impl Drop for Crowd {
    /// The version of the app is gone.
    fn drop(&mut self) {
        self.hub.remove(&self.mailbox);
        self.mailbox.wake();
    }
}

/// Hands on what comes from other workers, as long as there is somebody to hand it to.
struct Postman {
    crowd: Weak<Crowd>,
    mailbox: Arc<Mailbox>,
}

impl Future for Postman {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..MOST_AT_ONCE {
            let polled = self.mailbox.poll_next(cx);
            let Some(crowd) = self.crowd.upgrade() else { return Poll::Ready(()) };
            match polled {
                Poll::Ready(delivery) => crowd.hand_out(&delivery),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
