//! A thread's pulse: what a signal's handler may touch, and what a watchdog on another thread sees.
//!
//! It is a count that moves whenever Lua code begins or ends, and the reasons for which the running code is to be broken
//! into. Whoever has such a reason installs a hook on the running VM (`lua_sethook` may be called from a signal's handler,
//! see `lj_record.c` about `LUAJIT_ENABLE_CHECKHOOK`), which is called at the next instruction.
//!
//! This module must not know what the hook does; that is `interrupt.rs`.

use std::cell::Cell;
use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mlua::ffi;

use super::layout;

/// The code has been condemned: every further instruction raises, until the VM is back at the top.
pub(super) const STOP: u8 = 1;
/// The VM comes near its limit of memory: collect garbage, and raise where that does not help.
pub(super) const COLLECT: u8 = 2;
/// A profiler wants to know where the code is.
pub(super) const SAMPLE: u8 = 4;
/// No reason for a hook: Rust code has run a coroutine within a native function. LuaJIT takes that one for the running
/// one until it is back in Lua, so nothing can be told from it.
pub(super) const NESTED: u8 = 8;
/// The code has come to the end of the C stack: every further instruction raises, until it has come back from there.
pub(super) const EXHAUSTED: u8 = 16;

/// The code has had its slice.
pub(super) const SLICE: u8 = 32;

/// The hook. Set before the first VM runs any code, so a signal that finds code running finds it too.
pub(super) static HOOK: OnceLock<ffi::lua_Hook> = OnceLock::new();

/// What other threads see of a thread that runs Lua code.
pub(super) struct Pulse {
    /// Grows when Lua code begins and when it ends, so it is odd while it runs.
    pub(super) epoch: AtomicU64,
    /// Grows whenever the thread's runtime has called it.
    beats: AtomicU32,
    /// A coroutine of the VM that runs.
    pub(super) state: AtomicPtr<ffi::lua_State>,
    /// Which function was called, as its caller numbers them.
    label: AtomicU32,
    /// Why there is a hook; 0 where there is none. Only this thread changes it, in its code or in a signal's handler.
    pub(super) wanted: AtomicU8,
    /// The hook runs.
    pub(super) is_inside: AtomicBool,
    /// The epoch that a watchdog has condemned, and the limit that it passed, in milliseconds.
    condemned: AtomicU64,
    pub(super) limit: AtomicU64,
    /// A profiler has asked for a sample.
    is_sampled: AtomicBool,
    /// The coroutine that may be cut into slices; null where none may.
    pub(super) sliced: AtomicPtr<ffi::lua_State>,
    /// It has been.
    pub(super) is_cut: Cell<bool>,
    /// The code stands so deep that a zone of the C stack is open, see `c_stack.rs`.
    is_deep: AtomicBool,
    /// The hook that the app had installed by itself.
    pub(super) app_hook: Cell<(Option<ffi::lua_Hook>, c_int, c_int)>,
}

thread_local! {
    // Without a destructor and with a constant start, so reaching it costs no check.
    pub(super) static PULSE: Pulse = const {
        Pulse {
            epoch: AtomicU64::new(0),
            beats: AtomicU32::new(0),
            state: AtomicPtr::new(null_mut()),
            label: AtomicU32::new(0),
            wanted: AtomicU8::new(0),
            is_inside: AtomicBool::new(false),
            condemned: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            is_sampled: AtomicBool::new(false),
            sliced: AtomicPtr::new(null_mut()),
            is_cut: Cell::new(false),
            is_deep: AtomicBool::new(false),
            app_hook: Cell::new((None, 0, 0)),
        }
    };
}

/// Lua code begins to run on `state`; to be told to [`leave`](super::interrupt::leave). False where it was called by other Lua code.
#[inline(always)]
pub(super) fn enter(state: *mut ffi::lua_State) -> bool {
    PULSE.with(|pulse| {
        let epoch = pulse.epoch.load(Ordering::Relaxed);
        if epoch & 1 == 1 {
            pulse.wanted.fetch_or(NESTED, Ordering::Relaxed);
            return false;
        }
        pulse.state.store(state, Ordering::Relaxed);
        pulse.epoch.store(epoch + 1, Ordering::Release);
        true
    })
}

/// The code that runs next, on `state`, has taken more than `limit` already: it is stopped at its first instruction.
///
/// # Safety
/// `state` is alive, this is its thread, and no other code runs before it.
#[cold]
pub(super) unsafe fn condemn(state: *mut ffi::lua_State, limit: Duration) {
    PULSE.with(|pulse| {
        pulse.limit.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { pulse.install(state, STOP) };
    });
}

/// The coroutine that is resumed next may be cut into slices. False where it is resumed by other Lua code.
#[cold]
pub(super) fn may_cut(state: *mut ffi::lua_State) -> bool {
    PULSE.with(|pulse| {
        let is_outermost = pulse.epoch.load(Ordering::Relaxed) & 1 == 0;
        if is_outermost {
            pulse.is_cut.set(false);
            pulse.sliced.store(state, Ordering::Relaxed);
        }
        is_outermost
    })
}

/// Whether that coroutine was cut. None may be any more.
#[cold]
pub(super) fn was_cut() -> bool {
    PULSE.with(|pulse| {
        pulse.sliced.store(null_mut(), Ordering::Relaxed);
        pulse.is_cut.take()
    })
}

/// Another coroutine is about to run for a moment, which is not worth a count of its own.
pub(super) fn interpose() {
    PULSE.with(|pulse| {
        if pulse.epoch.load(Ordering::Relaxed) & 1 == 1 {
            pulse.wanted.fetch_or(NESTED, Ordering::Relaxed);
        }
    });
}

/// The Lua code that runs next on this thread counts as the function of this number.
#[inline(always)]
pub fn label(number: u32) {
    PULSE.with(|pulse| pulse.label.store(number, Ordering::Relaxed));
}

/// The number of the function that runs.
pub(super) fn running() -> u32 {
    PULSE.with(|pulse| pulse.label.load(Ordering::Relaxed))
}

/// Whether the code that runs on this thread has been told to stop. For functions that take their time.
pub fn is_condemned() -> bool {
    PULSE.with(|pulse| pulse.wanted.load(Ordering::Relaxed) & STOP != 0)
}

/// Has the code that runs on this thread collect garbage at its next instruction. Called by the VM's allocator.
///
/// # Safety
/// `state` is alive, and belongs to the VM that runs.
pub(super) unsafe fn want_collection(state: *mut ffi::lua_State) {
    // SAFETY: the caller's promise.
    PULSE.with(|pulse| unsafe { pulse.install(state, COLLECT) });
}

/// The code on this thread has come to the end of the C stack. Called by a signal's handler.
pub(super) fn exhausted() {
    PULSE.with(|pulse| {
        if pulse.epoch.load(Ordering::Acquire) & 1 == 0 {
            // Rust code alone: looked at again when Lua code ends next.
            pulse.wanted.fetch_or(NESTED, Ordering::Relaxed);
            return;
        }
        let state = pulse.state.load(Ordering::Relaxed);
        // SAFETY: the epoch is odd, so the state that stands beside it runs on this very thread.
        unsafe { pulse.install(state, EXHAUSTED) };
    });
}

/// Notes whether a zone of this thread's C stack is open.
pub(super) fn set_deep(is_deep: bool) {
    PULSE.with(|pulse| pulse.is_deep.store(is_deep, Ordering::Relaxed));
}

/// Whether Lua code of the VM of `state` runs on this thread, and not the hook in it.
///
/// # Safety
/// `state` is alive.
pub(super) unsafe fn is_running(state: *mut ffi::lua_State) -> bool {
    PULSE.with(|pulse| {
        let in_lua = pulse.epoch.load(Ordering::Relaxed) & 1 == 1 && !pulse.is_inside.load(Ordering::Relaxed);
        // SAFETY: while the epoch is odd, the pulse's state is alive too.
        in_lua && unsafe { layout::global(state) == layout::global(pulse.state.load(Ordering::Relaxed)) }
    })
}

/// Whether the VM's own record of what runs can be relied upon.
pub(super) fn is_nested() -> bool {
    PULSE.with(|pulse| pulse.wanted.load(Ordering::Relaxed) & NESTED != 0)
}

/// The address of this thread's pulse.
pub(super) fn own() -> *const Pulse {
    PULSE.with(|pulse| &raw const *pulse)
}

/// What a signal's handler does on the thread that got it. It touches nothing but the pulse and the VM's hook.
pub(super) fn signalled() {
    PULSE.with(|pulse| {
        let epoch = pulse.epoch.load(Ordering::Acquire);
        let is_sampled = pulse.is_sampled.swap(false, Ordering::Relaxed);
        if epoch & 1 == 0 {
            return;
        }
        let state = pulse.state.load(Ordering::Relaxed);
        let stop = if pulse.condemned.load(Ordering::Relaxed) == epoch { STOP } else { 0 };
        let sample = if is_sampled { SAMPLE } else { 0 };
        let exhausted = if pulse.is_deep.load(Ordering::Relaxed) { EXHAUSTED } else { 0 };
        let slice = if pulse.sliced.load(Ordering::Relaxed).is_null() { 0 } else { SLICE };
        let reason = stop | sample | exhausted | slice;
        if reason != 0 {
            // SAFETY: the epoch is odd, so the state that stands beside it runs on this very thread.
            unsafe { pulse.install(state, reason) };
        }
    });
}

/// Installs the hook anew.
///
/// # Safety
/// `state` is alive, and this is its thread.
pub(super) unsafe fn force_hook(state: *mut ffi::lua_State) {
    // SAFETY: the caller's promise. Taken off first: LuaJIT writes its table only where something changes.
    unsafe {
        ffi::lua_sethook(state, None, 0, 0);
        ffi::lua_sethook(state, HOOK.get().copied(), ffi::LUA_MASKCOUNT, 1);
    }
}

impl Pulse {
    /// Has the hook called at the next instruction. Safe within a signal's handler, and wherever the VM calls out.
    ///
    /// # Safety
    /// `state` is alive, and this is its thread.
    pub(super) unsafe fn install(&self, state: *mut ffi::lua_State, reason: u8) {
        let before = self.wanted.fetch_or(reason, Ordering::Relaxed) & !NESTED;
        // SAFETY: the caller's promise.
        unsafe {
            if before == 0 {
                let (hook, mask, count) =
                    (ffi::lua_gethook(state), ffi::lua_gethookmask(state), ffi::lua_gethookcount(state));
                let is_own = hook.is_some_and(|hook| HOOK.get().is_some_and(|own| std::ptr::fn_addr_eq(hook, *own)));
                self.app_hook.set(if is_own { (None, 0, 0) } else { (hook, mask, count) });
            }
            force_hook(state);
        }
    }

    /// The count that moves when Lua code begins or ends.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The number of the function that runs, or ran last.
    pub(super) fn label(&self) -> u32 {
        self.label.load(Ordering::Relaxed)
    }

    /// The next signal stops the code that runs in `epoch`, if it still does.
    pub(super) fn condemn(&self, epoch: u64, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
        self.condemned.store(epoch, Ordering::Relaxed);
    }

    /// The next signal has the running code's place recorded.
    pub(super) fn want_sample(&self) {
        self.is_sampled.store(true, Ordering::Relaxed);
    }

    /// How often the thread has come round.
    pub(super) fn beats(&self) -> u32 {
        self.beats.load(Ordering::Acquire)
    }

    /// Says that the thread has come round. Only that thread does.
    #[inline]
    pub(super) fn beat(&self) {
        self.beats.store(self.beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }
}
