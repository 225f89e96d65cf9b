//! A VM that takes too much memory: an error for who did, and the worker lives.

use std::time::Duration;

use rover_server::Server;

use crate::support::{App, each_worker_count};

/// Under the sanitizer every block takes twenty times as long.
const LIMIT_MB: u64 = if cfg!(vm_on_system_memory) { 16 } else { 32 };

fn start(code: &str, workers: usize) -> App {
    let code = format!(
        "local api = rover.server {{}}
         function api.used.get() collectgarbage() collectgarbage() return collectgarbage('count') / 1024 end
         {code}\nreturn api"
    );
    let server = Server::from_source("app.lua", code).workers(workers).memory_limit(LIMIT_MB << 20);
    // However long a slow machine takes: what is refused here is memory.
    App::start_server(server.handler_cpu_limit(Duration::ZERO).worker_stall_limit(Duration::ZERO))
}

/// The handler at `/eat` fails with 500, again and again, and its worker has its memory back.
fn is_refused(code: &str) {
    each_worker_count(|workers| {
        let app = start(code, workers);
        for _ in 0..3 {
            let mut client = app.connect();
            client.send("GET /eat HTTP/1.1\r\nHost: test\r\n\r\n");
            let answer = client.answer();
            assert_eq!(answer.status, 500, "{code}: {answer:?}");
            client.send("GET /used HTTP/1.1\r\nHost: test\r\n\r\n");
            let used: f64 = client.answer().text().parse().unwrap();
            assert!(used < LIMIT_MB as f64 / 4.0, "{used} MB are left in use");
        }
    });
}

#[test]
fn tables_without_end() {
    is_refused("function api.eat.get() local t = {} while true do t[#t + 1] = { #t } end end");
}

#[test]
fn strings_without_end() {
    is_refused("function api.eat.get() local t = {} for i = 1, 1e9 do t[i] = 'number ' .. i end end");
    is_refused("function api.eat.get() local s = 'x' while true do s = s .. s end end");
    is_refused("function api.eat.get() return #('x'):rep(1e9) end");
}

#[test]
fn within_callbacks_and_coroutines() {
    is_refused(
        "function api.eat.get() local t = {} local s = ('x'):rep(1e6):gsub('.', function() t[#t + 1] = { #t } end) end",
    );
    is_refused(
        "function api.eat.get() coroutine.wrap(function() local t = {} while true do t[#t + 1] = { #t } end end)() end",
    );
    is_refused(
        "function api.eat.get() local t = {} while true do t[#t + 1] = coroutine.create(function() end) end end",
    );
}

#[test]
fn by_rust_code() {
    // A list that doubles with each turn, made by the decoder.
    is_refused(
        "function api.eat.get()
           local t = {}
           local text = '[' .. ('[1,2,3],'):rep(20000) .. '0]'
           while true do t[#t + 1] = rover.json.decode(text) end
         end",
    );
    is_refused("function api.eat.get() local t = {} while true do t[#t + 1] = rover.json.encode(t) .. #t end end");
}

#[test]
fn caught_by_the_app() {
    let app = start(
        "function api.eat.get()
           local ok, problem = pcall(function() local t = {} while true do t[#t + 1] = { #t } end end)
           collectgarbage()
           return { ok = ok, problem = problem:match('not enough memory') }
         end",
        1,
    );
    for _ in 0..5 {
        let answer = app.get("/eat");
        assert!(answer.text().contains(r#""ok":false"#), "{answer:?}");
        assert!(answer.text().contains(r#""problem":"not enough memory""#), "{answer:?}");
    }
}

#[test]
fn garbage_is_no_reason() {
    // Far more than the limit, but never much at a time.
    let app = start(
        "function api.churn.get()
           local kept = ('k'):rep(4 * 1024 * 1024)
           for i = 1, 200 do local s = ('x'):rep(1024 * 1024) .. i end
           local t
           for i = 1, 2e6 do t = { i, t and t[1] } end
           return #kept
         end",
        1,
    );
    for _ in 0..3 {
        assert_eq!(app.get("/churn").text(), "4194304");
    }
}

#[test]
fn a_body_that_is_large_beside_it() {
    let code = "function api.post(ctx) return #ctx:body():json().text end";
    let app = App::start_server(
        Server::from_source("app.lua", format!("local api = rover.server {{}} {code} return api"))
            .workers(1)
            .memory_limit(4 << 20)
            .body_size_limit(64 << 20),
    );
    let text = |length| format!(r#"{{"text":"{}"}}"#, "x".repeat(length));
    // More than the VM may ever hold is not read; what leaves too little for the code is an error of that.
    assert_eq!(app.post("/", &text(16 << 20)).status, 413);
    assert_eq!(app.post("/", &text(3 << 20)).status, 500);
    assert_eq!(app.post("/", &text(500_000)).text(), "500000");
    assert_eq!(app.post("/", r#"{"text":"small"}"#).text(), "5");
}

/// LuaJIT keeps the coroutine that was the last to use `ffi`.
#[test]
fn by_a_handler_that_uses_ffi() {
    let app = start(
        "local ffi = require 'ffi'
         function api.eat.get() local t = {} while true do t[#t + 1] = ffi.new('char[1000]') end end
         function api.eat_and_wait.get()
           local t = {} for i = 1, 10000 do t[i] = ffi.new('char[1000]') end
           rover.sleep(0.001)
           error('eaten')
         end
         function api.small.get() local t = {} for i = 1, 1000 do t[i] = {} end return 'small' end",
        1,
    );
    for path in ["/eat", "/eat_and_wait", "/eat"] {
        assert_eq!(app.get(path).status, 500);
        assert_eq!(app.get("/small").text(), "small");
        let used: f64 = app.get("/used").text().parse().unwrap();
        assert!(used < LIMIT_MB as f64 / 4.0, "{used} MB are left in use");
    }
}
