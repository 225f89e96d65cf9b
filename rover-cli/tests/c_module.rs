//! A C module, compiled here, finds LuaJIT's functions in the `rover` binary and runs in an app.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

use std::path::PathBuf;
use std::process::Command;

/// A module as LuaRocks builds them: its `lua_*` functions are left open, for the program that loads it to have them.
const MODULE: &str = r#"
#include <stddef.h>
typedef struct lua_State lua_State;
typedef int (*lua_CFunction)(lua_State *);
typedef struct { const char *name; lua_CFunction func; } luaL_Reg;
extern double luaL_checknumber(lua_State *, int);
extern void lua_pushnumber(lua_State *, double);
extern void lua_createtable(lua_State *, int, int);
extern void luaL_register(lua_State *, const char *, const luaL_Reg *);

static int sum(lua_State *L) {
  lua_pushnumber(L, luaL_checknumber(L, 1) + luaL_checknumber(L, 2));
  return 1;
}

static const luaL_Reg functions[] = {{"sum", sum}, {NULL, NULL}};

int luaopen_tiny(lua_State *L) {
  lua_createtable(L, 0, 1);
  luaL_register(L, NULL, functions);
  return 1;
}
"#;

const APP: &str = r#"
local tiny = require "tiny"
assert(tiny.sum(20, 22) == 42)
assert(not pcall(tiny.sum, "no number"))

local api = rover.server {}
function api.get(ctx) return tiny.sum(1, 2) end
return api
"#;

#[test]
fn a_c_module_beside_the_app() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("c_module");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("tiny.c"), MODULE).unwrap();
    std::fs::write(dir.join("app.lua"), APP).unwrap();
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o", "tiny.so", "tiny.c"]).current_dir(&dir).status().unwrap();
    assert!(compiled.success());

    let output =
        Command::new(env!("CARGO_BIN_EXE_rover")).args(["check", "app.lua"]).current_dir(&dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "app.lua: ok, 1 route\n");
}

/// A module that brings an SQLite of its own, as lsqlite3 and luasql.sqlite3 do.
const SQLITE: &str = r#"
typedef struct lua_State lua_State;
extern void lua_pushstring(lua_State *, const char *);

const char *sqlite3_libversion(void) { return "the module's own"; }

int luaopen_ownsqlite(lua_State *L) {
  lua_pushstring(L, sqlite3_libversion());
  return 1;
}
"#;

const BESIDE: &str = r#"
local ffi = require "ffi"
ffi.cdef "const char *sqlite3_libversion(void);"
assert(not pcall(function() return ffi.C.sqlite3_libversion end), "rover exports its SQLite")
assert(require "ownsqlite" == "the module's own")

return rover.server { db = "sqlite:app.db" }
"#;

#[test]
fn a_module_with_an_sqlite_of_its_own_gets_that_one() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("own_sqlite");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("ownsqlite.c"), SQLITE).unwrap();
    std::fs::write(dir.join("app.lua"), BESIDE).unwrap();
    let arguments = ["-shared", "-fPIC", "-o", "ownsqlite.so", "ownsqlite.c"];
    assert!(Command::new("cc").args(arguments).current_dir(&dir).status().unwrap().success());
    let output =
        Command::new(env!("CARGO_BIN_EXE_rover")).args(["check", "app.lua"]).current_dir(&dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
