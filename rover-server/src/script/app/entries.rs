//! The functions that answer requests, joined from handlers and hooks, in the order of their numbers.

use std::ffi::c_int;

use mlua::{Function, Lua, Table, Value};

use super::declared::{Declared, Hooks};
use super::endpoint::{self, Endpoint};

/// The functions that answer requests, and what is known of each.
pub(super) struct Entries {
    pub(super) entries: Table,
    pub(super) takes_context: Vec<bool>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) places: Vec<String>,
    pub(super) hooks: Hooks,
    /// Whether there are requests whose body comes while Lua code runs.
    pub(super) has_late: bool,
}

/// The functions of `chain.lua`.
pub(super) type Joins = (Function, Function, Function, Function);

/// The table of entry functions: the routes in the order of their ids, then the hooks, then the functions of requests whose
/// body comes late.
pub(super) fn entries(
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
