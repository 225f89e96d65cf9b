//! docs/context.md: what a handler learns of its request.

use serde_json::{Value, json};

use crate::support::{Answer, App, each_worker_count};

fn value(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no JSON: {}", answer.text()))
}

fn app(handler: &str, workers: usize) -> App {
    let code = format!(
        "local api = rover.server {{ debug = true }}\nlocal kept\napi['{{*path}}'].any = function(ctx)\n{handler}\nend\nreturn api"
    );
    App::start(&code, workers)
}

fn with_headers(app: &App, headers: &str) -> Answer {
    app.send(format!("GET /x HTTP/1.1\r\nHost: t\r\n{headers}\r\n"))
}

#[test]
fn fields() {
    each_worker_count(|workers| {
        let app = app(
            "return { ctx.method, ctx.path, ctx.query_string, ctx.host, ctx.scheme, ctx.ip, ctx.version, tostring(ctx), ctx.nosuch == nil }",
            workers,
        );
        let mut client = app.connect();
        client.send("PATCH /a%20b/?x=%20&y HTTP/1.1\r\nHost: example.com:81\r\nContent-Length: 0\r\n\r\n");
        let expected = json!([
            "PATCH",
            "/a%20b/",
            "x=%20&y",
            "example.com:81",
            "http",
            "127.0.0.1",
            "1.1",
            "context: PATCH /a%20b/",
            true
        ]);
        assert_eq!(value(&client.answer()), expected);
        client.send("GET http://other.org/p? HTTP/1.0\r\nHost: example.com\r\n\r\n");
        let answer = value(&client.answer());
        assert_eq!(answer[1], "/p");
        assert_eq!(answer[2], "");
        assert_eq!(answer[3], "other.org");
        assert_eq!(answer[6], "1.0");
    });
}

#[test]
fn headers_ignore_case_and_join_repeats() {
    each_worker_count(|workers| {
        let app = app(
            "local h = ctx:headers() return { h['x-a'], h['X-A'], h['X-a'], ctx:header('X-A'), ctx:header('x-none') == nil, h.none == nil, h == ctx:headers(), h[1] == nil, ctx:header('not a name') == nil, ctx:header('cookie') }",
            workers,
        );
        let answer = with_headers(&app, "X-A: 1\r\nx-a: 2\r\nX-A:   3  \r\nCookie: a=1\r\nCookie: b=2\r\n");
        let joined = "1, 2, 3";
        assert_eq!(value(&answer), json!([joined, joined, joined, joined, true, true, true, true, true, "a=1; b=2"]));
    });
}

#[test]
fn many_headers_arrive() {
    let app = app("local n = 0 for k in pairs(ctx:headers()) do n = n + 1 end return { n, ctx:header('x-90') }", 1);
    for count in [33, 65, 91] {
        let headers: String = (0..count).map(|n| format!("X-{n}: v{n}\r\n")).collect();
        let answer = value(&with_headers(&app, &headers));
        assert_eq!(answer[0], count + 1);
        assert_eq!(answer.get(1).is_some_and(|v| v == "v90"), count > 90);
    }
}

#[test]
fn queries_are_decoded_as_forms() {
    each_worker_count(|workers| {
        let app = app("return { first = ctx:query(), tags = ctx:queries('tag'), none = ctx:queries('none') }", workers);
        let ask = |query: &str| value(&app.get(&format!("/x{query}")));
        assert_eq!(ask(""), json!({ "first": {}, "tags": [], "none": [] }));
        assert_eq!(ask("?"), json!({ "first": {}, "tags": [], "none": [] }));
        let answer = ask("?a=1+2%2B3&a=second&%C3%A9=%26&empty=&bare&=noname&&tag=x&tag=y%20z&bad=%zz%&e=a=b");
        let expected = json!({
            "a": "1 2+3", "é": "&", "empty": "", "bare": "", "": "noname", "tag": "x", "bad": "%zz%", "e": "a=b"
        });
        assert_eq!(answer["first"], expected);
        assert_eq!(answer["tags"], json!(["x", "y z"]));
    });
}

#[test]
fn queries_of_a_name_are_the_same_table_each_time() {
    each_worker_count(|workers| {
        let app = app(
            "local a, b, none = ctx:queries('a'), ctx:queries('b'), ctx:queries('none')
             a.own = 'kept'
             ctx:set('k', 'v')
             return { ctx:queries('a') == a, ctx:queries('b') == b, ctx:queries('none') == none, ctx:queries('a').own,
               ctx:queries('b'), ctx:get('k') }",
            workers,
        );
        for _ in 0..3 {
            assert_eq!(value(&app.get("/x?a=1&b=2&a=3")), json!([true, true, true, "kept", ["2"], "v"]));
        }
    });
}

#[test]
fn cookies_are_read_leniently() {
    each_worker_count(|workers| {
        let app = app("return { all = ctx:cookies(), one = ctx:cookie('a'), none = ctx:cookie('A') == nil }", workers);
        let answer = with_headers(
            &app,
            "Cookie: a=1; b=\"q\"; broken; =nameless; c=x%20y; d=%zz; e=a=b;; a=2\r\nCookie: f=6;g=\r\n",
        );
        let all = json!({ "a": "1", "b": "q", "c": "x y", "d": "%zz", "e": "a=b", "f": "6", "g": "" });
        assert_eq!(value(&answer), json!({ "all": all, "one": "1", "none": true }));
        assert_eq!(value(&with_headers(&app, "")), json!({ "all": {}, "none": true }));
    });
}

#[test]
fn params_without_any_are_an_empty_table() {
    let app = App::start(
        "local api = rover.server {} function api.get(ctx) return { next(ctx:params()) == nil, ctx:params() == ctx:params() } end return api",
        1,
    );
    assert_eq!(app.get("/").text(), "[true,true]");
}

#[test]
fn values_of_a_request_stay_with_it() {
    each_worker_count(|workers| {
        let app = app(
            "local before = ctx:get('n') == nil ctx:set('n', 7) ctx:set(ctx, false) ctx:set('gone', 1) ctx:set('gone', nil) return { before, ctx:get('n'), ctx:get(ctx), ctx:get('gone') == nil }",
            workers,
        );
        let mut client = app.connect();
        for _ in 0..2 {
            client.send("GET /x HTTP/1.1\r\nHost: t\r\n\r\n");
            assert_eq!(client.answer().text(), "[true,7,false,true]");
        }
    });
}

#[test]
fn request_ids_are_taken_over_or_made() {
    each_worker_count(|workers| {
        let app = app("return ctx:request_id() .. ' ' .. ctx:request_id()", workers);
        let answer = with_headers(&app, "X-Request-ID: a.B_1:/+=@-\r\n");
        assert_eq!(answer.header("x-request-id"), Some("a.B_1:/+=@-"));
        assert_eq!(answer.text(), "a.B_1:/+=@- a.B_1:/+=@-");
        for bad in ["a b", "a;b", "<x>", &"x".repeat(129)] {
            let answer = with_headers(&app, &format!("X-Request-ID: {bad}\r\n"));
            let id = answer.header("x-request-id").expect("an id").to_owned();
            assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
            assert_eq!(answer.text(), format!("{id} {id}"));
        }
    });
    let silent = app("return 1", 1);
    assert_eq!(with_headers(&silent, "X-Request-ID: a\r\n").header("x-request-id"), None);
}

#[test]
fn a_context_kept_for_later_is_never_another_request() {
    each_worker_count(|workers| {
        let app = app(
            r#"
    if ctx.path == "/keep" then kept = ctx return "kept" end
    local what = ctx:query().what
    local call = { header = function() return kept:header("X-Secret") end, headers = function() return kept:headers() end,
      query = function() return kept:query() end, method = function() return kept.method end,
      body = function() return kept:body() end, json = function() return kept:json() end,
      params = function() return kept:params() end, cookies = function() return kept:cookies() end,
      id = function() return kept:request_id() end }
    local ok, err = pcall(call[what])
    return { ok, err }"#,
            workers,
        );
        let mut client = app.connect();
        client.send("GET /keep HTTP/1.1\r\nHost: t\r\nX-Secret: mine\r\n\r\n");
        assert_eq!(client.answer().text(), "kept");
        for what in ["header", "headers", "query", "method", "body", "json", "params", "cookies", "id"] {
            client.send(format!("GET /use?what={what} HTTP/1.1\r\nHost: t\r\nX-Secret: other\r\n\r\n"));
            let answer = value(&client.answer());
            assert_eq!(answer[0], false, "{what}");
            let message = answer[1].as_str().unwrap_or_default();
            assert!(message.starts_with("app.lua:"), "{what}: {message}");
            assert!(
                message.ends_with(": this request is over: ctx can be used only until its response is sent"),
                "{what}: {message}"
            );
        }
    });
}

#[test]
fn methods_called_wrongly_say_how() {
    for (call, message) in [
        ("ctx.header('X')", "call it with a colon: ctx:header(name)"),
        ("ctx.headers()", "call it with a colon: ctx:headers()"),
        ("ctx.params()", "call it with a colon: ctx:params()"),
        ("ctx.query({})", "call it with a colon: ctx:query()"),
        ("ctx.queries('a')", "call it with a colon: ctx:queries(name)"),
        ("ctx.cookie('a')", "call it with a colon: ctx:cookie(name)"),
        ("ctx.cookies()", "call it with a colon: ctx:cookies()"),
        ("ctx.body()", "call it with a colon: ctx:body()"),
        ("ctx.json()", "call it with a colon: ctx:json()"),
        ("ctx.set('a', 1)", "call it with a colon: ctx:set(key, value)"),
        ("ctx.get('a')", "call it with a colon: ctx:get(key)"),
        ("ctx.request_id()", "call it with a colon: ctx:request_id()"),
        ("ctx:header(1)", "ctx:header expects a name as a string, got number"),
        ("ctx:cookie()", "ctx:cookie expects a name as a string, got nil"),
        ("ctx:queries({})", "ctx:queries expects a name as a string, got table"),
        ("ctx:set(nil, 1)", "ctx:set needs a key, not nil"),
    ] {
        let app = app(&format!("local x = {call}\nreturn x"), 1);
        let answer = value(&app.get("/x"));
        assert_eq!(answer["message"], format!("app.lua:4: {message}"), "{call}");
        assert_eq!(answer["traceback"], "app.lua:4", "{call}");
    }
}
