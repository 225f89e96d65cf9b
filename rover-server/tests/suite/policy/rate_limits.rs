//! Rate limits: exact however many workers and connections there are.

use std::sync::atomic::{AtomicU32, Ordering};

use rover_server::Server;

use crate::support::{Answer, App, each_worker_count};

fn get(app: &App, path: &str, lines: &str) -> Answer {
    app.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{lines}\r\n"))
}

fn told(answer: &Answer) -> (u16, Option<&str>, Option<&str>) {
    (answer.status, answer.header("ratelimit-limit"), answer.header("ratelimit-remaining"))
}

#[test]
fn every_worker_counts_in_the_same_place() {
    let code = r#"local api = rover.server { rate_limit = { rate = "100/h" } }
        function api.get() return "x" end
        return api"#;
    let app = App::start(code, 4);
    let passed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // Each connection is another worker's, in turn.
                for _ in 0..4 {
                    let mut client = app.connect();
                    for _ in 0..8 {
                        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
                        let answer = client.answer();
                        assert!(matches!(answer.status, 200 | 429), "{answer:?}");
                        passed.fetch_add(u32::from(answer.status == 200), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 100, "of 256 requests");
}

#[test]
fn a_refusal_says_when_to_come_back() {
    each_worker_count(|workers| {
        let app = App::start(
            r#"local api = rover.server {}
               api.login.limit { rate = "1/m", burst = 2 }
               function api.login.post() return "in" end
               function api.login.again.get() return "again" end
               function api.get() return "home" end
               return api"#,
            workers,
        );
        let first = app.post("/login", "{}");
        assert_eq!(told(&first), (200, Some("2"), Some("1")));
        assert_eq!((first.header("ratelimit-reset"), first.header("retry-after")), (Some("60"), None));
        assert_eq!(
            told(&get(&app, "/login/again", "")),
            (200, Some("2"), Some("0")),
            "one bucket for the whole subtree"
        );
        let refused = app.post("/login", "{}");
        assert_eq!(told(&refused), (429, Some("2"), Some("0")));
        assert_eq!(refused.text(), r#"{"error":"Too Many Requests"}"#);
        let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((50..=60).contains(&wait), "{wait}");
        assert_eq!(told(&get(&app, "/", "")), (200, None, None), "other routes have no limit");
        assert_eq!(get(&app, "/login/missing", "").status, 404);
    });
}

#[test]
fn clients_by_header_cookie_and_function() {
    each_worker_count(|workers| {
        let app = App::start(
            r#"local api = rover.server {}
               api.key.limit { per = "header:X-Api-Key", rate = "1/h" }
               function api.key.get() return "x" end
               api.session.limit { per = "cookie:sid", rate = "1/h" }
               function api.session.get() return "x" end
               api.user.limit { rate = "1/h", per = function(ctx)
                 rover.sleep(0)
                 return ctx:query().user
               end }
               function api.user.get() return "x" end
               return api"#,
            workers,
        );
        for (path, lines, status) in [
            ("/key", "X-Api-Key: a\r\n", 200),
            ("/key", "X-Api-Key: a\r\n", 429),
            ("/key", "X-Api-Key: b\r\n", 200),
            ("/key", "", 200),
            ("/key", "", 429),
            ("/session", "Cookie: sid=1; a=b\r\n", 200),
            ("/session", "Cookie: a=b; sid=1\r\n", 429),
            ("/session", "Cookie: sid=2\r\n", 200),
            ("/user?user=ada", "", 200),
            ("/user?user=ada", "", 429),
            ("/user?user=bob", "", 200),
            ("/user", "", 200),
            ("/user", "", 200),
        ] {
            let answer = get(&app, path, lines);
            assert_eq!(answer.status, status, "{path} {lines}: {answer:?}");
            assert_eq!(answer.header("retry-after").is_some(), status == 429);
        }
        assert_eq!(told(&get(&app, "/user?user=eve", "")), (200, Some("1"), Some("0")));
    });
}

#[test]
fn the_limit_of_all_requests_and_of_a_route_together() {
    let app = App::start(
        r#"local api = rover.server { rate_limit = { rate = "5/h" }, trusted_proxies = "loopback" }
           api.p_name.limit { rate = "2/h", methods = { "post" } }
           function api.p_name.get() return "x" end
           function api.p_name.post() return "x" end
           return api"#,
        3,
    );
    let ask =
        |line: &str, ip: &str| app.send(format!("{line} HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {ip}\r\n\r\n"));
    assert_eq!(told(&ask("GET /a", "192.0.2.1")), (200, Some("5"), Some("4")));
    assert_eq!(told(&ask("POST /a", "192.0.2.1")), (200, Some("2"), Some("1")), "the tighter one is told");
    assert_eq!(ask("POST /b", "192.0.2.1").status, 200);
    assert_eq!(told(&ask("POST /c", "192.0.2.1")), (429, Some("2"), Some("0")));
    assert_eq!(told(&ask("GET /missing/too", "192.0.2.1")), (404, Some("5"), Some("0")), "everything counts");
    assert_eq!(ask("GET /a", "192.0.2.1").status, 429);
    assert_eq!(ask("GET /a", "192.0.2.2").status, 200, "the client behind the proxy");
    assert_eq!(ask("GET /a", "2001:db8::1").status, 200);
    assert_eq!(told(&ask("GET /a", "2001:db8::ffff")), (200, Some("5"), Some("3")), "one network of 64 bits");
}

#[test]
fn a_function_for_all_requests() {
    let app = App::start(
        r#"local api = rover.server { rate_limit = { rate = "1/h", per = function(ctx) return ctx:header("x-user") end } }
           api.a.limit { rate = "5/h", per = function() return 7 end }
           function api.a.get() return "a" end
           function api.b.get() return "b" end
           function api.fails.get() return "never" end
           api.fails.limit { rate = "1/h", per = function() return {} end }
           return api"#,
        2,
    );
    assert_eq!(get(&app, "/a", "X-User: ada\r\n").status, 200);
    assert_eq!(get(&app, "/b", "X-User: ada\r\n").status, 429, "one bucket for all routes");
    assert_eq!(get(&app, "/b", "").status, 200);
    assert_eq!(get(&app, "/fails", "").status, 500);
}

#[test]
fn a_path_may_still_be_called_limit() {
    let app = App::start("local api = rover.server {} function api.x.limit.get() return 'path' end return api", 1);
    assert_eq!(get(&app, "/x/limit", "").text(), "path");
}

#[test]
fn mistakes_are_found_at_load() {
    let report = |code: &str| Server::from_source("app.lua", code).check().expect_err("mistakes").to_string();
    let text = report(
        r#"local api = rover.server { rate_limit = { rate = "5 per minute", max_keys = 1 } }
api.a.limit { rate = "5", burst = 0 }
api.b.limit "5/m"
api.c.limit { rate = "5/m", by = "ip" }
api.d.limit { rate = "5/m", methods = { "pots" } }
api:limit {}
return api"#,
    );
    let expected = [
        "app.lua:1: rate_limit.max_keys must be a whole number from 1024 to 100000000, got 1",
        "app.lua:1: rate_limit.rate must be a rate, such as \"5/m\" or \"100/10s\", or \"none\", got \"5 per minute\"",
        "app.lua:2: api.a.limit: burst must be a whole number from 1 to 1000000000, got 0",
        "app.lua:2: api.a.limit: rate must be a rate, such as \"5/m\" or \"100/10s\", got \"5\"",
        "app.lua:3: api.b.limit expects a table such as { rate = \"5/m\" }, not a string",
        "app.lua:4: api.c.limit: unknown field \"by\"; a limit has rate, burst, per and methods",
        "app.lua:5: api.d.limit: methods must be a list of verbs such as { \"post\" }, got \"pots\"",
        "app.lua:6: api.limit: rate is missing: a rate, such as \"5/m\" or \"100/10s\"",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}
