//! The workers that take connections, and whose turn it is.
//!
//! Comes in: accepted sockets. Goes out: each to the runtime of the next worker in turn. The list is behind a lock that
//! only the acceptor takes for a connection: none for a request.

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::listen::accept::Accepted;
use crate::listen::admission::Permit;
use crate::server::worker::{self, Post};

/// The live workers of a server.
pub(crate) struct Workers {
    turns: Mutex<Turns>,
    /// There is a worker again, or there will be none.
    changed: Condvar,
}

struct Turns {
    /// The workers in the order of their numbers; `None` while one is being replaced.
    posts: Vec<Option<Post>>,
    next: usize,
    is_closed: bool,
}

impl Workers {
    /// Deals connections out to these workers.
    pub(crate) fn new(posts: Vec<Post>) -> Workers {
        let posts = posts.into_iter().map(Some).collect();
        Workers { turns: Mutex::new(Turns { posts, next: 0, is_closed: false }), changed: Condvar::new() }
    }

    /// Gives a connection to the worker whose turn it is. Where there is none, waits until there is: what clients send
    /// meanwhile waits in the system.
    pub(crate) fn hand_over(&self, accepted: Accepted, permit: Permit) {
        let mut turns = self.turns();
        loop {
            if let Some(post) = turns.take_turn() {
                return worker::adopt(&post, accepted, permit);
            }
            if turns.is_closed {
                return;
            }
            self.changed.wait(&mut turns);
        }
    }

    /// Runs the app's `on_ready` in the first worker.
    pub(crate) fn announce(&self) {
        if let Some(first) = self.turns().posts.iter().flatten().next() {
            worker::announce(first);
        }
    }

    /// The workers that there are now, each with its number.
    pub(crate) fn posts(&self) -> Vec<(usize, Post)> {
        let turns = self.turns();
        (1..).zip(&turns.posts).filter_map(|(n, post)| Some((n, post.clone()?))).collect()
    }

    /// How many places there are.
    pub(crate) fn places(&self) -> usize {
        self.turns().posts.len()
    }

    /// Gives worker number `worker` no more connections.
    pub(crate) fn take_out(&self, worker: usize) {
        self.set(worker, None);
    }

    /// Lets another worker have the turns of number `worker`.
    pub(crate) fn put_in(&self, worker: usize, post: Post) {
        self.set(worker, Some(post));
        self.changed.notify_all();
    }

    /// Nobody is to wait for a worker any more.
    pub(crate) fn close(&self) {
        self.turns().is_closed = true;
        self.changed.notify_all();
    }

    fn set(&self, worker: usize, post: Option<Post>) {
        if let Some(place) = self.turns().posts.get_mut(worker.wrapping_sub(1)) {
            *place = post;
        }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock()
    }
}

impl Turns {
    fn take_turn(&mut self) -> Option<Post> {
        for _ in 0..self.posts.len() {
            let turn = self.next;
            self.next = (turn + 1) % self.posts.len();
            if let Some(Some(post)) = self.posts.get(turn) {
                return Some(post.clone());
            }
        }
        None
    }
}
