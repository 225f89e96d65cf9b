//! How Lua code waits: a native function leaves a future here and suspends its coroutine; whoever resumed the
//! coroutine takes the future, and resumes again with what it brings.
//!
//! Waiting works at any depth of the app's own coroutines: `coroutine.lua` passes it on to the one that Rover resumed.
//! A coroutine is cancelled by resuming it with an error instead; what it would wait for while it cleans up fails at
//! once.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use super::traceback::{frame_text, outer_c_function};
use super::{Coroutine, Kind, Marks, Raise, Resumed, Returns, Shared, Stack, pattern, traceback};

/// Pushes what the waiting call returns and says how many values that is, or fails: a mistake is raised at the line of
/// the app, a value as it is.
pub type Resume = Box<dyn FnOnce(&mut Stack<'_>) -> Returns>;

/// What a coroutine waits for.
pub type Wait = Pin<Box<dyn Future<Output = Resume>>>;

/// The error that a cancelled coroutine finds at its wait.
const CANCELLED: &str = "cancelled";

/// How many further waits a cancelled coroutine may try, each of which fails, before it is ended where it stands: a
/// loop around a `pcall` would never end by itself.
const MOST_REFUSED: u32 = 100;

/// What a waiting coroutine yields, which no app can make: a pointer to this, as light userdata.
static SIGN: u8 = 0;

fn sign() -> *const c_void {
    (&raw const SIGN).cast()
}

/// What a waiting call is named in messages.
#[derive(Clone)]
pub enum Name {
    /// Rover's own, such as `rover.sleep`.
    Own(&'static str),
    /// A function that an embedding program lends.
    Lent(Rc<str>),
}

impl Name {
    fn as_str(&self) -> &str {
        match self {
            Name::Own(name) => name,
            Name::Lent(name) => name,
        }
    }
}

struct Pending {
    wait: Wait,
    name: Name,
}

/// The place where a VM's native functions leave what they wait for.
pub struct Waits {
    pending: RefCell<Option<Pending>>,
    /// The app has loaded; its top level cannot wait.
    is_loaded: Cell<bool>,
    /// What code waits for between its slices, where it is cut into such.
    between: Cell<Option<fn() -> Wait>>,
    /// How many waits were refused to the coroutine that runs because it is cancelled.
    refused: Cell<Option<u32>>,
    /// Registry references of the Lua functions of `wait.lua`.
    wrappers: OnceCell<(mlua::RegistryKey, mlua::RegistryKey)>,
    /// Names of Lua's own functions, by their identity.
    names: RefCell<HashMap<*const c_void, String>>,
    marks: Marks,
}

/// Why a coroutine came back.
pub enum Step {
    /// Its function returned; the results stand above the pool's own values.
    Returned,
    /// The error is on top of the stack.
    Raised,
    /// It waits: resume it with what this brings.
    Waits(Wait),
}

/// How a cancelled coroutine ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It returned, whatever that was.
    Returned,
    /// It let the error through.
    Through,
    /// It raised an error of its own, which is on top of the stack.
    Raised,
    /// It went on to wait, and was given up.
    Stuck,
}

impl Waits {
    /// Makes Lua's coroutines let waits through. To be called before the app's code runs.
    ///
    /// # Errors
    /// Memory errors of mlua.
    pub fn install(lua: &mlua::Lua) -> mlua::Result<Rc<Waits>> {
        let (table, marks) = Marks::new(lua)?;
        let waits = Rc::new(Waits {
            pending: RefCell::default(),
            is_loaded: Cell::default(),
            between: Cell::default(),
            refused: Cell::default(),
            wrappers: OnceCell::default(),
            names: RefCell::default(),
            marks,
        });
        waits.learn_names(lua)?;
        let shared = Shared::new(lua, waits.clone())?;
        let refuse = shared.function(lua, |stack, waits: &Waits| {
            let pending = waits.pending.borrow_mut().take();
            let name = pending.as_ref().map_or("this call", |pending| pending.name.as_str()).to_owned();
            drop(pending);
            let message = waits.refusal(stack, &name);
            stack.push_boolean(false);
            stack.push_bytes(message.as_bytes());
            Ok(2)
        })?;
        let mistake = super::mistake_function(lua)?;
        let sign = mlua::LightUserData(sign().cast_mut());
        let chunk = lua.load(include_str!("coroutine.lua")).set_name("=rover/coroutine");
        chunk.call::<()>((sign, table, refuse, &mistake))?;
        let chunk = lua.load(include_str!("wait.lua")).set_name("=rover/wait");
        let (waiting, asynchronous): (mlua::Function, mlua::Function) =
            chunk.call((mistake, super::function::plain(lua)?))?;
        let _ = waits.wrappers.set((lua.create_registry_value(waiting)?, lua.create_registry_value(asynchronous)?));
        Ok(waits)
    }

    fn learn_names(&self, lua: &mlua::Lua) -> mlua::Result<()> {
        let mut names = self.names.borrow_mut();
        let mut learn = |prefix: &str, table: mlua::Table| {
            for (key, value) in table.pairs::<mlua::Value, mlua::Value>().flatten() {
                if let (mlua::Value::String(key), mlua::Value::Function(function)) = (key, value) {
                    names.insert(function.to_pointer(), format!("{prefix}{}", key.to_string_lossy()));
                }
            }
        };
        let globals = lua.globals();
        for library in ["string", "table", "package", "os", "io", "debug", "math", "coroutine"] {
            if let Ok(table) = globals.raw_get::<mlua::Table>(library) {
                learn(&format!("{library}."), table);
            }
        }
        learn("", globals);
        if let Ok(own) = lua.named_registry_value::<mlua::Table>(pattern::OWN) {
            learn("", own);
        }
        // Code that these two call may wait.
        names.retain(|_, name| name != "pcall" && name != "xpcall");
        Ok(())
    }

    /// The app has loaded: from now on its functions run in coroutines of Rover's.
    pub fn loaded(&self) {
        self.is_loaded.set(true);
    }

    /// Whether the app has loaded.
    pub fn is_loaded(&self) -> bool {
        self.is_loaded.get()
    }

    /// From here on the functions of the VM run in slices, between which they wait for what `between` gives; `None` lets
    /// them run on.
    pub fn slice(&self, between: Option<fn() -> Wait>) {
        self.between.set(between);
    }

    /// The coroutines that an app may not resume.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// Whether the coroutine that runs is being cancelled.
    pub fn is_cancelling(&self) -> bool {
        self.refused.get().is_some()
    }

    /// Makes a Lua function of a native one that ends with [`suspend`](Waits::suspend).
    ///
    /// # Errors
    /// Memory errors of mlua.
    pub fn waiting(&self, lua: &mlua::Lua, native: mlua::Function) -> mlua::Result<mlua::Function> {
        let Some((waiting, _)) = self.wrappers.get() else { return Ok(native) };
        lua.registry_value::<mlua::Function>(waiting)?.call(native)
    }

    /// Leaves `future` and suspends the running coroutine until it is done.
    ///
    /// The function that it brings pushes the results, and says how many, or fails. The native function must have
    /// been wrapped by [`waiting`](Waits::waiting). The future is not polled before the coroutine is suspended, and is
    /// dropped where it cannot be.
    ///
    /// # Errors
    /// Always: with [`Raise::Yield`], or why the running coroutine cannot wait.
    pub fn suspend<F, R>(&self, stack: &mut Stack<'_>, name: Name, future: F) -> Returns
    where
        F: Future<Output = R> + 'static,
        R: FnOnce(&mut Stack<'_>) -> Returns + 'static,
    {
        if let Some(refused) = self.refused.get() {
            self.refused.set(Some(refused + 1));
            if refused >= MOST_REFUSED && stack.can_yield() {
                return Err(Raise::Yield(0));
            }
            stack.push_bytes(CANCELLED.as_bytes());
            return Err(Raise::Value);
        }
        if !self.is_loaded.get() || !stack.can_yield() {
            return Err(Raise::Mistake(self.refusal(stack, name.as_str())));
        }
        let wait: Wait = Box::pin(async move { Box::new(future.await) as Resume });
        let stale = self.pending.borrow_mut().replace(Pending { wait, name });
        drop(stale);
        stack.push_light(sign());
        Err(Raise::Yield(1))
    }

    /// Why the call cannot wait here.
    #[cold]
    fn refusal(&self, stack: &mut Stack<'_>, name: &str) -> String {
        if !self.is_loaded.get() {
            return format!("{name} cannot wait at the top level of the app: call it in a handler, a hook or a task");
        }
        let names = self.names.borrow();
        let found = outer_c_function(stack, |identity| names.get(&identity).cloned());
        let between = frame_text(found);
        format!("{name} cannot wait here: {between} is in between")
    }

    /// Runs a coroutine until it ends or waits, with the `args` topmost values.
    #[inline]
    pub fn advance(&self, coroutine: &mut Coroutine, args: c_int) -> Step {
        if let Some(between) = self.between.get() {
            return self.advance_by_a_slice(coroutine, args, between);
        }
        let resumed = coroutine.resume(args);
        self.resumed(coroutine, resumed)
    }

    #[cold]
    fn advance_by_a_slice(&self, coroutine: &mut Coroutine, args: c_int, between: fn() -> Wait) -> Step {
        let resumed = coroutine.resume_for_a_slice(args);
        if coroutine.is_cut() {
            return Step::Waits(between());
        }
        self.resumed(coroutine, resumed)
    }

    #[inline(always)]
    fn resumed(&self, coroutine: &mut Coroutine, resumed: Resumed) -> Step {
        match resumed {
            Resumed::Returned => Step::Returned,
            Resumed::Raised => {
                // Left there by code that was stopped between its wait and us.
                let stale = self.pending.borrow_mut().take();
                drop(stale);
                Step::Raised
            }
            Resumed::Yielded => self.yielded(&mut coroutine.stack()),
        }
    }

    fn yielded(&self, stack: &mut Stack<'_>) -> Step {
        let top = stack.top();
        if top > 0 && stack.kind(top) == Kind::LightUserdata && stack.identity(top) == sign() {
            stack.pop(1);
            let pending = self.pending.borrow_mut().take();
            if let Some(pending) = pending {
                return Step::Waits(pending.wait);
            }
        }
        push_stray_yield(stack, self.is_loaded.get());
        Step::Raised
    }

    /// Runs a waiting coroutine on, with what its wait brought. One that has taken more CPU time than it may, `excess`, is
    /// stopped instead, as if it had done so without the wait.
    pub fn go_on(&self, coroutine: &mut Coroutine, resume: Resume, excess: Option<Duration>) -> Step {
        if coroutine.is_cut() {
            return self.go_on_cut(coroutine, excess);
        }
        let mut stack = coroutine.stack();
        let top = stack.top();
        stack.push_boolean(true);
        match resume(&mut stack) {
            Ok(results) => {
                if let Some(limit) = excess {
                    coroutine.condemn(limit);
                }
                return self.advance(coroutine, results + 1);
            }
            Err(Raise::Value) => {
                let error = stack.top();
                stack.push_nil();
                stack.push_copy(error);
            }
            Err(Raise::Mistake(message)) => {
                stack.truncate(top);
                stack.push_boolean(false);
                stack.push_bytes(message.as_bytes());
            }
            Err(Raise::Yield(_)) => {
                stack.truncate(top);
                stack.push_nil();
                stack.push_bytes(b"internal error in Rover: a wait brought another");
            }
        }
        if let Some(limit) = excess {
            coroutine.condemn(limit);
        }
        self.advance(coroutine, 2)
    }

    /// Runs a coroutine on that was cut.
    #[cold]
    fn go_on_cut(&self, coroutine: &mut Coroutine, excess: Option<Duration>) -> Step {
        if let Some(limit) = excess {
            coroutine.condemn(limit);
        }
        coroutine.mend();
        self.advance(coroutine, 0)
    }

    /// Ends a coroutine that was cut, and waits for nothing that could fail: it is stopped where it is.
    #[cold]
    fn cancel_cut(coroutine: &mut Coroutine) -> Cancelled {
        coroutine.mend();
        coroutine.condemn(Duration::ZERO);
        match coroutine.resume(0) {
            Resumed::Returned => Cancelled::Returned,
            Resumed::Raised => Cancelled::Through,
            Resumed::Yielded => Cancelled::Stuck,
        }
    }

    /// Lets a waiting coroutine find `cancelled` as the error of what it waits for, and run to its end.
    pub fn cancel(&self, coroutine: &mut Coroutine) -> Cancelled {
        if coroutine.is_cut() {
            return Waits::cancel_cut(coroutine);
        }
        let before = self.refused.replace(Some(0));
        let mut stack = coroutine.stack();
        stack.push_nil();
        stack.push_bytes(CANCELLED.as_bytes());
        let resumed = coroutine.resume(2);
        self.refused.set(before);
        let stack = coroutine.stack();
        match resumed {
            Resumed::Returned => Cancelled::Returned,
            Resumed::Raised if stack.bytes(stack.top()) == Some(CANCELLED.as_bytes()) => Cancelled::Through,
            Resumed::Raised => Cancelled::Raised,
            Resumed::Yielded => Cancelled::Stuck,
        }
    }
}

#[cold]
fn push_stray_yield(stack: &mut Stack<'_>, is_loaded: bool) {
    let place = traceback(stack, 0).first().map(|frame| format!("{}:{}: ", frame.file, frame.line)).unwrap_or_default();
    let whom = if is_loaded { "in a handler itself" } else { "at the top level of the app" };
    let message = format!("{place}coroutine.yield was called {whom}: only a coroutine of your own can yield");
    stack.push_bytes(message.as_bytes());
}

/// Makes a Lua function of an asynchronous Rust function.
///
/// `function` runs up to its first `await` right away, and further whenever it is woken; the handler that called it is
/// suspended until it is done, and its worker serves other requests meanwhile.
///
/// # Errors
/// Memory errors of mlua.
pub fn async_function<A, F, R, Fut>(
    lua: &mlua::Lua,
    waits: &Rc<Waits>,
    name: &str,
    function: F,
) -> mlua::Result<mlua::Function>
where
    A: mlua::FromLuaMulti,
    F: Fn(mlua::Lua, A) -> Fut + 'static,
    Fut: Future<Output = mlua::Result<R>> + 'static,
    R: mlua::IntoLuaMulti,
{
    type Ready = Pin<Box<dyn Future<Output = Resume>>>;
    struct Lent {
        waits: Rc<Waits>,
        next: Rc<RefCell<Option<Ready>>>,
        name: Name,
    }
    // The arguments are converted by mlua, which then cannot yield; so a second, native function does.
    let next: Rc<RefCell<Option<Ready>>> = Rc::default();
    let handover = next.clone();
    let begin = lua.create_function(move |lua, arguments: A| {
        let future = function(lua.clone(), arguments);
        let lua = lua.clone();
        let ready: Ready = Box::pin(async move {
            let results = future.await.and_then(|results| results.into_lua_multi(&lua));
            resume_with(lua, results)
        });
        *handover.borrow_mut() = Some(ready);
        Ok(())
    })?;
    let shared = Shared::new(lua, Rc::new(Lent { waits: waits.clone(), next, name: Name::Lent(name.into()) }))?;
    let suspend = shared.function(lua, |stack, lent| {
        let next = lent.next.borrow_mut().take();
        match next {
            Some(ready) => lent.waits.suspend(stack, lent.name.clone(), ready),
            None => Err(Raise::mistake("nothing to wait for")),
        }
    })?;
    let Some((_, asynchronous)) = waits.wrappers.get() else { return Ok(suspend) };
    lua.registry_value::<mlua::Function>(asynchronous)?.call((begin, suspend))
}

fn resume_with(lua: mlua::Lua, results: mlua::Result<mlua::MultiValue>) -> Resume {
    Box::new(move |stack| {
        let top = stack.top();
        let values = results.map_err(|error| Raise::Mistake(super::vm::plain_message(&error)))?;
        super::vm::push_values(&lua, stack, values)
            .map_err(|_| Raise::mistake("the results could not be handed to Lua"))?;
        Ok(stack.top() - top)
    })
}
