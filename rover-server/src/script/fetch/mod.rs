//! `rover.http`: requests to other servers, as Lua authors make them.
//!
//! Comes in: an app's call, checked and put in order by `http.lua`. Goes out: a table of the answer, or nil and why
//! there is none. This module must not know of incoming requests.

mod cookies;
mod reader;
mod send;
mod stats;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use mlua::{Function, Table};
use rover_lua::json::Vocabulary;
use rover_lua::{OwnedMeta, Raise, Returns, Shared, Stack, Waits, anchor, number_text_function, press, times};

use self::reader::{BodyReader, BodyState};
use crate::log::{self, Level};
use crate::observe::otlp::Tracing;
use crate::outbound::{BreakerOptions, Client, Figures, LimitOptions, Settings, TlsOptions};
use crate::script::tasks::Tasks;
use crate::script::vm::Vm;

/// What the functions of `rover.http` share in one VM.
struct Fetch {
    waits: Rc<Waits>,
    tasks: Weak<Tasks>,
    vocabulary: Rc<Vocabulary>,
    figures: Arc<Figures>,
    tracing: Tracing,
    clients: OwnedMeta<Rc<Client>>,
    readers: OwnedMeta<BodyReader>,
    /// Bodies that an app may still read.
    open: RefCell<Vec<Weak<BodyState>>>,
    /// Registry reference of the metatable that makes look-ups of headers ignore case.
    headers_meta: i32,
    /// Registry reference of the metatable of results.
    result_meta: i32,
    own: Weak<Fetch>,
}

impl Fetch {
    /// The same, for what outlives a call; `None` once the VM is closing.
    fn shared(&self) -> Weak<Fetch> {
        self.own.clone()
    }
}

/// Adds `http` to `rover`.
///
/// # Errors
/// Memory errors of mlua.
pub(crate) fn install(vm: &Vm) -> mlua::Result<()> {
    let Vm { lua, rover, vocabulary, tasks, waits, figures, .. } = vm;
    let (client_meta, reader_meta) = (lua.create_table()?, lua.create_table()?);
    let headers_meta: Table = vm.file("http", include_str!("headers.lua"))?.call(())?;
    let headers_meta = anchor(lua, &headers_meta)?;
    let cookie = Shared::new(lua, Rc::new(()))?.function(lua, cookies::cookie)?;
    let result_meta: Table = vm.file("http", include_str!("result.lua"))?.call((cookie, &vm.mistake))?;
    let result_meta = anchor(lua, &result_meta)?;
    let (clients, readers) = (OwnedMeta::new(lua, &client_meta)?, OwnedMeta::new(lua, &reader_meta)?);
    let fetch = Rc::new_cyclic(|own| Fetch {
        waits: waits.clone(),
        tasks: Rc::downgrade(tasks),
        vocabulary: vocabulary.clone(),
        figures: figures.clone(),
        tracing: vm.tracing.clone(),
        clients,
        readers,
        open: RefCell::default(),
        headers_meta,
        result_meta,
        own: own.clone(),
    });
    let shared = Shared::new(lua, fetch)?;
    client_meta.raw_set("__metatable", false)?;
    reader::install(lua, &shared, waits, &reader_meta)?;

    let native = lua.create_table()?;
    native.raw_set("send", waits.waiting(lua, shared.function(lua, send::send)?)?)?;
    native.raw_set("client", shared.function(lua, new_client)?)?;
    native.raw_set("stats", shared.function(lua, stats::stats)?)?;
    native.raw_set("is_text", shared.function(lua, is_text)?)?;
    native.raw_set("random", shared.function(lua, random)?)?;
    native.raw_set("default", shared.function(lua, default_client)?.call::<mlua::Value>(())?)?;
    native.raw_set("number_text", number_text_function(lua)?)?;
    let encode: Function = rover.raw_get::<Table>("json")?.raw_get("encode")?;
    let times = times(lua, |message| log::event(Level::Warn, message).emit())?;
    let http: Table = vm.file("http", include_str!("http.lua"))?.call((native, encode, &vm.mistake, times))?;
    let figures = figures.clone();
    vm.sources.add(move |samples| stats::count(&figures, samples));
    rover.raw_set("http", http)
}

/// What a connection costs, in bytes: its buffers, and a descriptor.
const CONNECTION: usize = 64 * 1024;

/// The client behind `rover.http` itself.
fn default_client(stack: &mut Stack<'_>, fetch: &Fetch) -> Returns {
    let client = Client::new(Settings::new("http"), &fetch.figures);
    fetch.clients.push(stack, Rc::new(client));
    Ok(1)
}

/// `client(name, ca, cert, key, insecure, failures, window, open, trials, concurrent, queue, idle, idle_timeout)`: a
/// client that `http.lua` has checked the settings of; times are milliseconds.
fn new_client(stack: &mut Stack<'_>, fetch: &Fetch) -> Returns {
    let text = |index| stack.bytes(index).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let path = |index| text(index).map(PathBuf::from);
    let time = |index| Duration::from_secs_f64(stack.number(index).max(0.0) / 1000.0);
    let count = |index| stack.number(index) as usize;
    let mut settings = Settings::new(text(1).unwrap_or_default());
    let identity = path(3).zip(path(4));
    settings.tls = TlsOptions { ca: path(2), identity, insecure: stack.boolean(5), http1_only: false };
    if count(6) > 0 {
        let options = BreakerOptions { failures: count(6), window: time(7), open: time(8), trials: count(9) };
        settings.breaker = Some(options);
    }
    if count(10) > 0 {
        settings.limit = Some(LimitOptions { concurrent: count(10), queue: count(11) });
    }
    settings.idle = count(12);
    settings.idle_timeout = time(13);
    let client = Client::new(settings, &fetch.figures);
    fetch.clients.push(stack, Rc::new(client));
    // It keeps a connection at least, once it has been used.
    press(stack, CONNECTION);
    Ok(1)
}

/// `is_text(value)`: whether it is a request's body, which stands for its text.
fn is_text(stack: &mut Stack<'_>, fetch: &Fetch) -> Returns {
    let is = fetch.vocabulary.is_text(stack, 1);
    stack.push_boolean(is);
    Ok(1)
}

/// `random()`: text that is in no content.
fn random(stack: &mut Stack<'_>, _: &Fetch) -> Returns {
    stack.push_bytes(format!("{:032x}", fastrand::u128(..)).as_bytes());
    Ok(1)
}

/// Pushes `nil, problem`, behind the sign that the call did not fail.
fn push_problem(stack: &mut Stack<'_>, problem: &crate::outbound::Problem) -> Returns {
    stack.push_nil();
    stack.push_bytes(problem.to_string().as_bytes());
    Ok(2)
}

/// A mistake in the use of a value of Rover's.
fn not_a(what: &str, call: &str) -> Raise {
    Raise::Mistake(format!("call it with a colon: {what}:{call}()"))
}
