//! Code that runs for too long is stopped, and a worker that cannot be stopped is replaced.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rover_server::{Level, Server};

use crate::support::{App, each_worker_count, wait_until};

/// Tests that keep a core busy take turns.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const LIMIT: Duration = Duration::from_millis(100);

/// Serves `code` with a limit that keeps the tests short.
fn start(code: &str, workers: usize) -> App {
    let code = format!("local api = rover.server {{}}\n{code}\nreturn api");
    App::start_server(Server::from_source("app.lua", code).workers(workers).handler_cpu_limit(LIMIT))
}

/// The connection that a handler of an endless loop had gets 503, and the worker serves on.
fn is_stopped(code: &str) {
    let _alone = alone();
    each_worker_count(|workers| {
        let app = start(&format!("{code}\nfunction api.light.get() return 'light' end"), workers);
        for _ in 0..3 {
            let mut client = app.connect();
            client.send("GET /busy HTTP/1.1\r\nHost: test\r\n\r\n");
            let answer = client.answer();
            assert_eq!(answer.status, 503, "{code}");
            assert!(answer.text().starts_with("{\"error\":\"Service Unavailable\",\"request_id\":\""), "{answer:?}");
            // The same connection, so the same worker, which has nothing left of it.
            for _ in 0..200 {
                client.send("GET /light HTTP/1.1\r\nHost: test\r\n\r\n");
                assert_eq!(client.answer().text(), "light");
            }
        }
    });
}

#[test]
fn a_loop_without_end() {
    is_stopped("function api.busy.get() while true do end end");
}

#[test]
fn a_loop_that_is_compiled_with_work_in_it() {
    is_stopped("function api.busy.get() local n = 0 for i = 1, math.huge do n = n + i % 7 end return n end");
}

#[test]
fn a_loop_around_pcall() {
    is_stopped("function api.busy.get() while true do pcall(function() while true do end end) end end");
}

#[test]
fn a_loop_around_xpcall_with_a_handler_that_loops() {
    let code = "local function forever() while true do end end
        function api.busy.get() while true do xpcall(forever, forever) end end";
    is_stopped(code);
}

#[test]
fn a_loop_in_a_coroutine_of_the_app() {
    is_stopped(
        "function api.busy.get()
           while true do coroutine.wrap(function() pcall(function() while true do end end) end)() end
         end",
    );
}

#[test]
fn a_loop_in_callbacks_of_the_library() {
    is_stopped("function api.busy.get() while true do ('x'):rep(100):gsub('.', function() return 'y' end) end end");
    is_stopped(
        "function api.busy.get() while true do table.sort({ 3, 1, 2 }, function(a, b) return a < b end) end end",
    );
}

#[test]
fn a_loop_in_middleware_and_in_a_metamethod() {
    is_stopped(
        "function api.busy.before.forever() while true do end end
         function api.busy.get() return 'x' end
         function api.busy.after.never(ctx, res) res:header('X-After', 'ran') end",
    );
    is_stopped(
        "function api.busy.get() local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end })
        while true do pcall(function() return t[1] end) end end",
    );
}

#[test]
fn a_loop_that_goes_in_and_out_of_rust() {
    // What Rust code owns within these calls must survive that they are ended in their middle, or not be there.
    is_stopped(
        r#"local keys = '{"a":1,"b":[{"c":"x","d":2},{"c":"x","d":2},{"c":"x","d":2}],"e":"text"}'
        function api.busy.get(ctx)
          while true do
            pcall(function() rover.json.encode(rover.json.decode(keys), { pretty = true }) end)
            pcall(function() return ctx:query().x, ctx:headers()["host"], ctx:request_id() end)
            pcall(function() rover.json.encode { a = { b = print } } end)
            pcall(function() return rover.server { } end)
          end
        end"#,
    );
}

#[test]
fn waits_are_not_counted() {
    let app = start("function api.get() for _ = 1, 10 do rover.sleep(0.05) end return 'rested' end", 1);
    assert_eq!(app.get("/").text(), "rested");
}

#[test]
fn a_hook_that_the_app_has_installed_is_back_afterwards() {
    let _alone = alone();
    let app = start(
        "local seen = 0
         function api.hook.get() debug.sethook(function() seen = seen + 1 end, 'c') return 'on' end
         function api.busy.get() while true do end end
         function api.seen.get()
           debug.sethook(function() seen = seen + 1 end, 'c')
           local before = seen
           tostring(1)
           return { called = seen > before, hook = debug.gethook() ~= nil }
         end
         function api.off.get() local hook = debug.gethook() debug.sethook() return { had = hook ~= nil } end",
        1,
    );
    assert_eq!(app.get("/hook").text(), "on");
    assert_eq!(app.get("/busy").status, 503);
    assert_eq!(app.get("/off").text(), r#"{"had":true}"#);
    assert_eq!(app.get("/busy").status, 503);
    assert_eq!(app.get("/off").text(), r#"{"had":false}"#);
}

#[test]
fn tasks_are_stopped_too() {
    let _alone = alone();
    let app = start(
        "local task
         function api.spawn.get()
           task = rover.spawn(function() pcall(function() while true do end end) end)
           local _, problem = task:join()
           return problem
         end
         function api.timeout.get() return select(2, pcall(rover.timeout, 10, function() while true do end end)) end",
        1,
    );
    let answer = app.get("/spawn");
    assert_eq!(answer.text(), "app.lua:4: stopped after 0.1 s of CPU time without a wait");
    assert_eq!(app.get("/spawn").status, 200);
    assert!(app.get("/timeout").text().contains("stopped after"));
}

#[test]
fn hooks_are_stopped_too() {
    let _alone = alone();
    let app = start(
        "function api.on_ready() while true do end end
         function api.on_shutdown() while true do end end
         function api.get() return 'home' end",
        1,
    );
    assert_eq!(app.get("/").text(), "home");
}

#[test]
fn an_app_that_never_loads_is_an_error() {
    let _alone = alone();
    for (code, place) in [
        ("local x = 1\nwhile true do end", "app.lua:2: "),
        ("pcall(function()\nwhile true do end\nend)", "app.lua:2: "),
        ("local api = rover.server {}\nfunction api.on_start()\nwhile true do end end\nreturn api", "app.lua:3: "),
    ] {
        for workers in [1, 2] {
            let server = Server::from_source("app.lua", code).workers(workers).port(0).log_level(Level::Off);
            let error = server.handler_cpu_limit(Duration::from_millis(10)).bind().unwrap_err().to_string();
            assert!(error.contains(&format!("{place}stopped after 0.1 s of CPU time")), "{code}: {error}");
        }
    }
}

/// Never comes back to Lua: LuaJIT calls no hook while it runs a finalizer.
const STUCK: &str = "(function()
    getmetatable(newproxy(true)).__gc = function() while true do end end
    collectgarbage()
    collectgarbage()
  end)()";

/// Takes time exponential in its length.
const BACKTRACKING: &str = "('a?'):rep(40) .. ('a*'):rep(20) .. 'c'";

#[test]
fn patterns_that_backtrack_without_end() {
    is_stopped(&format!("function api.busy.get() return (('a'):rep(40) .. 'b'):find({BACKTRACKING}) end"));
    is_stopped(&format!(
        "local pattern = {BACKTRACKING}
         function api.busy.get() while true do pcall(string.match, ('a'):rep(40), pattern) end end"
    ));
    is_stopped(&format!("function api.busy.get() for _ in ('a'):rep(40):gmatch({BACKTRACKING}) do end end"));
    is_stopped(&format!("function api.busy.get() return (('a'):rep(40):gsub({BACKTRACKING}, '')) end"));
    is_stopped(&format!(
        "local pattern = {BACKTRACKING}
         function api.busy.get()
           return coroutine.wrap(function()
             return (('x'):gsub('x', function() return (('a'):rep(40):match(pattern)) end))
           end)()
         end"
    ));
}

/// The usual trim: time by the square of the blanks.
#[test]
fn patterns_that_take_long_for_long_texts() {
    is_stopped("function api.busy.get() return (('x' .. (' '):rep(1e6) .. 'x'):match('^%s*(.-)%s*$')) end");
    is_stopped("function api.busy.get() return (('('):rep(2e6):find('%b()')) end");
    is_stopped("function api.busy.get() return (('a'):rep(1e6):gsub('a-b', '')) end");
    is_stopped("function api.busy.get() return (('a'):rep(2e6):find(('a?'):rep(150) .. 'b')) end");
}

/// The order that takes a sort the longest, by the square of its length.
#[test]
fn an_order_that_takes_a_sort_long() {
    is_stopped(
        "local list = {}
         local function hardest(first, last)
           local n = last - first + 1
           for i = 1, n do list[i] = i end
           for i = 2, n - 1 do local middle = math.floor((1 + i) / 2) list[i], list[middle] = list[middle], list[i] end
         end
         function api.busy.get()
           while true do hardest(1, 20000) table.sort(list) end
         end",
    );
}

#[test]
fn a_sort_by_a_function_in_c() {
    is_stopped(
        "local list = {}
         for n = 1, 1e6 do list[n] = n end
         function api.busy.get() while true do table.sort(list, rawequal) end end",
    );
}

#[test]
fn code_that_is_read_without_end() {
    is_stopped("function api.busy.get() while true do load(function() while true do end end) end end");
    is_stopped("function api.busy.get() return load(function() return ' ' end) end");
}

#[test]
fn a_worker_that_never_comes_back_is_replaced() {
    let _alone = alone();
    each_worker_count(|workers| {
        let app = start(
            &format!(
                "local served = 0
                 function api.stuck.get() return {STUCK} end
                 function api.get() served = served + 1 return {{ served = served }} end"
            ),
            workers,
        );
        let mut waiting = app.connect();
        waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(waiting.answer().text(), r#"{"served":1}"#);
        waiting.send("GET /stuck HTTP/1.1\r\nHost: test\r\n\r\n");
        // The client is not left hanging.
        assert_eq!(waiting.rest(), "");
        // Every turn is taken: each worker answers, the new one with a fresh VM.
        for _ in 0..3 * workers {
            assert_eq!(app.get("/").status, 200);
        }
        wait_until(|| (0..workers).all(|_| app.get("/").status == 200));
    });
}

#[test]
fn an_app_that_is_stuck_while_it_loads_is_an_error() {
    let _alone = alone();
    let server = Server::from_source("app.lua", format!("return {STUCK}")).workers(1).port(0).log_level(Level::Off);
    let error = server.handler_cpu_limit(Duration::from_millis(10)).bind().unwrap_err().to_string();
    assert!(error.contains("worker 1 is lost"), "{error}");
}

#[test]
fn a_worker_that_sleeps_for_good_is_replaced() {
    let server = Server::from_source(
        "app.lua",
        "local api = rover.server {} function api.block.get() block() end function api.get() return 'on' end return api",
    );
    let server = server.workers(1).worker_stall_limit(Duration::from_millis(300));
    let app = App::start_server(server.function("block", |_, ()| {
        std::thread::sleep(Duration::from_secs(5));
        Ok(())
    }));
    let mut client = app.connect();
    client.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.rest(), "");
    assert_eq!(app.get("/").text(), "on");
}

#[test]
fn idle_and_busy_workers_that_run_no_lua_are_left_alone() {
    let _alone = alone();
    let server =
        Server::from_source("app.lua", "local api = rover.server {} function api.get() return 'on' end return api");
    let server = server.workers(1).handler_cpu_limit(LIMIT).worker_stall_limit(Duration::from_millis(400));
    let app = App::start_server(server);
    let mut client = app.connect();
    let began = Instant::now();
    // Routes that do not exist are answered without Lua.
    while began.elapsed() < Duration::from_millis(2500) {
        client.send("GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n".repeat(50));
        for _ in 0..50 {
            assert_eq!(client.answer().status, 404);
        }
    }
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.answer().text(), "on");
}

#[test]
fn a_worker_that_panics_while_it_starts_is_an_error() {
    let code = "local api = rover.server {} function api.on_start() fall() end return api";
    let server = Server::from_source("app.lua", code).workers(1).port(0).log_level(Level::Off);
    let error = server.async_function("fall", |_, ()| async { fall() }).bind().unwrap_err().to_string();
    assert!(error.contains("worker 1 has panicked"), "{error}");
}

fn fall() -> rover_server::mlua::Result<()> {
    std::panic::resume_unwind(Box::new("on purpose"))
}

#[test]
fn a_worker_that_panics_is_started_again() {
    let _alone = alone();
    let starts = Arc::new(AtomicUsize::new(0));
    let counted = starts.clone();
    let code = format!(
        "local api = rover.server {{}}
         function api.on_start() begin() end
         function api.stuck.get() return {STUCK} end
         function api.get() return 'on' end
         return api"
    );
    let server = Server::from_source("app.lua", code).workers(1).handler_cpu_limit(LIMIT);
    let app = App::start_server(server.async_function("begin", move |_, ()| {
        let start = counted.fetch_add(1, Ordering::Relaxed);
        // The first one serves; of those that are to take its place, two panic.
        async move { if start == 1 || start == 2 { fall() } else { Ok(()) } }
    }));
    let mut client = app.connect();
    client.send("GET /stuck HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.rest(), "");
    assert_eq!(app.get("/").text(), "on");
    assert_eq!(starts.load(Ordering::Relaxed), 4);
}

#[test]
fn a_worker_that_panics_at_its_end_ends_the_server_all_the_same() {
    let code = "local api = rover.server {} function api.on_shutdown() fall() end function api.get() return 'on' end return api";
    let server = Server::from_source("app.lua", code).workers(2).async_function("fall", |_, ()| async { fall() });
    let app = App::start_server(server);
    assert_eq!(app.get("/").text(), "on");
}
