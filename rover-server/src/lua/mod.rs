//! Rover's own way into LuaJIT: the stack, native functions, coroutines and tracebacks.
//!
//! mlua owns the VM, loads chunks and serves everything that happens once. What happens for every request goes
//! through this module instead: it reads and writes the Lua stack directly, which keeps a plain request free of
//! registry references, protected calls and boxed closures (`benches/benches/lua_call.rs` compares both ways).
//!
//! Comes in: an [`mlua::Lua`] and plain values. Goes out: values on a stack, and [`Raise`]d errors. This module
//! must not know of HTTP, routes or requests.
//!
//! # Why this module may use `unsafe`
//!
//! It is the border to C. Three rules make its blocks sound and are not repeated at each of them:
//!
//! 1. **One thread.** `lua_State` pointers live in types that are neither `Send` nor `Sync`.
//! 2. **Room.** Every entry has `LUA_MINSTACK` (20) free slots; whoever pushes more asks [`Stack::reserve`] first.
//! 3. **No exception crosses Rust frames that own something.** The C functions called here raise only when memory
//!    runs out. A VM's own limit (`memory.rs`) never refuses them memory: it is enforced where Lua code runs, not where
//!    Rust code does; when the system has none left, the process ends. Errors are returned as [`Raise`] and thrown by
//!    the outermost frame, which owns nothing by then. What breaks into running code (`interrupt.rs`) raises between two
//!    instructions of Lua, below which stands a protected call.
#![allow(unsafe_code)]

mod c_stack;
mod coroutine;
mod function;
mod interrupt;
mod kind;
mod layout;
mod marks;
mod memory;
mod native;
mod pattern;
mod pulse;
mod sampling;
mod seconds;
mod signal;
mod slice;
mod stack;
mod times;
mod traceback;
mod value;
mod view;
mod vm;
mod wait;
mod watched;
mod weight;

pub(crate) use c_stack::STACK;
pub(crate) use coroutine::{Coroutine, Coroutines, Resumed};
pub(crate) use function::function;
pub(crate) use interrupt::{Busy, Stopped, stopped};
pub(crate) use kind::Kind;
pub(crate) use marks::Marks;
pub(crate) use memory::limit_memory;
pub(crate) use native::{OwnedMeta, Raise, Returns, Shared, mistake_function, number_text_function};
pub(crate) use pulse::{is_condemned, label};
pub(crate) use sampling::{begin_samples, end_samples};
pub(crate) use seconds::seconds;
pub(crate) use stack::Stack;
pub(crate) use times::times;
pub(crate) use traceback::{Frame, caller, traceback};
pub(crate) use value::{Value, anchor};
pub(crate) use view::{Light, TableView, View, null};
pub(crate) use vm::{described_type, new_vm, plain_message, pop_value, push_values};
pub(crate) use wait::{Cancelled, Name, Resume, Step, Wait, Waits, async_function};
pub(crate) use watched::{Look, Watch, Watched, beat, cpu_time, cut};
pub(crate) use weight::{Outside, press};
