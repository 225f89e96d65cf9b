//! Rover's own way into LuaJIT: the stack, native functions, coroutines and tracebacks; and [`json`] on top of them.
//!
//! mlua owns the VM, loads chunks and serves everything that happens once. What happens for every request goes
//! through this crate instead: it reads and writes the Lua stack directly, which keeps a plain request free of
//! registry references, protected calls and boxed closures (`benches/benches/lua_call.rs` compares both ways).
//!
//! Comes in: an [`mlua::Lua`] and plain values. Goes out: values on a stack, and [`Raise`]d errors. This crate
//! must not know of HTTP, routes or requests.
//!
//! It is a part of Rover, and no binding for everybody: the second rule below binds its callers too.
//!
//! # Why this crate may use `unsafe`
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

pub mod json;

#[cfg(feature = "allocator")]
mod allocator;
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
mod suited;
mod times;
mod traceback;
mod value;
mod view;
mod vm;
mod wait;
mod watched;
mod weight;

#[cfg(feature = "allocator")]
pub use allocator::Allocator;
pub use c_stack::STACK;
pub use coroutine::{Coroutine, Coroutines, Resumed};
pub use function::function;
pub use interrupt::{Busy, Stopped, stopped};
pub use kind::Kind;
pub use marks::Marks;
pub use memory::limit_memory;
pub use native::{OwnedMeta, Raise, Returns, Shared, mistake_function, number_text_function};
pub use pulse::{is_condemned, label};
pub use sampling::{Samples, begin_samples, end_samples};
pub use seconds::seconds;
pub use stack::Stack;
pub use suited::{Unsuited, suited};
pub use times::times;
pub use traceback::{Frame, caller, traceback};
pub use value::{Value, anchor};
pub use view::{Light, TableView, View, null};
pub use vm::{described_type, new_vm, plain_message, pop_value, push_values};
pub use wait::{Cancelled, Name, Resume, Step, Wait, Waits, async_function};
pub use watched::{Look, Watch, Watched, beat, cpu_time, cut};
pub use weight::{Outside, press};
