//! Pages of other sites: which may read answers, and what they are told beforehand.

use rover_server::Server;

use crate::support::{Answer, App, each_worker_count};

fn serve(config: &str, workers: usize) -> App {
    let code = format!(
        r#"local api = rover.server {{ cors = {{ {config} }} }}
function api.books.get() return {{ "a" }} end
function api.books.post() return "made" end
function api.books.p_id.any() return "any" end
function api.fails.get() error("boom") end
function api.own.get() return api.text("x"):header("Access-Control-Allow-Origin", "https://own.example") end
function api.varies.get() return api.text("x"):header("Vary", "Accept") end
return api
"#
    );
    App::start(&code, workers)
}

fn ask(app: &App, line: &str, origin: &str) -> Answer {
    app.send(format!("{line} HTTP/1.1\r\nHost: test\r\nOrigin: {origin}\r\n\r\n"))
}

fn preflight(app: &App, path: &str, origin: &str, method: &str, headers: &str) -> Answer {
    let asked =
        if headers.is_empty() { String::new() } else { format!("Access-Control-Request-Headers: {headers}\r\n") };
    app.send(format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: test\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n{asked}\r\n"
    ))
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[test]
fn listed_origins_may_read_answers_and_errors() {
    each_worker_count(|workers| {
        let app = serve(
            r#"origins = { "https://app.example.com", "https://*.example.org" }, credentials = true, expose = { "X-Total" }"#,
            workers,
        );
        for origin in ["https://app.example.com", "https://a.b.example.org"] {
            for (line, status) in [("GET /books", 200), ("GET /missing", 404), ("PUT /books", 405), ("GET /fails", 500)]
            {
                let answer = ask(&app, line, origin);
                assert_eq!((answer.status, allowed(&answer)), (status, Some(origin)), "{line}");
                assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
                assert_eq!(answer.header("access-control-expose-headers"), Some("X-Total"));
                assert_eq!(answer.all("vary"), ["Origin"]);
            }
        }
        for origin in ["https://evil.example", "https://example.org", "null"] {
            let answer = ask(&app, "GET /books", origin);
            assert_eq!((answer.status, allowed(&answer), answer.all("vary")), (200, None, vec!["Origin"]), "{origin}");
        }
        assert_eq!(app.get("/books").all("vary"), ["Origin"], "a cache must know it even without an Origin");
        assert_eq!(ask(&app, "GET /varies", "https://app.example.com").all("vary"), ["Accept", "Origin"]);
        let own = ask(&app, "GET /own", "https://app.example.com");
        assert_eq!(own.all("access-control-allow-origin"), ["https://own.example"]);
    });
}

#[test]
fn preflights_are_answered_from_the_routes() {
    let app = serve(r#"origins = "https://app.example.com", max_age = 60"#, 1);
    let origin = "https://app.example.com";
    let answer = preflight(&app, "/books", origin, "POST", "content-type, x-key");
    assert_eq!((answer.status, allowed(&answer)), (204, Some(origin)));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST, OPTIONS"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("content-type, x-key"));
    assert_eq!(answer.header("access-control-max-age"), Some("60"));
    assert_eq!(answer.all("vary"), ["Access-Control-Request-Method, Access-Control-Request-Headers", "Origin"]);
    let answer = preflight(&app, "/books", "https://evil.example", "POST", "");
    assert_eq!((answer.status, allowed(&answer)), (204, None));
    assert_eq!(answer.header("access-control-allow-methods"), None);
    let any = preflight(&app, "/books/7", origin, "PROPFIND", "");
    assert!(any.header("access-control-allow-methods").unwrap().ends_with("OPTIONS, PROPFIND"));
    let missing = preflight(&app, "/missing", origin, "GET", "");
    assert_eq!((missing.status, allowed(&missing)), (404, Some(origin)));
    let plain = app.send("OPTIONS /books HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(plain.header("allow"), Some("GET, HEAD, POST, OPTIONS"), "no preflight");
}

#[test]
fn preflights_for_files_are_answered_too() {
    let folder = std::env::temp_dir().join(format!("rover-cors-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a.json"), "{}").unwrap();
    let code = format!(
        "local api = rover.server {{ cors = {{ origins = 'https://app.example.com' }} }} \
         api.static {{ dir = {folder:?} }} return api"
    );
    let app = App::start(&code, 1);
    let origin = "https://app.example.com";
    let answer = preflight(&app, "/a.json", origin, "GET", "x-key");
    assert_eq!((answer.status, allowed(&answer)), (204, Some(origin)));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, OPTIONS"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-key"));
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert_eq!(answer.all("vary"), ["Access-Control-Request-Method, Access-Control-Request-Headers", "Origin"]);
    let refused = preflight(&app, "/a.json", "https://evil.example", "GET", "x-key");
    assert_eq!((allowed(&refused), refused.header("access-control-allow-methods")), (None, None));
    assert_eq!(preflight(&app, "/b.json", origin, "GET", "").status, 404);
    let plain = app.send("OPTIONS /a.json HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!((plain.status, plain.header("access-control-allow-methods")), (204, None), "no preflight");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn refusals_may_be_read_by_the_page() {
    let code = r#"local api = rover.server {
        cors = { origins = "https://app.example.com" }, body_size_limit = 10, handler_timeout = 0.05,
        load_shedding = { max_in_flight = 1 }, rate_limit = { rate = "3/h" } }
        function api.post(ctx) return "x" end
        function api.slow.get() rover.sleep(60) end
        return api"#;
    let app = App::start(code, 1);
    let origin = "https://app.example.com";
    let lines = format!("HTTP/1.1\r\nHost: test\r\nOrigin: {origin}\r\n");
    for (status, request) in [
        (413, format!("POST / {lines}Content-Length: 11\r\n\r\n")),
        (415, format!("POST / {lines}Content-Encoding: rot13\r\nContent-Length: 1\r\n\r\nx")),
        (503, format!("GET /slow {lines}\r\n")),
        (429, format!("GET / {lines}\r\n")),
    ] {
        let answer = app.send(request);
        assert_eq!((answer.status, allowed(&answer)), (status, Some(origin)));
    }
}

#[test]
fn lists_win_over_what_is_asked() {
    let app = serve(r#"origins = "*", methods = { "get" }, headers = { "X-Key" }"#, 1);
    let answer = preflight(&app, "/books", "https://any.example", "POST", "x-other");
    assert_eq!(allowed(&answer), Some("*"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("X-Key"));
    let answer = ask(&app, "GET /books", "https://any.example");
    assert_eq!((allowed(&answer), answer.all("vary")), (Some("*"), vec![]));
}

#[test]
fn a_function_decides() {
    each_worker_count(|workers| {
        let app = serve(
            r#"origins = function(origin)
                 if origin == "https://raises.example" then error("boom") end
                 return origin:match("^https://%w+%.partner%.example$") ~= nil
               end"#,
            workers,
        );
        let origin = "https://one.partner.example";
        assert_eq!(allowed(&ask(&app, "GET /books", origin)), Some(origin));
        assert_eq!(allowed(&preflight(&app, "/books", origin, "GET", "")), Some(origin));
        for refused in ["https://other.example", "https://raises.example", "null"] {
            let answer = ask(&app, "GET /books", refused);
            assert_eq!((answer.status, allowed(&answer)), (200, None), "{refused}");
        }
    });
}

#[test]
fn without_cors_nothing_is_said() {
    let app = App::start("local api = rover.server {} function api.get() return 'x' end return api", 1);
    let answer = ask(&app, "GET /", "https://any.example");
    assert_eq!((allowed(&answer), answer.header("vary")), (None, None));
}

#[test]
fn wrong_settings_are_mistakes_with_their_cure() {
    let report = |config: &str| {
        let code = format!("local api = rover.server {{ cors = {{ {config} }} }}\nreturn api");
        Server::from_source("app.lua", code).check().expect_err("a mistake").to_string()
    };
    for (config, expected) in [
        (
            r#"origins = "*", credentials = true"#,
            "app.lua:1: cors.credentials cannot be true where cors.origins is \"*\"",
        ),
        (r#"origins = { "example.com" }"#, "app.lua:1: cors.origins must be a list of origins"),
        (r#"origins = { "https://example.com/" }"#, "; an origin has no path"),
        (r#"origin = "*""#, "app.lua:1: unknown config key \"cors.origin\", did you mean \"cors.origins\"?"),
        (r#"origins = "https://a.example", methods = { "GET PUT" }"#, "app.lua:1: cors.methods must be"),
        (r#"origins = "https://a.example", max_age = "long""#, "app.lua:1: cors.max_age must be a time"),
        ("credentials = true", "app.lua:1: cors has settings but no cors.origins"),
    ] {
        let text = report(config);
        assert!(text.contains(expected), "{config}: {text}");
    }
}
