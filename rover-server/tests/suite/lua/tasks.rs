//! Tasks at their ends: when clients go, servers stop, bounds are reached, functions overrun.

use std::sync::{Arc, Mutex};

use rover_server::Server;
use serde_json::json;

use crate::support::{App, body, each_worker_count, wait_until};

/// What the app notes with `note(text)`, also when its server has ended.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn start(&self, code: &str, workers: usize) -> App {
        let notes = self.clone();
        let code = format!("local api = rover.server {{ shutdown_timeout = 0.05 }}\n{code}\nreturn api");
        let note = move |_: &rover_server::mlua::Lua, text: String| {
            notes.0.lock().expect("notes").push(text);
            Ok(())
        };
        App::start_server(Server::from_source("app.lua", code).workers(workers).function("note", note))
    }

    /// In order of the text, for workers run side by side.
    fn sorted(&self) -> Vec<String> {
        let mut notes = self.0.lock().expect("notes").clone();
        notes.sort();
        notes
    }
}

#[test]
fn a_server_that_stops_cancels_tasks_before_on_shutdown() {
    let code = "
        local function wait(name)
          local ok, err = pcall(rover.sleep, 1000)
          note(name .. ' ' .. tostring(err))
        end
        local again
        function api.on_start()
          rover.spawn(wait, '1 spawned')
          rover.every(0.001, function() wait('1 every') end)
          rover.spawn(function() rover.all { function() wait('1 all') end, function() wait('1 all') end } end)
          rover.spawn(function() rover.timeout(1000, wait, '1 timeout') end)
          rover.spawn(function() pcall(rover.sleep, 1000) again = select(2, pcall(rover.spawn, print)) end)
          note('0 start')
        end
        function api.on_shutdown()
          note('2 shutdown ' .. tostring(again))
          note('3 ' .. select(2, pcall(rover.every, 1, print)))
        end";
    each_worker_count(|workers| {
        let notes = Notes::default();
        let app = notes.start(code, workers);
        drop(app);
        let order = [
            "0 start",
            "1 all cancelled",
            "1 all cancelled",
            "1 every cancelled",
            "1 spawned cancelled",
            "1 timeout cancelled",
            "2 shutdown app.lua:13: rover.spawn starts nothing any more: the server stops",
            "3 app.lua:18: rover.every starts nothing any more: the server stops",
        ];
        let found = notes.sorted();
        // The first tick of `every` may not have come.
        let expected: Vec<&str> = order.iter().flat_map(|line| vec![*line; workers]).collect();
        let ticked = found.iter().filter(|line| line.contains("every cancelled")).count();
        let without = |line: &&&str| !line.contains("every cancelled");
        let rest: Vec<&String> = found.iter().filter(|line| !line.contains("every cancelled")).collect();
        assert_eq!(rest, expected.iter().filter(without).copied().collect::<Vec<_>>());
        assert!(ticked <= workers);
        // In one worker nothing runs side by side, so the numbers say the order.
        if workers == 1 {
            let numbers: Vec<char> =
                notes.0.lock().expect("notes").iter().filter_map(|line| line.chars().next()).collect();
            assert!(numbers.is_sorted(), "{numbers:?}");
        }
    });
}

#[test]
fn a_hook_that_waits_when_the_server_stops_is_cancelled() {
    let code = "
        local function wait(name)
          note(name .. ' begins')
          note(name .. ' ' .. select(2, pcall(rover.sleep, 1000)))
        end
        function api.on_ready() wait('on_ready') end
        function api.on_shutdown() wait('on_shutdown') end";
    let notes = Notes::default();
    let app = notes.start(code, 1);
    wait_until(|| notes.sorted() == ["on_ready begins"]);
    drop(app);
    let expected = ["on_ready begins", "on_ready cancelled", "on_shutdown begins", "on_shutdown cancelled"];
    assert_eq!(notes.sorted(), expected);
}

#[test]
fn a_client_that_goes_away_cancels_all_that_its_handler_runs() {
    let code = "
        local function wait(name)
          note(name)
          local _, err = pcall(rover.sleep, 1000)
          note(name .. ' ' .. tostring(err))
        end
        function api.get(ctx)
          rover.timeout(1000, function()
            rover.all {
              function() wait('a') end,
              function() coroutine.wrap(wait)('b') end,
              function() rover.timeout(1000, wait, 'c') end,
              function() rover.spawn(rover.sleep, 0.001):join() wait('d') end,
            }
          end)
          note('never')
        end";
    each_worker_count(|workers| {
        let notes = Notes::default();
        let app = notes.start(code, workers);
        let mut client = app.connect();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        wait_until(|| notes.sorted() == ["a", "b", "c", "d"]);
        drop(client);
        wait_until(|| {
            notes.sorted() == ["a", "a cancelled", "b", "b cancelled", "c", "c cancelled", "d", "d cancelled"]
        });
    });
}

#[test]
fn the_bound_holds_and_memory_comes_back() {
    let code = "
        local api = rover.server { debug = true, handler_cpu_limit = 0 }
        local tasks
        local function used() collectgarbage() collectgarbage() return collectgarbage('count') / 1024 end
        function api.fill.get()
          tasks = {}
          local before = used()
          local ok, err
          repeat
            ok, err = pcall(rover.spawn, rover.sleep, 1000)
            if ok then tasks[#tasks + 1] = err end
          until not ok
          local none, more = pcall(rover.timeout, 1, print)
          return { #tasks, err, none, more, select(2, pcall(rover.all, { print })), before, used() }
        end
        function api.empty.get()
          for _, task in ipairs(tasks) do task:cancel() end
          for _, task in ipairs(tasks) do assert(select(2, task:join()) == 'cancelled') end
          tasks = nil
          local ok = rover.spawn(function() return 'room again' end):join()
          return { ok, used() }
        end
        return api";
    let app = App::start(code, 1);
    let mut left = 0.0;
    for round in 0..2 {
        let full = body(&app, "/fill");
        assert_eq!((&full[0], &full[2]), (&json!(50_000), &json!(false)));
        for error in [&full[1], &full[3], &full[4]] {
            let error = error.as_str().expect("an error");
            assert!(error.ends_with("50000 tasks run in this worker: there is no room for another"), "{error}");
        }
        let empty = body(&app, "/empty");
        assert_eq!(empty[0], "room again");
        let megabytes = empty[1].as_f64().expect("a number");
        let most = full[6].as_f64().expect("a number");
        assert!(megabytes < most / 4.0, "{megabytes} of {most} MB are left");
        // Only the pool of idle coroutines stays, and does not grow.
        if round == 0 {
            left = megabytes;
        }
        assert!(megabytes < left + 2.0, "{left} MB grew to {megabytes}");
    }
}

#[test]
fn the_top_level_starts_nothing() {
    for call in ["spawn(print)", "every(1, print)", "all { print }", "timeout(1, print)"] {
        let code = format!("rover.{call}");
        let error = Server::from_source("app.lua", &code).load().expect_err("it cannot run yet").to_string();
        let name = call.split(['(', ' ']).next().expect("a name");
        let expected = format!(
            "app.lua:1: rover.{name} cannot be called at the top level of the app: call it in a handler, a hook or a task"
        );
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn runs_of_every_never_overlap() {
    let code = "
        local inside, most, runs, task = 0, 0, 0, nil
        function api.on_start()
          task = rover.every(0.001, function()
            inside = inside + 1
            most = math.max(most, inside)
            rover.sleep(0.004)
            inside = inside - 1
            runs = runs + 1
          end)
        end
        function api.get() return { runs >= 5, most } end
        function api.stop.get()
          task:cancel()
          local _, err = task:join()
          local seen = runs
          rover.sleep(0.02)
          return { err, runs - seen }
        end";
    each_worker_count(|workers| {
        let app = Notes::default().start(code, workers);
        wait_until(|| body(&app, "/") == json!([true, 1]));
        assert_eq!(body(&app, "/stop"), json!(["cancelled", 0]));
    });
}
