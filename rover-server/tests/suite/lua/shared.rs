//! `rover.shared`: what one worker stores, all see.

use serde_json::json;

use crate::support::{App, body, each_worker_count, message, wait_until};

fn start(code: &str, workers: usize) -> App {
    App::start(&format!("local api = rover.server {{ debug = true }}\n{code}\nreturn api"), workers)
}

#[test]
fn every_call_answers_as_documented() {
    let code = "
        local dict = rover.shared.all
        function api.get()
          local out = {}
          local function add(...) out[#out + 1] = { n = select('#', ...), ... } end
          for _, key in ipairs(dict:keys(0 + 100)) do dict:delete(key) end
          add(dict:get('a'))
          add(dict:set('a', 'text'))
          add(dict:get('a'))
          add(dict:add('a', 1))
          add(dict:add('b', false))
          add(dict:get('b'))
          add(dict:incr('a', 1))
          add(dict:incr('c', 1))
          add(dict:incr('c', 1, 5))
          add(dict:incr('c', -0.5, 5))
          add(dict:incr('c'))
          add(#dict)
          add(table.concat((function() local k = dict:keys() table.sort(k) return k end)(), ','))
          add(#dict:keys(2), #dict:keys(0))
          add(dict:delete('c'), dict:delete('c'))
          add(dict:set('a', nil))
          add(dict:get('a'))
          add(dict:set(7, 'seven'), dict:get('7'), dict:get(7.0))
          add(dict:set(2 ^ 53, 1), dict:get(2 ^ 53 - 1), dict:get('9007199254740992'), dict:delete(2 ^ 53))
          add(dict:get(''), dict:set('', 1), dict:get(''))
          add(dict:set('t', 1, 100), dict:replace('t', 2), dict:get('t'), dict:ttl('t'))
          add(dict:expire('t', 50), dict:ttl('t') > 49 and dict:ttl('t') <= 50, dict:expire('t', 0), dict:ttl('t'))
          add(dict:replace('t', 'text', 1000), dict:delete('t'), dict:replace('t', 1))
          add(dict:ttl('t'))
          add(dict:expire('t', 1))
          add(dict:get('t'))
          add(rover.shared.all == dict, rover.shared.other == dict, rover.shared.other:get('b'))
          return out
        end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        let expected = json!([
            {"n": 1}, {"n": 1, "1": true}, {"n": 1, "1": "text"}, {"n": 2, "2": "exists"}, {"n": 1, "1": true},
            {"n": 1, "1": false}, {"n": 2, "2": "not a number"}, {"n": 2, "2": "not found"}, {"n": 1, "1": 6},
            {"n": 1, "1": 5.5}, {"n": 1, "1": 6.5}, {"n": 1, "1": 3}, {"n": 1, "1": "a,b,c"}, {"n": 2, "1": 2, "2": 0},
            {"n": 2, "1": true, "2": false}, {"n": 1, "1": true}, {"n": 1},
            {"n": 3, "1": true, "2": "seven", "3": "seven"},
            {"n": 4, "1": true, "3": 1, "4": true}, {"n": 3, "2": true, "3": 1},
            {"n": 4, "1": true, "2": true, "3": 2, "4": 0}, {"n": 4, "1": true, "2": true, "3": true, "4": 0},
            {"n": 4, "1": true, "2": true, "4": "not found"}, {"n": 2, "2": "not found"}, {"n": 2, "2": "not found"},
            {"n": 1}, {"n": 3, "1": true, "2": false},
        ]);
        for _ in 0..4 {
            assert_eq!(body(&app, "/"), expected);
        }
    });
}

#[test]
fn tables_are_copied_as_data() {
    let code = r#"
        local dict = rover.shared.tables
        function api.set.get()
          local t = { 1, "two", { deep = { true, rover.null } }, [0] = "zero", [-1] = "minus", [1.5] = "half", [true] = "yes",
            empty = rover.array {}, object = {}, bytes = "\0\255", holes = { 1, nil, 3 } }
          dict:set("t", t)
          t[1] = "changed"
          dict:set("null", rover.null)
          dict:set("array", rover.array {})
          return 1
        end
        function api.get()
          local t = dict:get("t")
          local keys = 0
          for _ in pairs(t) do keys = keys + 1 end
          local own = dict:get("t")
          own[1] = "own"
          return rover.array { t[1], t[2], t[3].deep[1], t[3].deep[2] == rover.null, t[0], t[-1], t[1.5], t[true],
            rover.json.encode(t.empty), rover.json.encode(t.object), t.bytes == "\0\255", t.holes[3], #t, keys,
            dict:get("null") == rover.null, rover.json.encode(dict:get("array")), dict:get("t")[1] }
        end
        function api.depth.get()
          local t = {}
          local inner = t
          for _ = 1, 127 do inner.t = {} inner = inner.t end
          dict:set("deep", t)
          inner = dict:get("deep")
          local levels = 1
          while inner.t do inner = inner.t levels = levels + 1 end
          return levels
        end
        function api.cycle.get() local t = {} t.t = t dict:set("c", t) end
        function api.fn.get() dict:set("f", { items = { 1, { fn = print } } }) end
        function api.key.get() dict:set("k", { a = { [{}] = 1 } }) end
        function api.plain.get() dict:set("f", print) end
        function api.coroutine.get() dict:add("f", coroutine.create(print)) end"#;
    each_worker_count(|workers| {
        let app = start(code, workers);
        app.get("/set");
        let expected =
            json!([1, "two", true, true, "zero", "minus", "half", "yes", "[]", "{}", true, 3, 3, 11, true, "[]", 1]);
        for _ in 0..3 {
            assert_eq!(body(&app, "/"), expected);
        }
        assert_eq!(app.get("/depth").text(), "128");
        let levels = "dict:set cannot store a value of more than 128 levels, or one that holds itself";
        assert_eq!(message(&app, "/cycle"), format!("app.lua:33: {levels}"));
        let kind = "it is neither nil, a boolean, a number, a string nor a table of these";
        assert_eq!(message(&app, "/fn"), format!("app.lua:34: dict:set cannot store the value.items[2].fn: {kind}"));
        assert_eq!(message(&app, "/key"), "app.lua:35: dict:set cannot store the value.a: a table is a key");
        assert_eq!(message(&app, "/plain"), "app.lua:36: dict:set cannot store a function");
        assert_eq!(message(&app, "/coroutine"), "app.lua:37: dict:add cannot store a thread");
    });
}

#[test]
fn entries_end_with_their_time() {
    let code = "
        local dict = rover.shared.times
        function api.set.get()
          dict:set('short', 1, 0.03) dict:set('long', 1, 1000) dict:set('never', 1, 0)
          dict:add('added', 1, 0.03) dict:incr('counted', 1, 0, 0.03) dict:incr('counted', 1, 0, 1000)
          dict:set('kept', 1, 0.03) dict:set('kept', 2)
          return #dict
        end
        function api.get()
          return { dict:get('short') or 0, dict:get('long'), dict:get('never'), dict:get('added') or 0,
            dict:get('counted') or 0, dict:get('kept') }
        end
        function api.again.get() return { dict:incr('counted', 1, 10) , (dict:add('added', 2)), #dict, #dict:keys() } end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        assert_eq!(app.get("/set").text(), "6");
        wait_until(|| body(&app, "/") == json!([0, 1, 1, 0, 0, 2]));
        assert_eq!(body(&app, "/again"), json!([11, true, 5, 5]));
    });
}

/// Eight threads of clients on four workers.
#[test]
fn counting_is_atomic_across_workers() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 40;
    const STEPS: usize = 250;
    let code = "
        local dict = rover.shared.count
        function api.count.get()
          for _ = 1, 250 do dict:incr('n', 1, 0) end
          dict:incr('worker ' .. rover.worker.id, 1, 0)
          return 'ok'
        end
        function api.get() return { dict:get('n'), #dict:keys() - 1 } end";
    let app = start(code, 4);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = app.connect();
                for _ in 0..REQUESTS {
                    client.send("GET /count HTTP/1.1\r\nHost: test\r\n\r\n");
                    assert_eq!(client.answer().text(), "ok");
                }
            });
        }
    });
    assert_eq!(body(&app, "/"), json!([CLIENTS * REQUESTS * STEPS, 4]));
}

#[test]
fn servers_of_one_process_see_nothing_of_each_other() {
    let code = "
        rover.shared.top:add('loaded', 1)
        function api.set.get() rover.shared.mine:set('k', 'v') return 'ok' end
        function api.get() return { rover.shared.mine:get('k') or 'none', rover.shared.top:get('loaded') } end";
    let server = rover_server::Server::from_source(
        "app.lua",
        format!("local api = rover.server {{ debug = true }}\n{code}\nreturn api"),
    );
    let first = App::start_server(server.clone().workers(2));
    let second = App::start_server(server.workers(2));
    first.get("/set");
    for _ in 0..2 {
        assert_eq!(body(&first, "/"), json!(["v", 1]));
        assert_eq!(body(&second, "/"), json!(["none", 1]));
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_reload_keeps_what_is_stored() {
    let code = "
        local api = rover.server {}
        function api.on_start() note(rover.shared.state:incr('starts', 1, 0)) end
        return api";
    let starts = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = starts.clone();
    let note = move |_: &rover_server::mlua::Lua, starts: f64| {
        seen.lock().expect("notes").push(starts);
        Ok(())
    };
    let server = rover_server::Server::from_source("app.lua", code).workers(2).port(0).function("note", note);
    let listening = server.log_level(rover_server::Level::Off).bind().expect("the app loads");
    let control = listening.control();
    listening.run_until(async { control.reload().await.expect("it loads again") }).await.expect("a good end");
    let mut starts = starts.lock().expect("notes").clone();
    starts.sort_by(f64::total_cmp);
    assert_eq!(starts, [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_full_dictionary_says_so() {
    let code = "
        local api = rover.server { debug = true, shared = { memory_limit = '20KB' } }
        local dict = rover.shared.small
        function api.get()
          local n, ok, err = 0
          repeat
            n = n + 1
            ok, err = dict:set('key ' .. n, ('x'):rep(800))
          until not ok
          local other = rover.shared.other:set('k', ('x'):rep(800))
          dict:set('key 1', 'short')
          local room = dict:set('last', 1)
          return { n, ok == nil, err, other, room, select(2, dict:set('huge', ('x'):rep(30000))),
            select(2, dict:incr('new', 1, 0)) or 'ok' }
        end
        return api";
    each_worker_count(|workers| {
        let app = App::start(code, workers);
        assert_eq!(body(&app, "/"), json!([21, true, "no memory", true, true, "no memory", "ok"]));
    });
}

#[test]
fn mistakes_raise_at_the_line_of_the_app() {
    let code = "
        local dict = rover.shared.bad
        function api.key.get() dict:get(nil) end
        function api.table.get() dict:set({}, 1) end
        function api.colon.get() dict.get('k') end
        function api.ttl.get() dict:set('k', 1, -1) end
        function api.add.get() dict:add('k') end
        function api.incr.get() dict:incr('k', '1') end
        function api.change.get() rover.shared.mine = {} end
        function api.name.get() return rover.shared[1] end
        function api.keys.get() return dict:keys('all') end
        function api.long.get() return dict:get(('k'):rep(70000)) end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        for (target, expected) in [
            ("/key", "app.lua:4: dict:get expects a key as a string, not nil"),
            ("/table", "app.lua:5: dict:set expects a key as a string, not table"),
            ("/colon", "app.lua:6: call it with a colon: dict:get(…)"),
            ("/ttl", "app.lua:7: dict:set expects seconds, a number from 0 to 1000000000, not -1"),
            ("/add", "app.lua:8: dict:add expects a value, not nil"),
            ("/incr", "app.lua:9: dict:incr expects an amount as a number, not string"),
            ("/change", "app.lua:10: rover.shared cannot be changed: rover.shared.name is there for every name"),
            ("/name", "app.lua:11: rover.shared has names of type string, not number"),
            ("/keys", "app.lua:12: dict:keys expects a number from 0 to 10000000"),
            ("/long", "app.lua:13: dict:get: a key of 70000 bytes is too long, 65536 is the most"),
        ] {
            assert_eq!(message(&app, target), expected);
        }
    });
}
