//! The headers that every answer carries.

use std::io::Write;

use rover_server::Server;

use crate::support::{App, each_worker_count};

const APP: &str = r#"local api = rover.server {}
function api.json.get() return { a = 1 } end
function api.page.get() return api.html("<p>hi") end
function api.own.get() return api.html("x"):header("X-Frame-Options", "DENY"):header("X-Content-Type-Options", "mine") end
function api.fails.get() error("boom") end
function api.streams.get()
  local n = 0
  return api.stream(200, "text/html", function() n = n + 1 if n < 3 then return "part " .. n end end)
end
function api.body.post(ctx) return ctx:body():text() end
return api
"#;

#[test]
fn every_answer_carries_them_errors_and_streams_too() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        let nosniff = |answer: &crate::support::Answer| answer.all("x-content-type-options") == ["nosniff"];
        for (path, status) in [("/json", 200), ("/page", 200), ("/missing", 404), ("/fails", 500), ("/streams", 200)] {
            let answer = app.get(path);
            assert_eq!(answer.status, status, "{path}");
            assert!(nosniff(&answer), "{path}: {answer:?}");
        }
        assert!(nosniff(&app.send("PUT /json HTTP/1.1\r\nHost: test\r\n\r\n")), "405");
        assert!(nosniff(&app.send("GET /json HTTP/1.1\r\n\r\n")), "400 without Host");
        assert!(nosniff(&app.send("POST /body HTTP/1.1\r\nHost: test\r\nContent-Length: 9999999\r\n\r\n")), "413");
        assert!(nosniff(&app.post("/body", "text")));
        assert!(nosniff(&app.send("OPTIONS /json HTTP/1.1\r\nHost: test\r\n\r\n")));
    });
}

#[test]
fn refusals_carry_them_that_no_request_came_to() {
    let server = |code: &str| Server::from_source("app.lua", code).workers(1).set("header_timeout", "100ms");
    let app = App::start_server(server(APP).set("max_connections", "1"));
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        (format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "a".repeat(40_000)), 414),
        (format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "a".repeat(40_000)), 431),
        ("GET / HTTP/1.1\r\n".to_owned(), 408),
    ] {
        // The connection from before may still have its place.
        let (client, answer) = loop {
            let mut client = app.connect();
            let _ = client.socket().write_all(bytes.as_bytes());
            let answer = client.answer();
            if answer.status != 503 {
                break (client, answer);
            }
        };
        assert_eq!((answer.status, answer.all("x-content-type-options")), (status, vec!["nosniff"]));
        // A connection too many, as long as this one is open.
        let refused = app.connect().answer();
        assert_eq!((refused.status, refused.all("x-content-type-options")), (503, vec!["nosniff"]));
        drop(client);
    }
    let code = APP.replace(
        "rover.server {}",
        "rover.server { security_headers = { content_type_options = false, cross_origin_resource_policy = 'same-site' } }",
    );
    let app = App::start_server(server(&code));
    let answer = app.send("GET / HTTP/1.1\r\nno colon\r\n\r\n");
    assert_eq!(answer.header("x-content-type-options"), None);
    assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-site"));
}

#[test]
fn pages_carry_more_and_a_handler_s_own_wins() {
    let app = App::start(APP, 1);
    let page = app.get("/page");
    assert_eq!(page.header("x-frame-options"), Some("SAMEORIGIN"));
    assert_eq!(page.header("referrer-policy"), Some("strict-origin-when-cross-origin"));
    assert_eq!(page.header("strict-transport-security"), None, "not over TLS");
    assert_eq!(app.get("/streams").header("x-frame-options"), Some("SAMEORIGIN"));
    assert_eq!(app.get("/json").header("x-frame-options"), None, "no page");
    let own = app.get("/own");
    assert_eq!((own.all("x-frame-options"), own.all("x-content-type-options")), (vec!["DENY"], vec!["mine"]));
}

#[test]
fn each_can_be_changed_and_turned_off() {
    let code = APP.replace(
        "rover.server {}",
        r#"rover.server { trusted_proxies = "loopback", security_headers = {
             content_type_options = false, frame_options = "DENY", referrer_policy = false,
             content_security_policy = "default-src 'self'", cross_origin_resource_policy = "same-site",
             strict_transport_security = "max-age=60" } }"#,
    );
    let app = App::start(&code, 1);
    let page = app.get("/page");
    assert_eq!(page.header("x-content-type-options"), None);
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    assert_eq!(page.header("referrer-policy"), None);
    assert_eq!(page.header("content-security-policy"), Some("default-src 'self'"));
    let json = app.get("/json");
    assert_eq!(json.header("cross-origin-resource-policy"), Some("same-site"));
    assert_eq!(json.header("content-security-policy"), None);
    // A proxy speaks TLS with the client.
    let over_tls = |host: &str| {
        app.send(format!("GET /json HTTP/1.1\r\nHost: {host}\r\nForwarded: for=192.0.2.1;proto=https\r\n\r\n"))
    };
    assert_eq!(over_tls("example.com").header("strict-transport-security"), Some("max-age=60"));
    assert_eq!(over_tls("localhost:4242").header("strict-transport-security"), None);
}
