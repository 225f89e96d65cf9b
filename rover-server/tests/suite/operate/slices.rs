//! A version that does not serve yet: its load and its `on_start` cost the one that serves no more than slices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rover_server::{Error, Server};

use crate::support::{App, DEADLINE};

/// An app that computes for a second or so wherever `busy()` is called, from the second load on.
fn start(code: &str, set: impl FnOnce(Server) -> Server) -> App {
    let is_heavy = Arc::new(AtomicBool::new(false));
    let heavy = is_heavy.clone();
    let code = format!(
        "local api = rover.server {{}}
         local function busy()
           if not is_heavy() then return 0 end
           local began, n = clock(), 0
           while clock() - began < 1 do
             for i = 1, 1000 do n = (n + i * 7) % 1000003 end
             n = n + #tostring(n)
           end
           return n
         end
         {code}
         function api.light.get() return 'light' end
         return api"
    );
    let began = Instant::now();
    let server = Server::from_source("app.lua", code)
        .workers(1)
        .function("is_heavy", move |_, ()| Ok(heavy.load(Ordering::SeqCst)))
        .function("clock", move |_, ()| Ok(began.elapsed().as_secs_f64()));
    let app = App::start_server(set(server));
    is_heavy.store(true, Ordering::SeqCst);
    app
}

fn reload(app: &App) -> JoinHandle<Result<(), Error>> {
    let control = app.control.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(control.reload())
    })
}

/// Serves until the reload has ended, and gives the longest time that an answer took, and how many there were.
fn served_during<T>(app: &App, reload: &JoinHandle<T>) -> (Duration, usize) {
    let mut client = app.connect();
    let (began, mut longest, mut served) = (Instant::now(), Duration::ZERO, 0);
    while !reload.is_finished() {
        let asked = Instant::now();
        client.send("GET /light HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.answer().text(), "light");
        longest = longest.max(asked.elapsed());
        served += 1;
        assert!(began.elapsed() < DEADLINE, "the reload ends");
    }
    (longest, served)
}

#[test]
fn code_that_computes_is_cut_into_slices() {
    for code in [
        "busy()",
        "pcall(function() busy() end)",
        "function api.on_start() busy() end",
        "function api.on_start() pcall(pcall, busy) setmetatable({}, { __index = busy }).x = rover.sleep(0.01) end",
        "function api.on_start() rover.all { busy, busy } rover.spawn(busy):join() end",
        "package.preload.heavy = function() return { busy() } end require('heavy')",
    ] {
        let app = start(code, |server| server);
        let reload = reload(&app);
        let (longest, served) = served_during(&app, &reload);
        reload.join().expect("the thread ends").expect("the version starts");
        // Without slices, one answer takes a second, and there are few. Other tests take the cores, too.
        assert!(served > 20 && longest < Duration::from_millis(500), "{code}: {served} answers, {longest:?}");
    }
}

#[test]
fn what_cannot_be_cut_is_run_to_its_end() {
    for code in [
        "function api.on_start() ('x'):gsub('.', busy) end",
        "function api.on_start() coroutine.wrap(busy)() end",
        "function api.on_start() table.sort({ 2, 1 }, function(a, b) busy() return a < b end) end",
    ] {
        let app = start(code, |server| server);
        reload(&app).join().expect("the thread ends").expect("the version starts");
        assert_eq!(app.get("/light").text(), "light");
    }
}

#[test]
fn what_is_cut_keeps_its_limits() {
    for (code, set) in [
        ("function api.on_start() while is_heavy() do pcall(busy) end end", "cpu"),
        ("while is_heavy() do pcall(busy) end", "cpu"),
        ("function api.on_start() while is_heavy() do busy() end end", "time"),
    ] {
        let app = start(code, |server| match set {
            "cpu" => server.handler_cpu_limit(Duration::from_millis(20)),
            _ => server.set("reload_timeout", "300ms"),
        });
        let reload = reload(&app);
        let (longest, _) = served_during(&app, &reload);
        let problem = reload.join().expect("the thread ends").unwrap_err().to_string();
        let expected = if set == "cpu" { "stopped after 0.2 s of CPU time" } else { "has not ended within 0.3 s" };
        assert!(problem.contains(expected), "{code}: {problem}");
        assert!(longest < Duration::from_millis(500), "{code}: {longest:?}");
        assert_eq!(app.get("/light").text(), "light");
    }
}

#[test]
fn values_and_coroutines_survive_being_cut() {
    let code = "
        local result
        function api.on_start()
          if not is_heavy() then return end
          local t, text = {}, {}
          for i = 1, 300000 do
            t[i % 1000 + 1] = { i, tostring(i) }
            if i % 10000 == 0 then text[#text + 1] = string.format('%d', select('#', i, nil, i)) end
            local a, b, c = (function(...) return ... end)(i, i + 1, i + 2)
            assert(a + 2 == b + 1 and c == i + 2)
          end
          local ok, problem = pcall(function() local n = 0 for i = 1, 3e6 do n = n + i end error({ n = n }) end)
          local made = coroutine.wrap(function() for i = 1, 200 do rover.sleep(0) coroutine.yield(i) end end)
          local sum = 0
          for i = 1, 200 do sum = sum + made() end
          result = { #text, text[30], problem.n, sum, t[1][2] }
        end
        function api.result.get() return result end";
    let app = start(code, |server| server);
    reload(&app).join().expect("the thread ends").expect("the version starts");
    assert_eq!(app.get("/result").text(), r#"[30,"3",4500001500000,20100,"300000"]"#);
}
