//! docs/errors.md: errors of handlers and hooks, `on_error`, `not_found`.

use serde_json::{Value, json};

use crate::support::{Answer, App, each_worker_count};

fn value(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no JSON: {}", answer.text()))
}

const APP: &str = r#"
local api = rover.server {}
local function deep(n)
  if n == 0 then error("deep") end
  deep(n - 1)
  return nil
end
function api.boom.get(ctx)
  error("boom")
end
function api.deep.get(ctx)
  deep(2)
  return 1
end
function api.index.get(ctx)
  local nothing = nil
  return nothing.field
end
function api.tail.get(ctx) return error("tail") end
function api.text.get(ctx) return api.text(nil) end
function api.zero.get(ctx) error("no place", 0) end
function api.null.get(ctx) error(nil) end
function api.plain.get(ctx) error { code = 7 } end
function api.low.get(ctx) error { status = 200 } end
function api.asked.get(ctx) error { status = 422, error = "asked", field = "name" } end
function api.response.get(ctx) error(api:error(402, "pay"):header("X-Price", 5)) end
function api.overflow.get(ctx) local function f() return 1 + f() end return f() end
function api.yield.get(ctx) coroutine.yield() end
function api.caught.get(ctx) return { pcall(error, "x", 0) } end
function api.module.get(ctx) string.rep() end
return api
"#;

#[test]
fn errors_are_hidden_from_clients() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        for path in ["boom", "deep", "index", "tail", "text", "zero", "null", "plain", "low", "overflow", "yield"] {
            let answer = app.get(&format!("/{path}"));
            assert_eq!(answer.status, 500, "{path}");
            assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
            let id = answer.header("x-request-id").expect("an id");
            assert_eq!(value(&answer), json!({ "error": "Internal Server Error", "request_id": id }), "{path}");
        }
        assert_eq!(app.get("/caught").text(), r#"[false,"x"]"#);
    });
}

#[test]
fn debug_shows_message_and_traceback_without_our_own_frames() {
    each_worker_count(|workers| {
        let app = App::start(&APP.replace("server {}", "server { debug = true }"), workers);
        for (path, message, traceback) in [
            ("boom", "app.lua:9: boom", "app.lua:9"),
            (
                "deep",
                "app.lua:4: deep",
                "app.lua:4: in function 'deep'\napp.lua:5: in function 'deep'\napp.lua:5: in function 'deep'\napp.lua:12",
            ),
            ("index", "app.lua:17: attempt to index local 'nothing' (a nil value)", "app.lua:17"),
            ("tail", "app.lua:19: tail", ""),
            ("text", "app.lua:20: the text of a response is a string, not nil", ""),
            ("zero", "no place", "app.lua:21"),
            ("null", "app.lua:22: an error value of type nil", "app.lua:22"),
            ("plain", "app.lua:23: {\"code\":7}", "app.lua:23"),
            ("low", "app.lua:24: {\"status\":200}", "app.lua:24"),
            (
                "yield",
                "app.lua:28: coroutine.yield was called in a handler itself: only a coroutine of your own can yield",
                "app.lua:28",
            ),
            ("module", "app.lua:30: bad argument #1 to 'rep' (string expected, got no value)", "app.lua:30"),
        ] {
            let answer = value(&app.get(&format!("/{path}")));
            assert_eq!(answer["message"], message, "{path}");
            assert_eq!(answer["traceback"], traceback, "{path}");
        }
        let overflow = value(&app.get("/overflow"));
        assert!(overflow["message"].as_str().is_some_and(|m| m.contains("stack overflow")), "{overflow}");
        // The worker serves on.
        assert_eq!(app.get("/asked").status, 422);
    });
}

/// What Rover's own code calls the functions that it was given is no name of theirs.
#[test]
fn a_traceback_names_functions_as_the_app_does() {
    let code = r#"
local api = rover.server { debug = true }
function api.one.before.check(ctx) error("one") end
function api.one.get() end
local function deep() error("two") end
function api.two.before.check(ctx) deep() end
function api.two.get() end
api.three.limit { rate = "9/s", per = function() error("three") end }
function api.three.get() end
function api.four.get() local x = deep() return x end
return api
"#;
    each_worker_count(|workers| {
        let app = App::start(code, workers);
        for (path, traceback) in [
            ("one", "app.lua:3"),
            ("two", "app.lua:5: in function 'deep'\napp.lua:6"),
            ("three", "app.lua:8"),
            ("four", "app.lua:5: in function 'deep'\napp.lua:10"),
        ] {
            assert_eq!(value(&app.get(&format!("/{path}")))["traceback"], traceback, "{path}");
        }
    });
}

#[test]
fn errors_that_are_answers() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        let asked = app.get("/asked");
        assert_eq!(asked.status, 422);
        assert_eq!(value(&asked), json!({ "status": 422, "error": "asked", "field": "name" }));
        let response = app.get("/response");
        assert_eq!((response.status, response.header("x-price")), (402, Some("5")));
        assert_eq!(value(&response), json!({ "error": "pay" }));
    });
}

const ON_ERROR: &str = r#"
local api = rover.server {}
function api.on_error(ctx, err)
  local how = ctx:query().how
  if how == "text" then return "caught: " .. tostring(err) end
  if how == "kind" then return type(err) .. " " .. tostring(type(err) == "table" and err.status) end
  if how == "boom" then error("on_error itself") end
  if how == "asked" then error { status = 503, error = "from on_error" } end
  if how == "response" then error(api.text:status(504, "from on_error")) end
  if how == "bad" then return print end
end
function api.get(ctx) error("boom") end
function api.asked.get(ctx) error { status = 409, error = "taken" } end
function api.json.post(ctx) return ctx:json() end
function api.hooks.before.fail(ctx) error("in before") end
function api.hooks.after.mark(ctx, res) res:header("X-After", "ran") end
function api.hooks.get(ctx) end
function api.index.get(ctx) local x = nil return x.y end
function api.overflow.get(ctx) local function f() return 1 + f() end return f() end
function api.not_found(ctx) if ctx.path == "/fail" then error("in not_found") end end
return api
"#;

#[test]
fn on_error_may_answer() {
    each_worker_count(|workers| {
        let app = App::start(ON_ERROR, workers);
        for (path, status, text) in [
            ("/?how=text", 200, "caught: app.lua:12: boom"),
            ("/index?how=text", 200, "caught: app.lua:18: attempt to index local 'x' (a nil value)"),
            ("/asked?how=kind", 200, "table 409"),
            ("/hooks?how=text", 200, "caught: app.lua:15: in before"),
            ("/fail?how=text", 404, "caught: app.lua:20: in not_found"),
            ("/?how=asked", 503, r#"{"error":"from on_error","status":503}"#),
            ("/?how=response", 504, "from on_error"),
        ] {
            let answer = app.get(path);
            assert_eq!(answer.status, status, "{path}");
            let same = answer.text() == text
                || serde_json::from_str::<Value>(text).is_ok_and(|expected| value(&answer) == expected);
            assert!(same, "{path}: {}", answer.text());
        }
        assert_eq!(app.get("/hooks?how=text").header("x-after"), Some("ran"));
        // Where it returns nothing, or fails itself, the default stands.
        for path in ["/", "/?how=boom", "/?how=bad", "/fail", "/overflow"] {
            let answer = app.get(path);
            assert_eq!(answer.status, 500, "{path}");
            assert_eq!(value(&answer)["error"], "Internal Server Error", "{path}");
        }
        assert_eq!(app.get("/asked").status, 409);
        assert_eq!(app.post("/json?how=kind", "{").text(), "table 400");
    });
}

#[test]
fn not_found_may_answer() {
    let code = r#"
local api = rover.server {}
function api.known.get(ctx) return "known" end
function api.not_found(ctx)
  local how = ctx:query().how
  if how == "string" then return "nothing at " .. ctx.path end
  if how == "table" then return { path = ctx.path, params = ctx:params() } end
  if how == "status" then return api.text:status(410, "gone") end
  if how == "redirect" then return api.redirect("/known") end
  if how == "boom" then error("boom") end
  if how == "body" then return ctx:body() end
end
return api
"#;
    each_worker_count(|workers| {
        let app = App::start(code, workers);
        for (query, status, text) in [
            ("string", 404, "nothing at /a/b"),
            ("table", 404, r#"{"path":"/a/b","params":{}}"#),
            ("status", 410, "gone"),
            ("redirect", 302, ""),
            ("none", 404, r#"{"error":"Not Found"}"#),
        ] {
            let answer = app.get(&format!("/a/b?how={query}"));
            assert_eq!(answer.status, status, "{query}");
            let same = answer.text() == text
                || serde_json::from_str::<Value>(text).is_ok_and(|expected| value(&answer) == expected);
            assert!(same, "{query}: {}", answer.text());
        }
        assert_eq!(app.get("/a/b?how=boom").status, 500);
        assert_eq!(app.post("/x?how=body", "sent").text(), "sent");
        assert_eq!(app.send("POST /known HTTP/1.1\r\nHost: t\r\n\r\n").status, 405);
    });
}

/// Also where hooks run after the handler, which then fails within Lua.
#[test]
fn error_objects_say_what_they_are() {
    let code = r#"
        local api = rover.server { debug = true }
        local told = setmetatable({ code = 7 }, { __tostring = function(e) return "told " .. e.code end })
        local broken = setmetatable({ code = 8 }, { __tostring = function(e) return nothing.field end })
        local endless = setmetatable({ code = 9 }, { __tostring = function(e) while true do end end })
        local mixed = { message = "mixed", handler = print, {} }
        local cycle = { code = 1 }
        cycle.self = cycle
        local errors = {
          told = told, broken = broken, endless = endless, mixed = mixed, cycle = cycle, number = 123456789012345,
          wide = 9007199254740993LL, context = false,
        }
        function api.plain.p_kind.get(ctx) error(errors[ctx:params().kind], 0) end
        function api.hooked.p_kind.get(ctx) error(errors[ctx:params().kind], 0) end
        function api.hooked.after.look(ctx, res) return nil end
        function api.task.p_kind.get(ctx)
          local kind = ctx:params().kind
          local ok, problem = rover.spawn(function() error(errors[kind], 0) end):join()
          return { same = problem == errors[kind] }
        end
        return api"#;
    each_worker_count(|workers| {
        let server = rover_server::Server::from_source("app.lua", code).workers(workers);
        let app = App::start_server(server.handler_cpu_limit(std::time::Duration::from_millis(300)));
        for (kind, message) in [
            ("told", "told 7"),
            ("broken", r#"{"code":8}"#),
            ("mixed", r#"{"1":{},"handler":"a function","message":"mixed"}"#),
            ("cycle", r#"{"code":1,"self":"a table"}"#),
            ("number", "123456789012345"),
            ("wide", "9007199254740993"),
            ("context", "an error value of type boolean"),
        ] {
            for (path, line) in [("plain", 13), ("hooked", 14)] {
                let answer = app.get(&format!("/{path}/{kind}"));
                assert_eq!(answer.status, 500, "{path} {kind}");
                assert_eq!(value(&answer)["message"], format!("app.lua:{line}: {message}"), "{path} {kind}");
            }
            assert_eq!(app.get(&format!("/task/{kind}")).text(), r#"{"same":true}"#, "{kind}");
        }
        // A worker does not hang in it.
        for path in ["/plain/endless", "/hooked/endless"] {
            assert!(matches!(app.get(path).status, 500 | 503), "{path}");
        }
    });
}
