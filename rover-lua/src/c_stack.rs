//! The C stack of a thread that runs Lua code: recursion through C ends in an error of Lua, not in the end of the process.
//!
//! LuaJIT bounds the depth of Lua calls, but not what they take of the C stack: a function that `gsub` calls, and that
//! calls `gsub`, takes nine kilobytes a level. So there is a zone above the stack's end that nobody may touch. Who does
//! is let through by a signal's handler, and has what lies below to come back to Lua with; there the hook of
//! `interrupt.rs` raises until the code has come back above the zone, which is then closed again. LuaJIT forgets a hook that
//! is asked for while it runs a finalizer, and a finalizer that comes deeper than the code around it finds every zone first;
//! so a timer asks again as long as a zone is open, and so do further zones below.
//!
//! Costs nothing where no code comes so deep. The handler of `SIGSEGV` hands on what is not its own.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;

use super::{pulse, signal};

/// Bytes of stack for a thread that runs Lua code. What is never touched costs addresses only.
pub const STACK: usize = 16 << 20;

/// What remains below the zone, for C and Rust code to come back to Lua with.
const RESERVE: usize = 4 << 20;
/// Larger than the frame of any C function that Lua code reaches.
const ZONE: usize = 64 << 10;
const ZONES: usize = 8;
/// How far apart they begin.
const STEP: usize = 256 << 10;
/// How often the hook is asked for while a zone is open, in nanoseconds. Code that does nothing but come deeper takes some
/// 25 KB in that time.
const AGAIN: libc::c_long = 100_000;
/// How far above the first zone the code must have come back for it to be closed again.
const CLEAR: usize = 64 << 10;

#[derive(Clone, Copy)]
struct Zones {
    /// Where the highest begins; 0 where the thread has none.
    start: usize,
    /// A bit for each that is open.
    open: u8,
}

impl Zones {
    const NONE: Zones = Zones { start: 0, open: 0 };

    fn address(self, n: usize) -> usize {
        self.start - n * STEP
    }
}

thread_local! {
    // Without a destructor and with a constant start, as a signal's handler looks at it.
    static OWN: Cell<Zones> = const { Cell::new(Zones::NONE) };
    /// Asks again; `None` where the system has no more timers.
    static TIMER: Cell<Option<libc::timer_t>> = const { Cell::new(None) };
}

/// What was there before.
static BEFORE: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// Guards the calling thread's stack, if it is large enough.
pub(super) fn guard() {
    let is_handled = BEFORE.get_or_init(handle).is_some();
    if is_handled
        && has_other_stack()
        && OWN.get().start == 0
        && let Some(lowest) = lowest()
    {
        let start = (lowest + RESERVE).next_multiple_of(ZONE);
        if here() > start + 2 * (ZONE + CLEAR) {
            TIMER.set(signal::number().and_then(signal::make_timer));
            set_own(Zones { start, open: u8::MAX });
            close();
        }
    }
}

/// Lets go of the calling thread's stack, which another thread may get.
pub(super) fn release() {
    let zones = OWN.get();
    set_own(Zones::NONE);
    if let Some(timer) = TIMER.take() {
        // SAFETY: `guard` made it, and nobody else has it.
        unsafe { libc::timer_delete(timer) };
    }
    if zones.start != 0 {
        (0..ZONES).for_each(|n| {
            set(zones.address(n), libc::PROT_READ | libc::PROT_WRITE);
        });
    }
}

/// Notes what is open, also for the signal by which the hook is asked for again.
fn set_own(zones: Zones) {
    OWN.set(zones);
    pulse::set_deep(zones.open != 0);
}

/// Whether the code has come so deep, and the zones are not closed again.
fn is_open() -> bool {
    OWN.get().open != 0
}

/// Whether the calling code stands so deep that it has to end.
pub(super) fn is_exhausted() -> bool {
    let zones = OWN.get();
    zones.open != 0 && here() < zones.start + ZONE + CLEAR
}

/// Closes the zones again, where the calling code stands above them. Whether they are closed.
pub(super) fn close() -> bool {
    let zones = OWN.get();
    if zones.open != 0 && !is_exhausted() {
        let is_left_open = |n: &usize| zones.open & 1 << n != 0 && !set(zones.address(*n), libc::PROT_NONE);
        let open = (0..ZONES).filter(is_left_open).fold(0, |open, n| open | 1 << n);
        set_own(Zones { open, ..zones });
        if open == 0 {
            set_timer(0);
        }
    }
    !is_open()
}

/// Has the timer send its signal each `nanoseconds` from now on; 0 stops it. Safe within a signal's handler.
fn set_timer(nanoseconds: libc::c_long) {
    if let Some(timer) = TIMER.get() {
        let time = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
        let times = libc::itimerspec { it_interval: time, it_value: time };
        // SAFETY: the timer is the calling thread's, and lives until `release` takes it.
        unsafe { libc::timer_settime(timer, 0, &raw const times, null_mut()) };
    }
}

/// About where the calling code stands.
#[inline(never)]
fn here() -> usize {
    let mark = 0_u8;
    std::hint::black_box(&raw const mark).addr()
}

fn set(start: usize, access: c_int) -> bool {
    // SAFETY: a zone is a part of this thread's own stack that no frame lies in when it is closed.
    unsafe { libc::mprotect(std::ptr::with_exposed_provenance_mut(start), ZONE, access) == 0 }
}

/// The lowest address of the calling thread's stack, guard pages included.
fn lowest() -> Option<usize> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::zeroed();
    let (mut address, mut size) = (null_mut::<c_void>(), 0);
    // SAFETY: asks about the calling thread; what was given out is given back.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let told = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut address, &raw mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        // A thread that somebody else has made may have less; the main thread's grows as it goes.
        (told == 0 && size >= STACK / 4 * 3 && libc::gettid() != libc::getpid()).then(|| address.expose_provenance())
    }
}

/// Whether signals of this thread have a stack of their own.
fn has_other_stack() -> bool {
    let mut stack = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: only asks.
    unsafe {
        libc::sigaltstack(std::ptr::null(), stack.as_mut_ptr()) == 0
            && stack.assume_init().ss_flags & libc::SS_DISABLE == 0
    }
}

/// Handles the signal from now on; gives who did before.
fn handle() -> Option<libc::sigaction> {
    // SAFETY: the handler hands on what is not its own, which it finds in `BEFORE` as soon as any thread has a zone.
    unsafe {
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = on_fault as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        let is_set = libc::sigaction(libc::SIGSEGV, &raw const action, before.as_mut_ptr()) == 0;
        is_set.then(|| before.assume_init())
    }
}

extern "C" fn on_fault(number: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let zones = OWN.get();
    // SAFETY: the kernel gives what the flags ask for.
    let address = unsafe { (*info).si_addr() }.addr();
    let touched = |n: &usize| {
        let start = zones.address(*n);
        zones.open & 1 << n == 0 && (start..start + ZONE).contains(&address)
    };
    if zones.start != 0
        && let Some(n) = (0..ZONES).find(touched)
        && set(zones.address(n), libc::PROT_READ | libc::PROT_WRITE)
    {
        set_own(Zones { open: zones.open | 1 << n, ..zones });
        set_timer(AGAIN);
        return pulse::exhausted();
    }
    // SAFETY: does what would have been done without this handler.
    unsafe {
        match BEFORE.get() {
            Some(Some(before)) if !matches!(before.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) => {
                if before.sa_flags & libc::SA_SIGINFO == 0 {
                    let before: extern "C" fn(c_int) = std::mem::transmute(before.sa_sigaction);
                    return before(number);
                }
                let before: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                    std::mem::transmute(before.sa_sigaction);
                before(number, info, context);
            }
            // The faulting instruction runs once more, and ends the process.
            _ => {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            }
        }
    }
}
