//! docs/env.md, docs/log.md, docs/time.md, docs/worker.md, docs/hooks.md: what is always there.

use std::collections::BTreeSet;

use crate::support::{App, each_worker_count};

fn run(code: &str, workers: usize) -> String {
    let code = format!("local api = rover.server {{}}\nfunction api.get(ctx)\n{code}\nend\nreturn api");
    App::start(&code, workers).get("/").text().to_owned()
}

#[test]
fn env() {
    each_worker_count(|workers| {
        assert_eq!(run("return rover.env.CARGO_MANIFEST_DIR", workers), env!("CARGO_MANIFEST_DIR"));
        let odd = "return { rover.env.NO_SUCH == nil, rover.env[''] == nil, rover.env['A=B'] == nil, rover.env['a\\0b'] == nil, rover.env[5] == nil, rover.env[{}] == nil, next(rover.env) == nil }";
        assert_eq!(run(odd, workers), "[true,true,true,true,true,true,true]");
        let assigned = "local ok, err = pcall(function() rover.env.X = 1 end) return err";
        assert_eq!(run(assigned, workers), "app.lua:3: rover.env cannot be changed: it is the server's environment");
    });
}

#[test]
fn now_and_time() {
    each_worker_count(|workers| {
        let code = "local a, t = rover.now(), rover.time() local b = rover.now() return { a >= 0, b >= a, b - a < 5, math.abs(t - os.time()) < 5, t % 1 ~= 0 or rover.time() % 1 ~= 0 }";
        assert_eq!(run(code, workers), "[true,true,true,true,true]");
    });
}

#[test]
fn version_and_the_worker() {
    assert_eq!(run("return rover.version", 1), env!("CARGO_PKG_VERSION"));
    assert_eq!(
        run("return { rover.worker.id, rover.worker.count, rover.worker.x == nil, rover.worker[1] == nil }", 1),
        "[1,1,true,true]"
    );
    let code = "local api = rover.server {} local id = rover.worker.id function api.get() return id .. ' ' .. rover.worker.id .. ' ' .. rover.worker.count end return api";
    let app = App::start(code, 3);
    let seen: BTreeSet<String> = (0..9).map(|_| app.get("/").text().to_owned()).collect();
    assert_eq!(Vec::from_iter(seen), ["1 1 3", "2 2 3", "3 3 3"]);
}

#[test]
fn locals_belong_to_a_worker() {
    let code = "local api = rover.server {} local n = 0 function api.get() n = n + 1 return n end return api";
    for workers in [1, 3] {
        let app = App::start(code, workers);
        let counts: Vec<String> = (0..6).map(|_| app.get("/").text().to_owned()).collect();
        let expected = if workers == 1 { ["1", "2", "3", "4", "5", "6"] } else { ["1", "1", "1", "2", "2", "2"] };
        assert_eq!(counts, expected);
    }
}

#[test]
fn wrong_arguments_of_the_log_raise_at_the_caller() {
    for (call, message) in [
        ("rover.log.info()", "rover.log expects a message as a string, got nil"),
        ("rover.log.info({})", "rover.log expects a message as a string, got table"),
        ("rover.log.warn('m', 5)", "the fields of a log line are a table, not a number"),
    ] {
        let code = format!("local ok, err = pcall(function()\n{call} end)\nreturn err");
        assert_eq!(run(&code, 1), format!("app.lua:4: {message}"), "{call}");
    }
    assert_eq!(
        run("rover.log.debug('m', { a = 1 }) rover.log.error(5) rover.log.info(true) print(nil) return 'ok'", 1),
        "ok"
    );
}

#[test]
fn the_languages_libraries_are_there() {
    let code = "local ffi, bit, jit = require 'ffi', require 'bit', require 'jit' return { ffi.sizeof('int'), bit.bxor(5, 1), type(debug.traceback), jit.version:sub(1, 6), #table.pack(1, 2), type(os.clock()), _VERSION }";
    assert_eq!(run(code, 1), r#"[4,4,"function","LuaJIT",2,"number","Lua 5.1"]"#);
}

#[test]
fn coroutines_and_pcall_of_the_app_work_in_handlers() {
    let code = r#"
local api = rover.server {}
function api.before.check(ctx) local ok = pcall(error, "x") ctx:set("ok", ok) end
function api.get(ctx)
  local co = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end)
  return { co(), co(), co(), ctx:get("ok"), coroutine.running() ~= nil }
end
return api
"#;
    each_worker_count(|workers| assert_eq!(App::start(code, workers).get("/").text(), "[1,2,3,false,true]"));
}

#[test]
fn hooks_of_the_server_run_in_every_worker_and_on_ready_once() {
    for workers in [1, 3] {
        let dir = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("hooks-{workers}"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a folder");
        let code = format!(
            r#"
local api = rover.server {{}}
local started = false
local function mark(what)
  local file = assert(io.open("{}/" .. what .. rover.worker.id .. "of" .. rover.worker.count, "a"))
  file:write("x")
  file:close()
end
function api.on_start() started = true mark "start" end
function api.on_ready() mark "ready" end
function api.on_shutdown() mark "shutdown" end
function api.get() return started end
return api
"#,
            dir.display()
        );
        let app = App::start(&code, workers);
        for _ in 0..workers {
            assert_eq!(app.get("/").text(), "true");
        }
        drop(app);
        let mut expected: Vec<String> = (1..=workers)
            .flat_map(|id| [format!("shutdown{id}of{workers}=x"), format!("start{id}of{workers}=x")])
            .chain([format!("ready1of{workers}=x")])
            .collect();
        expected.sort();
        let mut marks: Vec<String> = std::fs::read_dir(&dir)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").path())
            .map(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                format!("{name}={}", std::fs::read_to_string(&path).unwrap_or_default())
            })
            .collect();
        marks.sort();
        assert_eq!(marks, expected);
        let _ = std::fs::remove_dir_all(&dir);
    }
}

#[test]
fn math_random_begins_elsewhere_in_each_vm() {
    let code = "local api = rover.server {}
        local first = { math.random(1e9), math.random(1e9) }
        function api.get() return rover.json.encode(first) end
        function api.seeded.get() math.randomseed(7) return math.random(1e9) end
        return api";
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let app = App::start(code, 3);
        for _ in 0..2 {
            seen.extend((0..3).map(|_| app.get("/").text().to_owned()));
            app.reload().expect("a reload");
        }
        // A seed of the app's own counts as ever.
        assert_eq!(app.get("/seeded").text(), app.get("/seeded").text());
    }
    assert_eq!(seen.len(), 2 * 2 * 3, "{seen:?}");
}

#[test]
fn random_bytes_tokens_numbers_and_elements() {
    let code = "
        local r = rover.random
        local function shows(text, pattern, length) return #text == length and text:find(pattern) == 1 end
        local seen = {}
        for _ = 1, 200 do seen[r.int(-1, 2)] = true end
        local chosen = {}
        for _ = 1, 200 do chosen[r.choice { 'a', 'b' }] = true end
        return {
          #r.bytes(0), #r.bytes(16), #r.bytes(1048576), r.bytes(16) ~= r.bytes(16),
          shows(r.token(), '^[%w_-]+$', 43), shows(r.token(16), '^[%w_-]+$', 22), r.token() ~= r.token(),
          seen[-1] and seen[0] and seen[1] and seen[2] and not seen[-2] and not seen[3],
          r.int(5, 5), r.int(-2^53, 2^53) % 1, chosen.a and chosen.b, r.choice { 'only' },
          r.choice(rover.array { false }),
        }";
    each_worker_count(|workers| {
        assert_eq!(run(code, workers), "[0,16,1048576,true,true,true,true,true,5,0,true,\"only\",false]");
    });
    let mistakes = "
        local out = {}
        local r = rover.random
        local function try(f, ...) out[#out + 1] = select(2, pcall(f, ...)):gsub('^app.lua:%d+: ', '') end
        try(function() local x = r.bytes() return x end)
        try(function() local x = r.bytes(-1) return x end)
        try(function() local x = r.token(1.5) return x end)
        try(function() local x = r.int(1) return x end)
        try(function() local x = r.int(2, 1) return x end)
        try(function() local x = r.int(0/0, 1) return x end)
        try(function() local x = r.choice {} return x end)
        try(function() local x = r.choice('ab') return x end)
        try(function() local x = rover.uuid(1) return x end)
        return table.concat(out, '\\n')";
    let bytes = "expects a number of bytes, a whole number from 0 to 1048576, not";
    let int = "rover.random.int expects two whole numbers up to 2^53, the least and the largest, not";
    let expected = [
        format!("rover.random.bytes {bytes} nil"),
        format!("rover.random.bytes {bytes} -1"),
        format!("rover.random.token {bytes} 1.5"),
        format!("{int} nil"),
        "rover.random.int: 1 is less than 2".to_owned(),
        format!("{int} NaN"),
        "rover.random.choice expects an array with at least one element".to_owned(),
        "rover.random.choice expects an array, not string".to_owned(),
        "rover.uuid makes version 7, or 4 where that is asked for, not 1".to_owned(),
    ];
    assert_eq!(run(mistakes, 1), expected.join("\n"));
}

#[test]
fn uuids() {
    let code = "
        local hex = ('%x'):rep(4)
        local function fits(id, version)
          local parts = { hex .. hex, hex, version .. ('%x'):rep(3), '[89ab]' .. ('%x'):rep(3), hex .. hex .. hex }
          return #id == 36 and id:find('^' .. table.concat(parts, '%-') .. '$') == 1 and id == id:lower()
        end
        local before = os.time()
        local ids, sorted, seen = {}, true, {}
        for n = 1, 5000 do
          ids[n] = rover.uuid()
          sorted = sorted and (n == 1 or ids[n - 1] < ids[n])
          seen[ids[n]:sub(-12)] = true
        end
        local ms = tonumber((ids[1]:sub(1, 13):gsub('%-', '')), 16)
        local count = 0
        for _ in pairs(seen) do count = count + 1 end
        return { fits(ids[1], '7'), fits(rover.uuid(7), '7'), fits(rover.uuid(4), '4'), sorted, count,
          math.abs(ms / 1000 - before) < 60, rover.uuid(4) ~= rover.uuid(4) }";
    each_worker_count(|workers| assert_eq!(run(code, workers), "[true,true,true,true,5000,true,true]"));
}
