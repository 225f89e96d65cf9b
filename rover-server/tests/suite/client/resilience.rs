//! Retries, circuit breakers and limits of `rover.http.create`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::upstream::{Then, Upstream, answer, never};
use crate::support::{App, body, each_worker_count, wait_until};

fn start(url: &str, code: &str, workers: usize) -> App {
    App::start(&format!("local api = rover.server {{}} local url = '{url}'\n{code}\nreturn api"), workers)
}

/// Fails so many times in a way, then answers.
fn failing(times: usize, status: &'static str, headers: &'static str) -> Upstream {
    let left = AtomicUsize::new(times);
    Upstream::start(move |asked, stream| {
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        match (fails, status) {
            (true, "close") => Then::Close,
            (true, status) => answer(stream, status, headers, b"failed"),
            (false, _) => answer(stream, "200 OK", "", asked.method.as_bytes()),
        }
    })
}

const RETRY: &str = "
    local client = rover.http.create { retry = { attempts = 3, backoff_ms = 1 } }
    local function tell(res, err) return { res and res.status or 0, res and res.body or '', err } end
    function api.get.get() return tell(client.get(url)) end
    function api.put.get() return tell(client.put(url, 'again')) end
    function api.post.get() return tell(client.post(url, 'once')) end
    function api.fed.get() return tell(client.put(url, function() end)) end
    function api.off.get() return tell(client.get(url, { retry = false })) end
    function api.short.get() return tell(client.get(url, { timeout = 0.5 })) end
    function api.stats.get() return client.stats()[url] end";

#[test]
fn idempotent_requests_are_tried_again() {
    each_worker_count(|workers| {
        for status in ["close", "503 Service Unavailable", "502 Bad Gateway", "429 Too Many Requests"] {
            let upstream = failing(2, status, "");
            let app = start(&upstream.url(), RETRY, workers);
            assert_eq!(body(&app, "/put"), json!([200, "PUT"]), "{status}");
            let asked = upstream.asked();
            assert_eq!(asked.len(), 3);
            assert!(asked.iter().all(|asked| asked.text() == "again"));
            if workers == 1 {
                let stats = body(&app, "/stats");
                assert_eq!((&stats["requests"], &stats["retries"]), (&json!(3), &json!(2)));
            }
        }
    });
}

#[test]
fn other_requests_are_not() {
    for (target, outcome) in
        [("/post", json!([503, "failed"])), ("/fed", json!([503, "failed"])), ("/off", json!([503, "failed"]))]
    {
        let upstream = failing(1, "503 Service Unavailable", "");
        let app = start(&upstream.url(), RETRY, 1);
        assert_eq!(body(&app, target), outcome, "{target}");
        assert_eq!(upstream.asked().len(), 1);
    }
    let upstream = failing(1, "500 Internal Server Error", "");
    let app = start(&upstream.url(), RETRY, 1);
    assert_eq!(body(&app, "/get"), json!([500, "failed"]));
    let upstream = failing(9, "close", "");
    let app = start(&upstream.url(), RETRY, 1);
    assert_eq!(body(&app, "/get"), json!([0, "", "connection closed"]));
    assert_eq!(upstream.asked().len(), 3);
}

#[test]
fn retry_after_is_honoured_within_the_timeout() {
    let upstream = failing(1, "503 Service Unavailable", "Retry-After: 1\r\n");
    let app = start(&upstream.url(), RETRY, 1);
    let began = std::time::Instant::now();
    assert_eq!(body(&app, "/get"), json!([200, "GET"]));
    assert!(began.elapsed().as_millis() >= 1000);
    // There is no time to wait so long, so the answer is handed over.
    let upstream = failing(1, "503 Service Unavailable", "Retry-After: 100\r\n");
    let app = start(&upstream.url(), RETRY, 1);
    assert_eq!(body(&app, "/short"), json!([503, "failed"]));
    // More seconds than a clock can count.
    let upstream = failing(1, "503 Service Unavailable", "Retry-After: 18446744073709551615\r\n");
    let app = start(&upstream.url(), RETRY, 1);
    assert_eq!(body(&app, "/short"), json!([503, "failed"]));
}

#[test]
fn idle_connections_are_kept_for_a_while() {
    let upstream = failing(0, "", "");
    let code = "
        local client = rover.http.create { pool = { idle = 2, idle_timeout_ms = 300 } }
        local function get() return client.get(url).body end
        function api.get() return { rover.all { get, get, get } } end
        function api.stats.get() return client.stats()[url] end";
    let app = start(&upstream.url(), code, 1);
    for _ in 0..2 {
        assert_eq!(body(&app, "/"), json!(["GET", "GET", "GET"]));
        // One of three finds no place among those that wait.
        wait_until(|| upstream.open() <= 2);
    }
    assert!(upstream.accepted() <= 4);
    wait_until(|| upstream.open() == 0);
    wait_until(|| body(&app, "/stats")["open"] == json!(0));
    assert_eq!(body(&app, "/"), json!(["GET", "GET", "GET"]));
}

#[test]
fn clients_of_one_name_have_queues_of_their_own() {
    let upstream = Upstream::start(|_, stream| never(stream));
    let code = "
        local function client() return rover.http.create { name = 'same', limit = { concurrent = 1, queue = 1 } } end
        local a, b = client(), client()
        local function ask(client) return rover.spawn(function() return select(2, client.get(url, { timeout = 0.3 })) end) end
        function api.get()
          local tasks, ends = { ask(a), ask(a), ask(b), ask(b), ask(b) }, {}
          for i, task in ipairs(tasks) do ends[i] = task:join() end
          return ends
        end";
    let app = start(&upstream.url(), code, 1);
    let expected = json!(["timeout", "timeout", "timeout", "timeout", "queue full"]);
    assert_eq!(body(&app, "/"), expected);
    // Whoever gave up in the queue has left it.
    assert_eq!(body(&app, "/"), expected);
}

#[test]
fn a_circuit_opens_and_closes_again() {
    let is_ill = Arc::new(AtomicUsize::new(1));
    let ill = is_ill.clone();
    let upstream = Upstream::start(move |_, stream| match ill.load(Ordering::SeqCst) {
        0 => answer(stream, "200 OK", "", b"well"),
        _ => answer(stream, "500 Internal Server Error", "", b"ill"),
    });
    let code = "
        local client = rover.http.create { name = 'c', breaker = { failures = 3, open_ms = 300 } }
        local function one()
          local res, err = client.get(url)
          return res and res.status or err
        end
        function api.one.get() return { one() } end
        function api.four.get() return { one(), one(), one(), one() } end
        function api.stats.get() return client.stats()[url] end";
    let app = start(&upstream.url(), code, 1);
    assert_eq!(body(&app, "/four"), json!([500, 500, 500, "circuit open"]));
    assert_eq!(upstream.asked().len(), 3);
    let stats = body(&app, "/stats");
    assert_eq!(stats["breaker"], json!("open"));
    assert_eq!((&stats["breaker_opened"], &stats["rejected"]), (&json!(1), &json!(1)));
    // A trial that fails opens it again at once.
    wait_until(|| body(&app, "/one") == json!([500]));
    assert_eq!(body(&app, "/one"), json!(["circuit open"]));
    assert_eq!(body(&app, "/stats")["breaker_opened"], json!(2));
    is_ill.store(0, Ordering::SeqCst);
    wait_until(|| body(&app, "/one") == json!([200]));
    assert_eq!(body(&app, "/stats")["breaker"], json!("closed"));
    assert_eq!(body(&app, "/four"), json!([200, 200, 200, 200]));
}

#[test]
fn a_server_that_never_answers_opens_its_circuit() {
    let upstream = Upstream::start(|_, stream| never(stream));
    let code = "
        local client = rover.http.create { breaker = { failures = 2 }, timeout_ms = 30 }
        function api.get() return { select(2, client.get(url)), select(2, client.get(url)), select(2, client.get(url)) } end";
    each_worker_count(|workers| {
        let app = start(&upstream.url(), code, workers);
        assert_eq!(body(&app, "/"), json!(["timeout", "timeout", "circuit open"]));
    });
}

#[test]
fn a_limit_queues_and_then_refuses() {
    let (most, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let gate = Arc::new(Mutex::new(()));
    let held = gate.clone();
    let upstream = Upstream::start(move |_, stream| {
        let n = now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.fetch_max(n, Ordering::SeqCst);
        drop(held.lock().expect("no panic"));
        now.fetch_sub(1, Ordering::SeqCst);
        answer(stream, "200 OK", "", b"done")
    });
    let code = "
        local client = rover.http.create { limit = { concurrent = 2, queue = 3 } }
        function api.crowd.get()
          local one = function()
            local res, err = client.get(url)
            return res and res.status or err
          end
          return { rover.all { one, one, one, one, one, one, one } }
        end
        function api.stats.get() return client.stats()[url] or {} end";
    let app = start(&upstream.url(), code, 1);
    let closed = gate.lock().expect("no panic");
    let mut client = app.connect();
    client.send("GET /crowd HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until(|| {
        let stats = body(&app, "/stats");
        stats["queued"] == json!(3) && stats["active"] == json!(2) && upstream.asked().len() == 2
    });
    drop(closed);
    let statuses: Value = serde_json::from_str(client.answer().text()).expect("JSON");
    assert_eq!(statuses, json!([200, 200, 200, 200, 200, "queue full", "queue full"]));
    assert_eq!(most.load(Ordering::SeqCst), 2);
    let stats = body(&app, "/stats");
    assert_eq!((&stats["active"], &stats["queued"], &stats["rejected"]), (&json!(0), &json!(0), &json!(2)));
    assert_eq!(stats["requests"], json!(5));
}
