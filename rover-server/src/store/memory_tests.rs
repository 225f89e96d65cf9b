//! Expiry and the bound, without waiting for either.

use super::*;
use crate::config::StoreLimits;

fn memory(bytes: usize) -> Memory {
    let limits = Arc::new(Limits::default());
    limits.settled.set(StoreLimits { shared_memory: bytes, ..StoreLimits::DEFAULT }).unwrap();
    Memory::new(limits)
}

fn text(length: usize) -> Datum {
    Datum::String(vec![b'x'; length].into())
}

/// What the entries that are there cost.
fn sum(memory: &Memory) -> usize {
    let shards = memory.shards.iter().map(Mutex::lock);
    shards.map(|shard| shard.entries.iter().map(|(key, entry)| cost(key, &entry.value)).sum::<usize>()).sum()
}

#[test]
fn the_account_is_what_the_entries_cost() {
    let memory = memory(1 << 20);
    let short = Some(Duration::from_micros(1));
    for n in 0..500u32 {
        let key = format!("key {}", n % 50);
        let ttl = if n % 3 == 0 { short } else { None };
        match n % 5 {
            0 | 1 => memory.set(key.as_bytes(), text(n as usize), ttl).unwrap(),
            2 => drop(memory.incr(key.as_bytes(), 1.0, Some(0.0), ttl)),
            3 => drop(memory.add(key.as_bytes(), text(3), ttl)),
            _ => drop(memory.delete(key.as_bytes())),
        }
        memory.get(key.as_bytes());
        assert_eq!(memory.bytes.load(Ordering::Relaxed), sum(&memory), "after {n}");
    }
    assert_eq!(memory.len(), memory.keys(1000).len());
    for key in memory.keys(1000) {
        assert!(memory.delete(&key));
    }
    assert_eq!((memory.len(), memory.bytes.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn a_full_dictionary_refuses_and_makes_room_of_what_is_over() {
    let memory = memory(100 * (OVERHEAD + 10));
    let long = Some(Duration::from_secs(1000));
    let mut n = 0;
    while memory.set(format!("{n:010}").as_bytes(), Datum::Boolean(true), long).is_ok() {
        n += 1;
    }
    assert_eq!(n, 100);
    assert_eq!(memory.add(b"another", text(0), None), Err(Refusal::NoMemory));
    assert_eq!(memory.incr(b"another", 1.0, Some(0.0), None), Err(Refusal::NoMemory));
    // In place there is room, also for what is shorter.
    memory.set(b"0000000000", Datum::Number(1.0), long).unwrap();
    assert_eq!(memory.set(b"0000000000", text(1), long), Err(Refusal::NoMemory));
    assert_eq!(memory.get(b"0000000000"), Some(Datum::Number(1.0)), "a refused change leaves the old value");
    // As if the time had come for all.
    assert!(memory.make_room(end(now(), long)));
    memory.set(b"another", text(10), None).unwrap();
    assert_eq!(memory.len(), 1);
    assert_eq!(memory.set(b"large", text(1 << 20), None), Err(Refusal::NoMemory));
}

#[test]
fn old_ends_do_not_pile_up() {
    let memory = memory(1 << 20);
    for n in 0..10_000 {
        memory.set(b"key", Datum::Number(f64::from(n)), Some(Duration::from_secs(1000 + n as u64))).unwrap();
    }
    assert!(memory.shard(b"key").lock().ends.len() < 30);
    memory.set(b"key", Datum::Null, None).unwrap();
    assert!(memory.shard(b"key").lock().sweep(NEVER - 1, usize::MAX) == (0, 0), "it has no end any more");
}

#[test]
fn counting_is_atomic() {
    let memory = memory(1 << 20);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..20_000 {
                    memory.incr(b"all", 1.0, Some(0.0), None).unwrap();
                    memory.incr(if n % 2 == 0 { b"even" } else { b"odd" }, 2.0, Some(1.0), None).unwrap();
                }
            });
        }
    });
    assert_eq!(memory.get(b"all"), Some(Datum::Number(160_000.0)));
    assert_eq!(memory.get(b"odd"), Some(Datum::Number(160_001.0)));
}
