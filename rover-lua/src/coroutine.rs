//! A pool of coroutines: taken for a handler, resumed until it ends, and put back for the next one.
//!
//! Creating a Lua thread for each request would cost more than everything else that Lua does for it.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::rc::Rc;
use std::time::Duration;

use mlua::ffi;

use super::{Marks, Stack, interrupt, memory, pulse, slice};

/// How many finished coroutines a VM keeps; beyond that they are left to the garbage collector.
const IDLE_LIMIT: usize = 1024;

/// A coroutine that is running a function, waiting, or ready for one.
///
/// Its stack begins with the values that every coroutine of its pool was given ([`Coroutines::new`]). Dropped, it is left to
/// the garbage collector, also where a panic unwinds.
pub struct Coroutine {
    state: *mut ffi::lua_State,
    anchor: c_int,
    /// It was suspended between two instructions, and not in a call.
    is_cut: bool,
    home: Rc<Home>,
}

/// What a coroutine knows of its pool.
struct Home {
    main: *mut ffi::lua_State,
    /// Coroutines that were left to the garbage collector.
    gone: Cell<u64>,
    /// The pool exists, and with it the VM.
    is_open: Cell<bool>,
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        if !self.home.is_open.get() {
            return;
        }
        self.home.gone.set(self.home.gone.get() + 1);
        // SAFETY: the pool keeps the VM alive. The anchor is the one that `create` made, and is given up with the coroutine.
        unsafe { ffi::luaL_unref(self.home.main, ffi::LUA_REGISTRYINDEX, self.anchor) }
    }
}

/// Why [`Coroutine::resume`] came back.
#[derive(Debug, PartialEq, Eq)]
pub enum Resumed {
    /// The function has returned; its results stand above the pool's own values.
    Returned,
    /// The function waits; what it yielded is on the stack.
    Yielded,
    /// The function raised: the error is on top, and the call stack still stands for a traceback.
    Raised,
}

impl Coroutine {
    /// The stack of this coroutine. Between two resumes it belongs to the caller.
    #[inline]
    pub fn stack(&mut self) -> Stack<'_> {
        // SAFETY: the anchor keeps the state alive as long as `self`.
        unsafe { Stack::new(self.state) }
    }

    /// Calls the function below the `args` topmost values, or lets a waiting one go on with them as the results of
    /// what it waits for.
    #[inline]
    pub fn resume(&mut self, args: c_int) -> Resumed {
        let is_outermost = pulse::enter(self.state);
        // SAFETY: the coroutine is fresh or suspended, which `Coroutines` sees to, and holds the arguments.
        let status = unsafe { ffi::lua_resume_(self.state, args) };
        if is_outermost && interrupt::leave() && !matches!(status, ffi::LUA_OK | ffi::LUA_YIELD) {
            interrupt::tell(&mut self.stack());
        }
        match status {
            ffi::LUA_OK => Resumed::Returned,
            ffi::LUA_YIELD => Resumed::Yielded,
            _ => Resumed::Raised,
        }
    }
}

impl Coroutine {
    /// As [`resume`](Coroutine::resume), for one slice at most.
    #[cold]
    pub(super) fn resume_for_a_slice(&mut self, args: c_int) -> Resumed {
        slice::begin(self.state);
        let resumed = self.resume(args);
        self.is_cut = slice::end() && resumed == Resumed::Yielded;
        resumed
    }

    /// Whether it was cut, and waits for nothing but to go on.
    #[inline]
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// It is about to go on, and is cut no more.
    pub(super) fn mend(&mut self) {
        self.is_cut = false;
    }

    /// Has what is resumed next stopped, for it has taken more than `limit` of CPU time already.
    #[cold]
    pub(super) fn condemn(&mut self, limit: Duration) {
        // SAFETY: the anchor keeps the state alive, which belongs to this thread; it is resumed next.
        unsafe { pulse::condemn(self.state, limit) }
    }
}

/// The coroutines of one VM.
pub struct Coroutines {
    lua: mlua::Lua,
    main: *mut ffi::lua_State,
    home: Rc<Home>,
    /// Values that stand at the bottom of every coroutine's stack.
    base: Vec<c_int>,
    /// The table in which every coroutine is marked as Rover's own, so that no app resumes it.
    marks: Marks,
    /// `ffi.istype` and a type for it, see [`forget`](Coroutines::forget).
    is_type: Option<(c_int, c_int)>,
    idle: RefCell<Vec<Coroutine>>,
    created: Cell<u64>,
}

impl Drop for Coroutines {
    fn drop(&mut self) {
        // What is still used somewhere, or idle, goes with the VM.
        self.home.is_open.set(false);
    }
}

impl Coroutines {
    /// A pool whose coroutines all begin with `base` (references from [`anchor`](crate::anchor)) at index 1 and up.
    pub fn new(lua: &mlua::Lua, base: Vec<c_int>, marks: Marks) -> mlua::Result<Coroutines> {
        let mut main = std::ptr::null_mut();
        // SAFETY: only copies the pointer; outside of any call the current state is the main one.
        unsafe { lua.exec_raw::<()>((), |l| main = l)? };
        Ok(Coroutines {
            lua: lua.clone(),
            main,
            home: Rc::new(Home { main, gone: Cell::new(0), is_open: Cell::new(true) }),
            base,
            marks,
            is_type: is_type(lua),
            idle: RefCell::default(),
            created: Cell::new(0),
        })
    }

    /// The VM of these coroutines.
    pub fn lua(&self) -> &mlua::Lua {
        &self.lua
    }

    /// The length of the base that every stack begins with.
    #[inline]
    pub fn base(&self) -> c_int {
        self.base.len() as c_int
    }

    /// How many coroutines are ready to run, how many run or wait, and how many have been made so far.
    pub fn counts(&self) -> (u64, u64, u64) {
        let (idle, created) = (self.idle.borrow().len() as u64, self.created.get());
        (idle, created.saturating_sub(self.home.gone.get() + idle), created)
    }

    /// Bytes that the VM holds, garbage included.
    pub fn heap(&self) -> u64 {
        // SAFETY: `self.lua` keeps the VM alive; asking allocates nothing and cannot raise.
        unsafe {
            let kilobytes = ffi::lua_gc(self.main, ffi::LUA_GCCOUNT, 0);
            let bytes = ffi::lua_gc(self.main, ffi::LUA_GCCOUNTB, 0);
            u64::try_from(kilobytes).unwrap_or(0) * 1024 + u64::try_from(bytes).unwrap_or(0)
        }
    }

    /// A coroutine that is ready to run.
    #[inline]
    pub fn take(&self) -> Coroutine {
        // Not within the match: making a coroutine may run a finalizer, and that put one back.
        let idle = self.idle.borrow_mut().pop();
        match idle {
            Some(coroutine) => coroutine,
            None => self.create(),
        }
    }

    #[cold]
    fn create(&self) -> Coroutine {
        self.created.set(self.created.get() + 1);
        // SAFETY: `self.lua` keeps the VM alive; the new thread is anchored before anything else is allocated in it.
        unsafe {
            let state = ffi::lua_newthread(self.main);
            let anchor = ffi::luaL_ref(self.main, ffi::LUA_REGISTRYINDEX);
            ffi::lua_rawgeti_(self.main, ffi::LUA_REGISTRYINDEX, self.marks.0);
            ffi::lua_pushthread(state);
            ffi::lua_xmove(state, self.main, 1);
            ffi::lua_pushboolean(self.main, 1);
            ffi::lua_rawset(self.main, -3);
            ffi::lua_settop(self.main, -2);
            for &value in &self.base {
                ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, value);
            }
            Coroutine { state, anchor, is_cut: false, home: self.home.clone() }
        }
    }

    /// Puts back a coroutine whose function has [returned](Resumed::Returned).
    #[inline(always)]
    pub fn put_back(&self, mut coroutine: Coroutine) {
        coroutine.stack().truncate(self.base());
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_LIMIT {
            idle.push(coroutine);
        } else {
            drop(idle);
            self.discard(coroutine);
        }
    }

    /// Lets go of a coroutine that raised or still waits: it can run nothing else.
    #[cold]
    pub fn discard(&self, coroutine: Coroutine) {
        self.forget();
        drop(coroutine);
        // SAFETY: the VM is alive, this is its thread, and the allocator is not at work.
        unsafe { memory::relieve(self.main) };
    }

    /// LuaJIT keeps the coroutine that was the last to use `ffi`, with all that its stack refers to. From here on that is
    /// the main one.
    fn forget(&self) {
        let Some((function, kind)) = self.is_type else { return };
        // SAFETY: the VM is alive, and a call of `ffi.istype` with a type and a number allocates nothing; the stack is
        // left as it was.
        unsafe {
            let top = ffi::lua_gettop(self.main);
            if ffi::lua_checkstack(self.main, 8) != 0 {
                pulse::interpose();
                ffi::lua_rawgeti_(self.main, ffi::LUA_REGISTRYINDEX, function);
                ffi::lua_rawgeti_(self.main, ffi::LUA_REGISTRYINDEX, kind);
                ffi::lua_pushnumber(self.main, 0.0);
                ffi::lua_pcall(self.main, 2, 0, 0);
                ffi::lua_settop(self.main, top);
            }
        }
    }
}

/// References to `ffi.istype` and to a type; `None` where the VM has no `ffi`.
fn is_type(lua: &mlua::Lua) -> Option<(c_int, c_int)> {
    let loaded: mlua::Table = lua.globals().get::<mlua::Table>("package").ok()?.get("loaded").ok()?;
    let library: mlua::Table = loaded.get("ffi").ok()?;
    let function: mlua::Value = library.get("istype").ok()?;
    let kind: mlua::Value = library.get::<mlua::Function>("typeof").ok()?.call("int").ok()?;
    Some((super::anchor(lua, function).ok()?, super::anchor(lua, kind).ok()?))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn pool() -> (mlua::Lua, Coroutines) {
        let lua = crate::new_vm();
        let pool = Coroutines::new(&lua, Vec::new(), Marks::new(&lua).unwrap().1).unwrap();
        (lua, pool)
    }

    #[test]
    fn one_that_a_panic_unwinds_is_let_go_with_all_that_it_holds() {
        let (lua, pool) = pool();
        let held = || {
            lua.gc_collect().unwrap();
            lua.gc_collect().unwrap();
            lua.used_memory()
        };
        let before = held();
        for _ in 0..100 {
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                let mut coroutine = pool.take();
                coroutine.stack().push_bytes(&[b'x'; 100_000]);
                if coroutine.stack().top() > 0 {
                    std::panic::resume_unwind(Box::new(()));
                }
            }));
            assert!(unwound.is_err());
        }
        assert!(held() < before + 200_000, "{before} bytes grew to {}", held());
        assert_eq!(pool.counts(), (0, 0, 100));
    }

    #[test]
    fn one_that_outlives_its_pool_goes_with_the_vm() {
        let (lua, pool) = pool();
        let kept = pool.take();
        pool.put_back(pool.take());
        drop(pool);
        drop(lua);
        drop(kept);
    }
}
