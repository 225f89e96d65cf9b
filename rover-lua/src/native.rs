//! Rust functions and Rust values that Lua code sees, without mlua's per-call cost.
//!
//! A native function gets the stack and the state it [shares](Shared) with its siblings, and returns how many
//! results it left on top, or a [`Raise`].

use std::any::type_name;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::mem::needs_drop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use mlua::ffi;

use super::traceback::caller;
use super::{Kind, Stack, layout};

/// How a native function ends: with so many results on top of the stack, or with an error.
pub type Returns = Result<c_int, Raise>;

/// An error on its way to Lua.
#[derive(Debug)]
pub enum Raise {
    /// A programmer's mistake: raised with the file and line of the calling Lua code in front. A tail call leaves no
    /// trace of its caller; then it is the code that called that one, and nothing where there is none.
    Mistake(String),
    /// The topmost value of the stack is the error.
    Value,
    /// Not an error: suspends the coroutine with the topmost `n` values.
    Yield(c_int),
}

impl Raise {
    /// A mistake in the arguments of the running function.
    pub fn mistake(message: impl Into<String>) -> Raise {
        Raise::Mistake(message.into())
    }
}

/// State that native functions of one VM share, and that lives as long as one of them can be called.
pub struct Shared<T: 'static> {
    anchor: c_int,
    state: PhantomData<Rc<T>>,
}

/// What the userdata behind a [`Shared`] holds; `None` once the VM has begun to close.
type Userdata<T> = Option<Rc<T>>;

impl<T: 'static> Shared<T> {
    /// Gives `state` to `lua`.
    pub fn new(lua: &mlua::Lua, state: Rc<T>) -> mlua::Result<Shared<T>> {
        let mut anchor = 0;
        // SAFETY: the userdata has the size of the slot (Lua aligns to 8), is initialised before its metatable is
        // set, and is dropped by that metatable alone.
        unsafe {
            lua.exec_raw::<()>((), |l| {
                let data = ffi::lua_newuserdata(l, size_of::<Userdata<T>>()).cast::<Userdata<T>>();
                data.write(Some(state));
                ffi::lua_createtable(l, 0, 1);
                ffi::lua_pushcclosure(l, drop_slot::<T>, 0);
                ffi::lua_setfield(l, -2, c"__gc".as_ptr());
                ffi::lua_setmetatable(l, -2);
                anchor = ffi::luaL_ref(l, ffi::LUA_REGISTRYINDEX);
            })?;
        }
        Ok(Shared { anchor, state: PhantomData })
    }

    /// Makes `function` callable from Lua. It must capture nothing (checked when compiled).
    pub fn function<F>(&self, lua: &mlua::Lua, function: F) -> mlua::Result<mlua::Function>
    where
        F: Fn(&mut Stack<'_>, &T) -> Returns + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a native function captures nothing") };
        let _ = function;
        // SAFETY: pushes the shared state as the closure's only upvalue, as `call` expects it.
        unsafe {
            lua.exec_raw::<mlua::Function>((), |l| {
                ffi::lua_rawgeti_(l, ffi::LUA_REGISTRYINDEX, self.anchor);
                let call: unsafe extern "C-unwind" fn(*mut ffi::lua_State) -> isize = call::<T, F>;
                // Called by LuaJIT's assembly alone, which takes the number of results from the whole register.
                let call = std::mem::transmute::<
                    unsafe extern "C-unwind" fn(*mut ffi::lua_State) -> isize,
                    unsafe extern "C-unwind" fn(*mut ffi::lua_State) -> c_int,
                >(call);
                ffi::lua_pushcclosure(l, call, 1);
            })
        }
    }
}

/// A C function that owns nothing when it raises, and gives the number of its results in a whole register, see [`call`].
pub(super) type Plain = unsafe extern "C-unwind" fn(*mut ffi::lua_State) -> isize;

/// Pushes a closure of `function`, which takes the `upvalues` topmost values.
///
/// # Safety
/// `l` is alive, has room, and so many values.
pub(super) unsafe fn push_plain(l: *mut ffi::lua_State, function: Plain, upvalues: c_int) {
    // SAFETY: called by LuaJIT's assembly alone, which takes the number of results from the whole register.
    unsafe {
        let function =
            std::mem::transmute::<Plain, unsafe extern "C-unwind" fn(*mut ffi::lua_State) -> c_int>(function);
        ffi::lua_pushcclosure(l, function, upvalues);
    }
}

/// Makes `function` callable from Lua.
///
/// # Errors
/// When Lua is out of memory.
pub(super) fn plain_function(lua: &mlua::Lua, function: Plain) -> mlua::Result<mlua::Function> {
    // SAFETY: pushes one closure without upvalues.
    unsafe { lua.exec_raw::<mlua::Function>((), |l| push_plain(l, function, 0)) }
}

unsafe extern "C-unwind" fn drop_slot<T: 'static>(l: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua with the userdata whose metatable this is. Taking the value leaves `None` behind, which
    // functions called later, by other finalizers, find.
    unsafe {
        let data = ffi::lua_touserdata(l, 1).cast::<Userdata<T>>();
        if !data.is_null() {
            drop((*data).take());
        }
    }
    0
}

/// LuaJIT computes with all 64 bits of the register in which the number of results comes, though a C function returns an
/// `int`, and a compiler may leave anything in the upper half of one. So this returns the width of the register.
unsafe extern "C-unwind" fn call<T: 'static, F>(l: *mut ffi::lua_State) -> isize
where
    F: Fn(&mut Stack<'_>, &T) -> Returns + Copy + 'static,
{
    // SAFETY: `F` has no size, so there is nothing to read; a value of it was given to `Shared::function`. The first
    // upvalue is a live slot, for the running closure keeps it. Errors are thrown after everything owned is gone.
    unsafe {
        let function: F = std::ptr::NonNull::dangling().read();
        let slot = &*layout::upvalue_data(l).cast::<Userdata<T>>();
        let returns = catch_unwind(AssertUnwindSafe(|| match slot {
            Some(state) => function(&mut Stack::new(l), state),
            None => Err(Raise::mistake("this server has been shut down")),
        }));
        match returns {
            Ok(Ok(results)) => return results as isize,
            Ok(Err(Raise::Yield(values))) => return ffi::lua_yield(l, values) as isize,
            Ok(Err(Raise::Value)) => {}
            Ok(Err(Raise::Mistake(message))) => {
                let placed = caller(&Stack::new(l)).map(|frame| format!("{}:{}: {message}", frame.file, frame.line));
                let message = placed.unwrap_or(message);
                ffi::lua_pushlstring_(l, message.as_ptr().cast(), message.len());
                drop(message);
            }
            Err(panic) => {
                drop(panic);
                ffi::lua_pushlstring_(l, INTERNAL.as_ptr().cast(), INTERNAL.len());
            }
        }
        ffi::lua_error(l)
    }
}

/// `mistake(message)` for Rover's own Lua code: raises with the file and line of the app's code that called it, however
/// many of Rover's functions stand between the two.
///
/// # Errors
/// Memory errors of mlua.
pub fn mistake_function(lua: &mlua::Lua) -> mlua::Result<mlua::Function> {
    Shared::new(lua, Rc::new(()))?.function(lua, |stack, ()| {
        let message = match stack.kind(1) {
            Kind::String => String::from_utf8_lossy(stack.bytes(1).unwrap_or_default()).into_owned(),
            kind => kind.name().to_owned(),
        };
        Err(Raise::Mistake(message))
    })
}

/// `number_text(n)` for Rover's own Lua code: a number as text wherever Rover makes one of it. An integer is there in full as
/// far as each has a double of its own, where `tostring` rounds it from 10^14 on.
///
/// # Errors
/// Memory errors of mlua.
pub fn number_text_function(lua: &mlua::Lua) -> mlua::Result<mlua::Function> {
    Shared::new(lua, Rc::new(()))?.function(lua, |stack, ()| {
        let text = stack.number_text(1);
        stack.push_bytes(text.as_bytes());
        Ok(1)
    })
}

/// What Lua code sees of a panic; the panic hook has written the details.
const INTERNAL: &str = "internal error in Rover (see the log)";

/// The metatable of values of one type in one VM.
pub struct OwnedMeta<T: 'static> {
    anchor: c_int,
    identity: *const c_void,
    value: PhantomData<T>,
}

impl<T: 'static> OwnedMeta<T> {
    /// Turns `table` into the metatable of values of type `T`.
    pub fn new(lua: &mlua::Lua, table: &mlua::Table) -> mlua::Result<OwnedMeta<T>> {
        const { assert!(align_of::<T>() <= 8, "Lua aligns userdata to 8 bytes") };
        let identity = table.to_pointer();
        let mut anchor = 0;
        // SAFETY: the table is the only argument, and stays on top while its field is set.
        unsafe {
            lua.exec_raw::<()>(table, |l| {
                // The collector calls a finalizer for each value.
                if needs_drop::<T>() {
                    ffi::lua_pushcclosure(l, drop_owned::<T>, 0);
                    ffi::lua_setfield(l, -2, c"__gc".as_ptr());
                }
                anchor = ffi::luaL_ref(l, ffi::LUA_REGISTRYINDEX);
            })?;
        }
        table.raw_set("__name", type_name::<T>().rsplit("::").next().unwrap_or("value"))?;
        Ok(OwnedMeta { anchor, identity, value: PhantomData })
    }

    /// Hands `value` to Lua's garbage collector and pushes the userdata.
    pub fn push(&self, stack: &mut Stack<'_>, value: T) {
        let l = stack.state();
        // SAFETY: as in `Shared::new`.
        unsafe {
            ffi::lua_newuserdata(l, size_of::<Option<T>>()).cast::<Option<T>>().write(Some(value));
            ffi::lua_rawgeti_(l, ffi::LUA_REGISTRYINDEX, self.anchor);
            ffi::lua_setmetatable(l, -2);
        }
    }

    /// Pushes what [`keep`](OwnedMeta::keep) left under the number `n` beside the value at `index`, which must be one of
    /// this metatable; false, and nothing pushed, where there is nothing.
    pub fn push_kept(&self, stack: &mut Stack<'_>, index: c_int, n: c_int) -> bool {
        let top = stack.top();
        if self.push_places(stack, index) {
            stack.push_item(top + 1, n);
            if stack.kind(top + 2) != Kind::Nil {
                stack.replace(top + 1);
                return true;
            }
        }
        stack.truncate(top);
        false
    }

    /// Keeps the topmost value under the number `n` beside the value at `index`, as long as that lives, and leaves it on
    /// the stack.
    pub fn keep(&self, stack: &mut Stack<'_>, index: c_int, n: c_int) {
        let kept = stack.top();
        if !self.push_places(stack, index) {
            stack.truncate(kept);
            stack.push_table(n as usize, 0);
            stack.push_anchored(self.anchor);
            stack.set_metatable(kept + 1);
            stack.push_copy(kept + 1);
            // SAFETY: the userdata stands at `index`, a table on top, which is popped.
            unsafe { ffi::lua_setfenv(stack.state(), index) };
        }
        stack.push_copy(kept);
        stack.set_item(kept + 1, n);
        stack.truncate(kept);
    }

    /// Pushes the environment of the userdata at `index`, and says whether it is a table of our own. A new userdata has
    /// that of the function which made it; ours is known by this metatable, which no other table has.
    fn push_places(&self, stack: &mut Stack<'_>, index: c_int) -> bool {
        // SAFETY: any index that is on the stack may be asked for; one value is pushed.
        unsafe { ffi::lua_getfenv(stack.state(), index) };
        let top = stack.top();
        stack.kind(top) == Kind::Table && stack.metatable_identity(top) == self.identity
    }

    /// The value at `index`, or `None` where something else stands (or the VM is closing).
    pub fn get<'s>(&self, stack: &'s mut Stack<'_>, index: c_int) -> Option<&'s T> {
        if stack.metatable_identity(index) != self.identity {
            return None;
        }
        // SAFETY: only `push` sets this metatable, on a userdata that holds an `Option<T>`; the value on the stack
        // keeps it alive.
        unsafe { ffi::lua_touserdata(stack.state(), index).cast::<Option<T>>().as_ref()?.as_ref() }
    }
}

unsafe extern "C-unwind" fn drop_owned<T: 'static>(l: *mut ffi::lua_State) -> c_int {
    // SAFETY: called by Lua with a userdata that `push` made; `None` stays behind.
    unsafe {
        let data = ffi::lua_touserdata(l, 1).cast::<Option<T>>();
        if !data.is_null() {
            drop((*data).take());
        }
    }
    0
}
