//! WebSockets as an app declares them: handlers, state, broadcast, and what happens when things go wrong.

use serde_json::json;

use crate::support::websocket::{BINARY, CLOSE, TEXT, WebSocket, handshake};
use crate::support::{App, each_worker_count, wait_until};

fn start(code: &str, workers: usize) -> App {
    start_with("", code, workers)
}

fn start_with(config: &str, code: &str, workers: usize) -> App {
    App::start(&format!("local api = rover.server {{ {config} }}\n{code}\nreturn api"), workers)
}

/// A client that has been told its name, so `join` has run.
fn joined(app: &App, target: &str) -> WebSocket {
    let mut client = WebSocket::connect(app, target);
    assert_eq!(client.json()["type"], "welcome");
    client
}

#[test]
fn messages_find_their_handlers_and_change_the_state() {
    let code = "
        function api.chat.p_room.ws(ws)
          function ws.join(ctx)
            ws.send.welcome { room = ctx:params().room, name = ctx:query().name }
            return { n = 0 }
          end
          function ws.listen.add(msg, ctx, state)
            state.n = state.n + msg.by
            ws.send.sum { n = state.n, room = ctx:params().room, method = ctx.method }
          end
          function ws.listen.replace(msg, ctx, state) return { n = msg.n } end
          function ws.listen.no(msg, ctx, state) return false end
          function ws.listen.message(msg, ctx, state) ws.send.unknown { got = msg, state = state } end
          function ws.listen.text(text, ctx, state) ws.send_text(text:upper()) end
          function ws.listen.binary(bytes, ctx, state) ws.send_binary(bytes:reverse()) end
        end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        let mut client = WebSocket::connect(&app, "/chat/a%20b?name=Ada");
        assert_eq!(client.json(), json!({"type": "welcome", "room": "a b", "name": "Ada"}));
        client.text(r#"{"type":"add","by":2}"#);
        assert_eq!(client.json(), json!({"type": "sum", "n": 2, "room": "a b", "method": "GET"}));
        client.text(r#"{"type":"replace","n":40}"#);
        client.text(r#"{"type":"add","by":2}"#);
        assert_eq!(client.json()["n"], 42);
        client.text(r#"{"type":"no"}"#);
        for other in [r#"{"type":"other"}"#, r#"{"type":"text"}"#, r#"{"n":1}"#, r#"{"type":7}"#, "[1]"] {
            client.text(other);
            let got: serde_json::Value = serde_json::from_str(other).expect("JSON");
            assert_eq!(client.json(), json!({"type": "unknown", "got": got, "state": false}));
        }
        for plain in ["hello", "", "7", "{broken"] {
            client.text(plain);
            assert_eq!(client.read(), plain.to_uppercase());
        }
        client.send(BINARY, [1, 2, 255]);
        assert_eq!(client.frame(), Some((BINARY, vec![255, 2, 1])));
        client.close();
    });
}

#[test]
fn what_is_sent_carries_its_type() {
    let code = r#"
        function api.ws(ws)
          function ws.join()
            ws.send.welcome()
            ws.send.welcome(nil)
            ws.send.a {}
            ws.send.b { type = "b", x = 1 }
            ws.send.c { type = "other", x = 1 }
            ws.send["with space\n"] { list = rover.array {} }
            local wrong = {}
            for i, fn in ipairs {
              function() ws.send.x { 1, 2 } end, function() ws.send.x("text") end, function() ws.send.x { f = print } end,
              function() ws.send_text {} end, function() ws.send_text("\255") end, function() ws.send.x { 1 }:all {} end,
              function() ws.send.x().all {} end, function() ws.send.x():to {} end, function() ws.listen(7) end,
              function() ws.listen("") end, function() ws.close(1005) end, function() ws.close(1000, ("x"):rep(124)) end,
              function() ws.listen.late = print end, function() ws.join = print end, function() ws.other = 1 end,
            } do wrong[i] = select(2, pcall(fn)) end
            ws.send.wrong { messages = wrong }
          end
        end"#;
    let app = start(code, 1);
    let mut client = WebSocket::connect(&app, "/");
    for expected in [
        r#"{"type":"welcome"}"#,
        r#"{"type":"a"}"#,
        r#"{"type":"b","x":1}"#,
        r#"{"type":"c","x":1}"#,
        "{\"type\":\"with space\\n\",\"list\":[]}",
    ] {
        let (text, expected): (serde_json::Value, serde_json::Value) =
            (client.json(), serde_json::from_str(expected).expect("JSON"));
        assert_eq!(text, expected);
    }
    let wrong = client.json();
    let expected = [
        "the fields of a message have names, as in { text = \"hello\" }",
        "a message is a table of fields, not string",
        "f",
        "ws.send_text expects a string, not table",
        "ws.send_text expects UTF-8: send bytes with ws.send_binary",
        "the fields of a message have names, as in { text = \"hello\" }",
        "call it with a colon: ws.send.TYPE():all(t)",
        ":to expects a topic as a string, not table",
        "ws.listen expects a topic as a string, not number",
        "ws.listen expects a topic of 1 to 256 bytes",
        "ws.close expects a code that an app may send: 1000, 1001, 1003, 1007 to 1014 or 3000 to 4999",
        "ws.close expects a reason of at most 123 bytes of UTF-8",
        "ws.listen.late is declared when the app loads, not in a handler",
        "ws.join is declared when the app loads, not in a handler",
        "ws has no field 'other'; declare ws.join, ws.leave, ws.protocols and ws.listen.TYPE",
    ];
    for (n, expected) in expected.iter().enumerate() {
        let message = wrong["messages"][n].as_str().expect("a message");
        assert!(message.starts_with("app.lua:") && message.contains(expected), "{message}");
    }
}

const ROOMS: &str = r#"
    function api.chat.p_room.ws(ws)
      function ws.join(ctx)
        ws.listen("room:" .. ctx:params().room)
        ws.send.welcome {}
        return ctx:query().name
      end
      function ws.listen.all(msg) ws.send.said():all { text = msg.text } end
      function ws.listen.others(msg) ws.send.said():except { text = msg.text } end
      function ws.listen.room(msg, ctx) ws.send.said():to("room:" .. ctx:params().room) { text = msg.text } end
      function ws.listen.text(text) ws.send_text():all(text) end
      function ws.listen.binary(bytes) ws.send_binary():except(bytes) end
      function ws.listen.quiet(msg, ctx) ws.unlisten("room:" .. ctx:params().room) ws.send.quiet {} end
    end
    function api.other.ws(ws)
      function ws.join() ws.listen("room:a") ws.send.welcome {} end
    end
    function api.publish.post(ctx) return { rover.publish("room:a", "news", ctx:json()) } end
    function api.publish_bad.get()
      return { select(2, pcall(rover.publish, 1, 'x')), select(2, pcall(rover.publish, 'x')), select(2, pcall(rover.publish, 'x', 'y', 1)) }
    end"#;

#[test]
fn messages_reach_all_others_and_topics_on_every_worker() {
    each_worker_count(|workers| {
        let app = start(ROOMS, workers);
        // As many in each room as there are workers, dealt out in turn.
        let mut a: Vec<_> = (0..workers + 1).map(|_| joined(&app, "/chat/a?name=x")).collect();
        let mut b: Vec<_> = (0..workers + 1).map(|_| joined(&app, "/chat/b?name=y")).collect();
        let mut other = joined(&app, "/other");

        a[0].text(r#"{"type":"all","text":"1"}"#);
        for client in a.iter_mut().chain(&mut b) {
            assert_eq!(client.json(), json!({"type": "said", "text": "1"}));
        }
        b[0].text(r#"{"type":"others","text":"2"}"#);
        for client in a.iter_mut().chain(&mut b[1..]) {
            assert_eq!(client.json()["text"], "2");
        }
        a[1].text(r#"{"type":"room","text":"3"}"#);
        for client in a.iter_mut().chain([&mut other]) {
            assert_eq!(client.json()["text"], "3");
        }
        assert_eq!(app.post("/publish", r#"{"text":"4"}"#).text(), "[true]");
        for client in a.iter_mut().chain([&mut other]) {
            assert_eq!(client.json(), json!({"type": "news", "text": "4"}));
        }
        b[1].text("5");
        for client in a.iter_mut().chain(&mut b) {
            assert_eq!(client.read(), "5");
        }
        b[1].send(BINARY, [6]);
        let others = b.iter_mut().enumerate().filter(|(n, _)| *n != 1).map(|(_, client)| client);
        for client in a.iter_mut().chain(others) {
            assert_eq!(client.frame(), Some((BINARY, vec![6])));
        }
        // Whoever listens no more gets no more; whoever left is out of the groups.
        a[0].text(r#"{"type":"quiet"}"#);
        assert_eq!(a[0].json()["type"], "quiet");
        a.remove(1).close();
        assert_eq!(app.post("/publish", r#"{"text":"7"}"#).text(), "[true]");
        for client in a[1..].iter_mut().chain([&mut other]) {
            assert_eq!(client.json()["text"], "7");
        }
        a[0].text("8");
        assert_eq!(a[0].read(), "8");
        let messages: Vec<String> = serde_json::from_str(app.get("/publish_bad").text()).expect("JSON");
        assert!(messages[0].ends_with("rover.publish expects a topic as a string, not number"), "{messages:?}");
        assert!(messages[1].ends_with("expects the type of the message as a string, not nil"), "{messages:?}");
        assert!(messages[2].ends_with("a message is a table of fields, not number"), "{messages:?}");
    });
}

#[test]
fn a_client_hears_a_thousand_topics() {
    let code = "
        function api.ws(ws)
          function ws.join()
            for n = 1, 1000 do ws.listen('topic ' .. n) end
            ws.send.welcome {}
          end
          function ws.listen.more(msg) ws.send.more { raised = select(2, pcall(ws.listen, msg.topic)) } end
          function ws.listen.less(msg) ws.unlisten(msg.topic) ws.send.less {} end
        end";
    let app = start(code, 1);
    let mut client = joined(&app, "/");
    let mut more = |topic: &str| {
        client.text(&json!({"type": "more", "topic": topic}).to_string());
        client.json()["raised"].as_str().map(str::to_owned)
    };
    assert_eq!(more("topic 7"), None);
    let raised = more("topic 1001").expect("a mistake");
    assert!(raised.ends_with("a client listens to at most 1000 topics"), "{raised}");
    client.text(r#"{"type":"less","topic":"topic 7"}"#);
    assert_eq!(client.json()["type"], "less");
    client.text(r#"{"type":"more","topic":"topic 1001"}"#);
    assert_eq!(client.json(), json!({"type": "more"}));
}

#[test]
fn two_servers_stay_apart() {
    let server =
        || rover_server::Server::from_source("app.lua", format!("local api = rover.server {{}}\n{ROOMS}\nreturn api"));
    let one = server();
    let (first, second) = (App::start_server(one.clone().workers(1)), App::start_server(one.workers(1)));
    let (mut a, mut b) = (joined(&first, "/chat/a"), joined(&second, "/chat/a"));
    first.post("/publish", r#"{"text":"first"}"#);
    second.post("/publish", r#"{"text":"second"}"#);
    assert_eq!(a.json()["text"], "first");
    assert_eq!(b.json()["text"], "second");
}

#[test]
fn middleware_runs_before_the_upgrade() {
    let code = "
        function api.before.auth(ctx)
          if ctx:query().key ~= 'secret' then return api:error(401, 'Unauthorized') end
          ctx:set('user', 'Ada')
        end
        function api.after.mark(ctx, res) res:header('X-After', ctx:request_id()) end
        function api.live.ws(ws)
          function ws.join(ctx) ws.send.welcome { user = ctx:get('user'), id = ctx:request_id(), body = ctx:body() } end
          function ws.listen.again(_, ctx) ws.send.again { user = ctx:get('user'), id = ctx:request_id(), host = ctx:header('host') } end
        end
        function api.live.get(ctx) return 'a page' end
        function api.late.ws(ws) end
        function api.late.after.no(ctx, res) return 'changed' end";
    each_worker_count(|workers| {
        let app = start(code, workers);
        assert_eq!(app.send(handshake("/live", "")).status, 401);
        let mut client = WebSocket::connect(&app, "/live?key=secret");
        let welcome = client.json();
        assert_eq!(welcome["user"], "Ada");
        client.text(r#"{"type":"again"}"#);
        assert_eq!(client.json(), json!({"type": "again", "user": "Ada", "id": welcome["id"], "host": "test"}));
        assert_eq!(app.get("/live?key=secret").text(), "a page");
        // What a hook puts in place of the handshake's answer is the answer, and the connection goes on.
        let mut client = app.connect();
        for _ in 0..2 {
            client.send(handshake("/late?key=secret", ""));
            assert_eq!(client.answer().text(), "changed");
        }
    });
}

#[test]
fn one_client_s_messages_are_handled_in_order_one_at_a_time() {
    let code = "
        function api.ws(ws)
          local busy = 0
          function ws.join() rover.sleep(0.02) ws.send.joined {} return {} end
          function ws.listen.work(msg, ctx, state)
            busy = busy + 1
            rover.sleep(msg.time)
            ws.send.done { n = msg.n, busy = busy }
            busy = busy - 1
          end
        end";
    let app = start(code, 1);
    let mut client = WebSocket::connect(&app, "/");
    for n in 0..20 {
        client.text(&json!({"type": "work", "n": n, "time": if n % 2 == 0 { 0.01 } else { 0.0 }}).to_string());
    }
    assert_eq!(client.json()["type"], "joined");
    for n in 0..20 {
        assert_eq!(client.json(), json!({"type": "done", "n": n, "busy": 1}));
    }
}

#[test]
fn what_a_handler_starts_knows_its_client() {
    let code = "
        function api.ws(ws)
          function ws.join()
            rover.spawn(function() rover.sleep(0.001) ws.send.spawned {} end):join()
            rover.all { function() ws.send.all {} end }
            rover.timeout(1, function() coroutine.wrap(function() rover.sleep(0.001) ws.send.timeout {} end)() end)
            local timer
            timer = rover.every(0.001, function() ws.send.every {} timer:cancel() end)
            timer:join()
          end
          function ws.listen.post(msg)
            local n = 0
            local res = rover.http.post(msg.url, function()
              n = n + 1
              if n == 1 then ws.send.body {} return 'piece' end
            end)
            ws.send.posted { text = res.body }
          end
        end
        function api.echo.post(ctx) return ctx:body() end
        function api.none.get() return { pcall(function() return api.kept.send.x {} end) } end
        function api.kept_ws.ws(ws) rawset(api, 'kept', ws) end";
    let app = start(code, 1);
    let mut client = WebSocket::connect(&app, "/");
    for expected in ["spawned", "all", "timeout", "every"] {
        assert_eq!(client.json()["type"], expected);
    }
    client.text(&json!({"type": "post", "url": format!("http://{}/echo", app.address)}).to_string());
    assert_eq!(client.json()["type"], "body");
    assert_eq!(client.json(), json!({"type": "posted", "text": "piece"}));
    let answer: serde_json::Value = serde_json::from_str(app.get("/none").text()).expect("JSON");
    assert!(answer[1].as_str().expect("a message").contains("no client is known here"), "{answer}");
}

const LEAVING: &str = "
    local left = {}
    function api.ws(ws)
      function ws.join(ctx) ws.send.welcome {} return ctx:query().name end
      function ws.listen.nap(msg)
        ws.send.began {}
        local ok, err = pcall(rover.sleep, msg.time)
        left[#left + 1] = 'handler: ' .. tostring(err)
      end
      function ws.listen.boom() error('boom') end
      function ws.listen.bye() ws.close(4001, 'bye') left[#left + 1] = tostring((ws.send.late {})) end
      function ws.leave(state, ctx) rover.sleep(0.001) left[#left + 1] = state .. ' left ' .. ctx.path .. tostring((ws.send.x {})) end
    end
    function api.left.get() local all = left left = {} return rover.array(all) end";

/// What `left` has collected, once there is as much.
fn left(app: &App, n: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    wait_until(|| {
        let more: Vec<String> = serde_json::from_str(app.get("/left").text()).expect("JSON");
        all.extend(more);
        all.len() >= n
    });
    all
}

#[test]
fn leave_runs_however_a_client_goes() {
    each_worker_count(|workers| {
        let app = start(LEAVING, workers);
        joined(&app, "/?name=clean").close();
        assert_eq!(left(&app, 1), ["clean left /nil"]);
        drop(joined(&app, "/?name=cut"));
        assert_eq!(left(&app, 1), ["cut left /nil"]);

        let mut client = joined(&app, "/?name=closed");
        client.text(r#"{"type":"bye"}"#);
        assert_eq!(client.closed(), (4001, "bye".to_owned()));
        client.close();
        assert_eq!(left(&app, 2), ["nil", "closed left /nil"]);

        let mut client = joined(&app, "/?name=failed");
        client.text(r#"{"type":"boom"}"#);
        assert_eq!(client.closed().0, 1011);
        client.close();
        assert_eq!(left(&app, 1), ["failed left /nil"]);
    });
}

#[test]
fn a_client_that_is_cut_cancels_its_handler_and_one_that_closes_does_not() {
    let app = start(LEAVING, 1);
    let mut client = joined(&app, "/?name=cut");
    client.text(r#"{"type":"nap","time":1000}"#);
    assert_eq!(client.json()["type"], "began");
    client.text(r#"{"type":"nap","time":0}"#);
    drop(client);
    // The second message comes too late.
    assert_eq!(left(&app, 2), ["handler: cancelled", "cut left /nil"]);
    let mut client = joined(&app, "/?name=clean");
    client.text(r#"{"type":"nap","time":0.05}"#);
    client.close();
    assert_eq!(left(&app, 2), ["handler: nil", "clean left /nil"]);
}

#[test]
fn a_handler_without_an_end_does_not_hold_its_client() {
    let app = start_with("websocket = { ping_interval = 0.05, ping_timeout = 0.05 }", LEAVING, 1);
    // Its messages fill what is read ahead, and nothing is sent to it but pings.
    let mut client = joined(&app, "/?name=full");
    client.text(r#"{"type":"nap","time":1000}"#);
    for _ in 0..20 {
        client.text(r#"{"type":"nap","time":1000}"#);
    }
    assert_eq!(client.json()["type"], "began");
    drop(client);
    assert_eq!(left(&app, 2), ["handler: cancelled", "full left /nil"]);

    let app = start(LEAVING, 1);
    let busy = |name: &str| {
        let mut client = joined(&app, &format!("/?name={name}"));
        client.text(r#"{"type":"nap","time":1000}"#);
        assert_eq!(client.json()["type"], "began");
        client
    };
    let (mut clean, mut wrong) = (busy("clean"), busy("wrong"));
    // The connection ends at once, the handler some time later.
    clean.send(CLOSE, [0x03, 0xe8]);
    assert_eq!(clean.closed().0, 1000);
    clean.ended();
    wrong.send(TEXT, [0xff]);
    assert_eq!(wrong.closed().0, 1007);
    wrong.ended();
    let mut all = left(&app, 4);
    all.sort();
    assert_eq!(all, ["clean left /nil", "handler: cancelled", "handler: cancelled", "wrong left /nil"]);
}

#[test]
fn leave_runs_where_no_more_tasks_fit() {
    let code = format!(
        "{LEAVING}
        function api.fill.get()
          local n = -1
          repeat n = n + 1 until not pcall(rover.spawn, rover.sleep, 1000)
          return n
        end"
    );
    let app = start_with("handler_cpu_limit = 0", &code, 1);
    let client = joined(&app, "/?name=x");
    assert_eq!(app.get("/fill").text(), "50000");
    drop(client);
    assert_eq!(left(&app, 1), ["x left /nil"]);
}

/// What the handlers and hooks of a version before a reload have stored.
const RETIRING: &str = "
    local ends = rover.shared.ends
    function api.on_shutdown() ends:incr('shutdown', 1, 0) end
    function api.ends.get() return { ends:get('leave') or 0, ends:get('shutdown') or 0 } end";

#[test]
fn a_reload_ends_handlers_whose_client_has_gone() {
    let code = format!(
        "{RETIRING}
        function api.ws(ws)
          function ws.join() ws.send.welcome {{}} end
          function ws.listen.forever() while true do rover.sleep(0.05) ws.send.tick {{}} end end
          function ws.leave() ends:incr('leave', 1, 0) end
        end"
    );
    let app = start(&code, 1);
    let mut client = joined(&app, "/");
    client.text(r#"{"type":"forever"}"#);
    assert_eq!(client.json()["type"], "tick");
    app.reload().expect("it loads again");
    while let Some((opcode, _)) = client.frame()
        && opcode != CLOSE
    {}
    client.close();
    wait_until(|| app.get("/ends").text() == "[1,1]");
}

#[test]
fn a_client_that_does_not_keep_up_is_dropped_and_slows_nobody() {
    let code = "
        local gone = {}
        function api.ws(ws)
          function ws.join(ctx) ws.send.welcome {} return ctx:query().name end
          function ws.listen.part(msg) ws.send.part():all { n = msg.n, text = ('x'):rep(100000) } end
          function ws.leave(state) gone[#gone + 1] = state end
        end
        function api.gone.get() return rover.array(gone) end";
    each_worker_count(|workers| {
        let app = start_with("websocket = { max_queue = '300KB', ping_interval = 3600 }", code, workers);
        let mut slow: Vec<_> = (0..workers).map(|_| joined(&app, "/?name=slow")).collect();
        let mut fast: Vec<_> = (0..workers).map(|_| joined(&app, "/?name=fast")).collect();
        // More than the kernel's buffers hold. Each part is read by all who read before the next is made.
        for n in 1..=200 {
            fast[0].text(&format!("{{\"type\":\"part\",\"n\":{n}}}"));
            for client in &mut fast {
                assert_eq!(client.json()["n"], n);
            }
        }
        for client in &mut slow {
            let mut last = None;
            while let Some(frame) = client.frame() {
                last = Some(frame);
            }
            let (opcode, payload) = last.expect("a frame");
            if opcode == CLOSE {
                assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), 1013);
            } else {
                assert_eq!(opcode, TEXT);
            }
        }
        wait_until(|| {
            let gone: Vec<_> = (0..workers).map(|_| app.get("/gone").text().to_owned()).collect();
            gone.iter().all(|gone| gone == r#"["slow"]"#)
        });
    });
}

#[test]
fn sending_to_one_s_own_client_waits_for_room() {
    let code = "
        function api.ws(ws)
          function ws.listen.pour(msg)
            local text = ('x'):rep(100000)
            for i = 1, msg.n do ws.send.part { n = i, text = text } end
          end
        end";
    let app = start_with("websocket = { max_queue = '300KB' }", code, 1);
    let mut client = WebSocket::connect(&app, "/");
    client.text(r#"{"type":"pour","n":300}"#);
    for n in 1..=300 {
        assert_eq!(client.json()["n"], n);
    }
    client.close();
}

#[test]
fn the_server_s_end_is_told() {
    each_worker_count(|workers| {
        let mut app = start(LEAVING, workers);
        let mut clients: Vec<_> = (0..workers).map(|_| joined(&app, "/?name=x")).collect();
        app.begin_stop();
        for client in &mut clients {
            assert_eq!(client.closed().0, 1001);
            client.close();
        }
        app.ended();
    });
}

#[test]
fn mistakes_in_declarations_are_found_when_the_app_loads() {
    let code = "local api = rover.server {}
        api.a.ws = 7
        function api.b.ws(ws) end
        function api.b.ws(ws) end
        function api.c.ws(ws) ws.listen.x = 7 end
        function api.d.ws(ws)
          function ws.listen.x() end
          function ws.listen.x() end
        end
        function api.e.ws(ws) ws.send.x {} end
        function api.f.ws(ws) error('boom') end
        function api.g.ws(ws) function ws.leve() end end
        function api.ws.get(ctx) end
        return api";
    let error = rover_server::Server::from_source("app.lua", code).check().expect_err("mistakes").to_string();
    let expected = [
        "app.lua:2: api.a.ws must be a function, not a number",
        "app.lua:4: api.b.ws is already declared (app.lua:3); remove one of the two",
        "app.lua:5: ws.listen.x must be a function, not a number",
        "app.lua:8: ws.listen.x is already declared",
        "app.lua:10: no client is known here",
        "app.lua:11: boom",
        "app.lua:12: ws has no field 'leve'; declare ws.join, ws.leave, ws.protocols and ws.listen.TYPE",
        "app.lua:13: api.ws: ws is reserved for WebSockets; declare one with function api.ws(ws)",
    ];
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{error}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
}

/// What a client took is given back, however it goes.
#[test]
fn clients_leave_nothing_behind() {
    let code =
        format!("{LEAVING} function api.memory.get() left = {{}} collectgarbage() return collectgarbage('count') end");
    let app = start(&code, 1);
    let cycle = || {
        let clients: Vec<_> = (0..10).map(|_| joined(&app, "/?name=x")).collect();
        for (n, mut client) in clients.into_iter().enumerate() {
            match n % 4 {
                0 => client.close(),
                1 => client.text(r#"{"type":"nap","time":1000}"#),
                2 => client.text(r#"{"type":"boom"}"#),
                _ => client.raw([0xff; 10]),
            }
        }
        let mut gone = 0;
        wait_until(|| {
            let left: Vec<String> = serde_json::from_str(app.get("/left").text()).expect("JSON");
            gone += left.iter().filter(|line| line.starts_with("x left")).count();
            gone == 10
        });
        app.get("/memory").text().parse::<f64>().expect("a number of KB")
    };
    let before = (0..5).fold(0.0, |_, _| cycle());
    let after = (0..20).fold(0.0, |_, _| cycle());
    assert!(after < before + 30.0, "{before} KB, then {after} KB");
}

#[tokio::test(flavor = "current_thread")]
async fn a_reload_asks_clients_to_come_again_and_finishes_streams() {
    let code = "
        local api = rover.server {}
        function api.live.ws(ws) function ws.join() ws.send.welcome {} end end
        function api.events.get() return api.sse(function() rover.sleep(1000) end) end
        function api.file.get()
          local n = 0
          return api.stream(200, 'text/plain', function()
            n = n + 1
            if n == 1 then return 'first ' end
            if n == 2 then rover.sleep(0.3) return 'last' end
          end)
        end
        return api";
    let server = rover_server::Server::from_source("app.lua", code).workers(2).port(0);
    let listening = server.log_level(rover_server::Level::Off).bind().expect("the app loads");
    let control = listening.control();
    let address = listening.addresses()[0].trim_start_matches("http://").parse().expect("an address");
    let (loaded, reloaded) = tokio::sync::oneshot::channel::<()>();
    let (done, stop) = tokio::sync::oneshot::channel::<()>();
    let clients = std::thread::spawn(move || {
        let mut live: Vec<_> = (0..2)
            .map(|_| {
                let mut client = WebSocket::to(address, handshake("/live", ""));
                assert_eq!(client.json()["type"], "welcome");
                client
            })
            .collect();
        let mut streams: Vec<_> = ["/events", "/file"].map(|path| stream(address, path)).into();
        loaded.send(()).expect("the server waits");
        for client in &mut live {
            assert_eq!(client.closed().0, 1001);
            client.close();
        }
        let rest: Vec<String> = streams.iter_mut().map(|(stream, seen)| finish(stream, seen)).collect();
        assert!(rest[0].ends_with("\r\n\r\n0\r\n\r\n"), "{}", rest[0]);
        assert!(rest[1].ends_with("last\r\n0\r\n\r\n"), "{}", rest[1]);
        let mut again = WebSocket::to(address, handshake("/live", ""));
        assert_eq!(again.json()["type"], "welcome");
        done.send(()).expect("the server waits");
    });
    let ended = listening.run_until(async {
        reloaded.await.expect("clients are there");
        control.reload().await.expect("it loads again");
        let _ = stop.await;
    });
    ended.await.expect("a good end");
    clients.join().expect("the clients saw what they should");
}

/// A GET whose answer has begun.
fn stream(address: std::net::SocketAddr, path: &str) -> (std::net::TcpStream, String) {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(crate::support::DEADLINE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").expect("the server reads");
    let mut seen = String::new();
    while !seen.contains("\r\n\r\n") {
        read_more(&mut stream, &mut seen);
    }
    (stream, seen)
}

fn read_more(stream: &mut std::net::TcpStream, seen: &mut String) {
    use std::io::Read;
    let mut space = [0; 1024];
    let n = stream.read(&mut space).expect("bytes");
    assert_ne!(n, 0, "the connection ended: {seen}");
    seen.push_str(&String::from_utf8_lossy(&space[..n]));
}

/// All of the answer, up to its last chunk.
fn finish(stream: &mut std::net::TcpStream, seen: &mut String) -> String {
    while !seen.ends_with("0\r\n\r\n") {
        read_more(stream, seen);
    }
    seen.clone()
}
