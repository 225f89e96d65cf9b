//! A thread that runs Lua code, as a watchdog on another thread sees it: how long the code has been running, and a
//! signal to break into it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::pulse::{self, Pulse};
use super::{c_stack, signal, slice};

/// A thread under watch. Ends with the thread's [`Watch`].
pub struct Watched {
    /// `None` once the thread has ended, or is not to be looked at any more.
    thread: Mutex<Option<Thread>>,
}

#[derive(Clone, Copy)]
struct Thread {
    pulse: *const Pulse,
    id: libc::pid_t,
    clock: libc::clockid_t,
}

// SAFETY: everything in the pulse that other threads look at is atomic, and it is alive while it stands behind the lock:
// its thread takes it away from there before it ends.
unsafe impl Send for Thread {}

/// What a look at a thread showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Moves whenever Lua code begins or ends.
    pub epoch: u64,
    /// Moves whenever the thread has come round.
    pub beats: u32,
    /// The CPU time of the whole thread.
    pub cpu: Duration,
    /// The number of the function that was called last, see [`label`](super::label).
    pub label: u32,
}

impl Look {
    /// Whether Lua code runs.
    pub fn is_in_lua(self) -> bool {
        self.epoch & 1 == 1
    }
}

/// Keeps the thread that made it under watch.
pub struct Watch {
    watched: Arc<Watched>,
    /// It belongs to its thread.
    here: std::marker::PhantomData<*const ()>,
}

impl Watched {
    /// A thread to be.
    pub fn new() -> Arc<Watched> {
        Arc::new(Watched { thread: Mutex::new(None) })
    }

    /// Watches the calling thread until the result is dropped.
    pub fn begin(self: &Arc<Self>) -> Watch {
        let mut clock = 0;
        // SAFETY: ask about the calling thread, and let the signal through that others may have blocked for it.
        let (known, id) = unsafe {
            if let Some(number) = signal::number() {
                let mut set = MaybeUninit::<libc::sigset_t>::zeroed().assume_init();
                libc::sigemptyset(&raw mut set);
                libc::sigaddset(&raw mut set, number);
                libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, null_mut());
            }
            (libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) == 0, libc::gettid())
        };
        if known {
            *self.thread.lock() = Some(Thread { pulse: pulse::own(), id, clock });
        }
        c_stack::guard();
        Watch { watched: self.clone(), here: std::marker::PhantomData }
    }

    /// What the thread does; `None` where it does not run (any more).
    pub fn look(&self) -> Option<Look> {
        let thread = self.thread.lock();
        let thread = thread.as_ref()?;
        let mut time = MaybeUninit::<libc::timespec>::zeroed();
        // SAFETY: the pulse is alive, see `Thread`; the clock is that of a live thread.
        unsafe {
            let (epoch, label) = ((*thread.pulse).epoch(), (*thread.pulse).label());
            if libc::clock_gettime(thread.clock, time.as_mut_ptr()) != 0 {
                return None;
            }
            Some(Look { epoch, beats: (*thread.pulse).beats(), cpu: duration(time.assume_init()), label })
        }
    }

    /// Stops the Lua code that has been running since `epoch`, if it still does. `limit` is what it is told that it
    /// passed.
    ///
    /// # Errors
    /// What the system says; or that all signals are taken.
    pub fn stop(&self, epoch: u64, limit: Duration) -> io::Result<()> {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.break_in(|pulse| pulse.condemn(epoch, limit))
    }

    /// Has the place of the running Lua code recorded, see [`begin_samples`](crate::begin_samples). Nothing happens where none runs.
    pub fn sample(&self) -> bool {
        let in_lua = self.thread.lock().as_ref().is_some_and(|thread| {
            // SAFETY: alive, see `Thread`.
            unsafe { (*thread.pulse).epoch() & 1 == 1 }
        });
        in_lua && self.break_in(Pulse::want_sample).is_ok()
    }

    fn break_in(&self, ask: impl FnOnce(&Pulse)) -> io::Result<()> {
        let number =
            signal::number().ok_or_else(|| io::Error::other("every real-time signal has a handler already"))?;
        let thread = self.thread.lock();
        let Some(thread) = thread.as_ref() else { return Ok(()) };
        // SAFETY: the pulse and its thread are alive while the lock is held, see `Thread`.
        let sent = unsafe {
            ask(&*thread.pulse);
            libc::syscall(libc::SYS_tgkill, libc::getpid(), thread.id, number)
        };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Looks at the thread no more.
    pub fn give_up(&self) {
        *self.thread.lock() = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watched.give_up();
        slice::release();
        c_stack::release();
    }
}

/// The CPU time of the calling thread.
pub fn cpu_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the system fills `time` in; where it does not, it stays zero.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr());
        time.assume_init()
    };
    duration(time)
}

fn duration(time: libc::timespec) -> Duration {
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Says that this thread has come round: its runtime has called it.
#[inline]
pub fn beat() {
    // SAFETY: the calling thread's own pulse.
    unsafe { (*pulse::own()).beat() }
}

/// Ends what the socket of this number carries, whichever thread owns it; false where there is none. Somebody has to see
/// to it that the number is still that socket's.
pub fn cut(descriptor: RawFd) -> bool {
    // SAFETY: touches no memory, and closes nothing that others own.
    unsafe { libc::shutdown(descriptor, libc::SHUT_RDWR) == 0 }
}
