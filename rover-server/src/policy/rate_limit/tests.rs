//! What the meter says over time, and what the table forgets.

use std::time::Duration;

use super::*;
use crate::config::Rate;

const S: u64 = 1_000_000_000;

fn rule(count: u32, seconds: u64, burst: u32, per: Per) -> LimitRule {
    LimitRule { rate: Rate { count, period: Duration::from_secs(seconds) }, burst, per }
}

fn said(decision: Decision) -> (bool, u32, u64, Option<u64>) {
    (!decision.is_refusal(), decision.remaining, decision.reset, decision.retry_after)
}

#[test]
fn a_burst_and_then_the_rate() {
    let meter = Meter::new(&rule(6, 60, 3, Per::Ip));
    let table = Table::new(100);
    let at = |now| said(meter.decide(&table, [1, 2], now));
    assert_eq!(at(0), (true, 2, 10, None));
    assert_eq!(at(0), (true, 1, 20, None));
    assert_eq!(at(0), (true, 0, 30, None));
    assert_eq!(at(0), (false, 0, 30, Some(10)));
    assert_eq!(at(9 * S), (false, 0, 21, Some(1)));
    assert_eq!(at(10 * S), (true, 0, 30, None), "one has come back");
    assert_eq!(at(11 * S), (false, 0, 29, Some(9)), "a refusal takes nothing");
    assert_eq!(at(100 * S), (true, 2, 10, None), "full again");
    assert_eq!(said(meter.decide(&table, [3, 4], 0)), (true, 2, 10, None), "another client");
}

#[test]
fn odd_rates_are_exact_over_time() {
    let meter = Meter::new(&rule(7, 1, 7, Per::Ip));
    let table = Table::new(100);
    let mut taken = 0;
    for millisecond in 0..10_000 {
        taken += u32::from(!meter.decide(&table, [1, 1], millisecond * 1_000_000).is_refusal());
    }
    assert!((76..=77).contains(&taken), "7 at once and 7 a second: {taken}");
}

#[test]
fn extreme_rules_do_not_overflow() {
    for (count, seconds, burst) in [(1, 365 * 86_400, 1_000_000_000), (1_000_000_000, 1, 1_000_000_000), (1, 1, 1)] {
        let meter = Meter::new(&rule(count, seconds, burst, Per::Ip));
        let table = Table::new(100);
        for now in [0, S, u64::MAX / 2] {
            assert!(!meter.decide(&table, [1, 1], now).is_refusal());
        }
    }
}

#[test]
fn the_table_has_one_size_and_forgets_who_has_least_to_wait_for() {
    let table = Table::new(1);
    for client in 0..1_000_000 {
        table.update([client, 1], 0, |_| Some(100 + client));
    }
    assert_eq!(table.sets(), 1);
    assert_eq!(table.update([999_999, 1], 0, |_| None), (1_000_099, false), "the last one is known");
    assert_eq!(table.update([5, 1], 0, |_| None), (0, false), "an early one is not");
    // With all of them full again, a new one takes any place.
    assert_eq!(table.update([7, 7], 2_000_000, |_| Some(2_000_100)), (2_000_100, true));
}

#[test]
fn who_is_who() {
    let config = RateLimit { max_keys: 1024, ..RateLimit::default() };
    let rules = vec![
        rule(1, 3600, 1, Per::Ip),
        rule(1, 3600, 1, Per::Header("x-key".into())),
        rule(1, 3600, 1, Per::Cookie("sid".into())),
    ];
    let limits = RateLimits::new(&config, &RouteLimits { rules, pairs: vec![(0, 0), (1, 1), (2, 2)] }).unwrap();
    let passes = |route, ip: &str, lines: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        !limits.check_route(route, &headers, ip.parse().ok()).unwrap().is_refusal()
    };
    assert!(passes(0, "192.0.2.1", &[]) && !passes(0, "192.0.2.1", &[]) && passes(0, "192.0.2.2", &[]));
    assert!(!passes(0, "::ffff:192.0.2.1", &[]), "the same address");
    assert!(passes(0, "2001:db8::1", &[]) && !passes(0, "2001:db8::2:1", &[]) && passes(0, "2001:db8:0:1::1", &[]));
    assert!(passes(0, "", &[]) && !passes(0, "", &[]), "all peers of a Unix socket are one");
    assert!(passes(1, "192.0.2.1", &[("x-key", "a")]) && !passes(1, "192.0.2.2", &[("x-key", "a")]));
    assert!(passes(1, "192.0.2.1", &[("x-key", "b")]) && passes(1, "192.0.2.1", &[]) && !passes(1, "192.0.2.1", &[]));
    assert!(
        passes(2, "192.0.2.1", &[("cookie", "a=1; sid=x")]) && !passes(2, "192.0.2.9", &[("cookie", "sid=x; b=2")])
    );
    assert!(limits.check_route(3, &HeaderMap::new(), None).is_none());
    assert!(limits.check_all(&HeaderMap::new(), None).is_none());
}

#[test]
fn the_tighter_decision_is_told() {
    let decision = |remaining, retry_after| Decision { limit: 9, remaining, reset: 1, retry_after };
    assert_eq!(decision(3, None).tighter(Some(decision(2, None))).remaining, 2);
    assert_eq!(decision(1, None).tighter(Some(decision(2, None))).remaining, 1);
    assert!(decision(0, None).tighter(Some(decision(0, Some(1)))).is_refusal());
    assert!(decision(0, Some(1)).tighter(Some(decision(0, None))).is_refusal());
    assert_eq!(decision(4, None).tighter(None).remaining, 4);
}
