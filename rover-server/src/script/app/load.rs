//! Loads an app into a fresh VM.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use futures_util::FutureExt;
use mlua::{Function, Lua, Table};
use rover_lua::{Busy, Coroutines};

use super::declared::{self, Declared, Mistakes, Unfinished};
use super::draft::Draft;
use super::entries::{Entries, Joins, entries};
use super::guarding::Guarding;
use super::natives::Limiting;
use super::{App, Blueprint, chunk, guarding, install, natives};
use crate::exchange::context;
use crate::exchange::failure::Failure;
use crate::policy::assets::MountDecl;
use crate::runtime::turn;
use crate::script::vm::Vm;

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
    let busy = Busy::new(lua);
    let draft = Rc::new(RefCell::new(Draft::default()));
    let vm = install::prepare(lua, blueprint, declared, &draft)?;
    if pace == Pace::InSlices {
        vm.waits.slice(Some(turn::next_round));
    }
    drop(busy);

    pace.breathe().await;
    let busy = Busy::new(lua);
    install::parts(&vm, blueprint)?;
    let declaring = declaring(&vm, declared, &draft)?;
    for setup in &blueprint.setup {
        setup(lua, &vm.waits)?;
    }
    let chunk = chunk::read(lua, blueprint, &vm.waits);
    drop(busy);

    pace.breathe().await;
    let ran = match chunk {
        Ok(chunk) => chunk::run(lua, &vm.waits, &declaring.dsl, chunk).await,
        Err(error) => Err(error),
    };
    let busy = Busy::new(lua);
    let ended = ran.and_then(|returned| declaring.dsl.raw_get::<Function>("seal")?.call(returned));
    let sealed: Table = match ended {
        Ok(sealed) => sealed,
        Err(error) => {
            // What was declared before the error is checked with the rest, as far as there is memory to tell of it.
            let so_far = declaring.dsl.raw_get::<Function>("declared")?.call(());
            let _ = so_far.and_then(|so_far| read(&so_far, draft.take(), &mut declared.borrow_mut()));
            return Err(error);
        }
    };
    drop(busy);

    pace.breathe().await;
    let _busy = Busy::new(lua);
    let mut declared = declared.take();
    sort_mounts(&mut declared.mounts);
    let mut draft = draft.take();
    declaring.guarding.guard(std::mem::take(&mut draft.places));
    read(&sealed, draft, &mut declared)?;
    declaring.guarding.know(&declared.routes);
    Ok((app(vm, declaring, &sealed, &declared, blueprint)?, declared))
}

/// What an app declares its routes and hooks with.
struct Declaring {
    /// The functions of `dsl.lua`.
    dsl: Table,
    joins: Joins,
    /// Lua: waits for the body of a request.
    collect: Function,
    guarding: Rc<Guarding>,
    limiting: Rc<Limiting>,
}

/// Loads `dsl.lua` and what it needs.
fn declaring(vm: &Vm, declared: &Rc<RefCell<Declared>>, draft: &Rc<RefCell<Draft>>) -> mlua::Result<Declaring> {
    natives::failing(vm)?;
    let limiting = natives::limiting(vm)?;
    let guarding = guarding::install(vm, declared, draft)?;
    vm.native.raw_set("hooks", vm.file("hooks", include_str!("hooks.lua"))?)?;
    let collect = context::collecting(&vm.lua, &vm.context, &vm.waits)?;
    let chain = vm.file("chain", include_str!("chain.lua"))?;
    let joins = chain.call((&vm.native, &vm.respond, vm.refusal()?, &collect))?;
    let read_endpoint: Function = vm.file("endpoint", include_str!("endpoint.lua"))?.call(&vm.native)?;
    let dsl = vm.file("app", include_str!("dsl.lua"))?;
    let dsl: Table = dsl.call((&vm.native, &vm.mistake, &vm.builders, read_endpoint))?;
    vm.responder.knows_builders(&dsl.raw_get("builder")?);
    vm.rover.raw_set("server", dsl.raw_get::<Function>("server")?)?;
    Ok(Declaring { dsl, joins, collect, guarding, limiting })
}

/// The app, once its top level has run.
fn app(vm: Vm, declaring: Declaring, sealed: &Table, declared: &Declared, blueprint: &Blueprint) -> mlua::Result<App> {
    let Declaring { joins, collect, guarding, limiting, .. } = declaring;
    let refusal = vm.refusal()?;
    let Entries { entries, takes_context, endpoints, places, hooks, has_late } =
        entries(&vm.lua, sealed, joins, declared)?;
    context::install_late(&vm.lua, &vm.context, &vm.waits, &collect, refusal.clone(), has_late)?;
    let base = vec![rover_lua::anchor(&vm.lua, &entries)?, rover_lua::anchor(&vm.lua, &vm.context.metatable)?];
    vm.waits.loaded();
    Ok(App {
        coroutines: Coroutines::new(&vm.lua, base, vm.waits.marks())?,
        cors_origins: sealed.raw_get("cors_origins")?,
        gc_rounds: vm.file("gc", include_str!("gc.lua"))?.call(())?,
        close: vm.file("close", include_str!("close.lua"))?.call((&entries, refusal))?,
        contexts: vm.context.contexts,
        responder: vm.responder,
        waits: vm.waits,
        tasks: vm.tasks,
        tracing: vm.tracing,
        hooks,
        guarding,
        limiting,
        settling: vm.settling,
        places,
        takes_context,
        endpoints,
        debug: Cell::default(),
        handler_timeout: Cell::default(),
        stores: blueprint.stores.clone(),
        budget: OnceCell::new(),
        longest_body: Cell::new(u64::MAX),
        watches_waits: Cell::new(false),
        sources: vm.sources,
    })
}

/// Puts the folders of files in the order in which `dsl.lua` puts routes: the same in every VM.
fn sort_mounts(mounts: &mut [MountDecl]) {
    mounts.sort_by(|one, other| {
        let key = |mount: &MountDecl| (mount.origin.file.clone(), mount.origin.line, mount.written.clone());
        key(one).cmp(&key(other))
    });
}

/// Adds what `dsl.lua` noted, and what `draft` holds.
fn read(table: &Table, draft: Draft, declared: &mut Declared) -> mlua::Result<()> {
    mistakes(table, declared)?;
    declared.routes = draft.routes;
    declared.endpoints = draft.endpoints;
    declared.mistakes.0.extend(draft.mistakes);
    declared::limits(table, draft.limits, declared)
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
