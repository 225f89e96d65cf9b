//! Loads an app into a fresh VM.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::{OsStr, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Function, Lua, Table, Value};

use crate::assets::MountDecl;
use crate::context::{self, Bodies};
use crate::failure::Failure;
use crate::fetch;
use crate::json::Vocabulary;
use crate::lua::{self, Coroutines, Waits};
use crate::metrics::Sources;
use crate::otlp::Tracing;
use crate::outbound::{BreakerState, Figures};
use crate::proxy;
use crate::response::Responder;
use crate::route::RouteDecl;
use crate::state;
use crate::stdlib;
use crate::stream;
use crate::tasks::{self, Tasks};
use crate::websocket::{self, Sockets};

use super::declared::{self, Declared, Hooks, Told, Unfinished};
use super::{App, Blueprint, Code, Files, Source, guarding, natives};

impl App {
    /// Runs the app's top-level code in a VM of its own.
    ///
    /// # Errors
    /// What Lua says when the code cannot be read, compiled or run, as the last of the mistakes in what the app had
    /// declared until then. Mistakes in what it declares are no error here but stand in [`Declared::mistakes`], so that
    /// they can be reported together with those of the config and the routes.
    pub(crate) fn load(blueprint: &Blueprint) -> Result<(App, Declared), Unfinished> {
        let lua = lua::new_vm();
        super::limit_memory(&lua, blueprint.memory_limit);
        let declared = Rc::new(RefCell::new(Declared::default()));
        let busy = lua::Busy::new(&lua);
        let loaded = load(&lua, blueprint, &declared);
        drop(busy);
        let problem = match (lua::stopped(), loaded) {
            (None, Ok(loaded)) => return Ok(loaded),
            (None, Err(error)) => lua::plain_message(&error),
            (Some(stopped), _) => Failure::stopped(stopped).described(),
        };
        let mut declared = declared.take();
        declared.mistakes.0.push(problem);
        Err(Unfinished(Box::new(declared)))
    }
}

fn load(lua: &Lua, blueprint: &Blueprint, declared: &Rc<RefCell<Declared>>) -> mlua::Result<(App, Declared)> {
    let told = Rc::new(RefCell::new(Told::default()));
    let waits = Waits::install(lua)?;
    let workers = Rc::new(Cell::new(blueprint.workers));
    let debug = Rc::new(Cell::new(false));

    let array_meta = lua.create_table()?;
    let body_meta = lua.create_table()?;
    let requests = Rc::default();
    let bodies = Rc::new(Bodies::new(lua, &body_meta, &requests)?);
    let vocabulary = Rc::new(Vocabulary::new(lua, &array_meta, bodies.clone())?);
    let installed = context::install(lua, requests, vocabulary.clone(), bodies, &body_meta)?;

    let mistake = lua::mistake_function(lua)?;
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
    let limits = Rc::default();
    natives::limiting(
        lua,
        &native,
        natives::Limiting { contexts: installed.contexts.clone(), limits: Rc::clone(&limits) },
    )?;
    let (guards, patterns) = (Rc::default(), Rc::default());
    guarding::install(lua, &native, declared, &told)?;
    let guarded = guarding::Guarding {
        contexts: installed.contexts.clone(),
        responder: responder.clone(),
        guards: Rc::clone(&guards),
        routes: Rc::clone(&patterns),
    };
    guarding::install_late(lua, &native, guarded)?;
    native.raw_set("hooks", own(lua, "hooks", include_str!("hooks.lua"))?)?;
    let joins: Joins = own(lua, "chain", include_str!("chain.lua"))?.call((
        &native,
        respond,
        builders.raw_get::<Function>("error")?,
    ))?;
    let figures = Arc::<Figures>::default();
    let tracing = Tracing::new(&installed.contexts.requests);
    let about = (&installed.contexts, &responder, &tracing);
    proxy::install(lua, &native, &installed.methods, &builders, about, &waits, &figures)?;
    let dsl: Table = own(lua, "app", include_str!("dsl.lua"))?.call((&native, &mistake, &builders))?;
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
    for setup in &blueprint.setup {
        setup(lua, &waits)?;
    }

    let ended = run(lua, blueprint, &dsl).and_then(|returned| dsl.raw_get::<Function>("seal")?.call(returned));
    let sealed: Table = match ended {
        Ok(sealed) => sealed,
        Err(error) => {
            // What was declared before the error is checked with the rest, as far as there is memory to tell of it.
            let so_far = dsl.raw_get::<Function>("declared")?.call(());
            let _ = so_far.and_then(|so_far| read(&so_far, told.take(), &mut declared.borrow_mut()));
            return Err(error);
        }
    };
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

    let Entries { entries, takes_context, leaves_body, places, hooks } =
        entries(lua, &sealed, joins, &declared.routes)?;
    let base = vec![lua::anchor(lua, &entries)?, lua::anchor(lua, &installed.metatable)?];
    waits.loaded();
    let app = App {
        coroutines: Coroutines::new(lua, base, &waits)?,
        contexts: installed.contexts,
        responder,
        waits,
        tasks,
        tracing,
        hooks,
        guards,
        cors_origins: sealed.raw_get("cors_origins")?,
        limits,
        sockets,
        places,
        takes_context,
        leaves_body,
        debug,
        handler_timeout: Cell::default(),
        stores: blueprint.stores.clone(),
        budget: OnceCell::new(),
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
        let (running, (idle, busy, created)) = tasks.counts();
        samples.gauge(
            "rover_tasks",
            "Functions that run beside handlers: rover.spawn, every, all, timeout.",
            &[],
            running as f64,
        );
        let help = "Coroutines by what they are for and whether they are in use.";
        samples.gauge("rover_coroutines", help, &[("pool", "tasks"), ("state", "idle")], idle as f64);
        samples.gauge("rover_coroutines", help, &[("pool", "tasks"), ("state", "busy")], busy as f64);
        let help = "Coroutines that were made because none was idle.";
        samples.gauge("rover_coroutines_created", help, &[("pool", "tasks")], created as f64);
    });
}

/// Adds what `dsl.lua` noted and `told`.
fn read(table: &Table, told: Told, declared: &mut Declared) -> mlua::Result<()> {
    mistakes(table, declared)?;
    declared.routes = told.routes;
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
    leaves_body: Vec<bool>,
    places: Vec<String>,
    hooks: Hooks,
}

/// The functions of `chain.lua`.
type Joins = (Function, Function, Function, Function);

/// The table of entry functions: the routes in the order of their ids, then the hooks.
fn entries(
    lua: &Lua,
    sealed: &Table,
    (join, join_all, or_missing, join_rest): Joins,
    routes: &[RouteDecl],
) -> mlua::Result<Entries> {
    let hooks: Table = sealed.raw_get("hooks")?;
    let on_error: Value = hooks.raw_get("on_error")?;
    // A route with a mistake has an entry but no declaration; such an app never serves.
    let (entries, mut takes_context, mut leaves_body): (Table, Vec<bool>, Vec<bool>) =
        join_all.call((sealed.raw_get::<Table>("routes")?, &on_error))?;
    let mut places: Vec<String> = routes.iter().map(|route| route.origin.to_string()).collect();
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
    if let Some(choose) = choose {
        let not_found: Value = hooks.raw_get("not_found")?;
        entries.raw_push(join_rest.call::<Function>((choose, not_found, &on_error, "rover"))?)?;
        places.push("hooks".to_owned());
        takes_context.push(true);
        // Where nobody asks for the body of what no route answers, it is not waited for.
        leaves_body.resize(entries.raw_len(), false);
        if let Some(last) = leaves_body.last_mut() {
            *last = hooks.raw_get::<Value>("not_found")?.is_nil();
        }
        found.rest = Some(c_int::try_from(entries.raw_len()).unwrap_or(c_int::MAX));
    }
    Ok(Entries { entries, takes_context, leaves_body, places, hooks: found })
}

/// One of Rover's own Lua files.
fn own(lua: &Lua, name: &str, code: &str) -> mlua::Result<Function> {
    lua.load(code).set_name(format!("=rover/{name}")).into_function()
}

fn display_name(source: &Source) -> String {
    match source {
        Source::File(path) => path.display().to_string(),
        Source::Text { name, .. } => name.clone(),
    }
}

/// Runs the top-level code of the app and gives back what it returned.
fn run(lua: &Lua, blueprint: &Blueprint, dsl: &Table) -> mlua::Result<Value> {
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
    search_for_modules(lua, beside)?;
    keep_modules(lua, &blueprint.files, &blueprint.code)?;
    let code = match code.strip_prefix(b"#!") {
        // A first line for the shell keeps its line number.
        Some(rest) => rest.iter().position(|&b| b == b'\n').map_or(Vec::new(), |end| rest[end..].to_vec()),
        None => code,
    };
    let chunk = lua.load(code).set_name(format!("@{name}")).into_function()?;
    match dsl.raw_get::<Function>("run")?.call(chunk)? {
        (true, returned) => Ok(returned),
        (false, problem) => Err(mlua::Error::runtime(problem.to_string()?)),
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

/// Where `require` looks once it has found nothing beside the app and where LuaJIT looks by itself: where Debian and
/// others install Lua modules as packages.
const SYSTEM_PATH: &str = "/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua";

/// As [`SYSTEM_PATH`], for C modules.
fn system_cpath() -> String {
    format!("/usr/lib/{}-linux-gnu/lua/5.1/?.so;/usr/lib/lua/5.1/?.so", std::env::consts::ARCH)
}

/// Lets `require` look beside the app first, then in `lua_modules` and the user's LuaRocks tree, then where LuaJIT
/// looks by itself, then among the system's packages.
fn search_for_modules(lua: &Lua, app: Option<&Path>) -> mlua::Result<()> {
    let mut path = String::new();
    let mut cpath = String::new();
    let mut roots = Vec::new();
    if let Some(app) = app {
        let beside = match app.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        roots.push(beside.join("lua_modules"));
        // With a slash in it in any case: the system looks for a bare name in its own folders.
        cpath.push_str(&format!("{}/?.so;", beside.display()));
        let beside = match beside.to_string_lossy().into_owned() {
            here if here == "." => String::new(),
            other => format!("{other}/"),
        };
        path.push_str(&format!("{beside}?.lua;{beside}?/init.lua;"));
    }
    if let Some(home) = std::env::var_os("HOME") {
        roots.push(Path::new(&home).join(".luarocks"));
    }
    for root in roots {
        let root = root.display();
        path.push_str(&format!("{root}/share/lua/5.1/?.lua;{root}/share/lua/5.1/?/init.lua;"));
        cpath.push_str(&format!("{root}/lib/lua/5.1/?.so;"));
    }
    let package: Table = lua.globals().raw_get("package")?;
    for (key, first, last) in [("path", path, SYSTEM_PATH.to_owned()), ("cpath", cpath, system_cpath())] {
        let known: String = package.raw_get(key)?;
        package.raw_set(key, format!("{first}{known};{last}"))?;
    }
    Ok(())
}

/// Has `require` load the files of this version, and note each Lua file that it finds, also one that then turns out to be
/// wrong, or looks for in vain.
fn keep_modules(lua: &Lua, files: &Files, code: &Code) -> mlua::Result<()> {
    let own_code = code.clone();
    let known =
        lua.create_function(move |lua, name: mlua::LuaString| match own_code.known(Some(&name.as_bytes())) {
            Some(text) => {
                let file = lua.create_string(text.file.as_os_str().as_bytes())?;
                Ok((Some(file), Some(lua.create_string(&*text.code)?)))
            }
            None => Ok((None, None)),
        })?;
    let noted = files.clone();
    let note = lua.create_function(move |_, file: mlua::LuaString| {
        noted.note(PathBuf::from(OsStr::from_bytes(&file.as_bytes())));
        Ok(())
    })?;
    let (files, code) = (files.clone(), code.clone());
    let keep = lua.create_function(move |lua, (name, file): (mlua::LuaString, mlua::LuaString)| {
        let file = PathBuf::from(OsStr::from_bytes(&file.as_bytes()));
        files.note(file.clone());
        let read = code.read(Some(&name.as_bytes()), &file);
        read.ok().map(|text| lua.create_string(&*text.code)).transpose()
    })?;
    own(lua, "modules", include_str!("modules.lua"))?.call((known, keep, note, lua::mistake_function(lua)?))
}
