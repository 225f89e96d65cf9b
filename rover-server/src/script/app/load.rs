//! Loads an app into a fresh VM.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::c_int;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use mlua::{Function, IntoLuaMulti, Lua, Table, Value};
use rover_lua::json::Vocabulary;
use rover_lua::{Coroutines, Step, Waits};

use crate::exchange::context::{self, Bodies};
use crate::exchange::failure::Failure;
use crate::exchange::response::Responder;
use crate::observe::metrics::Sources;
use crate::observe::otlp::Tracing;
use crate::outbound::{BreakerState, Figures};
use crate::policy::assets::MountDecl;
use crate::runtime::turn::{self, Stint};
use crate::script::db;
use crate::script::fetch;
use crate::script::proxy;
use crate::script::state;
use crate::script::stdlib;
use crate::script::stream;
use crate::script::tasks::{self, Counts, Tasks};
use crate::script::websocket::{self, Sockets};

use super::chunk::own;
use super::declared::{self, Declared, Hooks, Mistakes, Unfinished};
use super::endpoint::{self, Endpoint};
use super::told::Told;
use super::{App, Blueprint, Source, guarding, modules, natives};

impl App {
    /// Runs the app's top-level code in a VM of its own.
    ///
    /// # Errors
    /// What Lua says when the code cannot be read, compiled or run, as the last of the mistakes in what the app had
    /// declared until then. Mistakes in what it declares are no error here but stand in [`Declared::mistakes`], so that
    /// they can be reported together with those of the config and the routes.
    pub(crate) fn load(blueprint: &Blueprint) -> Result<(App, Declared), Unfinished> {
        let loaded = App::load_at(Pace::AtOnce, blueprint).now_or_never();
        loaded
            .unwrap_or_else(|| Err(Mistakes(vec!["loading the app waited; this is a bug in Rover".to_owned()]).into()))
    }

    /// The same, in slices of a few milliseconds: others are served between them. What the app runs afterwards is cut into
    /// slices too, until it [serves](App::serves).
    ///
    /// # Errors
    /// As [`load`](App::load).
    pub(crate) async fn load_in_slices(blueprint: &Blueprint) -> Result<(App, Declared), Unfinished> {
        App::load_at(Pace::InSlices, blueprint).await
    }

    async fn load_at(pace: Pace, blueprint: &Blueprint) -> Result<(App, Declared), Unfinished> {
        let lua = rover_lua::new_vm();
        super::limit_memory(&lua, blueprint.memory_limit);
        let declared = Rc::new(RefCell::new(Declared::default()));
        let loaded = load(&lua, blueprint, &declared, pace).await;
        let problem = match (rover_lua::stopped(), loaded) {
            (None, Ok(loaded)) => return Ok(loaded),
            (None, Err(error)) => rover_lua::plain_message(&error),
            (Some(stopped), _) => Failure::stopped(stopped).described(),
        };
        let mut declared = declared.take();
        declared.mistakes.0.push(problem);
        Err(Unfinished(Box::new(declared)))
    }
}

/// How an app is loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    AtOnce,
    /// By and by, for its thread serves others.
    InSlices,
}

impl Pace {
    /// Lets others have their turn, between two parts of which each takes not long.
    async fn breathe(self) {
        if self == Pace::InSlices {
            drop(turn::next_round().await);
        }
    }
}

async fn load(
    lua: &Lua,
    blueprint: &Blueprint,
    declared: &Rc<RefCell<Declared>>,
    pace: Pace,
) -> mlua::Result<(App, Declared)> {
    pace.breathe().await;
    let busy = rover_lua::Busy::new(lua);
    let told = Rc::new(RefCell::new(Told::default()));
    let waits = Waits::install(lua)?;
    if pace == Pace::InSlices {
        waits.slice(Some(turn::next_round));
    }
    let workers = Rc::new(Cell::new(blueprint.workers));
    let debug = Rc::new(Cell::new(false));
    let array_meta = lua.create_table()?;
    let body_meta = lua.create_table()?;
    let requests = Rc::default();
    let bodies = Rc::new(Bodies::new(lua, &body_meta, &requests)?);
    let vocabulary = Rc::new(Vocabulary::new(lua, &array_meta, bodies.clone())?);
    let installed = context::install(lua, requests, vocabulary.clone(), bodies, &body_meta)?;
    let mistake = rover_lua::mistake_function(lua)?;
    let native = natives::early(lua, &display_name(&blueprint.source), &installed, declared, &told)?;
    let (response_meta, builders, respond): (Table, Table, Function) =
        own(lua, "response", include_str!("response.lua"))?.call((&native, &mistake))?;
    vocabulary.refuses(installed.metatable.to_pointer(), response_meta.to_pointer());
    let responder = Rc::new(Responder::new(lua, &response_meta)?);
    let failing = natives::Failing {
        installed: installed.contexts.clone(),
        responder: responder.clone(),
        lua: lua.weak(),
        debug: debug.clone(),
        waits: waits.clone(),
    };
    natives::failing(lua, &native, failing)?;
    drop(busy);
    pace.breathe().await;
    let busy = rover_lua::Busy::new(lua);
    let limits = Rc::default();
    let limiting = natives::Limiting { contexts: installed.contexts.clone(), limits: Rc::clone(&limits) };
    natives::limiting(lua, &native, limiting)?;
    let (guards, patterns) = (Rc::default(), Rc::default());
    let routes_only = Rc::default();
    guarding::install(lua, &native, declared, &told)?;
    let guarded = guarding::Guarding {
        contexts: installed.contexts.clone(),
        responder: responder.clone(),
        guards: Rc::clone(&guards),
        routes: Rc::clone(&patterns),
        routes_only: Rc::clone(&routes_only),
    };
    guarding::install_late(lua, &native, guarded)?;
    native.raw_set("hooks", own(lua, "hooks", include_str!("hooks.lua"))?)?;
    let refusal: Function = builders.raw_get("error")?;
    let collect = context::collecting(lua, &installed, &waits)?;
    let joins: Joins = own(lua, "chain", include_str!("chain.lua"))?.call((&native, respond, &refusal, &collect))?;
    let figures = Arc::<Figures>::default();
    let tracing = Tracing::new(&installed.contexts.requests);
    let about = (&installed.contexts, &responder, &tracing);
    proxy::install(lua, &native, &installed.methods, &builders, about, &waits, &figures)?;
    let read_endpoint: Function = own(lua, "endpoint", include_str!("endpoint.lua"))?.call(&native)?;
    let dsl: Table = own(lua, "app", include_str!("dsl.lua"))?.call((&native, &mistake, &builders, read_endpoint))?;
    responder.knows_builders(&dsl.raw_get("builder")?);

    let rover =
        stdlib::install(lua, &vocabulary, array_meta, blueprint.worker, workers.clone(), &waits, &blueprint.stores)?;
    rover.raw_set("server", dsl.raw_get::<Function>("server")?)?;
    let tasks = Tasks::new(lua, &waits, &installed.contexts, &responder, &tracing)?;
    tasks::install(lua, &rover, &tasks)?;
    fetch::install(lua, &rover, &vocabulary, &tasks, &waits, &figures)?;
    stream::install(lua, &native, &tasks, &responder)?;
    let sockets = Sockets::new(&tasks, &installed.contexts, &responder, &waits, blueprint.hub.clone());
    let (declare, handler) = websockets(lua, &rover, &sockets, (&response_meta, &builders, &mistake))?;
    dsl.raw_set("declare_socket", declare)?;
    dsl.raw_set("socket_handler", handler)?;
    state::install(lua, &rover, &tasks, &vocabulary, &blueprint.stores)?;
    let databases = db::install(lua, &rover, &tasks, &vocabulary, &response_meta, blueprint.source.folder())?;
    for setup in &blueprint.setup {
        setup(lua, &waits)?;
    }
    let chunk = chunk(lua, blueprint, &waits);
    drop(busy);
    pace.breathe().await;
    let ran = match chunk {
        Ok(chunk) => run(lua, &waits, &dsl, chunk).await,
        Err(error) => Err(error),
    };
    let busy = rover_lua::Busy::new(lua);
    let ended = ran.and_then(|returned| dsl.raw_get::<Function>("seal")?.call(returned));
    let sealed: Table = match ended {
        Ok(sealed) => sealed,
        Err(error) => {
            // What was declared before the error is checked with the rest, as far as there is memory to tell of it.
            let so_far = dsl.raw_get::<Function>("declared")?.call(());
            let _ = so_far.and_then(|so_far| read(&so_far, told.take(), &mut declared.borrow_mut()));
            return Err(error);
        }
    };
    drop(busy);
    pace.breathe().await;
    let _busy = rover_lua::Busy::new(lua);
    let mut declared = declared.take();
    // As `dsl.lua` orders routes: the same in every VM.
    declared.mounts.sort_by(|one, other| {
        let key = |mount: &MountDecl| (mount.origin.file.clone(), mount.origin.line, mount.written.clone());
        key(one).cmp(&key(other))
    });
    let mut told = told.take();
    if let Some(found) = std::mem::take(&mut told.places).finish() {
        let _ = guards.set(found);
    }
    read(&sealed, told, &mut declared)?;
    let _ = patterns.set(declared.routes.iter().map(|route| route.pattern.clone()).collect());

    let Entries { entries, takes_context, endpoints, places, hooks, has_late } =
        entries(lua, &sealed, joins, &declared)?;
    context::install_late(lua, &installed, &waits, &collect, refusal, has_late)?;
    let base = vec![rover_lua::anchor(lua, &entries)?, rover_lua::anchor(lua, &installed.metatable)?];
    waits.loaded();
    let app = App {
        coroutines: Coroutines::new(lua, base, waits.marks())?,
        contexts: installed.contexts,
        responder,
        waits,
        tasks,
        tracing,
        hooks,
        guards,
        routes_only,
        cors_origins: sealed.raw_get("cors_origins")?,
        limits,
        sockets,
        databases,
        places,
        takes_context,
        endpoints,
        debug,
        handler_timeout: Cell::default(),
        stores: blueprint.stores.clone(),
        budget: OnceCell::new(),
        longest_body: Cell::new(u64::MAX),
        workers,
        watches_waits: Cell::new(false),
        sources: Sources::default(),
        gc_rounds: own(lua, "gc", include_str!("gc.lua"))?.call(())?,
        close: own(lua, "close", include_str!("close.lua"))?
            .call((&entries, builders.raw_get::<Function>("error")?))?,
    };
    count_coroutines(&app);
    count_requests_to_others(&app, figures);
    count_websockets(&app);
    // The numbers are the process's, so one worker tells them.
    if blueprint.worker <= 1 {
        app.databases.count_in(&app.sources);
    }
    Ok((app, declared))
}

/// What `dsl.lua` needs for endpoints of WebSockets: the function that runs a declaration, and the one that makes the handler.
fn websockets(
    lua: &Lua,
    rover: &Table,
    sockets: &Rc<Sockets>,
    (response_meta, builders, mistake): (&Table, &Table, &Function),
) -> mlua::Result<(Function, Function)> {
    let native = websocket::install(lua, rover, sockets)?;
    own(lua, "websocket", include_str!("websocket.lua"))?.call((
        native,
        mistake,
        response_meta,
        builders.raw_get::<Function>("error")?,
        rover.raw_get::<Table>("json")?.raw_get::<Function>("decode")?,
        rover.raw_get::<Table>("log")?.raw_get::<Function>("debug")?,
    ))
}

/// Registers the figures of requests to other servers.
fn count_requests_to_others(app: &App, figures: Arc<Figures>) {
    app.sources.add(move |samples| {
        for row in figures.rows() {
            let labels = [("client", &*row.client), ("origin", &*row.origin)];
            let help = "Connections to other servers that are open.";
            samples.gauge("rover_outbound_connections", help, &labels, row.open as f64);
            let help = "Connections to other servers that wait for use.";
            samples.gauge("rover_outbound_idle_connections", help, &labels, row.idle as f64);
            let help = "Requests to other servers in progress.";
            samples.gauge("rover_outbound_active_requests", help, &labels, row.active as f64);
            let help = "Requests to other servers that wait for their turn.";
            samples.gauge("rover_outbound_queued_requests", help, &labels, row.queued as f64);
            let help = "Workers whose circuit to the other server is not closed.";
            let is_broken = row.breaker != BreakerState::Closed;
            samples.gauge("rover_outbound_broken_circuits", help, &labels, f64::from(u8::from(is_broken)));
            let help = "Requests sent to other servers, each attempt counted.";
            samples.counter("rover_outbound_requests_total", help, &labels, row.requests as f64);
            let help = "Requests to other servers that failed: no answer, or a status from 500 on.";
            samples.counter("rover_outbound_failures_total", help, &labels, row.failures as f64);
            let help = "Requests to other servers that repeated another.";
            samples.counter("rover_outbound_retries_total", help, &labels, row.retries as f64);
            let help = "Requests to other servers that were refused without being sent.";
            samples.counter("rover_outbound_rejected_total", help, &labels, row.rejected as f64);
        }
    });
}

/// Registers the figures of WebSockets.
fn count_websockets(app: &App) {
    let sockets = Rc::downgrade(&app.sockets);
    app.sources.add(move |samples| {
        if let Some(sockets) = sockets.upgrade() {
            sockets.count(samples);
        }
    });
}

/// Registers the figures of the coroutines that run tasks.
fn count_coroutines(app: &App) {
    let tasks = Rc::downgrade(&app.tasks);
    app.sources.add(move |samples| {
        let Some(tasks) = tasks.upgrade() else { return };
        let Counts { tasks, idle, busy, held, created } = tasks.counts();
        samples.gauge(
            "rover_tasks",
            "Functions that run beside handlers: rover.spawn, every, all, timeout.",
            &[],
            tasks as f64,
        );
        let help = "Coroutines by what they are for and whether they are in use.";
        samples.gauge("rover_coroutines", help, &[("pool", "tasks"), ("state", "idle")], idle as f64);
        samples.gauge("rover_coroutines", help, &[("pool", "tasks"), ("state", "busy")], busy as f64);
        samples.gauge("rover_coroutines", help, &[("pool", "tasks"), ("state", "held")], held as f64);
        let help = "Coroutines that were made because none was idle.";
        samples.gauge("rover_coroutines_created", help, &[("pool", "tasks")], created as f64);
    });
}

/// Adds what `dsl.lua` noted and `told`.
fn read(table: &Table, told: Told, declared: &mut Declared) -> mlua::Result<()> {
    mistakes(table, declared)?;
    declared.routes = told.routes;
    declared.endpoints = told.endpoints;
    declared.mistakes.0.extend(told.mistakes);
    declared::limits(table, told.limits, declared)
}

/// Reads the mistakes that `dsl.lua` noted.
fn mistakes(table: &Table, declared: &mut Declared) -> mlua::Result<()> {
    for mistake in table.raw_get::<Table>("mistakes")?.sequence_values::<Table>() {
        let mistake = mistake?;
        let (file, line, message): (String, u32, String) =
            (mistake.raw_get(1)?, mistake.raw_get(2)?, mistake.raw_get(3)?);
        declared.mistakes.0.push(match line {
            0 => format!("{file}: {message}"),
            line => format!("{file}:{line}: {message}"),
        });
    }
    Ok(())
}

/// The functions that answer requests, and what is known of each.
struct Entries {
    entries: Table,
    takes_context: Vec<bool>,
    endpoints: Vec<Endpoint>,
    places: Vec<String>,
    hooks: Hooks,
    /// Whether there are requests whose body comes while Lua code runs.
    has_late: bool,
}

/// The functions of `chain.lua`.
type Joins = (Function, Function, Function, Function);

/// The table of entry functions: the routes in the order of their ids, then the hooks, then the functions of requests whose
/// body comes late.
fn entries(
    lua: &Lua,
    sealed: &Table,
    (join, join_all, or_missing, join_rest): Joins,
    declared: &Declared,
) -> mlua::Result<Entries> {
    let hooks: Table = sealed.raw_get("hooks")?;
    let on_error: Value = hooks.raw_get("on_error")?;
    // A route with a mistake has an entry but no declaration; such an app never serves.
    let (entries, mut takes_context, passes, late): (Table, Vec<bool>, Vec<bool>, Table) =
        join_all.call((sealed.raw_get::<Table>("routes")?, &on_error))?;
    let mut endpoints = endpoint::of_routes(passes, &declared.endpoints);
    let mut places: Vec<String> = declared.routes.iter().map(|route| route.origin.to_string()).collect();
    let mut found = Hooks::default();
    let mut add = |name: &str, answers: bool| -> mlua::Result<Option<c_int>> {
        let Some(hook) = hooks.raw_get::<Option<Function>>(name)? else { return Ok(None) };
        let info = hook.info();
        let place = format!("{}:{}", info.short_src.unwrap_or_default(), info.line_defined.unwrap_or_default());
        let (entry, takes) = match answers {
            true => join.call((
                or_missing.call::<Function>(hook)?,
                lua.create_table()?,
                lua.create_table()?,
                &on_error,
                place.as_str(),
            ))?,
            false => (hook, false),
        };
        places.push(place);
        takes_context.push(takes);
        entries.raw_push(entry)?;
        Ok(Some(c_int::try_from(entries.raw_len()).unwrap_or(c_int::MAX)))
    };
    found.not_found = add("not_found", true)?;
    let choose: Option<Function> = sealed.raw_get("choose")?;
    found.on_start = add("on_start", false)?;
    found.on_ready = add("on_ready", false)?;
    found.on_ready_check = add("on_ready_check", false)?;
    found.on_shutdown = add("on_shutdown", false)?;
    let mut has_late = late.raw_len() > 0;
    if let Some(choose) = choose {
        let not_found: Value = hooks.raw_get("not_found")?;
        let join_rest = |waits: bool| {
            let function = join_rest.call::<Function>((&choose, &not_found, &on_error, "rover", waits))?;
            entries.raw_push(function)?;
            Ok::<_, mlua::Error>(c_int::try_from(entries.raw_len()).unwrap_or(c_int::MAX))
        };
        let rest = join_rest(false)?;
        places.push("hooks".to_owned());
        takes_context.push(true);
        endpoints.resize(entries.raw_len(), Endpoint::default());
        if let Some(last) = endpoints.last_mut() {
            // Where no handler asks for the body, it is not waited for; a hook may.
            last.later = if not_found.is_nil() { rest } else { join_rest(true)? };
        }
        found.rest = Some(rest);
        has_late = true;
    }
    endpoint::add_late(&late, &entries, &mut endpoints)?;
    Ok(Entries { entries, takes_context, endpoints, places, hooks: found, has_late })
}

fn display_name(source: &Source) -> String {
    match source {
        Source::File(path) => path.display().to_string(),
        Source::Text { name, .. } => name.clone(),
    }
}

/// The top-level code of the app.
fn chunk(lua: &Lua, blueprint: &Blueprint, waits: &Rc<Waits>) -> mlua::Result<Function> {
    let name = display_name(&blueprint.source);
    let (beside, code) = match &blueprint.source {
        Source::File(path) => {
            blueprint.files.note(path.clone());
            let read = blueprint.code.read(None, path);
            let text = read.map_err(|error| mlua::Error::runtime(format!("cannot read {name}: {}", plain(&error))))?;
            (Some(path.as_path()), text.code.to_vec())
        }
        Source::Text { code, .. } => (None, code.clone().into_bytes()),
    };
    modules::search(lua, beside)?;
    modules::keep(lua, &blueprint.files, &blueprint.code, waits)?;
    let code = match code.strip_prefix(b"#!") {
        // A first line for the shell keeps its line number.
        Some(rest) => rest.iter().position(|&b| b == b'\n').map_or(Vec::new(), |end| rest[end..].to_vec()),
        None => code,
    };
    lua.load(code).set_name(format!("@{name}")).into_function()
}

/// Runs it in a coroutine, so that it can be cut into slices, and gives back what it returned.
async fn run(lua: &Lua, waits: &Rc<Waits>, dsl: &Table, chunk: Function) -> mlua::Result<Value> {
    let coroutines = Coroutines::new(lua, Vec::new(), waits.marks())?;
    let mut coroutine = coroutines.take();
    let called = (dsl.raw_get::<Function>("run")?, chunk).into_lua_multi(lua)?;
    rover_lua::push_values(lua, &mut coroutine.stack(), called)?;
    let mut stint = Stint::default();
    let mut step = waits.advance(&mut coroutine, 1);
    loop {
        match step {
            Step::Waits(wait) => {
                let resume = stint.wait(wait).await;
                step = waits.go_on(&mut coroutine, resume, stint.excess());
            }
            Step::Returned => {
                let result = rover_lua::pop_value(lua, &mut coroutine.stack())?;
                return match coroutine.stack().boolean(1) {
                    true => Ok(result),
                    false => Err(mlua::Error::runtime(result.to_string()?)),
                };
            }
            Step::Raised => {
                if let Some(stopped) = rover_lua::stopped() {
                    return Err(mlua::Error::runtime(Failure::stopped(stopped).described()));
                }
                let problem = rover_lua::pop_value(lua, &mut coroutine.stack())?;
                return Err(mlua::Error::runtime(problem.to_string()?));
            }
        }
    }
}

/// An error of the operating system without its number.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}
