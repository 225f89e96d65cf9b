//! Who computes, who waits, and what is kept.

use super::*;

fn cache(bytes: usize, entries: usize) -> Arc<Cache> {
    let limits = StoreLimits { cache_memory: bytes, cache_entries: entries, ..StoreLimits::DEFAULT };
    Arc::new(Cache::new(&limits))
}

fn lead(cache: &Arc<Cache>, key: &[u8]) -> Lead {
    match cache.join(key) {
        Joined::Lead(lead) => lead,
        Joined::Hit(_) | Joined::Follow(_) => panic!("somebody leads already"),
    }
}

fn follow(cache: &Arc<Cache>, key: &[u8]) -> Following {
    match cache.join(key) {
        Joined::Follow(following) => following,
        Joined::Hit(_) | Joined::Lead(_) => panic!("nobody leads"),
    }
}

fn number(n: f64) -> Outcome {
    Outcome::Value(Datum::Number(n))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn one_leads_and_all_hear_of_it() {
    let cache = cache(1 << 20, 100);
    let first = lead(&cache, b"k");
    let (a, b) = (follow(&cache, b"k"), follow(&cache, b"k"));
    lead(&cache, b"other");
    first.end(number(1.0), None);
    assert_eq!(block_on(a.outcome()), Some(number(1.0)));
    assert_eq!(block_on(b.outcome()), Some(number(1.0)));
    assert_eq!(cache.get(b"k"), Some(Datum::Number(1.0)));
    assert!(cache.flights.lock().is_empty());
}

#[test]
fn a_leader_that_gives_up_is_followed_by_another() {
    let cache = cache(1 << 20, 100);
    let first = lead(&cache, b"k");
    let waiting = follow(&cache, b"k");
    drop(first);
    assert_eq!(block_on(waiting.outcome()), None);
    lead(&cache, b"k").end(Outcome::Nothing(None), None);
    assert_eq!(cache.get(b"k"), None);
    lead(&cache, b"k");
}

#[test]
fn what_is_set_or_deleted_meanwhile_counts() {
    let cache = cache(1 << 20, 100);
    let old = lead(&cache, b"k");
    cache.set(b"k", Datum::Number(2.0), None);
    old.end(number(1.0), None);
    assert_eq!(cache.get(b"k"), Some(Datum::Number(2.0)));
    cache.delete(b"k");
    let old = lead(&cache, b"k");
    cache.delete(b"k");
    let new = lead(&cache, b"k");
    let waiting = follow(&cache, b"k");
    old.end(number(3.0), None);
    assert_eq!(cache.get(b"k"), None);
    new.end(number(4.0), None);
    assert_eq!(block_on(waiting.outcome()), Some(number(4.0)));
    assert_eq!(cache.get(b"k"), Some(Datum::Number(4.0)));
}

#[test]
fn both_bounds_hold_and_the_oldest_goes_first() {
    for (cache, most) in [(cache(1 << 20, 10), 10), (cache(10 * (OVERHEAD + 101), 1000), 10)] {
        for n in 0..100u8 {
            cache.set(&[n], Datum::String(vec![0; 100].into()), None);
            assert!(cache.get(&[0]).is_some(), "what is used stays");
        }
        assert_eq!(cache.values.entry_count(), most);
        assert!(cache.get(&[99]).is_some() && cache.get(&[1]).is_none());
    }
}

#[test]
fn what_a_lost_thread_computes_is_left_to_another() {
    let cache = cache(1 << 20, 100);
    let own = cache.clone();
    let (stuck, other) = std::thread::spawn(move || (lead(&own, b"k"), std::thread::current().id())).join().unwrap();
    let waiting = follow(&cache, b"k");
    cache.abandon(std::thread::current().id());
    follow(&cache, b"k");
    cache.abandon(other);
    assert_eq!(block_on(waiting.outcome()), None);
    let next = lead(&cache, b"k");
    // The first comes back after all, which concerns nobody any more.
    stuck.end(number(1.0), None);
    assert_eq!(cache.get(b"k"), None);
    next.end(number(2.0), None);
    assert_eq!(cache.get(b"k"), Some(Datum::Number(2.0)));
}
