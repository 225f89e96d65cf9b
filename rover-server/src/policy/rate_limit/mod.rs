//! Rate limits: how many requests a client may send.
//!
//! Comes in: the head of a request and the address of its client, or a key that the app's function chose. Goes out:
//! whether it may go on, and the headers that tell the client. All workers count in one [`Table`], so that a limit is
//! exact however connections are dealt out; it is the one thing on the way of a request that workers share and change.
//! The algorithm is GCRA (the leaky bucket as a meter): a client is one moment, the one when its bucket is full again.
//! This module must not know of routes by name, of Lua, or of responses.

mod table;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{COOKIE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};

use crate::config::{LimitRule, Per, RateLimit};
use table::{Key, Table};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The limits of an app's routes, besides the config's limit for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteLimits {
    /// In the order declared.
    pub(crate) rules: Vec<LimitRule>,
    /// A route and one of its rules, both by their place.
    pub(crate) pairs: Vec<(u32, u16)>,
}

/// All limits of a server.
pub(crate) struct RateLimits {
    meters: Vec<Meter>,
    /// The place of the limit for all requests.
    global: Option<usize>,
    /// The meters of each route.
    routes: Vec<Box<[u16]>>,
    table: Table,
    hashers: [RandomState; 2],
    zero: Instant,
}

/// One limit, in nanoseconds.
struct Meter {
    /// The time in which one request comes back.
    interval: u64,
    /// The time in which an empty bucket fills.
    span: u64,
    burst: u32,
    per: Told,
}

/// What identifies the client of a request.
enum Told {
    Ip,
    Header(HeaderName),
    Cookie(Box<str>),
    /// A function of the app, called in Lua.
    Elsewhere,
}

/// The decision of one limit about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    limit: u32,
    remaining: u32,
    /// Seconds until the whole burst is there again.
    reset: u64,
    /// Seconds to wait, where the request is refused.
    retry_after: Option<u64>,
}

impl Decision {
    /// Whether the request may not go on.
    pub(crate) fn is_refusal(&self) -> bool {
        self.retry_after.is_some()
    }

    /// The stricter of two decisions.
    pub(crate) fn tighter(self, other: Option<Decision>) -> Decision {
        match other {
            Some(other) if (!other.is_refusal(), other.remaining) < (!self.is_refusal(), self.remaining) => other,
            _ => self,
        }
    }

    /// Tells the client.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(self.reset));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
    }
}

impl RateLimits {
    /// The limits of the config and of the app's routes; `None` where there are none.
    pub(crate) fn new(config: &RateLimit, declared: &RouteLimits) -> Option<Arc<RateLimits>> {
        let global = config.rule();
        if global.is_none() && declared.rules.is_empty() {
            return None;
        }
        let mut meters: Vec<Meter> = declared.rules.iter().map(Meter::new).collect();
        let global = global.map(|rule| {
            meters.push(Meter::new(&rule));
            meters.len() - 1
        });
        let most = declared.pairs.iter().map(|&(route, _)| route as usize + 1).max().unwrap_or(0);
        let mut routes = vec![Vec::new(); most];
        for &(route, rule) in &declared.pairs {
            routes[route as usize].push(rule);
        }
        Some(Arc::new(RateLimits {
            meters,
            global,
            routes: routes.into_iter().map(Vec::into_boxed_slice).collect(),
            table: Table::new(config.max_keys),
            hashers: [RandomState::new(), RandomState::new()],
            zero: Instant::now(),
        }))
    }

    /// What the limit for all requests says, where there is one.
    pub(crate) fn check_all(&self, headers: &HeaderMap, ip: Option<IpAddr>) -> Option<Decision> {
        self.check(self.global?, headers, ip)
    }

    /// What the limits of a route say, where it has some. Once one refuses, the others do not count the request.
    pub(crate) fn check_route(&self, route: usize, headers: &HeaderMap, ip: Option<IpAddr>) -> Option<Decision> {
        let mut tightest: Option<Decision> = None;
        for &meter in self.routes.get(route)?.iter() {
            let Some(decision) = self.check(meter.into(), headers, ip) else { continue };
            tightest = Some(decision.tighter(tightest));
            if decision.is_refusal() {
                break;
            }
        }
        tightest
    }

    /// What the limit in this place says about the key that the app's function chose.
    pub(crate) fn check_key(&self, place: usize, key: &[u8]) -> Option<Decision> {
        let meter = self.meters.get(place)?;
        Some(self.take(meter, self.key(place, 3, key)))
    }

    fn check(&self, place: usize, headers: &HeaderMap, ip: Option<IpAddr>) -> Option<Decision> {
        let meter = self.meters.get(place)?;
        let named = match &meter.per {
            Told::Ip => None,
            Told::Header(name) => headers.get(name).map(|value| (1, value.as_bytes())),
            Told::Cookie(name) => cookie(headers, name).map(|value| (2, value)),
            Told::Elsewhere => return None,
        };
        let key = match (named, ip.map(|ip| ip.to_canonical())) {
            (Some((kind, name)), _) => self.key(place, kind, name),
            (None, Some(IpAddr::V4(ip))) => self.key(place, 0, &ip.octets()),
            // One customer has a network of 64 bits at the least.
            (None, Some(IpAddr::V6(ip))) => self.key(place, 0, &ip.octets()[..8]),
            (None, None) => self.key(place, 0, &[]),
        };
        Some(self.take(meter, key))
    }

    /// Names a client of a limit, in 128 bits that nobody outside can predict.
    fn key(&self, place: usize, kind: u8, name: &[u8]) -> Key {
        let [first, second] = &self.hashers;
        [first.hash_one((place, kind, name)), second.hash_one((place, kind, name))]
    }

    fn take(&self, meter: &Meter, key: Key) -> Decision {
        let now = u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX / 2);
        meter.decide(&self.table, key, now)
    }
}

impl Meter {
    fn new(rule: &LimitRule) -> Meter {
        let period = u64::try_from(rule.rate.period.as_nanos()).unwrap_or(u64::MAX);
        let interval = (period / u64::from(rule.rate.count)).max(1);
        let per = match &rule.per {
            Per::Ip => Told::Ip,
            Per::Header(name) => HeaderName::from_bytes(name.as_bytes()).map_or(Told::Ip, Told::Header),
            Per::Cookie(name) => Told::Cookie(name.as_str().into()),
            Per::Function => Told::Elsewhere,
        };
        // A quarter of all that the clock can count: no sum below overflows.
        let span = interval.saturating_mul(rule.burst.into()).min(u64::MAX / 4);
        Meter { interval, span, burst: rule.burst, per }
    }

    fn decide(&self, table: &Table, key: Key, now: u64) -> Decision {
        let (full_at, is_taken) = table.update(key, now, |full_at| {
            let next = full_at.max(now) + self.interval;
            (next - now <= self.span).then_some(next)
        });
        let until_full = full_at.saturating_sub(now);
        let seconds = |nanoseconds: u64| nanoseconds.div_ceil(1_000_000_000);
        Decision {
            limit: self.burst,
            remaining: u32::try_from((self.span - until_full.min(self.span)) / self.interval).unwrap_or(u32::MAX),
            reset: seconds(until_full),
            retry_after: (!is_taken).then(|| seconds((until_full + self.interval).saturating_sub(self.span)).max(1)),
        }
    }
}

/// The value of a cookie, as sent (RFC 6265, section 4.2.1).
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(own, _)| own.trim() == name).map(|(_, value)| value.trim().as_bytes())
}

#[cfg(test)]
mod tests;
