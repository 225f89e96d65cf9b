//! The functions by which `hooks.lua` and `chain.lua` learn which hooks guard a route or a path.
//!
//! Comes in: the places of hooks, then routes, then requests. Goes out: the places whose hooks run, as Lua values.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use rover_lua::{Returns, Shared, Stack};

use crate::exchange::context::{self, Contexts, Guarded};
use crate::exchange::response::Responder;
use crate::route::{Guards, NamedValue, Origin, Pattern, Reach, RouteDecl, RouteId};
use crate::script::vm::Vm;

use super::declared::Declared;
use super::draft::Draft;
use super::places::HookPlaces;

/// Lends to `hooks.lua` and `chain.lua` what they need.
pub(super) fn install(
    vm: &Vm,
    declared: &Rc<RefCell<Declared>>,
    draft: &Rc<RefCell<Draft>>,
) -> mlua::Result<Rc<Guarding>> {
    let (lua, native) = (&vm.lua, &vm.native);
    let shared = Shared::new(lua, draft.clone())?;
    native.raw_set("guard", shared.function(lua, guard)?)?;
    native.raw_set("guards_of_route", shared.function(lua, of_route)?)?;
    let (declared, draft) = (declared.clone(), draft.clone());
    let idle = lua.create_function(move |_, ()| Ok(draft.borrow_mut().places.idle(&declared.borrow().mounts)))?;
    native.raw_set("idle_guards", idle)?;
    let guarding = Rc::new(Guarding {
        contexts: vm.contexts().clone(),
        responder: vm.responder.clone(),
        guards: OnceCell::new(),
        routes: OnceCell::new(),
        routes_only: Cell::default(),
    });
    let shared = Shared::new(lua, guarding.clone())?;
    native.raw_set("guards_at", shared.function(lua, at)?)?;
    native.raw_set("prepared", shared.function(lua, prepared)?)?;
    let settled = guarding.clone();
    vm.settling.add(move |config| settled.routes_only.set(!config.path_guards));
    Ok(guarding)
}

/// `guard(file, line, segment…)`, with the last segment of the place first: whether it is one. A wrong one leaves its
/// mistake in `draft`.
fn guard(stack: &mut Stack<'_>, draft: &RefCell<Draft>) -> Returns {
    let draft = &mut *draft.borrow_mut();
    let fields: Vec<&[u8]> = (3..=stack.top()).rev().map(|index| stack.bytes(index).unwrap_or_default()).collect();
    let is_place = match Pattern::parse(&fields) {
        Ok(pattern) if draft.places.patterns.len() < usize::from(u16::MAX) => {
            draft.places.patterns.push(pattern);
            true
        }
        Ok(_) => false,
        Err(mistake) => {
            let file = String::from_utf8_lossy(stack.bytes(1).unwrap_or_default());
            let origin = Origin { file: Arc::from(file), line: stack.number(2) as u32 };
            draft.mistakes.push(format!("{origin}: {mistake}"));
            false
        }
    };
    stack.push_boolean(is_place);
    Ok(1)
}

/// `guards_of_route()`: the places above all paths of the last route, counted from 1, as an array from the outermost inward;
/// and whether there are others, above some of them.
fn of_route(stack: &mut Stack<'_>, draft: &RefCell<Draft>) -> Returns {
    let draft = &mut *draft.borrow_mut();
    let mut places = Vec::new();
    if let Some(route) = draft.routes.last() {
        places.extend(draft.places.guards().of_route(&route.pattern));
    }
    stack.push_table(places.len(), 0);
    let array = stack.top();
    let (mut n, mut depends) = (0, false);
    for (place, reach) in places {
        if let Some(reached) = draft.places.reached.get_mut(usize::from(place)) {
            *reached = true;
        }
        match reach {
            Reach::Always => {
                n += 1;
                stack.push_number(f64::from(place) + 1.0);
                stack.set_item(array, n);
            }
            _ => depends = true,
        }
    }
    stack.push_boolean(depends);
    Ok(2)
}

/// What the functions of `chain.lua` share.
pub(super) struct Guarding {
    contexts: Rc<Contexts>,
    responder: Rc<Responder>,
    /// Known once the app has loaded, where there are hooks.
    pub(super) guards: OnceCell<Guards>,
    /// The pattern of each route, known once the app has loaded.
    routes: OnceCell<Vec<Pattern>>,
    /// Hooks guard only the routes that are declared at and below their place: `path_guards` is off.
    routes_only: Cell<bool>,
}

impl Guarding {
    /// Sets where hooks are.
    pub(super) fn guard(&self, places: HookPlaces) {
        if let Some(guards) = places.finish() {
            let _ = self.guards.set(guards);
        }
    }

    /// Sets what the app's routes are.
    pub(super) fn know(&self, routes: &[RouteDecl]) {
        let _ = self.routes.set(routes.iter().map(|route| route.pattern.clone()).collect());
    }
}

/// `guards_at(ctx)`: the places whose hooks run for the request, as text.
fn at(stack: &mut Stack<'_>, guarding: &Guarding) -> Returns {
    let request_key = context::request_key(stack, &guarding.contexts, "request_id()")?;
    let mut request = guarding.contexts.requests.get_mut(request_key)?;
    let key = match &request.guarded {
        Some(guarded) => guarded.key.clone(),
        None => {
            let mut guarded = Guarded::default();
            let route = request.route.as_ref().map(|(id, _)| *id);
            let known = route.and_then(|id: RouteId| guarding.routes.get()?.get(id.index()));
            let (path, values) = (request.head.uri.path(), &mut guarded.values);
            guarded.key = match (guarding.guards.get(), known) {
                (Some(guards), Some(known)) if guarding.routes_only.get() => {
                    as_text(&guards.always_of(known, path, values)).unwrap_or_default()
                }
                (Some(guards), known) => key(guards, path, known, values).unwrap_or_default(),
                (None, _) => String::new(),
            };
            let key = guarded.key.clone();
            request.guarded = Some(Box::new(guarded));
            key
        }
    };
    stack.push_bytes(key.as_bytes());
    Ok(1)
}

/// The places at and above a path, as [`at`] tells of them; `None` where there are none.
pub(super) fn key(
    guards: &Guards,
    path: &str,
    known: Option<&Pattern>,
    values: &mut Vec<NamedValue>,
) -> Option<String> {
    as_text(&guards.at(path, known, values))
}

fn as_text(places: &[u16]) -> Option<String> {
    let mut key = String::new();
    for place in places {
        let _ = write!(key, "{} ", usize::from(*place) + 1);
    }
    (!key.is_empty()).then_some(key)
}

/// `prepared(ctx)`: the response that Rover has ready for the request, if it has one.
fn prepared(stack: &mut Stack<'_>, guarding: &Guarding) -> Returns {
    let request_key = context::request_key(stack, &guarding.contexts, "request_id()")?;
    let mut request = guarding.contexts.requests.get_mut(request_key)?;
    let response = request.guarded.as_mut().and_then(|guarded| {
        let response = guarded.response.take();
        guarded.is_missing = response.as_ref().is_none_or(|response| response.status() == StatusCode::NOT_FOUND);
        response
    });
    drop(request);
    match response {
        Some(response) => guarding.responder.push_response(stack, response),
        None => stack.push_nil(),
    }
    Ok(1)
}
