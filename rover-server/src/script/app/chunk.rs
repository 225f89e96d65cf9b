//! The app's top-level code: read from its file, and run.

use std::future::poll_fn;
use std::rc::Rc;

use mlua::{Function, IntoLuaMulti, Lua, Table, Value};
use rover_lua::{Coroutines, Waits};

use super::{Blueprint, Source, modules};
use crate::exchange::failure::Failure;
use crate::runtime::execution::Execution;

/// Reads the top-level code of the app.
pub(super) fn read(lua: &Lua, blueprint: &Blueprint, waits: &Rc<Waits>) -> mlua::Result<Function> {
    let name = blueprint.source.name();
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

/// Runs the top-level code in a coroutine, so that it can be cut into slices, and gives back what it returned.
pub(super) async fn run(lua: &Lua, waits: &Rc<Waits>, dsl: &Table, chunk: Function) -> mlua::Result<Value> {
    let coroutines = Coroutines::new(lua, Vec::new(), waits.marks())?;
    let mut coroutine = coroutines.take();
    let called = (dsl.raw_get::<Function>("run")?, chunk).into_lua_multi(lua)?;
    rover_lua::push_values(lua, &mut coroutine.stack(), called)?;
    let mut execution = Execution::new(coroutine, 1);
    match poll_fn(|cx| execution.poll(cx, waits, |coroutine, next| next.run(coroutine))).await {
        Ok(mut coroutine) => {
            let result = rover_lua::pop_value(lua, &mut coroutine.stack())?;
            match coroutine.stack().boolean(1) {
                true => Ok(result),
                false => Err(mlua::Error::runtime(result.to_string()?)),
            }
        }
        Err(mut coroutine) => {
            if let Some(stopped) = rover_lua::stopped() {
                return Err(mlua::Error::runtime(Failure::stopped(stopped).described()));
            }
            let problem = rover_lua::pop_value(lua, &mut coroutine.stack())?;
            Err(mlua::Error::runtime(problem.to_string()?))
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
