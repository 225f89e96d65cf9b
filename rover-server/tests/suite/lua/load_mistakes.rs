//! What is wrong with an app when it is loaded: every mistake at once, with file and line.

use rover_server::Server;

use crate::support::App;

/// The report about an app, a line for each mistake.
fn report(code: &str) -> Vec<String> {
    let error = Server::from_source("app.lua", code).check().expect_err("the app has mistakes");
    assert!(error.is_app());
    error.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn all_mistakes_come_at_once() {
    let code = r#"local api = rover.server { prot = 1, workers = "many", [1] = 2, log_level = {} }
function api.users.gett(ctx) end
api.users.get = {}
function api.posts.get(ctx) end
function api.posts.get(ctx) end
function api.posts.p_id.get(ctx) end
function api.posts.p_pid.put(ctx) end
api["a/b"].get = function() end
api.x.p_a.p_a.get = function() end
api.x["{*rest}"].more.get = function() end
api.x["p_"].get = function() end
api.before = print
api.after.x = 5
function api.before.auth() end
function api.before.auth() end
api.chat.ws = 5
function api.room.ws.get() end
api.settings = { a = 1 }
function api.on_start() end
function api.on_start() end
api.on_error = true
rover.server {}
"#;
    let expected = [
        "app.lua:1: config keys are names, not a number: write key = value",
        "app.lua:1: log_level must be \"debug\", \"info\", \"warn\", \"error\" or \"off\", got a table",
        "app.lua:1: unknown config key \"prot\", did you mean \"port\"?",
        "app.lua:1: workers must be a whole number from 1 to 1024, got \"many\"",
        "app.lua:2: api.users.gett: unknown verb 'gett'; did you mean 'get'? The verbs are get, head, post, put, patch, delete, options, any; for a path, write function api.users.gett.get(ctx)",
        "app.lua:3: api.users.get is a table without a function: write api.users.get = { …, function(ctx) … end }",
        "app.lua:5: GET /posts already has a handler (app.lua:4); remove one of the two",
        "app.lua:8: the segment \"a/b\" holds a \"/\"; write one field for each segment: api[\"a\"][\"b\"]",
        "app.lua:9: the parameter name \"a\" stands twice in one path; give each parameter its own name",
        "app.lua:10: \"{*rest}\" takes the rest of the path, so nothing can follow it; make it the last segment",
        "app.lua:11: \"p_\" needs a parameter name of letters, digits and \"_\" that does not begin with a digit, such as p_id",
        "app.lua:12: give this hook a name: function api.before.NAME(ctx)",
        "app.lua:13: the hook 'x' must be a function, not a number",
        "app.lua:15: the hook 'auth' is already declared (app.lua:14); give one of the two another name",
        "app.lua:16: api.chat.ws must be a function, not a number",
        "app.lua:17: api.room.ws: ws is reserved for WebSockets; declare one with function api.room.ws(ws)",
        "app.lua:18: api.settings cannot be a table; declare handlers, as in function api.settings.get(ctx)",
        "app.lua:20: api.on_start is already declared (app.lua:19); remove one of the two",
        "app.lua:21: api.on_error must be a function, not a boolean",
        "app.lua:22: rover.server may be called once per app; the first call is at app.lua:1",
        "app.lua: the app must end with `return api`, the value that rover.server gave",
    ];
    assert_eq!(report(code), expected);
}

#[test]
fn an_app_without_rover_server_or_without_its_return() {
    for code in ["", "return {}", "local x = 1"] {
        assert_eq!(report(code), ["app.lua: the app never calls rover.server { … }"], "{code}");
    }
    for tail in ["", "return 5", "return {}"] {
        let code = format!("local api = rover.server {{ prot = 1 }}\n{tail}");
        let expected = [
            "app.lua:1: unknown config key \"prot\", did you mean \"port\"?",
            "app.lua: the app must end with `return api`, the value that rover.server gave",
        ];
        assert_eq!(report(&code), expected, "{tail}");
    }
}

#[test]
fn errors_of_the_top_level_name_their_line_and_do_not_hide_what_was_found_before() {
    assert_eq!(report("local x = \nreturn"), ["app.lua:2: unexpected symbol near 'return'"]);
    let code = "local api = rover.server {}\napi.x.get = 1\nlocal function f() error('boom') end\nf()\nreturn api";
    assert_eq!(
        report(code),
        [
            "app.lua:2: api.x.get must be a function, or a table with one, not a number",
            "app.lua:3: boom",
            "  app.lua:3: in function 'f'",
            "  app.lua:4",
        ]
    );
    for (code, message) in [
        ("local x = nil\nx.y = 1", "app.lua:2: attempt to index local 'x' (a nil value)"),
        ("rover.server(5)", "app.lua:1: rover.server expects a table, not a number"),
        (
            "local api = rover.server {}\nlocal x = api.text({})",
            "app.lua:2: the text of a response is a string, not a table",
        ),
        ("local api = rover.server {}\napi.users()", "app.lua:2: api.users is a path, not a function"),
        (
            "local api = rover.server {}\napi[print].get = print",
            "app.lua:2: a path segment is a string, not a function",
        ),
        ("rover.env.X = 1", "app.lua:1: rover.env cannot be changed: it is the server's environment"),
        ("local x = require 'no.such.module'", "app.lua:1: module 'no.such.module' not found:"),
        ("error({ code = 5 })", "app.lua:1: {\"code\":5}"),
    ] {
        assert_eq!(report(code)[0], message, "{code}");
    }
}

#[test]
fn an_error_of_the_top_level_hides_nothing_of_what_was_declared_before() {
    let head = r#"local api = rover.server { prt = 1, log_level = "loud" }
function api.a.gett() end
function api.b.get() end
function api.b.get() end
api["a/b"].get = print
api.c.limit { rate = "often" }
api.d.static { dir = "no such folder" }
function api.before.check() end
"#;
    let found = [
        "app.lua:1: log_level must be \"debug\", \"info\", \"warn\", \"error\" or \"off\", got \"loud\"",
        "app.lua:1: unknown config key \"prt\", did you mean \"port\"?",
        "app.lua:2: api.a.gett: unknown verb 'gett'; did you mean 'get'? The verbs are get, head, post, put, patch, delete, options, any; for a path, write function api.a.gett.get(ctx)",
        "app.lua:4: GET /b already has a handler (app.lua:3); remove one of the two",
        "app.lua:5: the segment \"a/b\" holds a \"/\"; write one field for each segment: api[\"a\"][\"b\"]",
    ];
    for (tail, error) in [
        ("error('x')", "app.lua:9: x"),
        ("api[true].get = print", "app.lua:9: a path segment is a string, not a boolean"),
        ("local t = nil\nt.x = 1", "app.lua:10: attempt to index local 't' (a nil value)"),
    ] {
        let report = report(&format!("{head}{tail}\nreturn api"));
        assert_eq!(report[..found.len()], found, "{tail}");
        assert!(report[found.len()].starts_with("app.lua:6: api.c.limit: "), "{report:?}");
        assert!(report[found.len() + 1].starts_with("app.lua:7: api.d.static: "), "{report:?}");
        assert_eq!(report[found.len() + 2..], [error], "{tail}");
    }
    // What does not run at all has declared nothing.
    assert_eq!(report("error('x')"), ["app.lua:1: x"]);
    let error =
        Server::from_source("app.lua", format!("{head}error('x')")).workers(2).port(0).bind().expect_err("wrong");
    assert_eq!(error.to_string().lines().count(), found.len() + 3, "{error}");
}

#[test]
fn routes_from_helpers_are_placed_where_they_are_declared() {
    let code = r#"local api = rover.server {}
local function declare(node, handler)
  node.get = handler
end
declare(api.a, print)
declare(api.a, print)
return api
"#;
    assert_eq!(report(code), ["app.lua:3: GET /a already has a handler (app.lua:3); remove one of the two"]);
}

#[test]
fn routes_and_hooks_cannot_be_declared_later() {
    let code = r#"local api = rover.server { debug = true }
local before, node = api.before, api.late
function api.get(ctx) api.get = print end
function api.a.get(ctx) before.x = print end
function api.b.get(ctx) node.get = print end
function api.c.get(ctx) api.new.get = print end
return api
"#;
    let app = App::start(code, 1);
    for (path, message) in [
        (
            "/",
            "app.lua:3: assigning to api.get after the app has loaded: routes and hooks are declared at its top level",
        ),
        (
            "/a",
            "app.lua:4: adding the hook 'x' after the app has loaded: routes and hooks are declared at its top level",
        ),
        (
            "/b",
            "app.lua:5: assigning to api.late.get after the app has loaded: routes and hooks are declared at its top level",
        ),
        ("/c", "app.lua:6: api has no field 'new'; routes and hooks are declared at the top level of the app"),
    ] {
        let body: serde_json::Value = serde_json::from_slice(&app.get(path).body).expect("JSON");
        assert_eq!(body["message"], message, "{path}");
    }
}

#[test]
fn a_failing_on_start_ends_the_start() {
    let code = "local api = rover.server {}\nlocal function f() error('no database') end\nfunction api.on_start()\nf()\nend\nreturn api";
    let error = Server::from_source("app.lua", code).workers(1).port(0).bind().expect_err("on_start fails");
    let expected = "on_start failed: app.lua:2: no database\n  app.lua:2: in function 'f'\n  app.lua:4";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_hook_that_guards_nothing_is_a_mistake() {
    let code = r#"local api = rover.server {}
function api.admin.get() end
function api.amdin.before.auth() end
function api.admin.p_id.after.seal() end
function api.before.all() end
function api.admin.before.auth() end
return api
"#;
    let expected = [
        "app.lua:3: the hook 'auth' never runs, for there is no route or folder of files at api.amdin or below; correct its path",
        "app.lua:4: the hook 'seal' never runs, for there is no route or folder of files at api.admin.p_id or below; correct its path",
    ];
    assert_eq!(report(code), expected);
    assert!(
        Server::from_source("app.lua", "local api = rover.server {}\nfunction api.before.all() end\nreturn api")
            .check()
            .is_ok()
    );
}

#[test]
fn the_table_of_an_endpoint_is_checked() {
    let code = r#"local api = rover.server {}
local function f() end
api.a.post = { body = true, body_size_limit = "1MB", timeout = "500ms", stream_body = false, f }
api.b.post = { bodi = true, f }
api.c.post = { body_limit_size = 5, f }
api.d.post = { body = 5, f }
api.e.post = { body_size_limit = "much", timeout = -1, f }
api.f.post = { f, f }
api.g.post = { stream_body = true, f }
api.h.post = { stream_body = "yes", body_size_limit = 5, f }
api.i.post = { body = true }
api.j.post = { colour = "red", f }
api.k.any = { body = true, f }
return api
"#;
    assert_eq!(
        report(code),
        [
            "app.lua:4: api.b.post has an unknown key \"bodi\", did you mean \"body\"?",
            "app.lua:5: api.c.post has an unknown key \"body_limit_size\"; the keys are body, body_size_limit, stream_body, timeout",
            "app.lua:6: api.d.post body must be true, got 5",
            "app.lua:7: api.e.post body_size_limit must be a size: a number of bytes, or text such as \"10MB\", got \"much\"",
            "app.lua:7: api.e.post timeout must be a time: seconds, or text such as \"500ms\"; 0 lets the handler wait, got -1",
            "app.lua:8: api.f.post has one function, and keys with names beside it",
            "app.lua:9: api.g.post streams its body, which needs a limit of its own: add body_size_limit",
            "app.lua:10: api.h.post stream_body must be true or false, got \"yes\"",
            "app.lua:11: api.i.post is a table without a function: write api.i.post = { …, function(ctx) … end }",
            "app.lua:12: api.j.post has an unknown key \"colour\"; the keys are body, body_size_limit, stream_body, timeout",
        ]
    );
}
