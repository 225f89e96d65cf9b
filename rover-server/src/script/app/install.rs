//! Prepares a VM for an app: contexts, responses, and the parts of the Lua surface.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Function, Lua, Table};
use rover_lua::Waits;
use rover_lua::json::Vocabulary;

use super::declared::Declared;
use super::draft::Draft;
use super::{Blueprint, natives};
use crate::exchange::context::{self, Bodies};
use crate::exchange::response::Responder;
use crate::observe::metrics::Sources;
use crate::observe::otlp::Tracing;
use crate::script::tasks::{self, Tasks};
use crate::script::vm::{Settling, Vm, file};
use crate::script::{db, fetch, proxy, state, stdlib, stream, websocket};

/// Adds a part of the Lua surface to a VM: functions of `rover`, builders of responses, methods of contexts.
type Install = fn(&Vm, &Blueprint) -> mlua::Result<()>;

/// The parts of the Lua surface, in the order in which they are installed and tell what they count.
const PARTS: &[Install] = &[
    |vm, blueprint| stdlib::install(vm, blueprint.workers),
    |vm, _| tasks::install(&vm.lua, &vm.rover, &vm.tasks, &vm.sources),
    |vm, _| fetch::install(vm),
    |vm, _| proxy::install(vm),
    |vm, _| stream::install(vm),
    |vm, blueprint| websocket::install(vm, blueprint.hub.clone()),
    |vm, _| state::install(vm),
    |vm, blueprint| db::install(vm, blueprint.source.folder()),
];

/// Makes contexts and responses.
pub(super) fn prepare(
    lua: &Lua,
    blueprint: &Blueprint,
    declared: &Rc<RefCell<Declared>>,
    draft: &Rc<RefCell<Draft>>,
) -> mlua::Result<Vm> {
    let waits = Waits::install(lua)?;
    let (array_meta, body_meta) = (lua.create_table()?, lua.create_table()?);
    let requests = Rc::default();
    let bodies = Rc::new(Bodies::new(lua, &body_meta, &requests)?);
    let vocabulary = Rc::new(Vocabulary::new(lua, &array_meta, bodies.clone())?);
    let context = context::install(lua, requests, vocabulary.clone(), bodies, &body_meta)?;
    let mistake = rover_lua::mistake_function(lua)?;
    let native = natives::early(lua, &blueprint.source.name(), &context, declared, draft)?;
    let (response_meta, builders, respond): (Table, Table, Function) =
        file(lua, "response", include_str!("response.lua"))?.call((&native, &mistake))?;
    vocabulary.refuses(context.metatable.to_pointer(), response_meta.to_pointer());
    let responder = Rc::new(Responder::new(lua, &response_meta)?);
    let tracing = Tracing::new(&context.contexts.requests);
    let tasks = Tasks::new(lua, &waits, &context.contexts, &responder, &tracing)?;
    Ok(Vm {
        lua: lua.clone(),
        mistake,
        rover: lua.create_table()?,
        native,
        context,
        response_meta,
        builders,
        respond,
        array_meta,
        vocabulary,
        responder,
        waits,
        tasks,
        tracing,
        figures: Arc::default(),
        worker: blueprint.worker,
        stores: blueprint.stores.clone(),
        sources: Sources::default(),
        settling: Settling::default(),
    })
}

/// Installs all parts of the Lua surface.
pub(super) fn parts(vm: &Vm, blueprint: &Blueprint) -> mlua::Result<()> {
    PARTS.iter().try_for_each(|install| install(vm, blueprint))
}
