//! Cuts code into slices: a coroutine that has run for a while is suspended between two instructions, and goes on when it is
//! resumed.
//!
//! A timer sends the thread its signal, upon which the hook of `interrupt.rs` asks whether the code can be cut where it is,
//! and suspends it. It cannot within a C function that has called it back, such as `table.sort`, `string.gsub` and
//! `require`, nor within a coroutine of the app's own, whose resumer would take the cut for a `coroutine.yield`; there it is
//! asked again a moment later. This module must not know what is done between two slices.

use std::cell::Cell;
use std::ptr::null_mut;

use mlua::ffi;

use super::{pulse, signal};

/// How long a slice is, in nanoseconds.
const SLICE: libc::c_long = 2_000_000;
/// When the code is asked again that could not be cut.
const AGAIN: libc::c_long = 500_000;

#[derive(Clone, Copy)]
enum Timer {
    Unasked,
    /// The system has no more, or there is no signal for it.
    None,
    Some(libc::timer_t),
}

thread_local! {
    static TIMER: Cell<Timer> = const { Cell::new(Timer::Unasked) };
}

fn timer() -> Option<libc::timer_t> {
    if let Timer::Unasked = TIMER.get() {
        TIMER.set(signal::number().and_then(signal::make_timer).map_or(Timer::None, Timer::Some));
    }
    match TIMER.get() {
        Timer::Some(timer) => Some(timer),
        Timer::None | Timer::Unasked => None,
    }
}

/// Has the timer send its signal after so many nanoseconds, and again after each slice, as LuaJIT forgets a hook that is asked
/// for within a finalizer; 0 stops it.
fn set(timer: libc::timer_t, nanoseconds: libc::c_long) {
    let interval = if nanoseconds == 0 { 0 } else { SLICE };
    let it_interval = libc::timespec { tv_sec: 0, tv_nsec: interval };
    let times = libc::itimerspec { it_interval, it_value: libc::timespec { tv_sec: 0, tv_nsec: nanoseconds } };
    // SAFETY: the timer is the calling thread's, and lives until `release` takes it.
    unsafe { libc::timer_settime(timer, 0, &raw const times, null_mut()) };
}

/// The coroutine that is resumed next on this thread is cut when it has run for a slice; to be told to [`end`].
pub(super) fn begin(state: *mut ffi::lua_State) {
    if let Some(timer) = timer()
        && pulse::may_cut(state)
    {
        set(timer, SLICE);
    }
}

/// The code that runs could not be cut where it was.
pub(super) fn again() {
    if let Timer::Some(timer) = TIMER.get() {
        set(timer, AGAIN);
    }
}

/// The coroutine has come back. Whether it was cut.
pub(super) fn end() -> bool {
    if let Timer::Some(timer) = TIMER.get() {
        set(timer, 0);
    }
    pulse::was_cut()
}

/// Lets go of the calling thread's timer.
pub(super) fn release() {
    if let Timer::Some(timer) = TIMER.replace(Timer::Unasked) {
        // SAFETY: `timer` made it, and nobody else has it.
        unsafe { libc::timer_delete(timer) };
    }
}
