//! docs/modules.md: `require`.

use std::path::PathBuf;

use rover_server::Server;

use crate::support::{App, each_worker_count};

/// A folder with files, removed at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str, files: &[(&str, &str)]) -> Folder {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        for (name, text) in files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        Folder(dir)
    }

    pub fn server(&self) -> Server {
        Server::from_file(self.0.join("app.lua"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn modules_are_found_beside_the_app_and_in_lua_modules() {
    let folder = Folder::new(
        "modules",
        &[
            (
                "app.lua",
                "#!/usr/bin/env rover\nlocal api = rover.server {}\nrequire('routes.users')(api)\nfunction api.get() return { require 'a', require 'deep.b', require 'c', require 'rock', require 'first' } end\nreturn api\n",
            ),
            ("a.lua", "return 'a'"),
            ("deep/b.lua", "return ..."),
            ("c/init.lua", "return 'c'"),
            ("first.lua", "return 'beside the app'"),
            ("lua_modules/share/lua/5.1/first.lua", "return 'lua_modules'"),
            ("lua_modules/share/lua/5.1/rock/init.lua", "return 'rock'"),
            ("routes/users.lua", "return function(api)\n  function api.users.get() return 'users' end\nend"),
        ],
    );
    each_worker_count(|workers| {
        let app = App::start_server(folder.server().workers(workers));
        assert_eq!(app.get("/").text(), r#"["a","deep.b","c","rock","beside the app"]"#);
        assert_eq!(app.get("/users").text(), "users");
    });
    let info = folder.server().check().expect("a good app");
    let route = info.routes().iter().find(|route| route.path == "/users").expect("the route");
    assert!(route.file.ends_with("routes/users.lua") && route.line == 2, "{route:?}");
}

#[test]
fn errors_in_modules_name_file_and_line() {
    let folder = Folder::new(
        "modules-broken",
        &[
            (
                "app.lua",
                "local api = rover.server { debug = true }\nfunction api.get() local x = require 'broken' return x end\nfunction api.raise.get() local x = require 'raises' return x end\nfunction api.call.get() require('calls')() end\nreturn api\n",
            ),
            ("broken.lua", "local x =\n"),
            ("raises.lua", "\nerror('boom')"),
            ("calls.lua", "return function()\n  local x = rover.array(5)\n  return x\nend"),
        ],
    );
    let app = App::start_server(folder.server().workers(1));
    let message = |path: &str| {
        let body: serde_json::Value = serde_json::from_slice(&app.get(path).body).expect("JSON");
        body["message"].as_str().unwrap_or_default().to_owned()
    };
    assert!(message("/").contains("broken.lua:2: unexpected symbol near '<eof>'"), "{}", message("/"));
    assert!(message("/raise").ends_with("raises.lua:2: boom"), "{}", message("/raise"));
    assert!(
        message("/call").ends_with("calls.lua:2: rover.array expects a table, not a number"),
        "{}",
        message("/call")
    );
}

#[test]
fn a_missing_or_unreadable_app_is_said_plainly() {
    let folder = Folder::new("modules-none", &[("dir/app.txt", "")]);
    let missing = folder.server().check().expect_err("no file").to_string();
    assert_eq!(missing, format!("cannot read {}: no such file", folder.0.join("app.lua").display()));
    let directory = Server::from_file(folder.0.join("dir")).check().expect_err("a folder").to_string();
    assert_eq!(directory, format!("cannot read {}: it is a directory", folder.0.join("dir").display()));
}

#[test]
fn a_module_that_has_failed_says_each_time_why() {
    let folder = Folder::new(
        "modules-again",
        &[
            (
                "app.lua",
                "local api = rover.server {}
package.preload.preloaded = function() error('preloaded', 0) end
local function problem(name) return select(2, pcall(require, name)) end
function api.p_name.get(ctx) return problem(ctx:params().name) end
function api.works.get() return require('later') end
return api",
            ),
            ("fails.lua", "local nothing\nreturn nothing.field"),
            ("one.lua", "return require('two')"),
            ("two.lua", "local one = require 'one' return one"),
            ("later.lua", "tries = (tries or 0) + 1 if tries < 3 then error('not yet', 0) end return 'try ' .. tries"),
        ],
    );
    each_worker_count(|workers| {
        let app = App::start_server(folder.server().workers(workers));
        for _ in 0..3 * workers {
            assert!(app.get("/fails").text().ends_with("fails.lua:2: attempt to index local 'nothing' (a nil value)"));
            assert_eq!(app.get("/preloaded").text(), "preloaded");
            let loops = app.get("/one").text().to_owned();
            assert!(loops.ends_with("two.lua:1: loop while loading module 'one'"), "{loops}");
        }
    });
    let app = App::start_server(folder.server().workers(1));
    let problems = [app.get("/later").text().to_owned(), app.get("/later").text().to_owned()];
    assert_eq!(problems, ["not yet", "not yet"]);
    assert_eq!(app.get("/works").text(), "try 3");
    assert_eq!(app.get("/works").text(), "try 3");
}

#[test]
fn a_module_that_has_failed_during_the_load_says_why_afterwards() {
    let folder = Folder::new(
        "modules-load-again",
        &[
            (
                "app.lua",
                "local api = rover.server {}
local early = {}
table.insert(package.loaders, function(name)
  if name == 'found' then return function() error('found, and failed', 0) end end
end)
local function problem(name) return select(2, pcall(require, name)) end
for _, name in ipairs { 'fails', 'found', 'around', 'none' } do early[name] = problem(name) end
function api.early.p_name.get(ctx) return early[ctx:params().name] end
function api.late.p_name.get(ctx) return problem(ctx:params().name) end
function api.number.get() return problem(7) end
function api.nothing.get() return problem(nil) end
return api",
            ),
            ("fails.lua", "local nothing\nreturn nothing.field"),
            (
                "around.lua",
                "local ok, problem = coroutine.resume(coroutine.create(function() local own = require 'around' return own end))\nerror(problem, 0)",
            ),
            ("waits.lua", "rover.sleep(0.001) return 1"),
        ],
    );
    let app = App::start_server(folder.server().workers(1));
    for (name, cause) in [
        ("fails", "fails.lua:2: attempt to index local 'nothing' (a nil value)"),
        ("found", "found, and failed"),
        ("around", "around.lua:1: loop while loading module 'around'"),
    ] {
        for path in ["early", "late", "late"] {
            let told = app.get(&format!("/{path}/{name}")).text().to_owned();
            assert!(told.ends_with(cause), "{path} {name}: {told}");
        }
    }
    for path in ["early", "late"] {
        let told = app.get(&format!("/{path}/none")).text().to_owned();
        assert!(told.contains("module 'none' not found:\n\tno field package.preload['none']"), "{told}");
    }
    for _ in 0..2 {
        let told = app.get("/late/waits").text().to_owned();
        assert!(told.contains("waits.lua:1: ") && !told.contains("loop"), "{told}");
    }
    assert!(app.get("/number").text().contains("module '7' not found"), "{}", app.get("/number").text());
    assert!(app.get("/nothing").text().contains("bad argument #1 to"), "{}", app.get("/nothing").text());
}

#[test]
fn a_module_with_a_syntax_error_is_told_with_the_line_that_requires_it() {
    let folder = Folder::new(
        "modules-syntax",
        &[
            ("app.lua", "local api = rover.server {}\nlocal users = require 'users'\nreturn api"),
            ("users.lua", "local function get()\n  return {\nend"),
        ],
    );
    let problem = folder.server().check().expect_err("a syntax error").to_string();
    // Lua cuts the beginning off long paths.
    let (place, cause) = problem.split_once(" error loading module 'users' from file '").expect("what is wrong");
    assert!(place.ends_with("modules-syntax/app.lua:2:"), "{problem}");
    let cause = cause.strip_prefix(&*folder.0.join("users.lua").to_string_lossy()).expect("the file");
    let (head, told) = cause.split_once("users.lua:3: ").expect("the line");
    assert!(head.starts_with("':\n\t") && told.starts_with("unexpected symbol near 'end'"), "{problem}");
}
