//! `rover.cache`: a value is computed once, whoever asks.

use serde_json::{Value, json};

use crate::support::{App, Client, body, each_worker_count, wait_until};

fn start(code: &str, workers: usize) -> App {
    App::start(&format!("local api = rover.server {{ debug = true }}\n{code}\nreturn api"), workers)
}

/// A function that counts its calls, and ends when it is told how.
const SLOW: &str = "
    local state, cache = rover.shared.state, rover.cache.slow
    local function compute()
      state:incr('calls', 1, 0)
      while not state:get('end') do rover.sleep(0.001) end
      local how = state:get('end')
      if how == 'raise' then error({ why = 'boom' }) end
      if how == 'text' then error('boom', 0) end
      if how == 'nil' then return nil, 'no luck' end
      return { value = how, call = state:get('calls') }
    end
    function api.ask.get()
      state:incr('asked', 1, 0)
      local value, err = cache:get_or('k', 60, compute)
      return { value = value, err = err }
    end
    function api.fin.p_how.get(ctx) state:set('end', ctx:params().how) end
    function api.get() return { state:get('asked') or 0, state:get('calls') or 0 } end
    function api.reset.get() state:set('end', nil) state:set('asked', nil) state:set('calls', nil) cache:delete('k') end";

/// Clients that have asked and wait, of which one computes.
fn ask(app: &App, clients: usize) -> Vec<Client> {
    let asking = (0..clients).map(|_| {
        let mut client = app.connect();
        client.send("GET /ask HTTP/1.1\r\nHost: test\r\n\r\n");
        client
    });
    let asking = asking.collect();
    wait_until(|| body(app, "/") == json!([clients, 1]));
    asking
}

fn answer(client: &mut Client) -> Value {
    serde_json::from_str(client.answer().text()).expect("JSON")
}

#[test]
fn one_computes_for_all_on_every_worker() {
    each_worker_count(|workers| {
        let app = start(SLOW, workers);
        for round in ["first", "second"] {
            let mut clients = ask(&app, 12);
            app.get(&format!("/fin/{round}"));
            for client in &mut clients {
                assert_eq!(answer(client), json!({ "value": { "value": round, "call": 1 } }));
            }
            assert_eq!(body(&app, "/ask")["value"]["call"], 1, "later ones hit");
            assert_eq!(body(&app, "/"), json!([13, 1]));
            app.get("/reset");
        }
    });
}

#[test]
fn nil_is_shared_by_those_who_wait_and_is_not_kept() {
    each_worker_count(|workers| {
        let app = start(SLOW, workers);
        let mut clients = ask(&app, 6);
        app.get("/fin/nil");
        for client in &mut clients {
            assert_eq!(answer(client), json!({ "err": "no luck" }));
        }
        app.get("/fin/now");
        assert_eq!(body(&app, "/ask"), json!({ "value": { "value": "now", "call": 2 } }));
    });
}

#[test]
fn an_error_is_raised_at_all_who_wait_and_is_not_kept() {
    each_worker_count(|workers| {
        let app = start(SLOW, workers);
        for (how, expected) in [("text", "boom"), ("raise", r#"{"why":"boom"}"#)] {
            let mut clients = ask(&app, 6);
            app.get(&format!("/fin/{how}"));
            for client in &mut clients {
                let answer = client.answer();
                assert_eq!(answer.status, 500);
                assert!(answer.text().contains(&expected.replace('"', "\\\"")), "{}", answer.text());
            }
            app.get("/reset");
            app.get("/fin/now");
            assert_eq!(body(&app, "/ask")["value"]["value"], "now");
            app.get("/reset");
        }
    });
}

/// The mistake is one of all who asked, each of whom finds it at a line of its own.
#[test]
fn what_cannot_be_stored_is_told_at_the_line_of_whoever_asked() {
    let code = "
        local state, cache = rover.shared.state, rover.cache.c
        local function compute()
          state:set('computes', true)
          while not state:get('end') do rover.sleep(0.001) end
          return print
        end
        function api.first.get()
          local v = cache:get_or('k', 5, compute)
          return v
        end
        function api.second.get()
          state:set('asked', true)
          local v = cache:get_or('k', 5, compute)
          return v
        end
        function api.get() return { state:get('computes') or false, state:get('asked') or false } end
        function api.fin.get() state:set('end', true) end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        let (mut first, mut second) = (app.connect(), app.connect());
        first.send("GET /first HTTP/1.1\r\nHost: test\r\n\r\n");
        wait_until(|| body(&app, "/") == json!([true, false]));
        second.send("GET /second HTTP/1.1\r\nHost: test\r\n\r\n");
        wait_until(|| body(&app, "/") == json!([true, true]));
        app.get("/fin");
        for (client, line) in [(&mut first, 10), (&mut second, 15)] {
            let message = answer(client)["message"].as_str().expect("a message").to_owned();
            let start = format!("app.lua:{line}: cache:get_or cannot store ");
            assert!(message.starts_with(&start), "{message}");
        }
    });
}

/// Whoever computes may go away; nobody knows from outside who that is, so all but one go, one after the other.
#[test]
fn when_the_one_that_computes_is_cancelled_another_takes_over() {
    each_worker_count(|workers| {
        let app = start(SLOW, workers);
        let mut clients = ask(&app, 5);
        let mut last = clients.pop().expect("five");
        drop(clients);
        app.get("/fin/late");
        let answer = answer(&mut last);
        assert_eq!(answer["value"]["value"], "late");
        let calls = body(&app, "/")[1].as_u64().expect("a number");
        assert!((1..=5).contains(&calls), "{calls} calls");
        assert_eq!(body(&app, "/ask")["value"]["value"], "late");
    });
}

#[test]
fn a_timeout_of_the_one_that_computes_leaves_it_to_another() {
    let code = "
        local state, cache = rover.shared.state, rover.cache.c
        function api.short.get()
          local v, err = rover.timeout(0.05, cache.get_or, cache, 'k', 60, function()
            state:set('leads', true)
            local ok, err = pcall(rover.sleep, 1000)
            state:set('cleaned', err)
            error(err, 0)
          end)
          return { err = err }
        end
        function api.other.get() return cache:get_or('k', 60, function() return 'from the other' end) end
        function api.leads.get() return { state:get('leads') or false } end
        function api.get() return { state:get('cleaned') } end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        let mut first = app.connect();
        first.send("GET /short HTTP/1.1\r\nHost: test\r\n\r\n");
        wait_until(|| body(&app, "/leads") == json!([true]));
        assert_eq!(app.get("/other").text(), "from the other");
        assert_eq!(answer(&mut first), json!({ "err": "timeout" }));
        assert_eq!(body(&app, "/"), json!(["cancelled"]));
    });
}

#[test]
fn values_are_copies_with_a_time_to_live() {
    let code = "
        local cache = rover.cache.values
        local n = 0
        local function count(...) n = n + 1 return select('#', ...) == 0 and n or { ... } end
        function api.get()
          local out = {}
          local function add(v) out[#out + 1] = v == nil and rover.null or v end
          add(cache:get_or('a' .. rover.worker.id, 60, count)) add(cache:get_or('a' .. rover.worker.id, 60, count))
          local list = cache:get_or('list' .. rover.worker.id, nil, count, 1, 'x', rover.array {})
          list[1] = 'changed'
          add(cache:get('list' .. rover.worker.id))
          add(select('#', cache:set('k', false))) add(cache:get('k'))
          add(cache:get_or('k', 1, function() return 'not called' end))
          cache:set('k', nil) add(cache:get('k'))
          cache:set('k', 'v') cache:delete('k') add(cache:get('k'))
          add(cache:get_or('k', 60, function() return false end)) add(cache:get('k'))
          cache:delete('k') cache:delete('a' .. rover.worker.id) n = 0
          return out
        end
        function api.set.get() cache:set('short', 1, 0.03) cache:set('long', 1, 1000) cache:get_or('soon', 0.03, count) end
        function api.short.get() return { cache:get('short') or 0, cache:get('soon') or 0, cache:get('long') } end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        for _ in 0..3 {
            assert_eq!(body(&app, "/"), json!([1, 1, [1, "x", []], 0, false, false, null, null, false, false]));
        }
        app.get("/set");
        wait_until(|| body(&app, "/short") == json!([0, 0, 1]));
    });
}

#[test]
fn both_bounds_hold() {
    let code = "
        local api = rover.server { cache = { entries_limit = 10, memory_limit = '100KB' } }
        local function kept(cache, n, size)
          for i = 1, n do cache:set('key ' .. i, ('x'):rep(size)) end
          local count = 0
          for i = 1, n do if cache:get('key ' .. i) then count = count + 1 end end
          return count
        end
        function api.get()
          return { kept(rover.cache.many, 200, 10), kept(rover.cache.large, 200, 40000), kept(rover.cache.huge, 2, 200000) }
        end
        return api";
    each_worker_count(|workers| {
        let app = App::start(code, workers);
        assert_eq!(body(&app, "/"), json!([10, 2, 0]));
    });
}

#[test]
fn mistakes_raise_at_the_line_of_the_app() {
    let code = "
        local cache = rover.cache.bad
        function api.fn.get() cache:get_or('k', 1, 'v') end
        function api.key.get() cache:get_or(nil, 1, print) end
        function api.colon.get() cache.get('k') end
        function api.own.get() return cache:get_or('k', 1, function() return cache:get_or('k', 1, print) end) end
        function api.deeper.get()
          return cache:get_or('k', 1, function()
            return rover.timeout(1, function() rover.sleep(0) rover.all { function() cache:get_or('k', 1, print) end } end)
          end)
        end
        function api.inner.get() return cache:get_or('a', 1, function() return cache:get_or('b', 1, function() return 'b' end) end) end
        function api.data.get() return cache:get_or('f', 1, function() return { f = print } end) end
        function api.sort.get() table.sort({ 2, 1 }, function() cache:get_or('s', 1, function() return 1 end) end) end
        function api.change.get() rover.cache.mine = {} end
        function api.line.get()
          local function compute() return print end
          local v = cache:get_or('line', 1, compute)
          return v
        end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        let message = |target| body(&app, target)["message"].as_str().expect("a message").to_owned();
        for (target, expected) in [
            ("/fn", "app.lua:4: cache:get_or expects a function as argument 3, not string"),
            ("/key", "app.lua:5: cache:get_or expects a key as a string, not nil"),
            ("/colon", "app.lua:6: call it with a colon: cache:get(…)"),
            ("/own", "app.lua:7: cache:get_or: the function asks for the key that it computes"),
            ("/deeper", "app.lua:10: cache:get_or: the function asks for the key that it computes"),
            ("/change", "app.lua:16: rover.cache cannot be changed: rover.cache.name is there for every name"),
            ("/sort", "app.lua:15: cache:get_or cannot wait here: a C function (table.sort) is in between"),
        ] {
            assert_eq!(message(target), expected);
        }
        let kind = "it is neither nil, a boolean, a number, a string nor a table of these";
        assert_eq!(message("/data"), format!("app.lua:14: cache:get_or cannot store the value.f: {kind}"));
        assert_eq!(message("/line"), "app.lua:19: cache:get_or cannot store a function");
        assert_eq!(app.get("/inner").text(), "b");
    });
    let error = rover_server::Server::from_source("app.lua", "rover.cache.c:get('k')").load().expect_err("too early");
    let expected = "cache:get cannot be called at the top level of the app";
    assert!(error.to_string().contains(expected), "{error}");
}
