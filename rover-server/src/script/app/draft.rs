//! The declarations as `dsl.lua` tells of them, one call for each.
//!
//! Comes in: plain values on a Lua stack. Goes out: [`Draft`], which `load.rs` adds to the rest of what the app declares.

use std::cell::RefCell;
use std::sync::Arc;

use mlua::Value;
use rover_lua::{Returns, Stack};

use super::config_value::{DEEPEST_CONFIG, config_value};
use super::endpoint::{Endpoint, KEYS};
use super::places::HookPlaces;
use crate::route::{Origin, Pattern, RouteDecl, Verb};
use crate::spelling;

/// What the app has declared so far, as `dsl.lua` tells of it.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) routes: Vec<RouteDecl>,
    pub(super) mistakes: Vec<String>,
    /// Routes and limits, by their places.
    pub(super) limits: Vec<(u32, u16)>,
    /// What is said of some routes, by their places, and of the one that is being read.
    pub(super) endpoints: Vec<(usize, Endpoint)>,
    pub(super) endpoint: Endpoint,
    /// Where hooks are.
    pub(super) places: HookPlaces,
    /// The file of the last route: most often that of the next one.
    file: Option<Arc<str>>,
}

/// `limit(route, limit)`: both by their places, counted from 1.
pub(super) fn limit(stack: &mut Stack<'_>, draft: &RefCell<Draft>) -> Returns {
    let place = |index| (stack.number(index) as u32).saturating_sub(1);
    let (route, limit) = (place(1), place(2));
    draft.borrow_mut().limits.push((route, u16::try_from(limit).unwrap_or(u16::MAX)));
    Ok(0)
}

/// `route(verb, file, line, segment…)`, with the last segment of the path first. A wrong one leaves its mistake in `draft`.
///
/// One call for each route, with plain values: reading tables through mlua takes ten times as long.
pub(super) fn route(stack: &mut Stack<'_>, draft: &RefCell<Draft>) -> Returns {
    let draft = &mut *draft.borrow_mut();
    let text = |index| String::from_utf8_lossy(stack.bytes(index).unwrap_or_default());
    let name = text(2);
    let file = match &draft.file {
        Some(file) if **file == *name => file.clone(),
        _ => draft.file.insert(Arc::from(name)).clone(),
    };
    let origin = Origin { file, line: stack.number(3) as u32 };
    let fields: Vec<&[u8]> = (4..=stack.top()).rev().map(|index| stack.bytes(index).unwrap_or_default()).collect();
    match (Verb::from_name(&text(1)), Pattern::parse(&fields)) {
        (Some(verb), Ok(pattern)) => draft.routes.push(RouteDecl { verb, pattern, origin }),
        (_, Err(mistake)) => draft.mistakes.push(format!("{origin}: {mistake}")),
        (None, _) => {}
    }
    Ok(0)
}

/// Reads one key of the table of the route that comes next: nothing, or what is wrong.
pub(super) fn endpoint_key(draft: &RefCell<Draft>, key: &Value, value: Value) -> Option<String> {
    let Some(name) = key.as_string().map(|name| name.to_string_lossy()) else {
        return Some("has one function, and keys with names beside it".to_owned());
    };
    if !KEYS.contains(&name.as_str()) {
        return Some(match spelling::nearest(&name, KEYS) {
            Some(known) => format!("has an unknown key {name:?}, did you mean {known:?}?"),
            None => format!("has an unknown key {name:?}; the keys are {}", KEYS.join(", ")),
        });
    }
    let value = config_value(value, DEEPEST_CONFIG);
    let read = draft.borrow_mut().endpoint.set(&name, &value);
    read.err().map(|takes| format!("{name} must be {takes}, got {value}"))
}

/// Ends the table whose keys were read: its number, counted from 1, and what is wrong with it as a whole.
pub(super) fn endpoint_end(draft: &RefCell<Draft>) -> (usize, Option<&'static str>) {
    let mut draft = draft.borrow_mut();
    let endpoint = std::mem::take(&mut draft.endpoint);
    let problem = (endpoint.streams && endpoint.body_size_limit.is_none())
        .then_some("streams its body, which needs a limit of its own: add body_size_limit");
    draft.endpoints.push((usize::MAX, endpoint));
    (draft.endpoints.len(), problem)
}

/// `endpoint_of(number, route)`: which route it belongs to, by the route's place, counted from 1.
pub(super) fn endpoint_of(draft: &RefCell<Draft>, number: usize, route: usize) {
    if let Some(endpoint) = draft.borrow_mut().endpoints.get_mut(number.wrapping_sub(1)) {
        endpoint.0 = route.saturating_sub(1);
    }
}
