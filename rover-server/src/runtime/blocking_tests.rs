//! Tests of the threads for work that blocks, with a system that refuses them when a test wants.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

/// A pool of its own, whose threads the system grants as long as `GRANTS` of the macro's call is true.
macro_rules! pool {
    ($grants:ident, $pool:ident) => {
        static $grants: AtomicBool = AtomicBool::new(true);
        static $pool: Pool = Pool::new(|pool| match $grants.load(Ordering::SeqCst) {
            true => start_thread(pool),
            false => Err(ErrorKind::WouldBlock.into()),
        });
    };
}

fn now<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

#[test]
fn work_that_was_refused_never_runs_and_later_work_does() {
    pool!(GRANTS, POOL);
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let count = || RUNS.fetch_add(1, Ordering::SeqCst);
    GRANTS.store(false, Ordering::SeqCst);
    assert!(POOL.start_kept().is_err());
    for _ in 0..3 {
        assert_eq!(now(POOL.run(count)), Err(Refused::NoThread));
    }
    assert!(POOL.is_starved());
    assert!(POOL.state.lock().queue.is_empty(), "it is not kept either");
    GRANTS.store(true, Ordering::SeqCst);
    assert!(!POOL.is_starved());
    assert_eq!(now(POOL.run(count)), Ok(0));
}

#[test]
fn a_panic_costs_neither_a_thread_nor_what_the_work_held() {
    pool!(GRANTS, POOL);
    GRANTS.store(true, Ordering::SeqCst);
    POOL.start_kept().unwrap();
    let held = Arc::new(());
    for _ in 0..10 {
        let held = held.clone();
        let work = move || -> usize {
            let _held = held;
            panic!("as the test wants");
        };
        assert_eq!(now(POOL.run(work)), Err(Refused::Panicked));
    }
    assert_eq!(Arc::strong_count(&held), 1);
    assert_eq!(now(POOL.run(|| 7)), Ok(7));
}

/// A piece of work that goes on until the sender is dropped, and a receiver that hears when it has begun.
fn stuck() -> (mpsc::Sender<()>, mpsc::Receiver<()>, impl FnOnce() + Send) {
    let (end, ended) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let work = move || {
        let _ = begin.send(());
        let _ = ended.recv();
    };
    (end, begun, work)
}

#[test]
fn work_waits_for_threads_that_are_stuck_and_is_withdrawn() {
    pool!(GRANTS, POOL);
    GRANTS.store(true, Ordering::SeqCst);
    POOL.start_kept().unwrap();
    GRANTS.store(false, Ordering::SeqCst);
    let mut ends = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..KEPT {
        let (end, begun, work) = stuck();
        waiting.push(thread::spawn(move || now(POOL.run(work))));
        begun.recv().unwrap();
        ends.push(end);
    }
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let count = || RUNS.fetch_add(1, Ordering::SeqCst);
    assert_eq!(now(POOL.run(count)), Err(Refused::NoThread));
    // Nobody waits any more.
    assert!(now(async { tokio::time::timeout(RETRY, POOL.run(count)).await }).is_err());
    assert!(POOL.state.lock().queue.is_empty());
    // Once a thread can be had again, what waits gets it.
    let queued = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(POOL.run(count))
    });
    while POOL.state.lock().queue.is_empty() {
        thread::yield_now();
    }
    GRANTS.store(true, Ordering::SeqCst);
    assert_eq!(queued.join().unwrap(), Ok(0), "none of those before");
    drop(ends);
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), Ok(()));
    }
}

#[test]
fn one_thread_waits_for_its_own_work() {
    pool!(GRANTS, POOL);
    GRANTS.store(true, Ordering::SeqCst);
    let (end, begun, work) = stuck();
    let (tell, told) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let mut work = Box::pin(POOL.run(work));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(work.as_mut().poll(&mut cx).is_pending());
        begun.recv().unwrap();
        drop(work);
        tell.send(()).unwrap();
        wait_for_own(Duration::from_secs(20));
        tell.send(()).unwrap();
    });
    told.recv().unwrap();
    wait_for_own(Duration::from_secs(20));
    assert!(told.try_recv().is_err(), "the work goes on, although nobody waits for what it brings");
    drop(end);
    waiter.join().unwrap();
}
