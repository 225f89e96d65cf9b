//! Bytes in flight: bodies of requests while they are collected and used, and answers that wait to be sent.
//!
//! Comes in: how many bytes somebody is about to keep. Goes out: a [`Share`], which counts them until it is dropped, or the
//! refusal. What is small is not counted: its number is bounded by those of connections and streams. This module must not
//! know of HTTP, nor of Lua.

use std::fs;
use std::hint::black_box;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::sleep;

/// What has at most so many bytes is not counted.
pub(crate) const SMALL: usize = 16 * 1024;

/// What bytes are held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The body of a request.
    Request,
    /// The body of an answer.
    Answer,
}

/// What all workers of a server hold.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    requests: AtomicUsize,
    answers: AtomicUsize,
    refused: AtomicU64,
    /// Something has been let go since somebody looked, and whoever waits for that.
    is_let_go: AtomicBool,
    let_go: Notify,
}

impl InFlight {
    fn of(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Request => &self.requests,
            Kind::Answer => &self.answers,
        }
    }

    /// How many bytes there are of a kind.
    pub(crate) fn bytes(&self, kind: Kind) -> usize {
        self.of(kind).load(Ordering::Relaxed)
    }

    /// How often something was refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn note_let_go(&self) {
        if !self.is_let_go.swap(true, Ordering::AcqRel) {
            self.let_go.notify_waiters();
        }
    }

    /// Gives memory back to the system whenever something has been let go, and then nothing for a while. Never ends.
    pub(crate) async fn give_back(self: Arc<Self>) {
        loop {
            let mut let_go = pin!(self.let_go.notified());
            let_go.as_mut().enable();
            if !self.is_let_go.load(Ordering::Acquire) {
                let_go.await;
            }
            while self.is_let_go.swap(false, Ordering::AcqRel) {
                sleep(QUIET).await;
            }
            for _ in 0..STIRS {
                stir();
                sleep(BETWEEN).await;
            }
        }
    }
}

/// How long nothing is let go before memory is given back: longer than mimalloc keeps it for the next to come.
const QUIET: Duration = Duration::from_millis(1500);

/// How often the allocator is stirred, and what lies between: each time it looks at a part of its memory.
const STIRS: usize = 8;
const BETWEEN: Duration = Duration::from_millis(100);

/// Allocators such as mimalloc look at what they could give back only when they are asked for something large. Nothing of
/// this block is touched, so it costs no memory.
fn stir() {
    black_box(Vec::<u8>::with_capacity(4 * 1024 * 1024));
}

/// How much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of all connections together.
    pub(crate) all: usize,
    /// Of one.
    pub(crate) connection: usize,
}

impl Limits {
    /// What the config says: 0 is no limit, `None` leaves it to the server, which then has room for at least one body of the
    /// `largest` size.
    pub(crate) fn new(all: Option<u64>, connection: Option<u64>, largest: u64) -> Limits {
        let bytes = |set: Option<u64>, usual: u64| match set {
            Some(0) => usize::MAX,
            set => usize::try_from(set.unwrap_or(usual)).unwrap_or(usize::MAX),
        };
        let quarter = system_memory().map_or(ALL_MOST, |memory| memory / 4);
        Limits {
            all: bytes(all, quarter.clamp(ALL_LEAST, ALL_MOST).max(largest.saturating_mul(2))),
            connection: bytes(connection, CONNECTION_USUAL.max(largest)),
        }
    }
}

/// What all connections may hold together where the config says nothing, in bytes: a quarter of the memory, within these.
const ALL_LEAST: u64 = 32 * 1024 * 1024;
const ALL_MOST: u64 = 512 * 1024 * 1024;

/// What one connection may hold where the config says nothing, in bytes.
const CONNECTION_USUAL: u64 = 64 * 1024 * 1024;

/// The memory that this process may use, in bytes: the system's, or what its control group has.
fn system_memory() -> Option<u64> {
    static KNOWN: OnceLock<Option<u64>> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let read = |path: &str| fs::read_to_string(path).ok();
        let number = |text: String| text.trim().parse::<u64>().ok();
        let total = read("/proc/meminfo").and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            number(line.trim_end_matches("kB").to_owned()).map(|kilobytes| kilobytes * 1024)
        });
        let own = read("/proc/self/cgroup").unwrap_or_default();
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().trim_end_matches('/');
        // Any group above may have less.
        let groups = own.match_indices('/').map(|(end, _)| &own[..end]).chain([own]);
        let limits = groups.filter_map(|group| read(&format!("/sys/fs/cgroup{group}/memory.max")).and_then(number));
        let older = read("/sys/fs/cgroup/memory/memory.limit_in_bytes").and_then(number);
        limits.chain(older).chain(total).min()
    })
}

/// What is held elsewhere on somebody's behalf, and counted there as well.
pub(crate) trait Tally: Send + Sync {
    /// Counts more, and says whether there is room for it.
    fn add(&self, bytes: usize) -> bool;
    /// What was added is held no more.
    fn remove(&self, bytes: usize);
}

/// The bytes that one connection holds, and how often it has asked for too many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    bytes: AtomicUsize,
    refused: AtomicUsize,
}

impl Connection {
    /// How often the connection was refused since it last had room.
    pub(crate) fn refused_in_a_row(&self) -> usize {
        self.0.refused.load(Ordering::Relaxed)
    }

    fn note_room(&self) {
        if self.refused_in_a_row() > 0 {
            self.0.refused.store(0, Ordering::Relaxed);
        }
    }
}

/// Where one worker asks.
pub(crate) struct Budget {
    in_flight: Arc<InFlight>,
    limits: Limits,
    /// Counts the bodies of requests beside the VM that gets them.
    vm: Arc<dyn Tally>,
}

impl Budget {
    pub(crate) fn new(in_flight: Arc<InFlight>, limits: Limits, vm: Arc<dyn Tally>) -> Rc<Budget> {
        Rc::new(Budget { in_flight, limits, vm })
    }

    /// Keeps the bytes of an answer until they are sent; `None` where there is no room for them.
    pub(crate) fn keep(self: &Rc<Self>, connection: &Connection, bytes: Bytes) -> Option<Bytes> {
        let mut share = self.share(connection, Kind::Answer);
        share.grow(bytes.len()).then(|| share.around(bytes))
    }

    /// A share that holds nothing yet.
    pub(crate) fn share(self: &Rc<Self>, connection: &Connection, kind: Kind) -> Share {
        let vm = (kind == Kind::Request).then(|| self.vm.clone());
        Share {
            in_flight: self.in_flight.clone(),
            limits: self.limits,
            connection: connection.clone(),
            kind,
            vm,
            bytes: 0,
        }
    }
}

/// Bytes that are counted as long as this is here.
pub(crate) struct Share {
    in_flight: Arc<InFlight>,
    limits: Limits,
    connection: Connection,
    kind: Kind,
    vm: Option<Arc<dyn Tally>>,
    bytes: usize,
}

impl Share {
    /// Counts more; false where there is no room for that, and nothing has changed.
    ///
    /// What is there alone may be larger than the limits: whoever lets it come has decided so.
    #[must_use]
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let own = self.bytes.saturating_add(more);
        let others = self.in_flight.bytes(other(self.kind));
        let all = others.saturating_add(add(self.in_flight.of(self.kind), more));
        let connection = add(&self.connection.0.bytes, more);
        let has_room = |held: usize, limit: usize| held <= limit || held <= own;
        let fits = has_room(all, self.limits.all) && has_room(connection, self.limits.connection);
        let fits = fits
            && self.vm.as_ref().is_none_or(|vm| {
                vm.add(more) || {
                    vm.remove(more);
                    false
                }
            });
        if fits {
            self.bytes = own;
        } else {
            self.in_flight.of(self.kind).fetch_sub(more, Ordering::Relaxed);
            self.connection.0.bytes.fetch_sub(more, Ordering::Relaxed);
            self.connection.0.refused.fetch_add(1, Ordering::Relaxed);
            self.in_flight.refused.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Counts so many in all from now on, where the bytes have become others.
    #[must_use]
    pub(crate) fn become_of(&mut self, bytes: usize) -> bool {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                let less = self.bytes - bytes;
                self.let_go(less);
                true
            }
        }
    }

    /// The same bytes, which are counted until the last of them is dropped.
    pub(crate) fn around(self, bytes: Bytes) -> Bytes {
        self.connection.note_room();
        Bytes::from_owner(Counted { bytes, _share: self })
    }

    fn let_go(&mut self, less: usize) {
        self.bytes -= less;
        self.in_flight.of(self.kind).fetch_sub(less, Ordering::Relaxed);
        self.connection.0.bytes.fetch_sub(less, Ordering::Relaxed);
        if let Some(vm) = &self.vm {
            vm.remove(less);
        }
    }
}

fn other(kind: Kind) -> Kind {
    match kind {
        Kind::Request => Kind::Answer,
        Kind::Answer => Kind::Request,
    }
}

fn add(counter: &AtomicUsize, more: usize) -> usize {
    counter.fetch_add(more, Ordering::Relaxed).saturating_add(more)
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.let_go(self.bytes);
            self.in_flight.note_let_go();
        }
    }
}

struct Counted {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Tally for Nobody {
        fn add(&self, _: usize) -> bool {
            true
        }

        fn remove(&self, _: usize) {}
    }

    fn budget(all: usize, connection: usize) -> (Arc<InFlight>, Rc<Budget>) {
        let in_flight = Arc::<InFlight>::default();
        (in_flight.clone(), Budget::new(in_flight, Limits { all, connection }, Arc::new(Nobody)))
    }

    #[test]
    fn bytes_are_counted_until_the_last_of_them_is_dropped() {
        let (in_flight, budget) = budget(100, 100);
        let connection = Connection::default();
        let mut kept = budget.keep(&connection, Bytes::from_static(&[0; 60])).unwrap();
        assert_eq!(in_flight.bytes(Kind::Answer), 60);
        assert!(budget.keep(&connection, Bytes::from_static(&[0; 60])).is_none());
        assert_eq!((in_flight.bytes(Kind::Answer), in_flight.refused()), (60, 1));
        assert_eq!(connection.refused_in_a_row(), 1);
        let half = kept.split_to(30);
        drop(kept);
        assert_eq!(in_flight.bytes(Kind::Answer), 60);
        drop(half);
        assert_eq!(in_flight.bytes(Kind::Answer), 0);
        let _kept = budget.keep(&connection, Bytes::from_static(&[0; 60]));
        assert_eq!(connection.refused_in_a_row(), 0);
    }

    #[test]
    fn one_alone_may_be_larger_and_a_connection_has_its_own_limit() {
        let (in_flight, budget) = budget(100, 50);
        let (one, two) = (Connection::default(), Connection::default());
        let large = budget.keep(&one, Bytes::from_static(&[0; 200])).unwrap();
        assert!(budget.keep(&two, Bytes::from_static(&[0; 20])).is_none());
        drop(large);
        let kept = budget.keep(&one, Bytes::from_static(&[0; 40])).unwrap();
        assert!(budget.keep(&one, Bytes::from_static(&[0; 20])).is_none());
        let mut share = budget.share(&two, Kind::Request);
        assert!(share.grow(20) && share.grow(30) && !share.grow(20));
        assert!(share.become_of(10));
        assert_eq!((in_flight.bytes(Kind::Request), in_flight.bytes(Kind::Answer)), (10, 40));
        drop((kept, share));
        assert_eq!((in_flight.bytes(Kind::Request), in_flight.bytes(Kind::Answer)), (0, 0));
    }
}
