//! Breaks into Lua code that runs, from a signal or from the VM's own allocator.
//!
//! The hook that `pulse.rs` installs is called at the next instruction, where nothing stands between the Lua code and
//! whoever called it, and does what was asked for. When Lua code has ended, the hook is gone.
//!
//! This module must not know who watches, and what a limit is for.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{Ordering, compiler_fence};

use mlua::ffi;

use super::pulse::{COLLECT, EXHAUSTED, HOOK, NESTED, PULSE, Pulse, SAMPLE, SLICE, STOP, enter, force_hook, running};
use super::{Frame, Stack, c_stack, memory, sampling, slice, traceback};

thread_local! {
    /// Where the last condemned code was stopped.
    static STOPPED: RefCell<Option<(u64, Stopped)>> = const { RefCell::new(None) };
}

/// Code that was stopped because it ran for too long.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// What it raised, with file and line.
    pub message: String,
    /// Where it was when it was stopped, innermost first.
    pub frames: Vec<Frame>,
}

/// Has the hook of this module installed wherever code is broken into. To be called before a VM runs any.
pub(super) fn install() {
    HOOK.get_or_init(|| broken_into);
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

/// Lua code that mlua runs, and not a coroutine of Rover's.
pub struct Busy {
    is_outermost: bool,
}

impl Busy {
    /// From here on, until the result is dropped, code of `lua` is taken to run.
    pub fn new(lua: &mlua::Lua) -> Busy {
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
pub fn stopped() -> Option<Stopped> {
    let epoch = PULSE.with(|pulse| pulse.epoch.load(Ordering::Relaxed));
    // A record that nobody asked for tells nothing about code that ran later.
    let is_last = STOPPED.with_borrow(|stopped| stopped.as_ref().is_some_and(|(condemned, _)| epoch == condemned + 1));
    if is_last { STOPPED.take().map(|(_, stopped)| stopped) } else { None }
}

impl Pulse {
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
            self.is_cut.set(is_own && stack.can_yield());
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

/// Ends condemned code right here, in a C function, as the hook does it at the next instruction. Returns where it is not
/// condemned.
///
/// # Safety
/// `state` is alive and runs the C function; no frame up to the next protected call owns anything.
pub(super) unsafe fn end_here(state: *mut ffi::lua_State) {
    // SAFETY: the caller's promise.
    unsafe { broken_into(state, null_mut()) };
}
