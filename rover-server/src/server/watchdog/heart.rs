//! Checks whether a worker's runtime still polls its tasks, whatever they do.
//!
//! Comes in: looks at the worker. Goes out: whether it is busy, and when it has not returned to its event loop for too
//! long. Lua code that begins again and again is not a sign of life. A worker that shows none is sent a task. This
//! module must not know what is done about a lost worker.

use std::time::{Duration, Instant};

use rover_lua::Look;
use tokio::runtime::Handle;

use super::{GRACE, is_over};
use crate::config::Limits;

/// How much CPU time a worker may take without a beat before it is sent a task.
const UNSEEN: Duration = Duration::from_millis(500);

/// The result of a look at a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeartbeatState {
    /// It has done nothing since the last look.
    Idle,
    Busy,
    /// It has not returned to its event loop for this long.
    Lost(Duration),
}

/// The last beat of a worker, as far as it is known.
#[derive(Default)]
pub(super) struct Heartbeat(Option<LastBeat>);

#[derive(Clone, Copy)]
struct LastBeat {
    /// The first look at this beat.
    look: Look,
    since: Instant,
    cpu: Duration,
    /// When it was sent a task, and what it did then.
    asked: Option<(Instant, Look)>,
}

impl Heartbeat {
    /// Does not count the time in which nothing ran.
    pub(super) fn excuse(&mut self, pause: Duration) {
        if let Some(last) = &mut self.0 {
            last.since += pause;
            if let Some((asked, _)) = &mut last.asked {
                *asked += pause;
            }
        }
    }

    /// Looks at the worker; `handle` returns its runtime, once there is one.
    pub(super) fn check(
        &mut self,
        look: Look,
        now: Instant,
        limits: Limits,
        handle: impl FnOnce() -> Option<Handle>,
    ) -> HeartbeatState {
        let last = match &mut self.0 {
            Some(last) if last.look.beats == look.beats => last,
            other => {
                other.replace(LastBeat { look, since: now, cpu: look.cpu, asked: None });
                return HeartbeatState::Busy;
            }
        };
        let has_run = std::mem::replace(&mut last.cpu, look.cpu) != look.cpu;
        let doing = if has_run || look.is_in_lua() { HeartbeatState::Busy } else { HeartbeatState::Idle };
        let (cpu, time) = (look.cpu.saturating_sub(last.look.cpu), now.saturating_duration_since(last.since));
        let stall_limit = limits.worker_stall_limit;
        let Some((asked, then)) = last.asked else {
            if (cpu >= UNSEEN || is_over(stall_limit / 2, time))
                && let Some(handle) = handle()
            {
                handle.spawn(async { rover_lua::beat() });
                last.asked = Some((now, look));
            }
            return doing;
        };
        // Outside of Lua nothing takes long; code in Lua has limits of its own.
        let cpu_limit = limits.handler_cpu_limit;
        let is_lost = !look.is_in_lua()
            && !cpu_limit.is_zero()
            && look.epoch == then.epoch
            && look.cpu.saturating_sub(then.cpu) >= cpu_limit + GRACE;
        let waited = now.saturating_duration_since(asked);
        if is_lost || is_over(stall_limit, time) && is_over(stall_limit / 2, waited) {
            return HeartbeatState::Lost(time);
        }
        doing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(epoch: u64, beats: u32, cpu: u64) -> Look {
        Look { epoch, beats, cpu: Duration::from_millis(cpu), label: 0 }
    }

    /// A runtime that nobody runs, so that what is asked is not answered.
    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
    }

    #[test]
    fn lua_code_that_begins_again_and_again_is_no_sign_that_the_worker_comes_round() {
        let (runtime, limits) = (runtime(), Limits { worker_stall_limit: Duration::from_secs(4), ..Limits::default() });
        let (mut heart, began) = (Heartbeat::default(), Instant::now());
        for second in 0..4 {
            let now = began + Duration::from_secs(second);
            let seen = look(1 + 1000 * second, 7, 1000 * second);
            assert_eq!(heart.check(seen, now, limits, || Some(runtime.handle().clone())), HeartbeatState::Busy);
        }
        let lost = heart.check(look(4001, 7, 4000), began + Duration::from_secs(4), limits, || None);
        assert_eq!(lost, HeartbeatState::Lost(Duration::from_secs(4)));
        // A beat is one.
        let on = heart.check(look(4001, 8, 4000), began + Duration::from_secs(4), limits, || None);
        assert_eq!(on, HeartbeatState::Busy);
    }

    #[test]
    fn one_that_has_nothing_to_do_is_asked_and_left_alone() {
        let (runtime, limits) = (runtime(), Limits::default());
        let (mut heart, began) = (Heartbeat::default(), Instant::now());
        heart.check(look(2, 0, 5), began, limits, || None);
        let late = began + limits.worker_stall_limit - Duration::from_secs(1);
        assert_eq!(heart.check(look(2, 0, 5), late, limits, || Some(runtime.handle().clone())), HeartbeatState::Idle);
        assert_eq!(heart.check(look(2, 1, 5), late + limits.worker_stall_limit, limits, || None), HeartbeatState::Busy);
    }
}
