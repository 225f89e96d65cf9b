//! What a server tells of itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rover_server::Server;

use crate::support::websocket::WebSocket;
use crate::support::{Answer, App, DEADLINE, each_worker_count, wait_until};

fn start(code: &str, workers: usize) -> App {
    start_server(Server::from_source("app.lua", code).workers(workers))
}

fn start_server(server: Server) -> App {
    let app = App::start_server(server.set("management.port", "0"));
    wait_until(|| !app.told("/readyz").text().contains("starting"));
    app
}

/// The figures by name and labels, as they are written.
fn figures(app: &App) -> HashMap<String, f64> {
    let page = app.told("/metrics");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    let lines = page.text().lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, number) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), number.parse().unwrap())
        })
        .collect()
}

/// The sum of a figure over all labels.
fn sum(figures: &HashMap<String, f64>, name: &str) -> f64 {
    let own = |key: &str| key == name || key.starts_with(&format!("{name}{{"));
    figures.iter().filter(|(key, _)| own(key)).map(|(_, number)| number).sum()
}

const APP: &str = "local api = rover.server { access_log = false } \
                   function api.hello.p_name.get(ctx) return 'hello ' .. ctx:params().name end \
                   function api.hello.p_name.put(ctx) return api.no_content() end \
                   function api.fails.get() error('on purpose') end \
                   function api.any.any() return 'any' end \
                   return api";

#[test]
fn requests_are_counted_by_route_method_and_status() {
    each_worker_count(|workers| {
        let app = start(APP, workers);
        for n in 0..5 {
            assert_eq!(app.get(&format!("/hello/{n}")).status, 200);
        }
        app.send("PUT /hello/1 HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi");
        app.send("DELETE /hello/1 HTTP/1.1\r\nHost: test\r\n\r\n");
        app.send("BREW /any HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!((app.get("/fails").status, app.get("/nowhere").status), (500, 404));
        let figures = figures(&app);
        for (key, count) in [
            (r#"rover_requests_total{route="/hello/{name}",method="GET",status="200"}"#, 5.0),
            (r#"rover_requests_total{route="/hello/{name}",method="PUT",status="204"}"#, 1.0),
            (r#"rover_requests_total{route="/any",method="other",status="200"}"#, 1.0),
            (r#"rover_requests_total{route="/fails",method="GET",status="500"}"#, 1.0),
            (r#"rover_requests_total{route="",method="GET",status="404"}"#, 1.0),
            (r#"rover_requests_total{route="",method="DELETE",status="405"}"#, 1.0),
            (r#"rover_request_duration_seconds_count{route="/hello/{name}",method="GET"}"#, 5.0),
            (r#"rover_request_duration_seconds_bucket{route="/hello/{name}",method="GET",le="+Inf"}"#, 5.0),
        ] {
            assert_eq!(figures.get(key), Some(&count), "{key} {figures:#?}");
        }
        assert_eq!(sum(&figures, "rover_requests_total"), 10.0);
        assert_eq!(sum(&figures, "rover_connections_accepted_total"), 10.0);
        assert_eq!(sum(&figures, "rover_requests_in_flight"), 0.0);
        assert_eq!(sum(&figures, "rover_worker_up"), workers as f64);
        assert!(sum(&figures, "rover_received_bytes_total") >= 300.0);
        assert!(sum(&figures, "rover_sent_bytes_total") >= 1000.0);
        assert!(sum(&figures, "rover_lua_memory_bytes") >= 100_000.0 * workers as f64);
        assert!(sum(&figures, "process_resident_memory_bytes") > 1e6);
        wait_until(|| sum(&self::figures(&app), "rover_event_loop_lag_seconds_count") >= workers as f64);
    });
}

#[test]
fn requests_are_counted_while_they_wait_and_when_their_client_goes() {
    let code = "local api = rover.server {} function api.get() rover.sleep(60) end return api";
    let app = start(code, 1);
    let mut client = app.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until(|| sum(&figures(&app), "rover_requests_in_flight") == 1.0);
    assert_eq!(figures(&app)[r#"rover_coroutines{pool="handlers",state="busy"}"#], 1.0);
    drop(client);
    wait_until(|| sum(&figures(&app), "rover_requests_in_flight") == 0.0);
    assert_eq!(figures(&app)[r#"rover_requests_total{route="/",method="GET",status="499"}"#], 1.0);
}

#[test]
fn tasks_are_counted_as_long_as_they_last() {
    let code = "
        local api = rover.server {}
        local timer, sleeper, ended
        function api.start.get()
          timer = rover.every(1000, function() end)
          sleeper = rover.spawn(function() rover.sleep(1000) end)
          ended = rover.spawn(function() return 'x' end)
          return ended:join()
        end
        function api.stop.get() timer:cancel() sleeper:cancel() ended = nil collectgarbage() return 'off' end
        return api";
    let app = start(code, 1);
    assert_eq!(app.get("/start").text(), "x");
    let coroutines = |figures: &HashMap<String, f64>, state: &str| {
        figures[&format!(r#"rover_coroutines{{pool="tasks",state="{state}"}}"#)]
    };
    // The timer waits for its time, and the other task for its own.
    let on = figures(&app);
    assert_eq!((sum(&on, "rover_tasks"), coroutines(&on, "busy"), coroutines(&on, "held")), (2.0, 1.0, 2.0), "{on:#?}");
    assert_eq!(app.get("/stop").text(), "off");
    wait_until(|| sum(&figures(&app), "rover_tasks") == 0.0);
    wait_until(|| coroutines(&figures(&app), "held") == 0.0 && coroutines(&figures(&app), "busy") == 0.0);
}

#[test]
fn requests_to_other_servers_are_counted() {
    let code = "local api = rover.server {}
                local client = rover.http.create { name = 'c', breaker = { failures = 2 } }
                function api.get() return select(2, client.get('http://127.0.0.1:1/')) end
                return api";
    let app = start(code, 1);
    let answers: Vec<_> = (0..3).map(|_| app.get("/").text().to_owned()).collect();
    assert_eq!(answers, ["connection refused", "connection refused", "circuit open"]);
    let figures = figures(&app);
    for (name, number) in [
        ("requests_total", 2.0),
        ("failures_total", 2.0),
        ("rejected_total", 1.0),
        ("broken_circuits", 1.0),
        ("active_requests", 0.0),
    ] {
        let key = format!(r#"rover_outbound_{name}{{client="c",origin="http://127.0.0.1:1"}}"#);
        assert_eq!(figures.get(&key), Some(&number), "{key} {figures:#?}");
    }
}

#[test]
fn counts_outlive_a_reload() {
    each_worker_count(|workers| {
        let app = start(APP, workers);
        for reloads in 0..3 {
            app.get("/hello/x");
            let figures = figures(&app);
            let key = r#"rover_requests_total{route="/hello/{name}",method="GET",status="200"}"#;
            assert_eq!(figures[key], f64::from(reloads) + 1.0);
            assert_eq!(figures[r#"rover_reloads_total{result="ok"}"#], f64::from(reloads));
            app.reload().unwrap();
        }
        wait_until(|| sum(&figures(&app), "rover_retired_versions") == 0.0);
    });
}

#[test]
fn the_collector_s_rounds_are_counted() {
    let code = "local api = rover.server {} function api.get() collectgarbage() collectgarbage() end return api";
    let app = start(code, 1);
    let before = sum(&figures(&app), "rover_lua_gc_rounds");
    app.get("/");
    assert!(sum(&figures(&app), "rover_lua_gc_rounds") > before);
}

#[test]
fn health_routes_and_workers() {
    each_worker_count(|workers| {
        let app = start(APP, workers);
        assert_eq!(app.told("/healthz").text(), "{\"status\":\"ok\"}\n");
        assert_eq!(app.told("/readyz").text(), "{\"ready\":true}\n");
        let routes: serde_json::Value = serde_json::from_slice(&app.told("/routes").body).unwrap();
        let first = serde_json::json!({ "method": "GET", "path": "/hello/{name}", "file": "app.lua", "line": 1 });
        assert_eq!((routes.as_array().unwrap().len(), &routes[0]), (4, &first));
        let told: serde_json::Value = serde_json::from_slice(&app.told("/workers").body).unwrap();
        let numbers: Vec<_> = told.as_array().unwrap().iter().map(|worker| worker["worker"].as_u64()).collect();
        assert_eq!(numbers, (1..=workers as u64).map(Some).collect::<Vec<_>>());
        assert_eq!(told[0]["responds"], true);
        assert_eq!(app.told("/nothing").status, 404);
    });
}

#[test]
fn on_ready_check_decides_readiness() {
    let code =
        |check: &str| format!("local api = rover.server {{}} function api.on_ready_check() {check} end return api");
    let unready = |reason: &str| (503, format!("{{\"ready\":false,\"reason\":\"{reason}\"}}\n"));
    let ready = (200, "{\"ready\":true}\n".to_owned());
    for (check, expected) in [
        ("", ready.clone()),
        ("return true", ready.clone()),
        ("return { database = true, queue = true }", ready.clone()),
        ("rover.sleep(0.01) return true", ready),
        ("return false", unready("not ready")),
        ("return false, 'no database'", unready("no database")),
        ("return nil, 'no database'", unready("no database")),
        ("return 'no database'", unready("no database")),
        ("return { queue = 'full', database = false }", unready("database: not ready, queue: full")),
        ("return 1", unready("on_ready_check returned a number")),
        ("error('on purpose')", unready("on_ready_check failed")),
    ] {
        let app = start(&code(check), 1);
        let answer = app.told("/readyz");
        assert_eq!((answer.status, answer.text().to_owned()), expected, "{check}");
    }
}

#[test]
fn a_stopping_server_is_not_ready_while_it_still_serves() {
    let server = Server::from_source("app.lua", APP).workers(1).set("drain_delay", "1");
    let mut app = start_server(server);
    app.begin_stop();
    wait_until(|| app.told("/readyz").status == 503);
    assert_eq!(app.told("/readyz").text(), "{\"ready\":false,\"reason\":\"the server is stopping\"}\n");
    assert_eq!(app.told("/healthz").status, 200);
    assert_eq!(app.get("/hello/x").text(), "hello x");
    app.ended();
}

#[test]
fn a_worker_that_is_stuck_keeps_nobody_from_asking() {
    let free = Arc::new(AtomicBool::new(false));
    let is_free = free.clone();
    let code = "local api = rover.server {} function api.get() hold() end return api";
    let server = Server::from_source("app.lua", code).workers(1).set("handler_cpu_limit", "0");
    let app = start_server(server.function("hold", move |_, ()| {
        while !is_free.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        Ok(())
    }));
    assert_eq!(figures(&app)[r#"rover_worker_up{worker="1"}"#], 1.0);
    let mut client = app.connect();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until(|| figures(&app)[r#"rover_worker_up{worker="1"}"#] == 0.0);
    assert!(figures(&app).contains_key(r#"rover_connections{worker="1"}"#), "older figures stand for it");
    free.store(true, Ordering::SeqCst);
    assert_eq!(client.answer().status, 204);
    wait_until(|| figures(&app)[r#"rover_worker_up{worker="1"}"#] == 1.0);
}

#[test]
fn the_listener_is_off_unless_it_is_configured() {
    let app = App::start(APP, 1);
    assert_eq!(app.management, None);
}

#[test]
fn traces_are_kept_or_begun() {
    each_worker_count(|workers| {
        let code = "local api = rover.server {} function api.get(ctx) \
                    return tostring(ctx:trace_id()) .. ' ' .. tostring(ctx:header('traceparent')) end return api";
        let app = App::start(code, workers);
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let sent = app.send(format!("GET / HTTP/1.1\r\nHost: test\r\nTraceparent: {trace}\r\n\r\n"));
        assert_eq!(sent.text(), format!("4bf92f3577b34da6a3ce929d0e0e4736 {trace}"));
        assert_eq!(app.get("/").text(), "nil nil");
        let server = Server::from_source("app.lua", code).workers(workers).set("trace_context", "new");
        let app = App::start_server(server);
        let sent = app.send(format!("GET / HTTP/1.1\r\nHost: test\r\nTraceparent: {trace}\r\n\r\n"));
        assert_eq!(sent.text(), format!("4bf92f3577b34da6a3ce929d0e0e4736 {trace}"));
        let made = app.get("/");
        let (id, parent) = made.text().split_once(' ').unwrap();
        assert!(id.len() == 32 && parent.starts_with(&format!("00-{id}-")), "{}", made.text());
    });
}

#[test]
fn counts_outlive_a_worker() {
    let code = "local api = rover.server {} function api.get() return 'on' end function api.block.get() block() end return api";
    let server = Server::from_source("app.lua", code).workers(1).worker_stall_limit(Duration::from_secs(1));
    let app = start_server(server.function("block", |_, ()| {
        std::thread::sleep(DEADLINE);
        Ok(())
    }));
    for _ in 0..5 {
        app.get("/");
    }
    let key = r#"rover_requests_total{route="/",method="GET",status="200"}"#;
    assert_eq!(figures(&app)[key], 5.0);
    let mut client = app.connect();
    client.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.rest(), "");
    assert_eq!(figures(&app)["rover_stuck_threads"], 1.0);
    app.get("/");
    wait_until(|| figures(&app)[r#"rover_worker_up{worker="1"}"#] == 1.0);
    let figures = figures(&app);
    assert_eq!(figures[key], 6.0, "a counter never shrinks");
    assert!(figures[r#"rover_connections_accepted_total{worker="1"}"#] >= 6.0);
    assert_eq!((figures["rover_workers_lost_total"], figures["rover_workers_replaced_total"]), (1.0, 1.0));
}

#[test]
fn cpu_time_is_counted_by_route() {
    let code = "local api = rover.server { handler_cpu_limit = 0 }
                function api.busy.p_n.get()
                  local n, began = 0, rover.time()
                  while rover.time() - began < 0.5 do n = n + #tostring(n) end
                  return 'done'
                end
                function api.get() return 'on' end
                return api";
    each_worker_count(|workers| {
        let app = start(code, workers);
        app.get("/");
        app.get("/busy/1");
        let busy = r#"rover_lua_cpu_seconds_total{route="/busy/{n}",method="GET"}"#;
        // Others on the machine may leave it little of that time.
        let taken = figures(&app)[busy];
        assert!((0.01..0.6).contains(&taken), "{taken} s");
        app.reload().unwrap();
        wait_until(|| sum(&figures(&app), "rover_retired_versions") == 0.0);
        app.get("/busy/2");
        assert!(figures(&app)[busy] > taken, "a reload forgets nothing");
    });
}

#[test]
fn clients_that_do_nothing_are_few() {
    use std::io::{Read, Write};
    let app = start(APP, 1);
    let connect = || std::net::TcpStream::connect(app.management.unwrap()).unwrap();
    let idle: Vec<_> = (0..65).map(|_| connect()).collect();
    // Closed without a word: there is no room for it.
    assert!(matches!(idle.last().unwrap().read(&mut [0]), Ok(0) | Err(_)));
    drop(idle);
    wait_until(|| {
        let mut client = connect();
        let mut answer = String::new();
        let _ = client.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n");
        let _ = client.read_to_string(&mut answer);
        // Each connection ends with its answer.
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: close\r\n")
    });
}

/// Asks for a profile.
fn profile(app: &App, query: &str) -> Answer {
    app.told_to(&format!("POST /profile?{query} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"))
}

#[test]
fn what_acts_is_asked_for_by_post_and_what_tells_by_get() {
    let app = start(APP, 1);
    for method in ["GET", "DELETE"] {
        let page = app.told_to(&format!("{method} /profile?seconds=300 HTTP/1.0\r\n\r\n"));
        let allow = if method == "DELETE" { "GET, HEAD" } else { "POST" };
        assert_eq!((page.status, page.header("allow")), (405, Some(allow)), "{method}");
    }
    let page = app.told_to("POST /metrics HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((page.status, page.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(app.told_to("POST /none HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").status, 404);
}

#[test]
fn pages_of_other_sites_are_told_nothing() {
    let server = Server::from_source("app.lua", APP).workers(1).set("management.port", "0");
    let app = App::start_server(server.set("management.hosts", "rover.default.svc"));
    let ask = |headers: &str| app.told_to(&format!("GET /metrics HTTP/1.1\r\n{headers}\r\n\r\n"));
    for host in ["127.0.0.1:9090", "[::1]:9090", "localhost", "rover", "ROVER.default.svc:9090"] {
        assert_eq!(ask(&format!("Host: {host}")).status, 200, "{host}");
        assert_eq!(ask(&format!("Host: {host}\r\nOrigin: http://{host}")).status, 200, "{host}");
        assert_eq!(ask(&format!("Host: {host}\r\nOrigin: http://evil.example")).status, 403, "{host}");
        assert_eq!(ask(&format!("Host: {host}\r\nOrigin: null")).status, 403, "{host}");
    }
    for host in ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "rover.other.svc"] {
        let refused = ask(&format!("Host: {host}"));
        assert_eq!(refused.status, 403, "{host}");
        assert!(refused.text().contains("management.hosts"), "the cure is named");
    }
    let crossed = "Host: 127.0.0.1\r\nOrigin: http://evil.example\r\nContent-Length: 0";
    assert_eq!(app.told_to(&format!("POST /profile?seconds=300 HTTP/1.1\r\n{crossed}\r\n\r\n")).status, 403);
}

#[test]
fn a_profile_is_told() {
    let code = "local api = rover.server {}
                local function busy() local n = 0 for i = 1, 1e5 do n = n + #tostring(i) end return n end
                function api.on_start() rover.every(0.01, busy) end
                return api";
    let app = start(code, 1);
    let page = profile(&app, "seconds=1");
    assert_eq!((page.status, page.header("content-type")), (200, Some("image/svg+xml")));
    assert!(page.text().contains("function app.lua:2") || page.text().contains("app.lua:2"), "{}", page.text());
    for query in ["seconds=0", "seconds=301", "seconds=x", "minutes=1"] {
        let page = profile(&app, query);
        assert_eq!(page.status, 400, "{query}");
        assert_eq!(page.text(), "{\"error\":\"seconds is a whole number from 1 to 300\"}\n");
    }
}

/// The names of figures that a text mentions.
fn names(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    let named = words.filter(|word| word.starts_with("rover_") || word.starts_with("process_"));
    named.map(str::to_owned).collect()
}

#[test]
fn what_documents_name_is_told() {
    let ops = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ops");
    let dashboard = std::fs::read_to_string(ops.join("grafana.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().is_some_and(|panels| !panels.is_empty()));
    let alerts = std::fs::read_to_string(ops.join("alerts.yaml")).unwrap();
    let table = std::fs::read_to_string(ops.join("../metrics.md")).unwrap();
    let mut documented = names(&dashboard.to_string());
    documented.extend(names(&alerts));
    documented.extend(names(&table));
    if !cfg!(feature = "otlp") {
        documented.retain(|name| !name.starts_with("rover_otlp_"));
    }

    let upstream = App::start("local api = rover.server {} function api.get() return 'up' end return api", 1);
    let code = format!(
        "local api = rover.server {{}}
         function api.get() return rover.http.get('http://{}/').text end
         function api.busy.get()
           local n, began = 0, rover.time()
           while rover.time() - began < 0.2 do n = n + #tostring(n) end
         end
         return api",
        upstream.address
    );
    let mut server = Server::from_source("app.lua", code).workers(1);
    if cfg!(feature = "otlp") {
        server = server.set("otlp.endpoint", format!("http://{}", upstream.address));
    }
    let app = start_server(server);
    app.get("/");
    app.get("/busy");
    let page = app.told("/metrics");
    let told: Vec<&str> =
        page.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let base = |name: &str| {
        let end = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
        end.filter(|base| told.contains(base)).unwrap_or(name).to_owned()
    };
    let missing: Vec<String> =
        documented.iter().map(|name| base(name)).filter(|name| !told.contains(&name.as_str())).collect();
    assert_eq!(missing, Vec::<String>::new(), "documents name figures that there are not");
    let table = names(&table);
    let undocumented: Vec<&&str> = told.iter().filter(|name| !table.iter().any(|known| known == **name)).collect();
    assert_eq!(undocumented, Vec::<&&str>::new(), "docs/metrics.md lacks figures");
}

#[test]
fn websockets_are_counted() {
    let code = "
        local api = rover.server { websocket = { max_queue = '300KB', ping_interval = 3600 } }
        function api.ws(ws)
          function ws.join() ws.send.welcome {} end
          function ws.listen.part() ws.send.part():all { text = ('x'):rep(100000) } end
        end
        return api";
    each_worker_count(|workers| {
        let app = start(code, workers);
        let mut clients = [WebSocket::connect(&app, "/"), WebSocket::connect(&app, "/")];
        for client in &mut clients {
            client.json();
        }
        let [mut fast, slow] = clients;
        // More than the kernel's buffers hold.
        for _ in 0..200 {
            fast.text(r#"{"type":"part"}"#);
            fast.json();
        }
        wait_until(|| sum(&figures(&app), "rover_websockets_dropped_total") == 1.0);
        let figures = figures(&app);
        assert_eq!(sum(&figures, "rover_websockets_opened_total"), 2.0);
        assert_eq!(figures[r#"rover_websocket_messages_total{direction="in"}"#], 200.0);
        let sent = figures[r#"rover_websocket_messages_total{direction="out"}"#];
        assert!((202.0..402.0).contains(&sent), "{sent}");
        // A frame of the client takes six bytes and its text; one of the server's, more than its text.
        assert!(sum(&figures, "rover_received_bytes_total") > 200.0 * 21.0);
        assert!(sum(&figures, "rover_sent_bytes_total") > 200.0 * 100_000.0);
        fast.close();
        drop(slow);
        wait_until(|| sum(&self::figures(&app), "rover_websockets") == 0.0);
    });
}

#[test]
fn an_on_ready_check_ends_with_its_prober() {
    /// Counts the checks that wait.
    struct Waiting(Arc<AtomicUsize>);
    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (waiting, most, begun) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::default());
    let (own, top, count) = (waiting.clone(), most.clone(), Arc::<AtomicUsize>::clone(&begun));
    let code = "local api = rover.server {} function api.on_ready_check() wait() end return api";
    let server = Server::from_source("app.lua", code).workers(1).async_function("wait", move |_, ()| {
        count.fetch_add(1, Ordering::SeqCst);
        top.fetch_max(own.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let waiting = Waiting(own.clone());
        async move {
            let _waiting = waiting;
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    let app = App::start_server(server.set("management.port", "0"));
    wait_until(|| figures(&app)["rover_serving"] == 1.0);
    for n in 1..=8 {
        let mut prober = std::net::TcpStream::connect(app.management.unwrap()).unwrap();
        std::io::Write::write_all(&mut prober, b"GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        wait_until(|| begun.load(Ordering::SeqCst) >= n);
    }
    wait_until(|| waiting.load(Ordering::SeqCst) == 0);
    assert_eq!(most.load(Ordering::SeqCst), 1, "one at a time");
    app.reload().unwrap();
    wait_until(|| sum(&figures(&app), "rover_retired_versions") == 0.0);
}

#[test]
fn whoever_asks_during_an_on_ready_check_gets_its_verdict() {
    let app = start("local api = rover.server {} function api.on_ready_check() rover.sleep(3) end return api", 1);
    std::thread::scope(|scope| {
        let probers: Vec<_> = (0..6).map(|_| scope.spawn(|| app.told("/readyz"))).collect();
        for prober in probers {
            let answer = prober.join().unwrap();
            assert_eq!((answer.status, answer.text()), (200, "{\"ready\":true}\n"));
        }
    });
}

#[test]
fn a_profile_of_an_idle_server_is_no_conflict() {
    let app = start("local api = rover.server {} function api.get() return 'on' end return api", 1);
    let page = profile(&app, "seconds=1");
    match page.status {
        // It may have had something to do all the same.
        200 => assert_eq!(page.header("content-type"), Some("image/svg+xml")),
        status => {
            let told = "{\"error\":\"nothing was recorded: no worker ran Lua code for long enough to be seen\"}\n";
            assert_eq!((status, page.text()), (503, told));
        }
    }
}
