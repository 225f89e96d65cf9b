//! Where `require` finds modules, and of which version of their files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlua::{Lua, Table};
use rover_lua::Waits;

use super::{Code, Files};
use crate::script::vm::file;

/// Where `require` looks once it has found nothing beside the app and where LuaJIT looks by itself: where Debian and
/// others install Lua modules as packages.
const SYSTEM_PATH: &str = "/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua";

/// As [`SYSTEM_PATH`], for C modules.
fn system_cpath() -> String {
    format!("/usr/lib/{}-linux-gnu/lua/5.1/?.so;/usr/lib/lua/5.1/?.so", std::env::consts::ARCH)
}

/// Lets `require` look beside the app first, then in `lua_modules` and the user's LuaRocks tree, then where LuaJIT
/// looks by itself, then among the system's packages.
pub(super) fn search(lua: &Lua, app: Option<&Path>) -> mlua::Result<()> {
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
pub(super) fn keep(lua: &Lua, files: &Files, code: &Code, waits: &Rc<Waits>) -> mlua::Result<()> {
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
    let note = lua.create_function(move |_, name: mlua::LuaString| {
        noted.note(PathBuf::from(OsStr::from_bytes(&name.as_bytes())));
        Ok(())
    })?;
    let (files, code) = (files.clone(), code.clone());
    let keep = lua.create_function(move |lua, (name, file): (mlua::LuaString, mlua::LuaString)| {
        let file = PathBuf::from(OsStr::from_bytes(&file.as_bytes()));
        files.note(file.clone());
        let read = code.read(Some(&name.as_bytes()), &file);
        read.ok().map(|text| lua.create_string(&*text.code)).transpose()
    })?;
    let waits = waits.clone();
    let is_loaded = lua.create_function(move |_, ()| Ok(waits.is_loaded()))?;
    file(lua, "modules", include_str!("modules.lua"))?.call((
        known,
        keep,
        note,
        is_loaded,
        rover_lua::mistake_function(lua)?,
    ))
}
