//! Every app in `examples/` loads, and answers what its page promises.

use std::io::Read;
use std::path::{Path, PathBuf};

use rover_server::Server;
use serde_json::{Value, json};

use crate::support::upstream::{Then, Upstream, answer};
use crate::support::websocket::WebSocket;
use crate::support::{Answer, App, each_worker_count};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn serve(file: &str, workers: usize) -> App {
    App::start_server(Server::from_file(examples().join(file)).workers(workers))
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_str(answer.text()).expect("a JSON body")
}

/// A request with a body as JSON and further header lines.
fn request(app: &App, method: &str, target: &str, lines: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let length = body.len();
    app.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         {lines}\r\n{body}"
    ))
}

#[test]
fn every_example_loads() {
    let mut count = 0;
    for entry in std::fs::read_dir(examples()).expect("the folder of examples") {
        let path = entry.expect("an entry").path();
        let file = if path.is_dir() { path.join("app.lua") } else { path };
        let info = Server::from_file(&file).check().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(!info.routes().is_empty(), "{}", file.display());
        count += 1;
    }
    assert!(count >= 2);
}

#[test]
fn hello() {
    each_worker_count(|workers| {
        let app = serve("hello.lua", workers);
        assert_eq!(app.get("/").text(), format!("Hello from Rover {}", env!("CARGO_PKG_VERSION")));
        assert_eq!(app.get("/hello/Ada").text(), r#"{"message":"Hello, Ada!"}"#);
        assert_eq!(app.get("/hello").status, 404);
    });
}

/// An example that finds its upstreams in variables, told them in its text instead.
fn serve_before(file: &str, defaults: &[(&str, &str)], workers: usize) -> App {
    let mut code = std::fs::read_to_string(examples().join(file)).expect("the example");
    for (default, url) in defaults {
        assert!(code.contains(default), "{file} has {default}");
        code = code.replace(default, url);
    }
    App::start(&code, workers)
}

#[test]
fn gateway() {
    each_worker_count(|workers| {
        let (users, orders) = (Upstream::says("users"), Upstream::says("orders"));
        let defaults = [("http://127.0.0.1:9001", &*users.url()), ("http://127.0.0.1:9002", &*orders.url())];
        let app = serve_before("gateway.lua", &defaults, workers);
        let answer = app.get("/users/1?x=2");
        assert_eq!((answer.text(), answer.header("x-gateway")), ("users", Some("rover")));
        assert_eq!(users.asked()[0].target, "/users/1?x=2");
        assert_eq!(app.post("/orders/new", "{}").status, 401);
        assert!(orders.asked().is_empty());
        let order = app.send(
            "POST /orders/new HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer secret\r\nContent-Length: 2\r\n\r\n{}",
        );
        assert_eq!((order.text(), orders.asked()[0].text()), ("orders", "{}".to_owned()));
        assert_eq!(app.get("/health").status, 200);
    });
}

#[test]
fn fanout() {
    each_worker_count(|workers| {
        let shop = Upstream::start(|asked, stream| {
            let body: &[u8] = match asked.target.as_str() {
                "/product/1" => br#"{"name":"tea"}"#,
                "/stock/1" => b"7",
                target if target.starts_with("/reviews") => return Then::Close,
                _ => return answer(stream, "404 Not Found", "", b""),
            };
            answer(stream, "200 OK", "Content-Type: application/json\r\n", body)
        });
        let app = serve_before("fanout.lua", &[("http://127.0.0.1:9001", &*shop.url())], workers);
        assert_eq!(parsed(&app.get("/product/1")), json!({"product": {"name": "tea"}, "stock": 7, "reviews": []}));
        let missing = app.get("/product/2");
        assert_eq!(missing.status, 404);
        assert_eq!(parsed(&missing), json!({"status": 404, "error": "no such product"}));
    });
}

#[test]
fn bookshop_for_readers() {
    let app = serve("bookshop/app.lua", 1);
    let found = parsed(&app.get("/books?author=le+guin&sort=year&limit=1"));
    let first = json!({"id": 1, "title": "The Left Hand of Darkness", "author": "Ursula K. Le Guin", "year": 1969, "price": 9.5});
    assert_eq!(found, json!({"total": 2, "books": [first]}));
    assert_eq!(parsed(&app.get("/books?author=nobody")), json!({"total": 0, "books": []}));
    assert_eq!(parsed(&app.get("/books/2/reviews")), json!({"average": null, "reviews": []}));

    for (target, status, error) in [
        ("/books?limit=0", 400, "limit must be a whole number from 1 to 100"),
        ("/books/99", 404, "no book 99"),
        ("/books/99/reviews", 404, "no book 99"),
        ("/nowhere", 404, "there is nothing at /nowhere"),
        ("/books/", 308, "Permanent Redirect"),
    ] {
        let answer = app.get(target);
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(parsed(&answer)["error"], error, "{target}");
    }

    let answer = app.get("/books/2");
    assert_eq!(answer.header("x-request-id").map(str::len), Some(32));
    assert!(answer.header("server-timing").is_some_and(|timing| timing.starts_with("app;dur=")));
}

#[test]
fn bookshop_for_writers() {
    let app = serve("bookshop/app.lua", 1);
    let book = json!({"title": "Dawn", "author": "Octavia E. Butler", "year": 1987, "price": 8});
    let refused = request(&app, "POST", "/books", "", &book);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));

    let login = |password| request(&app, "POST", "/session", "", &json!({"name": "Ada", "password": password}));
    assert_eq!(login("guess").status, 401);
    let session = login("open sesame");
    assert_eq!(session.status, 201);
    let token = parsed(&session)["token"].as_str().expect("a token").to_owned();
    let cookie = session.header("set-cookie").expect("a cookie").to_owned();
    assert_eq!(cookie, format!("session={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=3600"));
    let cookie = format!("Cookie: session={token}\r\n");
    let bearer = format!("Authorization: Bearer {token}\r\n");

    let added = request(&app, "POST", "/books", &cookie, &book);
    assert_eq!((added.status, added.header("location")), (201, Some("/books/4")));
    let review = request(&app, "POST", "/books/4/reviews", &bearer, &json!({"stars": 5}));
    assert_eq!((review.status, review.header("location")), (201, Some("/books/4/reviews/1")));
    assert_eq!(parsed(&app.get("/books/4/reviews/1")), json!({"stars": 5, "by": "Ada"}));
    let wrong = request(&app, "PUT", "/books/4", &bearer, &json!({"title": "Dawn", "isbn": 1}));
    assert_eq!(wrong.status, 422);
    let fields = parsed(&wrong)["fields"].as_object().expect("the wrong fields").keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields, ["author", "isbn", "price", "year"]);
    assert_eq!(request(&app, "DELETE", "/books/4", &cookie, &json!(null)).status, 204);
    assert_eq!(app.get("/books/4").status, 404);

    assert_eq!(request(&app, "DELETE", "/session", &cookie, &json!(null)).status, 204);
    assert_eq!(request(&app, "DELETE", "/books/1", &cookie, &json!(null)).status, 401);
}

#[test]
fn bookshop_when_it_fails() {
    let app = serve("bookshop/app.lua", 1);
    let answer = app.send("GET /crash HTTP/1.1\r\nHost: test\r\nX-Request-ID: my-id-1\r\n\r\n");
    assert_eq!((answer.status, answer.header("x-request-id")), (500, Some("my-id-1")));
    let expected = json!({"error": "the shop has a problem, which we know of now", "request_id": "my-id-1"});
    assert_eq!(parsed(&answer), expected);
    assert!(answer.header("server-timing").is_some());
}

#[test]
fn site() {
    each_worker_count(|workers| {
        let app = serve("site/app.lua", workers);
        let ask = |target: &str, lines: &str| app.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n"));
        let page = app.get("/");
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
        for (target, kind) in [
            ("/css/site.css", "text/css; charset=utf-8"),
            ("/site.js", "text/javascript; charset=utf-8"),
            ("/rover.svg", "image/svg+xml"),
        ] {
            assert!(page.text().contains(&format!("\"{target}\"")), "{target}");
            assert_eq!((app.get(target).status, app.get(target).header("content-type")), (200, Some(kind)));
        }
        assert_eq!(ask("/guestbook", "Accept: text/html\r\n").text(), page.text());
        assert_eq!(app.get("/none.css").status, 404);
        assert_eq!(ask("/", "Accept-Encoding: gzip\r\n").header("content-encoding"), Some("gzip"));
        assert_eq!(app.get("/entries").text(), "[]");
        let added = request(&app, "POST", "/entries", "", &json!({"text": "hello"}));
        assert_eq!((added.status, &parsed(&added)["text"]), (201, &json!("hello")));
        assert_eq!(request(&app, "POST", "/entries", "", &json!({"text": ""})).status, 422);
    });
}

#[test]
fn builders_with_a_status_are_there_whatever_the_order_of_luas_tables() {
    let code = "local api = rover.server {} function api.get() return api.json:status(201, {}) end return api";
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    // Each VM hashes with a seed of its own.
    for _ in 0..16 {
        let app = Server::from_source("app.lua", code).load().expect("the app loads");
        let request = http::Request::get("/").body("").expect("a request");
        assert_eq!(runtime.block_on(app.request(request)).status(), 201);
    }
}

#[test]
fn the_readme_tells_the_truth() {
    let readme = std::fs::read_to_string(examples().join("../README.md")).expect("the README");
    let hello = std::fs::read_to_string(examples().join("hello.lua")).expect("the example");
    assert!(readme.contains(&format!("```lua\n{hello}```")), "the app is examples/hello.lua");
    let app = serve("hello.lua", 1);
    for (command, answer) in [
        ("curl localhost:4242", app.get("/")),
        ("curl localhost:4242/hello/Ada", app.get("/hello/Ada")),
        ("curl localhost:4242/hello", app.get("/hello")),
        ("curl -X DELETE localhost:4242/hello/Ada", app.send("DELETE /hello/Ada HTTP/1.1\r\nHost: test\r\n\r\n")),
    ] {
        assert!(readme.contains(&format!("$ {command}\n{}\n", answer.text())), "{command}: {}", answer.text());
    }
    let mut rows = 0;
    for key in rover_server::config_keys().filter(|key| readme.contains(&format!("| `{}` |", key.name))) {
        let (name, default) = (&key.name, &key.default);
        let row = [format!("| `{name}` | `{default}` |"), format!("| `{name}` | `\"{default}\"` |")];
        let found = row.iter().any(|row| readme.contains(row)) || readme.contains(&format!("| `{name}` | {default} |"));
        assert!(found, "{name}: {default}");
        rows += 1;
    }
    assert!(rows >= 10, "the README names the keys that everybody meets");
}

#[test]
fn sse_goes_on_behind_the_last_event() {
    let app = serve("sse.lua", 1);
    assert!(app.get("/").text().contains("new EventSource(\"/ticks\")"));
    let squares = app.get("/squares.csv");
    assert_eq!(squares.text().lines().count(), 1000);
    assert!(squares.text().ends_with("1000,1000000\n"));
    let mut client = app.connect();
    client.send("GET /ticks HTTP/1.1\r\nHost: test\r\nLast-Event-ID: 41\r\n\r\n");
    let mut seen = String::new();
    while !seen.contains("id: 42\n") {
        let mut space = [0; 1024];
        let n = client.socket().read(&mut space).expect("an event");
        assert_ne!(n, 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&space[..n]));
    }
    assert!(seen.contains("retry: 2000\n\n") && seen.contains("event: tick\n"), "{seen}");
}

#[test]
fn chat_keeps_its_rooms_apart() {
    each_worker_count(|workers| {
        let app = serve("chat.lua", workers);
        assert!(app.get("/").text().contains("new WebSocket(address)"));
        let mut ada = WebSocket::connect(&app, "/chat/tea?name=Ada");
        assert_eq!(ada.json(), json!({"type": "joined", "name": "Ada"}));
        let mut bob = WebSocket::connect(&app, "/chat/tea?name=Bob");
        let mut eve = WebSocket::connect(&app, "/chat/other?name=Eve");
        assert_eq!(eve.json()["name"], "Eve");
        for client in [&mut ada, &mut bob] {
            assert_eq!(client.json(), json!({"type": "joined", "name": "Bob"}));
        }
        ada.text(r#"{"type":"say","text":"hello"}"#);
        for client in [&mut ada, &mut bob] {
            assert_eq!(client.json(), json!({"type": "said", "name": "Ada", "text": "hello"}));
        }
        assert_eq!(app.post("/say/tea", r#"{"name":"robot","text":"beep"}"#).status, 204);
        for client in [&mut ada, &mut bob] {
            assert_eq!(client.json(), json!({"type": "said", "name": "robot", "text": "beep"}));
        }
        bob.close();
        assert_eq!(ada.json(), json!({"type": "left", "name": "Bob"}));
        eve.text(r#"{"type":"say"}"#);
        assert_eq!(eve.closed().0, 1008);
    });
}
