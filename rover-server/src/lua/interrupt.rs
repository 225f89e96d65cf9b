//! Breaks into Lua code that runs, from a signal or from the VM's own allocator.
//!
//! Each thread has a [`Pulse`]: a count that moves whenever Lua code begins or ends, so that a watchdog on another
//! thread sees how long the code has been running. To break in, a hook is installed on the running VM (`lua_sethook`
//! may be called from a signal's handler, see `lj_record.c` about `LUAJIT_ENABLE_CHECKHOOK`); it is called at the next
//! instruction, where nothing stands between the Lua code and whoever called it, and does what was asked for. When Lua
//! code has ended, the hook is gone.
//!
//! This module must not know who watches, and what a limit is for.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence};
use std::time::Duration;

use mlua::ffi;

use super::{Frame, Stack, c_stack, layout, memory, sampling, slice, traceback};

/// The code has been condemned: every further instruction raises, until the VM is back at the top.
pub(super) const STOP: u8 = 1;
/// The VM comes near its limit of memory: collect garbage, and raise where that does not help.
pub(super) const COLLECT: u8 = 2;
/// A profiler wants to know where the code is.
pub(super) const SAMPLE: u8 = 4;
/// No reason for a hook: Rust code has run a coroutine within a native function. LuaJIT takes that one for the running
/// one until it is back in Lua, so nothing can be told from it.
const NESTED: u8 = 8;
/// The code has come to the end of the C stack: every further instruction raises, until it has come back from there.
const EXHAUSTED: u8 = 16;

/// The code has had its slice.
const SLICE: u8 = 32;

/// What other threads see of a thread that runs Lua code.
pub(super) struct Pulse {
    /// Grows when Lua code begins and when it ends, so it is odd while it runs.
    epoch: AtomicU64,
    /// Grows whenever the thread's runtime has called it.
    beats: AtomicU32,
    /// A coroutine of the VM that runs.
    state: AtomicPtr<ffi::lua_State>,
    /// Which function was called, as its caller numbers them.
    label: AtomicU32,
    /// Why there is a hook; 0 where there is none. Only this thread changes it, in its code or in a signal's handler.
    wanted: AtomicU8,
    /// The hook runs.
    is_inside: AtomicBool,
    /// The epoch that a watchdog has condemned, and the limit that it passed, in milliseconds.
    condemned: AtomicU64,
    limit: AtomicU64,
    /// A profiler has asked for a sample.
    is_sampled: AtomicBool,
    /// The coroutine that may be cut into slices; null where none may.
    sliced: AtomicPtr<ffi::lua_State>,
    /// It has been.
    is_cut: Cell<bool>,
    /// The hook that the app had installed by itself.
    app_hook: Cell<(Option<ffi::lua_Hook>, c_int, c_int)>,
}

thread_local! {
    // Without a destructor and with a constant start, so reaching it costs no check.
    static PULSE: Pulse = const {
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
            app_hook: Cell::new((None, 0, 0)),
        }
    };
    /// Where the last condemned code was stopped.
    static STOPPED: RefCell<Option<(u64, Stopped)>> = const { RefCell::new(None) };
}

/// Code that was stopped because it ran for too long.
#[derive(Clone, Debug)]
pub(crate) struct Stopped {
    /// What it raised, with file and line.
    pub(crate) message: String,
    /// Where it was when it was stopped, innermost first.
    pub(crate) frames: Vec<Frame>,
}

/// Lua code begins to run on `state`; to be told to [`leave`]. False where it was called by other Lua code.
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

/// The Lua code has ended that began with an [`enter`] which answered true. Whether it was condemned.
#[inline(always)]
pub(super) fn leave() -> bool {
    PULSE.with(|pulse| {
        pulse.epoch.store(pulse.epoch.load(Ordering::Relaxed) + 1, Ordering::Release);
        // A signal that comes now finds that nothing runs.
        compiler_fence(Ordering::SeqCst);
        let wanted = pulse.wanted.load(Ordering::Relaxed);
        if wanted != 0 {
            pulse.withdraw(pulse.state.load(Ordering::Relaxed));
        }
        wanted & STOP != 0
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
pub(crate) fn label(number: u32) {
    PULSE.with(|pulse| pulse.label.store(number, Ordering::Relaxed));
}

/// The number of the function that runs.
pub(super) fn running() -> u32 {
    PULSE.with(|pulse| pulse.label.load(Ordering::Relaxed))
}

/// Lua code that mlua runs, and not a coroutine of Rover's.
pub(crate) struct Busy {
    is_outermost: bool,
}

impl Busy {
    /// From here on, until the result is dropped, code of `lua` is taken to run.
    pub(crate) fn new(lua: &mlua::Lua) -> Busy {
        let mut state = null_mut();
        // SAFETY: only copies the pointer.
        let known = unsafe { lua.exec_raw::<()>((), |l| state = l) }.is_ok();
        Busy { is_outermost: known && enter(state) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.is_outermost {
            leave();
        }
    }
}

/// Replaces the error on top of `stack` by what the condemned code was told, if it was.
#[cold]
pub(super) fn tell(stack: &mut Stack<'_>) {
    let epoch = PULSE.with(|pulse| pulse.epoch.load(Ordering::Relaxed));
    STOPPED.with_borrow(|stopped| {
        if let Some((condemned, stopped)) = stopped
            && epoch == condemned + 1
        {
            stack.pop(1);
            stack.push_bytes(stopped.message.as_bytes());
        }
    });
}

/// Where the Lua code that ended just now was stopped, if it was.
#[cold]
pub(crate) fn stopped() -> Option<Stopped> {
    let epoch = PULSE.with(|pulse| pulse.epoch.load(Ordering::Relaxed));
    // A record that nobody asked for tells nothing about code that ran later.
    let is_last = STOPPED.with_borrow(|stopped| stopped.as_ref().is_some_and(|(condemned, _)| epoch == condemned + 1));
    if is_last { STOPPED.take().map(|(_, stopped)| stopped) } else { None }
}

impl Pulse {
    /// Has the hook called at the next instruction. Safe within a signal's handler, and wherever the VM calls out.
    ///
    /// # Safety
    /// `state` is alive, and this is its thread.
    unsafe fn install(&self, state: *mut ffi::lua_State, reason: u8) {
        let before = self.wanted.fetch_or(reason, Ordering::Relaxed) & !NESTED;
        // SAFETY: the caller's promise.
        unsafe {
            if before == 0 {
                let (hook, mask, count) =
                    (ffi::lua_gethook(state), ffi::lua_gethookmask(state), ffi::lua_gethookcount(state));
                let is_own = hook.is_some_and(|hook| hook as usize == broken_into as *const () as usize);
                self.app_hook.set(if is_own { (None, 0, 0) } else { (hook, mask, count) });
            }
            force_hook(state);
        }
    }

    /// Removes the hook, and puts back what the app had.
    #[cold]
    fn withdraw(&self, state: *mut ffi::lua_State) {
        let wanted = self.wanted.fetch_and(NESTED, Ordering::Relaxed);
        let is_closed = c_stack::close();
        if self.epoch.load(Ordering::Relaxed) & 1 == 0 {
            // Looked at again when Lua code ends next, where Rust code still stands so deep.
            self.wanted.store(if is_closed { 0 } else { NESTED }, Ordering::Relaxed);
        }
        if wanted == NESTED {
            return;
        }
        let (hook, mask, count) = self.app_hook.replace((None, 0, 0));
        // SAFETY: called on the VM's thread with a state that was just running.
        unsafe {
            // Changed in any case, so that the interpreter's table is written even where a signal had come between two
            // of its writes.
            force_hook(state);
            ffi::lua_sethook(state, hook, mask, count);
        }
    }

    /// Does what the hook was installed for. What it raises is on top of the stack.
    fn act(&self, state: *mut ffi::lua_State, is_hook: bool) -> Raises {
        let wanted = self.wanted.load(Ordering::Relaxed);
        // SAFETY: the hook was called with a live state that has room for `LUA_MINSTACK` values.
        let mut stack = unsafe { Stack::new(state) };
        if wanted & SAMPLE != 0 {
            self.wanted.fetch_and(!SAMPLE, Ordering::Relaxed);
            sampling::record(&stack, running());
        }
        if wanted & STOP != 0 {
            let message = self.stop(&stack);
            stack.push_bytes(message.as_bytes());
            return Raises::Sternly;
        }
        if wanted & EXHAUSTED != 0 {
            if c_stack::is_exhausted() {
                stack.push_bytes(placed(&stack, "stack overflow (too many nested calls of C functions)").as_bytes());
                return Raises::Plainly;
            }
            self.wanted.fetch_and(!EXHAUSTED, Ordering::Relaxed);
            c_stack::close();
        }
        if wanted & COLLECT != 0 {
            self.wanted.fetch_and(!COLLECT, Ordering::Relaxed);
            // SAFETY: the state is alive.
            if let Some(limit) = unsafe { memory::collect(state) } {
                stack.push_bytes(placed(&stack, &format!("not enough memory (memory_limit is {limit})")).as_bytes());
                return Raises::Plainly;
            }
        }
        if is_hook && wanted & SLICE != 0 {
            self.wanted.fetch_and(!SLICE, Ordering::Relaxed);
            let is_own = std::ptr::eq(state, self.sliced.load(Ordering::Relaxed));
            // SAFETY: the state is alive.
            self.is_cut.set(is_own && unsafe { slice::is_yieldable(state) });
            if !self.is_cut.get() {
                slice::again();
            }
        }
        if self.wanted.load(Ordering::Relaxed) & !NESTED == 0 {
            self.withdraw(state);
        }
        if self.is_cut.get() { Raises::Cut } else { Raises::Nothing }
    }

    /// What condemned code raises. The first time, it is noted where it was.
    fn stop(&self, stack: &Stack<'_>) -> String {
        let epoch = self.epoch.load(Ordering::Relaxed);
        STOPPED.with_borrow_mut(|last| match last {
            Some((condemned, stopped)) if *condemned == epoch => stopped.message.clone(),
            _ => {
                let limit = self.limit.load(Ordering::Relaxed) as f64 / 1000.0;
                let message = placed(stack, &format!("stopped after {limit} s of CPU time without a wait"));
                let stopped = Stopped { message: message.clone(), frames: traceback(stack, 0) };
                *last = Some((epoch, stopped));
                message
            }
        })
    }
}

/// `message` with the file and line of the running function in front.
fn placed(stack: &Stack<'_>, message: &str) -> String {
    match traceback(stack, 0).first() {
        Some(frame) => format!("{}:{}: {message}", frame.file, frame.line),
        None => message.to_owned(),
    }
}

/// # Safety
/// `state` is alive, and this is its thread.
unsafe fn force_hook(state: *mut ffi::lua_State) {
    // SAFETY: the caller's promise. Taken off first: LuaJIT writes its table only where something changes.
    unsafe {
        ffi::lua_sethook(state, None, 0, 0);
        ffi::lua_sethook(state, Some(broken_into), ffi::LUA_MASKCOUNT, 1);
    }
}

/// How the hook ends.
#[derive(Clone, Copy)]
enum Raises {
    Nothing,
    /// Not at all: the coroutine is suspended.
    Cut,
    /// As `error` does.
    Plainly,
    /// So that no message handler of an `xpcall` is called: it would run while the hook is active, and no hook could end
    /// it.
    Sternly,
}

/// The hook.
unsafe extern "C-unwind" fn broken_into(state: *mut ffi::lua_State, hook: *mut ffi::lua_Debug) {
    let raises = PULSE.with(|pulse| {
        pulse.is_inside.store(true, Ordering::Relaxed);
        let raises = catch_unwind(AssertUnwindSafe(|| pulse.act(state, !hook.is_null())));
        pulse.is_inside.store(false, Ordering::Relaxed);
        raises.unwrap_or(Raises::Nothing)
    });
    // SAFETY: the error is on top, where `memory::fail` puts its own; this frame owns nothing.
    unsafe {
        match raises {
            Raises::Nothing => {}
            Raises::Cut => {
                ffi::lua_yield(state, 0);
            }
            Raises::Sternly => {
                memory::fail(state);
                ffi::lua_error(state);
            }
            Raises::Plainly => {
                ffi::lua_error(state);
            }
        }
    }
}

/// Whether the code that runs on this thread has been told to stop. For functions that take their time.
pub(crate) fn is_condemned() -> bool {
    PULSE.with(|pulse| pulse.wanted.load(Ordering::Relaxed) & STOP != 0)
}

/// Ends condemned code right here, in a C function, as the hook does it at the next instruction. Returns where it is not
/// condemned.
///
/// # Safety
/// `state` is alive and runs the C function; no frame up to the next protected call owns anything.
pub(super) unsafe fn end_here(state: *mut ffi::lua_State) {
    // SAFETY: the caller's promise.
    unsafe { broken_into(state, null_mut()) };
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
        let exhausted = if c_stack::is_open() { EXHAUSTED } else { 0 };
        let slice = if pulse.sliced.load(Ordering::Relaxed).is_null() { 0 } else { SLICE };
        let reason = stop | sample | exhausted | slice;
        if reason != 0 {
            // SAFETY: the epoch is odd, so the state that stands beside it runs on this very thread.
            unsafe { pulse.install(state, reason) };
        }
    });
}

impl Pulse {
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
