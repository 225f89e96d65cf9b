//! Chooses upstreams in turn, and leaves out those that are out of order.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use http::Uri;
use rover_lua::{Raise, Returns, Stack};
use tokio::time::Instant;

use crate::outbound::{Origin, TlsOptions, parse_url};

use super::Proxy;

/// Servers that answer the same requests.
pub(super) struct Group {
    upstreams: Vec<Rc<Upstream>>,
    /// The one with the fewest requests in progress rather than the next in turn.
    by_load: bool,
    next: Cell<usize>,
    /// So many failures in a row put an upstream out of order.
    fails: u32,
    /// For how long; zero is not at all.
    fail_timeout: Duration,
}

/// One server.
pub(super) struct Upstream {
    pub(super) url: Uri,
    /// The URL names a path, rather than a server alone.
    pub(super) has_path: bool,
    pub(super) origin: Rc<Origin>,
    active: Cell<usize>,
    failures: Cell<u32>,
    down_until: Cell<Option<Instant>>,
}

impl Upstream {
    fn is_up(&self) -> bool {
        self.down_until.get().is_none_or(|until| until <= Instant::now())
    }
}

impl Group {
    /// The upstream for the next request, or for its attempt after `tried` others. Where none is in order, all are tried.
    pub(super) fn pick(self: &Rc<Self>, tried: &[Rc<Upstream>]) -> Option<Turn> {
        let fresh = |upstream: &Rc<Upstream>| !tried.iter().any(|known| Rc::ptr_eq(known, upstream));
        let n = self.upstreams.len();
        let begin = self.next.get();
        let in_turn = || (0..n).filter_map(|i| self.upstreams.get((begin + i) % n).map(|up| ((begin + i) % n, up)));
        let choose = |up_only: bool| {
            let mut able = in_turn().filter(|(_, up)| fresh(up) && (!up_only || up.is_up()));
            if self.by_load { able.min_by_key(|(_, up)| up.active.get()) } else { able.next() }
        };
        let (place, upstream) = choose(true).or_else(|| choose(false))?;
        self.next.set((place + 1) % n);
        upstream.active.set(upstream.active.get() + 1);
        Some(Turn { upstream: upstream.clone(), group: self.clone() })
    }
}

/// A request at its upstream.
pub(super) struct Turn {
    pub(super) upstream: Rc<Upstream>,
    group: Rc<Group>,
}

impl Turn {
    /// It answered.
    pub(super) fn succeeded(&self) {
        self.upstream.failures.set(0);
    }

    /// It did not. True where that puts it out of order.
    pub(super) fn failed(&self) -> bool {
        let failures = self.upstream.failures.get().saturating_add(1);
        self.upstream.failures.set(failures);
        let is_down = failures >= self.group.fails && !self.group.fail_timeout.is_zero();
        if is_down {
            // The next one that fails puts it out of order again at once.
            self.upstream.down_until.set(Some(Instant::now() + self.group.fail_timeout));
        }
        is_down && failures == self.group.fails
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.upstream.active.set(self.upstream.active.get().saturating_sub(1));
    }
}

/// `group(by_load, fails, fail_timeout, urls, ca, cert, key, insecure)`.
pub(super) fn group(stack: &mut Stack<'_>, proxy: &Proxy) -> Returns {
    let path = |index| stack.bytes(index).map(|bytes| PathBuf::from(String::from_utf8_lossy(bytes).into_owned()));
    let tls =
        TlsOptions { ca: path(5), identity: path(6).zip(path(7)), insecure: stack.boolean(8), ..TlsOptions::default() };
    let client = proxy.client(tls);
    let n = stack.raw_len(4);
    let mut upstreams = Vec::with_capacity(n);
    for n in 1..=n {
        stack.push_item(4, n as i32);
        let text = stack.bytes(stack.top()).unwrap_or_default().to_vec();
        stack.pop(1);
        let url = parse_url(&text)
            .map_err(|problem| Raise::Mistake(format!("{}: {problem}", String::from_utf8_lossy(&text))))?;
        let after_scheme = text.windows(3).position(|three| three == b"://").map_or(0, |at| at + 3);
        let has_path = text[after_scheme..].contains(&b'/');
        let origin = client.origin(&url);
        upstreams.push(Rc::new(Upstream {
            url,
            has_path,
            origin,
            active: Cell::new(0),
            failures: Cell::new(0),
            down_until: Cell::new(None),
        }));
    }
    let group = Group {
        upstreams,
        by_load: stack.boolean(1),
        next: Cell::new(0),
        fails: stack.number(2) as u32,
        fail_timeout: Duration::from_secs_f64(stack.number(3).max(0.0) / 1000.0),
    };
    proxy.groups.push(stack, Rc::new(group));
    Ok(1)
}
