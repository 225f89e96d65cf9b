//! docs/responses.md: what a handler returns, the builders, and what their results take.

use crate::support::{Answer, App, each_worker_count};

const JSON: Option<&str> = Some("application/json");
const TEXT: Option<&str> = Some("text/plain; charset=utf-8");
const HTML: Option<&str> = Some("text/html; charset=utf-8");

/// Answers `GET /` with the value of `expression`.
fn answer(expression: &str, workers: usize) -> Answer {
    let code = format!(
        "local api = rover.server {{ debug = true }}\nfunction api.get(ctx)\nlocal r = {expression}\nreturn r\nend\nreturn api"
    );
    App::start(&code, workers).get("/")
}

/// The message of the error that `expression` raises, which must be at its line.
fn mistake(expression: &str) -> String {
    let answer = answer(expression, 1);
    assert_eq!(answer.status, 500, "{expression}");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(body["traceback"], "app.lua:3", "{expression}");
    let message = body["message"].as_str().unwrap_or_default();
    message.strip_prefix("app.lua:3: ").unwrap_or_else(|| panic!("{expression}: {message}")).to_owned()
}

#[test]
fn returned_values() {
    each_worker_count(|workers| {
        for (expression, status, kind, body) in [
            ("{ 1, 2 }", 200, JSON, "[1,2]"),
            ("{}", 200, JSON, "{}"),
            ("rover.array {}", 200, JSON, "[]"),
            ("rover.null", 200, JSON, "null"),
            ("'text'", 200, TEXT, "text"),
            ("''", 200, TEXT, ""),
            ("42", 200, TEXT, "42"),
            ("0.1", 200, TEXT, "0.1"),
            ("-0.5e300", 200, TEXT, "-5e+299"),
            ("true", 200, TEXT, "true"),
            ("false", 200, TEXT, "false"),
            ("nil", 204, None, ""),
            ("rover.env.NO_SUCH_THING_SET", 204, None, ""),
        ] {
            let answer = answer(expression, workers);
            assert_eq!((answer.status, answer.text()), (status, body), "{expression}");
            assert_eq!(answer.header("content-type"), kind, "{expression}");
            let length = body.len().to_string();
            let expected = (status != 204).then_some(length.as_str());
            assert_eq!(answer.header("content-length"), expected, "{expression}");
            assert!(answer.header("date").is_some());
        }
    });
}

#[test]
fn values_that_cannot_be_sent_are_errors_with_place_and_path() {
    each_worker_count(|workers| {
        for (expression, problem) in [
            ("print", "the value is a function, which JSON cannot hold"),
            ("coroutine.create(print)", "the value is a thread, which JSON cannot hold"),
            (
                "{ data = { items = { 1, 2, { fn = print } } } }",
                "data.items[3].fn is a function, which JSON cannot hold",
            ),
            ("api.json { 0/0 }", "[1] is nan, which JSON cannot hold"),
            ("{ x = 1/0 }", "x is inf, which JSON cannot hold"),
            ("api.json", "it is a path or a builder, which has to be called, as in api.json(value)"),
            ("api.json.status", "it is a path or a builder, which has to be called, as in api.json(value)"),
            ("ctx", "the value is a context, which JSON cannot hold"),
            ("{ a = { ctx } }", "a[1] is a context, which JSON cannot hold"),
            ("{ x = api.json {} }", "x is a response, which JSON cannot hold"),
            ("{ 1, api.text('x'):header('A', 'b') }", "[2] is a response, which JSON cannot hold"),
            ("api.json(api.no_content())", "the value is a response, which JSON cannot hold"),
            ("{ [true] = 1 }", "the value has a boolean as a key, which JSON cannot hold"),
        ] {
            let answer = answer(expression, workers);
            assert_eq!(answer.status, 500, "{expression}");
            let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            let expected = format!("app.lua:2: the returned value cannot be sent: {problem}");
            assert_eq!(body["message"], expected, "{expression}");
        }
    });
}

#[test]
fn builders_by_dot_and_by_colon() {
    each_worker_count(|workers| {
        for (call, status, kind, body) in [
            ("json({ a = 1 })", 200, JSON, r#"{"a":1}"#),
            ("json(nil)", 200, JSON, "null"),
            ("json('s')", 200, JSON, "\"s\""),
            ("text('s')", 200, TEXT, "s"),
            ("text(1.5)", 200, TEXT, "1.5"),
            ("html('<p>')", 200, HTML, "<p>"),
            ("raw('\\0\\1')", 200, None, "\0\u{1}"),
            ("redirect('/x')", 302, None, ""),
            ("no_content()", 204, None, ""),
            ("error(401, 'no')", 401, JSON, r#"{"error":"no"}"#),
            ("error(404)", 404, JSON, r#"{"error":"Not Found"}"#),
            ("error(599)", 599, JSON, r#"{"error":"Error"}"#),
            ("error(422, { x = 1 })", 422, JSON, r#"{"x":1}"#),
        ] {
            for form in [".", ":"] {
                let answer = answer(&format!("api{form}{call}"), workers);
                assert_eq!((answer.status, answer.text()), (status, body), "{form}{call}");
                assert_eq!(answer.header("content-type"), kind, "{form}{call}");
            }
        }
    });
}

#[test]
fn builders_with_a_status() {
    for (call, status, kind, body) in [
        ("json#(201, { 1 })", 201, JSON, "[1]"),
        ("text#(418, 's')", 418, TEXT, "s"),
        ("html#(404, 's')", 404, HTML, "s"),
        ("raw#(206, 's')", 206, None, "s"),
        ("json#(204, { 1 })", 204, None, ""),
        ("text#(304, 's')", 304, None, ""),
    ] {
        for form in [".status", ":status"] {
            let answer = answer(&format!("api.{}", call.replace('#', form)), 1);
            assert_eq!((answer.status, answer.text()), (status, body), "{form}{call}");
            assert_eq!(answer.header("content-type"), kind, "{form}{call}");
        }
    }
}

#[test]
fn a_status_without_words_of_its_own_has_none() {
    each_worker_count(|workers| {
        for (expression, line) in [
            ("api.json:status(299, { 1 })", "HTTP/1.1 299 "),
            ("api.text('x'):status(599)", "HTTP/1.1 599 "),
            ("error { status = 499, error = 'gone' }", "HTTP/1.1 499 "),
            ("api.no_content():status(201)", "HTTP/1.1 201 Created"),
            ("api.error(418)", "HTTP/1.1 418 I'm a teapot"),
            ("api.json {}", "HTTP/1.1 200 OK"),
        ] {
            assert_eq!(answer(expression, workers).status_line, line, "{expression}");
        }
    });
}

#[test]
fn redirects() {
    for (call, status) in [
        ("api.redirect('/to?a=b')", 302),
        ("api:redirect('/to?a=b')", 302),
        ("api.redirect:permanent('/to?a=b')", 301),
        ("api.redirect.permanent('/to?a=b')", 301),
        ("api.redirect:status(307, '/to?a=b')", 307),
        ("api.redirect.status(308, '/to?a=b')", 308),
    ] {
        let answer = answer(call, 1);
        assert_eq!((answer.status, answer.header("location")), (status, Some("/to?a=b")), "{call}");
        assert_eq!(answer.header("content-length"), Some("0"), "{call}");
    }
    assert_eq!(mistake("api.redirect()"), "a redirect needs a URL as a string, not nil");
    assert_eq!(mistake("api.redirect:status(200, '/')"), "a redirect has a status from 300 to 399, not 200");
}

#[test]
fn headers_are_added_removed_replaced_and_read() {
    each_worker_count(|workers| {
        let answer = answer(
            "api.json {}:header('X-A', 1):header('x-a', true):header('X-B', 'b'):header('X-b', nil):header('Content-Type', 'a/b'):header('content-type', 'c/d'):header('X-Utf', 'é')",
            workers,
        );
        assert_eq!(answer.all("x-a"), ["1", "true"]);
        assert_eq!(answer.header("x-b"), None);
        assert_eq!(answer.all("content-type"), ["c/d"]);
        assert_eq!(answer.header("x-utf"), Some("é"));
    });
    for (call, kind, body) in
        [("api.json { 1 }", None, "[1]"), ("api.text 'x'", None, "x"), ("api.no_content():status(200)", None, "")]
    {
        let answer = answer(&format!("{call}:header('Content-Type', nil)"), 1);
        assert_eq!((answer.header("content-type"), answer.text()), (kind, body), "{call}");
    }
    let reads = answer(
        "(function() local r = api.json {}:header('X-A', 1):header('X-A', 2) return { r:header('x-a'), r:header('content-type'), r:header('none') == nil, r:status(), r:status(201):status() } end)()",
        1,
    );
    assert_eq!(reads.text(), r#"["1","application/json",true,200,201]"#);
}

#[test]
fn what_could_split_a_response_raises_where_it_was_called() {
    for (call, message) in [
        ("header('X', 'a\\nb')", "the value of the header x has a control character in it"),
        ("header('X', 'a\\rb')", "the value of the header x has a control character in it"),
        ("header('X', 'a\\0b')", "the value of the header x has a control character in it"),
        ("header('X: y', 'v')", "\"X: y\" is not a header name"),
        ("header('', 'v')", "\"\" is not a header name"),
        ("header('X\\r\\nY', 'v')", "\"X\\r\\nY\" is not a header name"),
        ("header('X', {})", "the value of the header X is a string, not a table"),
        ("header(nil, nil)", "a header's name is a string, not nil"),
        ("header(1, 'a')", "a header's name is a string, not 1"),
        ("header(nil, 'a')", "a header's name is a string, not nil"),
        ("header({}, 'a')", "a header's name is a string, not a table"),
        ("cookie(nil, 'a')", "the name of a cookie is a string, not nil"),
        ("cookie('a', 'b', { 5 })", "cookie \"a\": options are names, not a number: write option = value"),
        (
            "cookie('a', 'b', { max_age = 0/0 })",
            "cookie \"a\": max_age must be a number of seconds, not one out of range",
        ),
        ("cookie('a', 'b', { max_age = 'x' })", "cookie \"a\": max_age must be a number of seconds, not a string"),
        (
            "cookie('a', 'b', { expires = 1e300 })",
            "cookie \"a\": expires must be a time in seconds, as rover.time() gives it, not one out of range",
        ),
        ("header('Content-Length', 5)", "the header content-length is set by Rover and cannot be changed"),
        (
            "header('transfer-encoding', 'chunked')",
            "the header transfer-encoding is set by Rover and cannot be changed",
        ),
        ("cookie('a', 'b', { path = '/;x' })", "cookie \"a\": path has a character that would split the header"),
        ("cookie('a', 'b', { domain = 'x\\ny' })", "cookie \"a\": domain has a character that would split the header"),
        ("cookie('a b', 'c')", "\"a b\" is not a cookie name"),
        ("cookie('a')", "the value of cookie \"a\" is a string, not nil"),
        ("cookie('a', 'b', { secure = 1 })", "cookie \"a\": secure must be a boolean, not a number"),
        ("cookie('a', {})", "the value of cookie \"a\" is a string, not a table"),
        ("cookie('a', 'b', 5)", "cookie options are a table, not a number"),
        (
            "cookie('a', 'b', { httponly = true })",
            "cookie \"a\": unknown option \"httponly\" (known: path, domain, max_age, expires, secure, http_only, same_site, partitioned)",
        ),
        (
            "cookie('a', 'b', { same_site = 'x' })",
            "cookie \"a\": same_site is \"strict\", \"lax\" or \"none\", not \"x\"",
        ),
        ("status(99)", "a status is a whole number from 200 to 599, not 99"),
        ("status(200.5)", "a status is a whole number from 200 to 599, not 200.5"),
        ("status('201')", "a status is a whole number from 200 to 599, not \"201\""),
        ("status(nil)", "a status is a whole number from 200 to 599, not nil"),
    ] {
        assert_eq!(mistake(&format!("api.json {{}}:{call}")), message, "{call}");
    }
}

#[test]
fn other_mistakes_raise_at_their_line() {
    for (expression, message) in [
        ("api.text({})", "the text of a response is a string, not a table"),
        ("api.html()", "the text of a response is a string, not nil"),
        ("api.text:status('x', 'y')", "a status is a whole number from 200 to 599, not \"x\""),
        ("api.json:status({})", "a status is a whole number from 200 to 599, not a table"),
        ("api:error('x')", "a status is a whole number from 200 to 599, not \"x\""),
        ("(api.json {}).status(200)", "call it with a colon: response:status(code)"),
        ("(api.json {}).header('a', 'b')", "call it with a colon: response:header(name, value)"),
        ("(api.json {}).cookie('a', 'b')", "call it with a colon: response:cookie(name, value, options)"),
        ("api.jsn {}", "api has no field 'jsn'; routes and hooks are declared at the top level of the app"),
    ] {
        assert_eq!(mistake(expression), message, "{expression}");
    }
}

#[test]
fn cookies_are_composed() {
    each_worker_count(|workers| {
        let answer = answer(
            "api.json {}:cookie('a', 'x y;\"%'):cookie('n', 5):cookie('full', 'v', { path = '/p', domain = 'example.com', max_age = 60, expires = -1e11, secure = true, http_only = true, same_site = 'Strict' }):cookie('none', '', { same_site = 'none', secure = true })",
            workers,
        );
        assert_eq!(
            answer.all("set-cookie"),
            [
                "a=x%20y%3B%22%25",
                "n=5",
                "full=v; HttpOnly; SameSite=Strict; Secure; Path=/p; Domain=example.com; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
                "none=; SameSite=None; Secure",
            ]
        );
    });
}

/// A map of headers panics at its 24 577th name; a mistake comes long before.
#[test]
fn more_header_fields_than_a_message_can_have_are_a_mistake_at_its_place() {
    let code = "
local api = rover.server { debug = true }
local function many(n) local t = {} for i = 1, n do t['x-' .. i] = 'v' end return t end
function api.get()
  local r = api.text('')
  for name, value in pairs(many(24577)) do
    r:header(name, value)
  end
  return r
end
function api.passed.get()
  local r = api.text('')
  for name, value in pairs(many(1000)) do r:header(name, value) end
  return r
end
function api.asked.get()
  local r = rover.http.get('http://127.0.0.1:1', { headers = many(24577) })
  return r.status
end
function api.proxied.get(ctx)
  local r = ctx:proxy('http://127.0.0.1:1', { headers = many(24577) })
  return r
end
function api.again.get() return 'served' end
return api";
    let app = App::start(code, 1);
    for (target, line, problem) in [
        ("/", 7, "the response has more than 16384 header fields"),
        ("/asked", 17, "the request has more than 16384 header fields"),
        ("/proxied", 21, "the request has more than 16384 header fields"),
    ] {
        let answer = app.get(target);
        assert_eq!(answer.status, 500, "{target}");
        let told: serde_json::Value = serde_json::from_str(answer.text()).expect("JSON");
        assert_eq!(told["message"], format!("app.lua:{line}: {problem}"), "{target}");
    }
    let passed = app.get("/passed");
    assert_eq!((passed.status, passed.headers.iter().filter(|(name, _)| name.starts_with("x-")).count()), (200, 1001));
    assert_eq!(app.get("/again").text(), "served");
}
