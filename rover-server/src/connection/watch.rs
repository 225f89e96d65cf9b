//! Checks whether a connection has waited too long for its client's next head, or for its client to take an answer.
//!
//! It looks at most once a tick, so that a request costs nothing. Timeouts are therefore exact to a few ticks, and
//! never too short.

use std::time::Duration;

use crate::config::Config;
use crate::transport::lifecycle::ConnectionSlot;
use crate::transport::socket::{Socket, Traffic};

use super::requests::ConnectedClient;

/// How many ticks pass between two looks at most.
const LOOKS_BETWEEN: u64 = 4;

/// The tick of a worker's clock: an eighth of the shortest timeout, within bounds.
pub(crate) fn tick(config: &Config) -> Duration {
    let settings = &config.connections;
    let shortest =
        settings.header_timeout.min(settings.idle_timeout).min(settings.send_timeout).min(config.body_timeout);
    (shortest / 8).clamp(Duration::from_millis(10), Duration::from_secs(1))
}

/// How long a client may keep a connection open after it was told to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// The timeout that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpiredTimeout {
    /// The client did not send a whole head.
    Head,
    /// The client did not begin another request, unless in the same bytes as the end of the last one: only hyper knows.
    Unsure,
    /// The client did not begin another request.
    Idle,
    /// Nothing came of a body that is passed on, or nobody took it.
    Body,
    /// The client took nothing of its answer.
    Send,
}

/// What a connection does, as seen at a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Activity {
    #[default]
    Head,
    Idle,
    /// A request is being answered.
    Busy,
    /// A request has been answered before all of its body came, which goes on to somebody else.
    Passing,
    /// Bytes wait for the client.
    Sending,
}

/// What was seen at the last tick.
#[derive(Default)]
pub(super) struct TimeoutWatch {
    activity: Activity,
    /// The tick since which the phase has lasted without progress; `None` before the first look.
    since: Option<u64>,
    /// Since then hyper has been asked whether it holds the beginning of a head.
    is_sure: bool,
    begun: u64,
    moved: u64,
    /// Bytes received at the last look.
    received: u64,
    /// How many requests had begun at the end of the last turn, and whether one was being answered.
    last_begun: u64,
    was_busy: bool,
    /// Bytes read when the last request came to its end: what came since belongs to the next head.
    read: u64,
}

impl TimeoutWatch {
    /// Notes how a turn has ended.
    #[inline]
    pub(super) fn note(&mut self, client: &ConnectedClient, socket: &Socket) {
        let (begun, is_busy) = (client.begun(), client.is_busy() || client.is_passing());
        if is_busy || self.was_busy || begun != self.last_begun {
            self.was_busy = is_busy;
            self.last_begun = begun;
            self.read = socket.read_so_far();
        }
    }

    /// Looks at the connection and returns what has expired, if anything; otherwise asks to be woken when something
    /// could have.
    pub(super) fn look(
        &mut self,
        slot: &ConnectionSlot,
        client: &ConnectedClient,
        traffic: Traffic,
        is_http2: bool,
        told_to_end: bool,
    ) -> Option<ExpiredTimeout> {
        let now = slot.now();
        let activity = self.activity(client, traffic, is_http2);
        let is_progress = match activity {
            Activity::Sending => traffic.moved != self.moved,
            Activity::Passing => traffic.read != self.received,
            Activity::Idle => client.begun() != self.begun,
            Activity::Head | Activity::Busy => false,
        };
        if activity != self.activity || is_progress || self.since.is_none() {
            self.since = Some(now);
            self.activity = activity;
            self.is_sure = false;
        }
        self.begun = client.begun();
        self.moved = traffic.moved;
        self.received = traffic.read;

        let site = client.current.site();
        let settings = &site.config.connections;
        // What a connection does may change after this look, without another turn in which it could look again.
        let next_look = now + LOOKS_BETWEEN;
        let (patience, expired) = match activity {
            Activity::Busy => {
                slot.wake_at(next_look);
                return None;
            }
            Activity::Sending => (settings.send_timeout, ExpiredTimeout::Send),
            Activity::Passing => (site.config.body_timeout, ExpiredTimeout::Body),
            Activity::Head | Activity::Idle if told_to_end => (FAREWELL, ExpiredTimeout::Idle),
            Activity::Head => (settings.header_timeout, ExpiredTimeout::Head),
            // Only hyper knows what came along with the end of the last request.
            Activity::Idle if !self.is_sure && !is_http2 && settings.header_timeout < settings.idle_timeout => {
                (settings.header_timeout, ExpiredTimeout::Unsure)
            }
            Activity::Idle => (settings.idle_timeout, ExpiredTimeout::Idle),
        };
        let due = self.since.unwrap_or(now).saturating_add(slot.ticks(patience));
        if now >= due {
            self.is_sure = expired == ExpiredTimeout::Unsure;
            return Some(expired);
        }
        slot.wake_at(due.min(next_look));
        None
    }

    fn activity(&self, client: &ConnectedClient, traffic: Traffic, is_http2: bool) -> Activity {
        if traffic.is_blocked {
            return Activity::Sending;
        }
        if client.is_busy() {
            return Activity::Busy;
        }
        if client.is_passing() {
            return Activity::Passing;
        }
        // A frame of HTTP/2 is not a request yet: only requests keep a connection open.
        let in_head = client.begun() == 0 || traffic.read > self.read;
        if in_head && !is_http2 { Activity::Head } else { Activity::Idle }
    }
}
