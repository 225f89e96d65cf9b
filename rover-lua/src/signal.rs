//! The signal by which a thread is asked to look at its pulse.
//!
//! It is the first real-time signal from `SIGRTMIN + 8` on that nobody handles; it is taken when it is first asked for,
//! and kept. A handler that somebody else has is left alone.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;

use super::pulse;

/// Where the search for a signal begins, above `SIGRTMIN`: the lowest ones are popular.
const FIRST: c_int = 8;

/// The signal, or `None` where every one has a handler.
static SIGNAL: OnceLock<Option<c_int>> = OnceLock::new();

/// The signal, where there is one.
pub(super) fn number() -> Option<c_int> {
    *SIGNAL.get_or_init(|| (libc::SIGRTMIN() + FIRST..=libc::SIGRTMAX()).find(|&number| take(number)))
}

/// Handles this signal from now on, unless somebody else does.
fn take(number: c_int) -> bool {
    // SAFETY: asks for what there is before it is changed; the handler may run at any time from then on.
    unsafe {
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        if libc::sigaction(number, std::ptr::null(), before.as_mut_ptr()) != 0 {
            return false;
        }
        if before.assume_init().sa_sigaction != libc::SIG_DFL {
            return false;
        }
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = on_signal as extern "C" fn(c_int) as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(number, &raw const action, null_mut()) == 0
    }
}

extern "C" fn on_signal(_: c_int) {
    pulse::signalled();
}

/// A timer that sends `signal` to the calling thread.
pub(super) fn make_timer(signal: c_int) -> Option<libc::timer_t> {
    // SAFETY: the system fills `timer` in where it says so.
    unsafe {
        let mut event = MaybeUninit::<libc::sigevent>::zeroed().assume_init();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer = MaybeUninit::<libc::timer_t>::zeroed();
        let is_made = libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, timer.as_mut_ptr()) == 0;
        is_made.then(|| timer.assume_init())
    }
}
