//! What Rust holds on behalf of a VM, where its collector cannot see it.
//!
//! Comes in: that something is held, or no longer. Goes out: nothing; [`memory`](super::memory) counts it in the VM's limit,
//! and the collector works for it. This module must not know what is held.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlua::ffi;

use super::Stack;

/// Bytes outside of a VM that are held on its behalf. Whoever holds some may be on another thread when it lets go.
#[derive(Clone, Debug, Default)]
pub struct Outside(Arc<AtomicUsize>);

impl Outside {
    /// How many there are.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts more, and gives how many there are then.
    pub fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
    }

    /// What was added is held no more.
    pub fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Has the collector of the VM of `stack` work as though Lua code had been given so many bytes: for userdata that hold what
/// it cannot see. One that the app has stopped stays so.
pub fn press(stack: &mut Stack<'_>, bytes: usize) {
    /// `LUA_GCISRUNNING` of LuaJIT's `lua.h`.
    const IS_RUNNING: c_int = 9;
    let kilobytes = c_int::try_from(bytes / 1024).unwrap_or(c_int::MAX);
    // SAFETY: the state is alive, and this is no finalizer: the collector may run here as when a native function allocates.
    unsafe {
        if ffi::lua_gc(stack.state(), IS_RUNNING, 0) != 0 {
            ffi::lua_gc(stack.state(), ffi::LUA_GCSTEP, kilobytes);
        }
    }
}

/// Bytes as one writes them.
pub(super) fn text(bytes: usize) -> String {
    match bytes {
        bytes if bytes.is_multiple_of(1 << 30) => format!("{}GB", bytes >> 30),
        bytes if bytes.is_multiple_of(1 << 20) => format!("{}MB", bytes >> 20),
        bytes => format!("{bytes} bytes"),
    }
}
