//! `ctx:proxy` and `api.proxy`: messages that mean something else to the next hop, unless they are put right.

use serde_json::{Value, json};

use crate::support::upstream::{Asked, Upstream, answer, raw};
use crate::support::{Answer, App};

/// Tells in JSON what it was asked.
fn mirror() -> Upstream {
    Upstream::start(|asked, stream| {
        let Asked { method, target, headers, .. } = asked;
        let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let told = json!({ "method": method, "target": target, "lines": lines, "body": asked.text() });
        answer(stream, "200 OK", "Content-Type: application/json\r\n", told.to_string().as_bytes())
    })
}

fn start(url: &str, routes: &str) -> App {
    App::start(&format!("local api = rover.server {{}} local url = '{url}' {routes} return api"), 1)
}

fn told(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_str(answer.text()).expect("JSON")
}

#[test]
fn cookies_of_several_lines_go_on_in_one() {
    let upstream = mirror();
    let app = start(&upstream.url(), "api['{*path}'].any = api.proxy(url)");
    let seen = told(&app.send("GET /a HTTP/1.1\r\nHost: test\r\nCookie: a=1\r\nX: y\r\nCookie: b=2; c=3\r\n\r\n"));
    let lines = seen["lines"].as_array().expect("lines");
    let cookies: Vec<_> = lines.iter().filter_map(Value::as_str).filter(|line| line.starts_with("cookie:")).collect();
    assert_eq!(cookies, ["cookie: a=1; b=2; c=3"]);
}

#[test]
fn bodies_of_unknown_length_go_on_with_every_method() {
    let upstream = mirror();
    let app = start(&upstream.url(), "api['{*path}'].any = api.proxy(url)");
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        let seen = told(&app.send(format!(
            "{method} /a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )));
        assert_eq!((&seen["method"], &seen["body"]), (&json!(method), &json!("hello")));
    }
    // The next request stands where it begins.
    assert_eq!(told(&app.get("/b"))["target"], "/b");
}

#[test]
fn the_length_that_head_tells_is_a_length() {
    let upstream = Upstream::start(|asked, stream| {
        let lengths: String = asked.target[1..]
            .split('+')
            .filter(|length| !length.is_empty())
            .map(|length| format!("Content-Length: {length}\r\n"))
            .collect();
        raw(stream, format!("HTTP/1.1 200 OK\r\n{lengths}\r\n").as_bytes())
    });
    let app = start(&upstream.url(), "api['{*path}'].any = api.proxy(url)");
    let head = |target: &str| {
        let mut client = app.connect();
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client.head_answer()
    };
    for (target, length) in [("/5", Some("5")), ("/0", Some("0")), ("/+", None)] {
        let answer = head(target);
        assert_eq!((answer.status, answer.header("content-length")), (200, length), "{target}");
    }
    for target in ["/5+7", "/5+5", "/abc", "/-1", "/99999999999999999999"] {
        assert_eq!(head(target).status, 502, "{target}");
    }
}

#[test]
fn no_path_leads_out_of_that_of_the_upstream() {
    let upstream = mirror();
    let app = start(
        &upstream.url(),
        "api.base['{*path}'].any = api.proxy(url .. '/inner/') api.whole['{*path}'].any = api.proxy(url)",
    );
    for (path, status) in [
        ("..", 404),
        ("../secret", 404),
        ("a/../../secret", 404),
        ("%2e%2E/secret", 404),
        (".%2e", 404),
        ("..%2fsecret", 400),
        ("..\\secret", 400),
        ("..%5csecret", 400),
        ("..;x/secret", 400),
    ] {
        let answer = app.get(&format!("/base/{path}"));
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    assert!(upstream.asked().is_empty());
    assert_eq!(told(&app.get("/base/a/./b/../c"))["target"], "/inner/a/c");
    for path in ["a..b", "...", "a/..b", "a%2Fb", "a;b/.c", "a?x=../y"] {
        assert_eq!(told(&app.get(&format!("/base/{path}")))["target"], format!("/inner/{path}"));
    }
    // Without a path of its own, an upstream gets the path that was matched.
    assert_eq!(told(&app.get("/whole/x/../%7ey?z=%7e"))["target"], "/whole/~y?z=%7e");
}

#[test]
fn the_host_of_a_target_in_absolute_form_counts() {
    let upstream = mirror();
    let app = start(&upstream.url(), "api['{*path}'].any = api.proxy(url, { host = 'preserve' })");
    let seen = told(&app.send("GET http://there.test:81/a HTTP/1.1\r\nHost: other.test\r\n\r\n"));
    let lines = seen["lines"].as_array().expect("lines");
    assert!(lines.contains(&json!("host: there.test:81")), "{lines:?}");
    assert!(lines.contains(&json!("x-forwarded-host: there.test:81")), "{lines:?}");
    assert_eq!(seen["target"], "/a");
}

/// A client's request with these lines, as the upstream sees it, without what the proxy adds by itself.
fn passed(app: &App, path: &str, lines: &str) -> Vec<String> {
    let seen = told(&app.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{lines}\r\n")));
    let lines = seen["lines"].as_array().expect("lines").iter().filter_map(Value::as_str);
    lines.filter(|line| !line.starts_with("host:")).map(str::to_owned).collect()
}

const CLAIMS: &str = "X_Forwarded_For: 6.6.6.6\r\nContent_Length: 5\r\nX.Real.IP: 6.6.6.6\r\nProxy: http://evil.test\r\n\
                      X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-Original-Host: a\r\n";
const ORIGINS: &str = "X-Real-IP: 6.6.6.6\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /a\r\nX-Forwarded-Server: s\r\n\
                       X-Forwarded-Ssl: on\r\nX-Forwarded-User: root\r\nTrue-Client-IP: 6.6.6.6\r\n";

#[test]
fn what_a_client_only_claims_stays_here() {
    let upstream = mirror();
    let app = start(
        &upstream.url(),
        "api.plain.get = api.proxy(url)
         api.append.get = api.proxy(url, { forwarded = 'append' })
         api.off.get = api.proxy(url, { forwarded = false })
         api.kept.get = api.proxy(url, { forwarded = false, keep_headers = { 'x_Forwarded_for', 'Proxy' } })
         api.set.get = api.proxy(url, { headers = { ['X-Real-IP'] = 'own', my_header = 'own' } })",
    );
    let own = ["forwarded: for=127.0.0.1;proto=http;host=test", "x-forwarded-for: 127.0.0.1"];
    let all = format!("{CLAIMS}{ORIGINS}X-One: 1\r\n");
    let seen = passed(&app, "/plain", &all);
    assert_eq!(seen, ["x-one: 1", own[0], own[1], "x-forwarded-proto: http", "x-forwarded-host: test"]);
    let origins: Vec<_> = ORIGINS.to_ascii_lowercase().lines().map(str::to_owned).collect();
    for path in ["/append", "/off"] {
        assert_eq!(passed(&app, path, &all)[..origins.len()], origins, "{path}");
        assert_eq!(passed(&app, path, CLAIMS).len(), if path == "/off" { 0 } else { 4 }, "{path}");
    }
    assert_eq!(passed(&app, "/kept", CLAIMS), ["x_forwarded_for: 6.6.6.6", "proxy: http://evil.test"]);
    let seen = passed(&app, "/set", &all);
    assert!(seen.contains(&"x-real-ip: own".to_owned()) && seen.contains(&"my_header: own".to_owned()), "{seen:?}");
}

#[test]
fn no_body_is_longer_than_a_signed_number_holds() {
    let upstream = mirror();
    let app = start(
        &upstream.url(),
        "api.proxied.any = api.proxy(url) function api.plain.post(ctx) return 'ok' end function api.plain.get() return 'ok' end",
    );
    for length in ["9223372036854775808", "18446744073709551613", "18446744073709551615", "18446744073709551616", "1e3"]
    {
        for (method, path) in [("POST", "/proxied"), ("GET", "/proxied"), ("POST", "/plain"), ("GET", "/plain")] {
            let mut client = app.connect();
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\nx"));
            let answer = client.answer();
            assert_eq!(answer.status, 400, "{method} {path} {length}: {}", answer.text());
            assert_eq!(client.rest(), "");
        }
    }
    let answer = app.send("POST /plain HTTP/1.1\r\nHost: test\r\nContent-Length: 9223372036854775807\r\n\r\nx");
    assert_eq!(answer.status, 413);
    assert!(upstream.asked().is_empty());
}
