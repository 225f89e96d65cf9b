//! How Lua code waits: a native function leaves a future here and suspends its coroutine; whoever resumed the
//! coroutine takes the future, and resumes again with what it brings.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::{Raise, Returns, Shared, Stack};

/// Pushes what the waiting call returns, and says how many values that is: `true` and the results, or `false` and an
/// error.
pub(crate) type Resume = Box<dyn FnOnce(&mut Stack<'_>) -> c_int>;

/// What a coroutine waits for.
pub(crate) type Wait = Pin<Box<dyn Future<Output = Resume>>>;

/// The place where a VM's native functions leave what they wait for.
#[derive(Default)]
pub(crate) struct Waits {
    pending: RefCell<Option<Wait>>,
    /// The coroutine that a handler runs in; waiting in another one is refused.
    running: Cell<usize>,
}

impl Waits {
    /// Says which coroutine may wait from now on.
    #[inline]
    pub(crate) fn enter(&self, stack: &Stack<'_>) {
        self.running.set(stack.state() as usize);
    }

    /// Takes what the coroutine that has just yielded waits for; `None` when it yielded for another reason.
    #[inline]
    pub(crate) fn take(&self) -> Option<Wait> {
        self.pending.borrow_mut().take()
    }

    /// Leaves `wait` and suspends the running coroutine.
    ///
    /// # Errors
    /// Always: with [`Raise::Yield`], or with a mistake where the running coroutine cannot wait.
    pub(crate) fn suspend(&self, stack: &Stack<'_>, wait: Wait) -> Returns {
        if self.running.get() != stack.state() as usize {
            return Err(Raise::mistake(
                "this call waits, which it can do only in a handler or hook itself, not in a coroutine of its own nor \
                 at the top level of the app",
            ));
        }
        *self.pending.borrow_mut() = Some(wait);
        Err(Raise::Yield(0))
    }
}

/// Makes a Lua function of an asynchronous Rust function.
///
/// `function` runs up to its first `await` right away, and further whenever it is woken; the handler that called it is
/// suspended until it is done, and its worker serves other requests meanwhile.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn async_function<A, F, R, Fut>(
    lua: &mlua::Lua,
    waits: &Rc<Waits>,
    function: F,
) -> mlua::Result<mlua::Function>
where
    A: mlua::FromLuaMulti,
    F: Fn(mlua::Lua, A) -> Fut + 'static,
    Fut: Future<Output = mlua::Result<R>> + 'static,
    R: mlua::IntoLuaMulti,
{
    // The arguments are converted by mlua, which then cannot yield; so a second, native function does.
    let next: Rc<RefCell<Option<Wait>>> = Rc::default();
    let handover = next.clone();
    let begin = lua.create_function(move |lua, arguments: A| {
        let future = function(lua.clone(), arguments);
        let lua = lua.clone();
        let wait: Wait = Box::pin(async move {
            let results = future.await.and_then(|results| results.into_lua_multi(&lua));
            resume_with(lua, results)
        });
        *handover.borrow_mut() = Some(wait);
        Ok(())
    })?;
    let shared = Shared::new(lua, Rc::new((waits.clone(), next)))?;
    let suspend = shared.function(lua, |stack, (waits, next)| match next.borrow_mut().take() {
        Some(wait) => waits.suspend(stack, wait),
        None => Err(Raise::mistake("nothing to wait for")),
    })?;
    lua.load(include_str!("wait.lua")).set_name("=rover/wait").call((
        begin,
        suspend,
        super::function::plain(lua)?,
        super::mistake_function(lua)?,
    ))
}

fn resume_with(lua: mlua::Lua, results: mlua::Result<mlua::MultiValue>) -> Resume {
    Box::new(move |stack| {
        let top = stack.top();
        let moved = match results {
            Ok(values) => {
                stack.push_boolean(true);
                super::vm::push_values(&lua, stack, values)
            }
            Err(error) => {
                stack.push_boolean(false);
                stack.push_bytes(super::vm::plain_message(&error).as_bytes());
                Ok(())
            }
        };
        if moved.is_err() {
            stack.truncate(top);
            stack.push_boolean(false);
            stack.push_bytes(b"the results could not be handed to Lua");
        }
        stack.top() - top
    })
}
