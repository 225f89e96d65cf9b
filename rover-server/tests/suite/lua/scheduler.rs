//! Waiting: in every place where an app may wait, and where it cannot.

use serde_json::{Value, json};

use crate::support::{App, body, each_worker_count, wait_until};

fn start(code: &str, workers: usize) -> App {
    App::start(&format!("local api = rover.server {{ debug = true }}\n{code}\nreturn api"), workers)
}

#[test]
fn waits_in_calls_metamethods_and_iterators() {
    let code = "
        local nap = function() rover.sleep(0.001) end
        function api.pcall.get()
          local ok, err = pcall(function() nap() error('boom', 0) end)
          local _, handled = xpcall(function() nap() error('x', 0) end, function(e) return e .. '!' end)
          return { ok, err, handled, select('#', rover.sleep(0)) }
        end
        function api.meta.get()
          local t = setmetatable({}, { __index = function(_, k) nap() return k end, __add = function() nap() return 5 end,
            __lt = function() nap() return true end, __call = function(_, x) nap() return x end })
          return { t.name, t + 1, t < t, t(7) }
        end
        function api.iterator.get()
          local sum = 0
          for i in coroutine.wrap(function() for i = 1, 3 do nap() coroutine.yield(i) nap() end end) do nap() sum = sum + i end
          return { sum }
        end
        function api.nested.get()
          local function deep(n)
            if n == 0 then nap() coroutine.yield('bottom') nap() return 'end' end
            local co = coroutine.create(deep)
            local out = {}
            while coroutine.status(co) ~= 'dead' do
              out[#out + 1] = select(2, assert(coroutine.resume(co, n - 1)))
              nap()
            end
            return table.concat(out, ',')
          end
          return { deep(5) }
        end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        for _ in 0..4 {
            assert_eq!(body(&app, "/pcall"), json!([false, "boom", "x!", 0]));
            assert_eq!(body(&app, "/meta"), json!(["name", 5, true, 7]));
            assert_eq!(body(&app, "/iterator"), json!([6]));
            assert_eq!(body(&app, "/nested"), json!(["bottom,end"]));
        }
    });
}

#[test]
fn hooks_wait() {
    let code = "
        local started
        function api.on_start() rover.sleep(0.001) coroutine.wrap(function() rover.sleep(0.001) end)() started = true end
        function api.before.first(ctx) rover.sleep(0.001) ctx:set('before', started) end
        function api.after.last(ctx, res) rover.sleep(0.001) return api.json({ after = true, body = res.body }) end
        function api.on_error(ctx, err) rover.sleep(0.001) return { caught = err } end
        function api.not_found(ctx) rover.sleep(0.001) return { missing = true } end
        function api.ok.get(ctx) rover.sleep(0.001) return 'ok' end
        function api.bad.get(ctx) rover.sleep(0.001) error('bad', 0) end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        assert_eq!(body(&app, "/ok")["after"], json!(true));
        assert_eq!(body(&app, "/bad")["after"], json!(true));
        assert_eq!(app.get("/nothing").status, 404);
    });
}

/// What plain Lua does with coroutines stays, to the number of results and the text of errors.
#[test]
fn coroutines_stay_those_of_lua() {
    let code = r#"
        function api.get()
          local out = {}
          local function add(...) out[#out + 1] = { n = select('#', ...), ... } end
          local co = coroutine.create(function(a) local b = coroutine.yield(a, nil) coroutine.yield() return b, nil end)
          add(coroutine.resume(co, 1)) add(coroutine.resume(co, 2)) add(coroutine.resume(co)) add(coroutine.resume(co))
          add(coroutine.status(co))
          add(pcall(coroutine.resume)) add(pcall(coroutine.status, 1)) add(pcall(coroutine.wrap, 5))
          local bad = coroutine.wrap(function() error('boom') end)
          add(pcall(function() bad() end)) add(pcall(function() bad() end))
          local tabled = coroutine.wrap(function() error({ 7 }) end)
          add(select(2, pcall(tabled))[1])
          local own
          own = coroutine.wrap(function() return pcall(own) end)
          add(own())
          add(coroutine.resume(coroutine.running()))
          add(coroutine.isyieldable(), select(2, coroutine.running()))
          return out
        end"#;
    each_worker_count(|workers| {
        let app = start(code, workers);
        let found: Vec<Value> = body(&app, "/").as_array().expect("a list").clone();
        let expected = [
            json!({"n": 3, "1": true, "2": 1}),
            json!({"n": 1, "1": true}),
            json!({"n": 3, "1": true, "2": 2}),
            json!({"n": 2, "1": false, "2": "cannot resume dead coroutine"}),
            json!({"n": 1, "1": "dead"}),
        ];
        assert_eq!(found[..5], expected);
        assert!(found[5]["2"].as_str().expect("text").contains("bad argument #1 to 'resume' (coroutine expected)"));
        assert!(found[6]["2"].as_str().expect("text").contains("bad argument #1 to 'status' (coroutine expected)"));
        assert!(found[7]["2"].as_str().expect("text").contains("bad argument #1 to 'wrap' (function expected"));
        assert_eq!(found[8]["2"], "app.lua:11: app.lua:10: boom");
        assert_eq!(found[9]["2"], "app.lua:11: cannot resume dead coroutine");
        assert_eq!(found[10]["1"], 7);
        assert!(found[11]["2"].as_str().expect("text").contains("cannot resume running coroutine"));
        assert_eq!(found[12], json!({"n": 2, "1": false, "2": "cannot resume non-suspended coroutine"}));
        assert_eq!(found[13], json!({"n": 2, "1": true, "2": false}));
    });
}

#[test]
fn a_coroutine_that_waits_is_resumed_by_nobody_else() {
    let code = "
        local shared
        function api.wait.get()
          shared = coroutine.create(function() rover.sleep(0.3) return 'slept' end)
          local handler = coroutine.running()
          api_handler = handler
          local _, result = coroutine.resume(shared)
          return result
        end
        function api.look.get()
          if not shared then return { false } end
          return { coroutine.status(shared), select(2, coroutine.resume(shared)), select(2, coroutine.resume(api_handler)) }
        end";
    let app = start(code, 1);
    let mut waiting = app.connect();
    waiting.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut seen = json!([]);
    wait_until(|| {
        seen = body(&app, "/look");
        seen[0] != json!(false)
    });
    let busy = "cannot resume non-suspended coroutine";
    assert_eq!(seen, json!(["normal", busy, busy]));
    assert_eq!(waiting.answer().text(), "slept");
}

#[test]
fn where_lua_cannot_suspend_the_error_names_the_place_and_the_call() {
    let code = "
        function api.sort.get() table.sort({ 2, 1 }, function(a, b) rover.sleep(0) return a < b end) end
        function api.gsub.get() return (('x'):gsub('x', function() rover.sleep(0) end)) end
        function api.inner.get()
          local go = coroutine.wrap(function() return select(2, pcall(function() rover.sleep(0) end)) end)
          return (('x'):gsub('x', function() return go() end))
        end
        function api.bad.get() rover.sleep('long') end
        function api.negative.get() rover.sleep(-1) end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        let message = |target| body(&app, target)["message"].as_str().expect("a message").to_owned();
        let between = |line, function| {
            format!("app.lua:{line}: rover.sleep cannot wait here: a C function ({function}) is in between")
        };
        assert_eq!(message("/sort"), between(3, "table.sort"));
        assert_eq!(message("/gsub"), between(4, "string.gsub"));
        assert_eq!(app.get("/inner").text(), between(6, "string.gsub"));
        let expects = "rover.sleep expects seconds, a number from 0 to 1000000000, not";
        assert_eq!(message("/bad"), format!("app.lua:9: {expects} string"));
        assert_eq!(message("/negative"), format!("app.lua:10: {expects} -1"));
    });
}

#[test]
fn the_top_level_cannot_wait() {
    for code in ["rover.sleep(1)", "coroutine.wrap(function() rover.sleep(1) end)()"] {
        let error = rover_server::Server::from_source("app.lua", code).load().expect_err("it cannot wait").to_string();
        let expected =
            "app.lua:1: rover.sleep cannot wait at the top level of the app: call it in a handler, a hook or a task";
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_client_that_goes_away_cancels_its_handler() {
    let code = "
        local events = {}
        local function note(event) events[#events + 1] = event end
        function api.on_error(ctx, err) note('on_error') end
        function api.wait.get(ctx)
          note('begins')
          local go = coroutine.wrap(function()
            local ok, err = pcall(rover.sleep, 1000)
            note(tostring(err))
            note(tostring(select(2, pcall(rover.sleep, 0))))
            note(ctx.path)
            rover.sleep(1000)
          end)
          note(select(2, pcall(go)))
          rover.sleep(1000)
          note('never')
        end
        function api.stubborn.get(ctx)
          note('begins')
          while true do pcall(rover.sleep, 1000) end
        end
        function api.events.get() return rover.array(events) end
        function api.clear.get() events = {} end";
    let app = start(code, 1);
    for (target, expected) in
        [("/wait", json!(["begins", "cancelled", "cancelled", "/wait", "cancelled"])), ("/stubborn", json!(["begins"]))]
    {
        let mut client = app.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        wait_until(|| body(&app, "/events") == json!(["begins"]));
        drop(client);
        wait_until(|| body(&app, "/events") == expected);
        app.get("/clear");
    }
}

#[test]
fn all_runs_side_by_side_and_keeps_the_order() {
    let code = "
        local function after(s, v) return function() rover.sleep(s) return v end end
        function api.get()
          local began = rover.now()
          local n = select('#', rover.all { after(0.04, 1), after(0.01), after(0.02, 3) })
          local a, b, c = rover.all { after(0.04, 1), after(0.01), after(0.02, 3) }
          return { n, a, b == nil, c, rover.now() - began < 0.6, select('#', rover.all {}) }
        end
        function api.fails.get()
          local cleaned
          local ok, err = pcall(rover.all, {
            function() local ok, err = pcall(rover.sleep, 1000) cleaned = err error(err, 0) end,
            function() rover.sleep(0.001) error('boom', 0) end,
          })
          return { ok, err, cleaned }
        end
        function api.bad.get() rover.all { 5 } end
        function api.plain.get() rover.all(5) end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        assert_eq!(body(&app, "/"), json!([3, 1, true, 3, true, 0]));
        assert_eq!(body(&app, "/fails"), json!([false, "boom", "cancelled"]));
        let message = |target| body(&app, target)["message"].as_str().expect("a message").to_owned();
        assert_eq!(message("/bad"), "app.lua:18: rover.all expects a table of functions, but its item 1 is number");
        assert_eq!(message("/plain"), "app.lua:19: rover.all expects a table of functions, not number");
    });
}

#[test]
fn timeouts_nest_and_the_shorter_wins() {
    let code = "
        function api.get()
          local notes = {}
          local function slow() local ok, err = pcall(rover.sleep, 1000) notes[#notes + 1] = err error(err, 0) end
          local a, b = rover.timeout(0.01, slow)
          local c, d = rover.timeout(1000, function() return rover.timeout(0.01, slow) end)
          local e, f = rover.timeout(0.01, function() return rover.timeout(1000, slow) end)
          local g, h = rover.timeout(0.01, function() return rover.all { slow, slow } end)
          local ok, err = pcall(rover.timeout, 1, function() error('boom', 0) end)
          return { a == nil, b, d, f, h, #notes, ok, err, select('#', rover.timeout(1, function(...) return ... end, 1, nil, nil)) }
        end
        function api.bad.get() rover.timeout('x', print) end
        function api.worse.get() rover.timeout(1) end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        assert_eq!(body(&app, "/"), json!([true, "timeout", "timeout", "timeout", "timeout", 5, false, "boom", 3]));
        let message = |target| body(&app, target)["message"].as_str().expect("a message").to_owned();
        assert!(message("/bad").starts_with("app.lua:13: rover.timeout expects seconds"));
        assert_eq!(message("/worse"), "app.lua:14: rover.timeout expects a function as argument 2, not nil");
    });
}

#[test]
fn spawn_join_and_cancel() {
    let code = "
        function api.get()
          local task = rover.spawn(function(a, b) rover.sleep(0.001) return a, b, nil end, 1, 2)
          local failing = rover.spawn(function() error({ code = 7 }) end)
          local note
          local endless = rover.spawn(function() local _, err = pcall(rover.sleep, 1000) note = err rover.sleep(1) end)
          rover.sleep(0.001)
          endless:cancel()
          local _, ended = endless:join()
          local _, err = failing:join()
          local own
          own = rover.spawn(function() return select(2, pcall(own.join, own)) end)
          return { select('#', task:join()), select(2, task:join()), err.code, note, ended, own:join() }
        end
        function api.bad.get() rover.spawn(5) end
        function api.colon.get() rover.spawn(print).join() end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        let found = body(&app, "/");
        assert_eq!(found[0], 3);
        assert_eq!(found[1], 2);
        assert_eq!(found[2], 7);
        assert_eq!((&found[3], &found[4]), (&json!("cancelled"), &json!("cancelled")));
        assert_eq!(found[5], "app.lua:13: a task cannot wait for its own end");
        let message = |target| body(&app, target)["message"].as_str().expect("a message").to_owned();
        assert_eq!(message("/bad"), "app.lua:16: rover.spawn expects a function as argument 1, not number");
        assert_eq!(message("/colon"), "app.lua:17: call it with a colon: task:join()");
    });
}

#[test]
fn every_runs_again_after_an_error() {
    let code = "
        local runs, task = 0, nil
        function api.on_start()
          task = rover.every(0.002, function() runs = runs + 1 rover.sleep(0.001) if runs == 1 then error('once') end end)
        end
        function api.get() return runs end
        function api.stop.get() task:cancel() return select(2, task:join()) end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        wait_until(|| app.get("/").text().parse::<f64>().expect("a number") >= 3.0);
        assert_eq!(app.get("/stop").text(), "cancelled");
    });
}

#[test]
fn a_timer_that_cancels_itself_does_not_run_again() {
    let code = "
        function api.get()
          local runs, task = 0, nil
          task = rover.every(0.001, function()
            runs = runs + 1
            -- The next tick is over before this one has ended.
            local began = rover.now()
            while rover.now() - began < 0.005 do end
            task:cancel()
          end)
          task:join()
          return runs
        end";
    let app = start(code, 1);
    for _ in 0..5 {
        assert_eq!(app.get("/").text(), "1");
    }
}

/// What a handler knows of its request outlives the connection's buffer, which is used again while the handler waits.
#[test]
fn a_request_is_whole_after_a_wait() {
    let code = "
        function api.p_name.any(ctx)
          rover.sleep(0.001)
          local body = ctx:body()
          return { ctx.path, ctx.query_string, ctx:params().name, ctx:query().q, ctx:header('X-Own'), ctx.host,
            ctx:headers()['accept'], body and body:text() or 'none' }
        end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        for _ in 0..3 {
            let head = "HTTP/1.1\r\nHost: test\r\nX-Own: v\u{e9} \r\nAccept: a\r\nAccept: b\r\n";
            let mut client = app.connect();
            // The second request comes while the first is waiting.
            client.send(format!(
                "POST /a%20b?q=1%2C2 {head}Content-Length: 4\r\n\r\nbodyGET http://test/x?q=%20 {head}\r\n"
            ));
            let mut expect = |expected: Value| {
                assert_eq!(serde_json::from_str::<Value>(client.answer().text()).expect("JSON"), expected);
            };
            expect(json!(["/a%20b", "q=1%2C2", "a b", "1,2", "v\u{e9}", "test", "a, b", "body"]));
            expect(json!(["/x", "q=%20", "x", " ", "v\u{e9}", "test", "a, b", "none"]));
        }
    });
}
