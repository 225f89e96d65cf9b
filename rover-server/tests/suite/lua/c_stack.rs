//! Recursion that takes of the C stack what LuaJIT does not count: an error for who did, and the process lives.

use std::time::Duration;

use rover_server::Server;

use crate::support::App;

/// Serves `code` with one worker. However long a slow machine takes: what is refused here is depth.
fn start(code: &str) -> App {
    let code =
        format!("local api = rover.server {{ debug = true }} {code} function api.get() return 'on' end return api");
    let server = Server::from_source("app.lua", code).workers(1);
    App::start_server(server.handler_cpu_limit(Duration::ZERO).worker_stall_limit(Duration::ZERO))
}

/// `/deep` fails with an error that holds `reason`, again and again; its worker serves on.
fn is_refused(code: &str, reason: &str) {
    is_refused_times(3, code, reason);
}

fn is_refused_times(times: usize, code: &str, reason: &str) {
    let app = start(code);
    for _ in 0..times {
        let mut client = app.connect();
        client.send("GET /deep HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.status, 500, "{code}: {answer:?}");
        assert!(answer.text().contains(reason), "{}", answer.text());
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.answer().text(), "on");
    }
}

const OVERFLOW: &str = "stack overflow";

const EXPAND: &str = "local function expand(s)
    return (s:gsub('%b()', function(m) return '[' .. expand(m:sub(2, -2)) .. ']' end))
  end";

#[test]
fn a_pattern_with_a_function_that_matches_again() {
    let app = start(&format!("{EXPAND} function api.post(ctx) return expand(ctx:body():text()) end"));
    let nested = |n: usize| app.post("/", &format!("{}x{}", "(".repeat(n), ")".repeat(n)));
    for _ in 0..3 {
        assert_eq!(nested(400).text(), format!("{}x{}", "[".repeat(400), "]".repeat(400)));
        for n in [2_000, 20_000] {
            let answer = nested(n);
            assert_eq!(answer.status, 500, "{answer:?}");
            let reason = "stack overflow (too many nested calls of C functions)";
            assert!(answer.text().contains(reason), "{}", answer.text());
        }
    }
}

#[test]
fn functions_of_the_library_that_call_back() {
    is_refused(
        "local t = setmetatable({}, {}) getmetatable(t).__tostring = function() return ('%s'):format(t) end
         function api.deep.get() return tostring(t) end",
        OVERFLOW,
    );
    is_refused(
        "local function deep()
           local _, problem = load(function() deep() end)
           if problem then error(problem, 0) end
         end
         function api.deep.get() deep() end",
        OVERFLOW,
    );
    is_refused(
        "local function deep() table.sort({ 1, 2, 3 }, function() deep() end) end function api.deep.get() deep() end",
        OVERFLOW,
    );
}

#[test]
fn coroutines_that_resume_coroutines() {
    is_refused(
        "local function deep() return coroutine.wrap(function() return deep() end)() end
         function api.deep.get() return deep() end",
        OVERFLOW,
    );
    is_refused(
        "local function deep()
           local ok, problem = coroutine.resume(coroutine.create(function() deep() end))
           if not ok then error(problem, 0) end
         end
         function api.deep.get() deep() end",
        OVERFLOW,
    );
}

#[test]
fn caught_by_the_app_which_then_goes_on() {
    let app = start(&format!(
        "{EXPAND}
         local deep, flat = ('('):rep(9000) .. (')'):rep(9000), ('('):rep(200) .. (')'):rep(200)
         function api.caught.get()
           local told
           for _ = 1, 5 do
             local ok, problem = pcall(expand, deep)
             local second, handled = xpcall(expand, function(problem) return 'handled: ' .. problem end, deep)
             if ok or second or #expand(flat) ~= 400 then return 'wrong' end
             told = {{ problem, handled }}
           end
           return told
         end"
    ));
    for _ in 0..3 {
        let answer = app.get("/caught");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.text().matches(OVERFLOW).count(), 2, "{}", answer.text());
        assert!(answer.text().contains("handled: "), "{}", answer.text());
    }
}

/// A finalizer that is the first to come so deep: LuaJIT calls no hook while it runs.
#[test]
fn with_finalizers_at_every_depth() {
    is_refused(
        "local function finalize() return (('x'):gsub('x', function() return 'y' end)) end
         local function expand(s)
           for _ = 1, 200 do getmetatable(newproxy(true)).__gc = finalize end
           return (s:gsub('%b()', function(m) return '[' .. expand(m:sub(2, -2)) .. ']' end))
         end
         function api.deep.get() return expand(('('):rep(9000) .. (')'):rep(9000)) end",
        OVERFLOW,
    );
}

/// Each level leaves a finalizer behind that comes deeper than the level itself, so that it is always one of them that finds
/// the end first.
#[test]
fn with_finalizers_that_come_deeper_than_the_code() {
    is_refused_times(
        1,
        "local function finalize() return (('x'):gsub('x', function() return 'y' end)) end
         local function deep()
           return coroutine.wrap(function()
             getmetatable(newproxy(true)).__gc = finalize
             return deep()
           end)()
         end
         function api.deep.get() return deep() end",
        OVERFLOW,
    );
}

#[test]
fn in_tasks_and_hooks() {
    let app = start(&format!(
        "{EXPAND} local deep = ('('):rep(9000) .. (')'):rep(9000)
         function api.task.get()
           local ok, problem = rover.spawn(expand, deep):join()
           return tostring(ok) .. ': ' .. problem
         end"
    ));
    let answer = app.get("/task");
    assert!(answer.text().starts_with("nil: ") && answer.text().contains(OVERFLOW), "{}", answer.text());
    let code = format!("local api = rover.server {{}} {EXPAND} expand(('('):rep(9000) .. (')'):rep(9000)) return api");
    let problem = Server::from_source("app.lua", code).port(0).bind().unwrap_err().to_string();
    assert!(problem.contains(OVERFLOW), "{problem}");
}

/// Each lies in the future that the one around it waits for.
#[test]
fn functions_that_wait_for_each_other() {
    let reason = "more than 200 functions wait for each other, each within the last";
    for call in [
        "return rover.timeout(60, nest, n - 1)",
        "return (rover.all { function() return nest(n - 1) end })",
        "return (rover.cache.deep:get_or('key ' .. n, 60, nest, n - 1))",
    ] {
        let code = format!(
            "local function nest(n) if n == 0 then rover.sleep(0.001) return 'deep' end {call} end
             function api.deep.get() return nest(5000) end
             function api.some.get() return nest(150) end"
        );
        assert_eq!(start(&code).get("/some").text(), "deep", "{call}");
        is_refused(&code, reason);
    }
}
