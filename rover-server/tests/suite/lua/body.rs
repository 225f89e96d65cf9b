//! docs/body.md: `ctx:body()` and `ctx:json()`.

use rover_server::Server;
use serde_json::{Value, json};

use crate::support::{Answer, App, each_worker_count};

const APP: &str = r#"
local api = rover.server { body_size_limit = 200000 }
function api.json.any(ctx) return api.json(ctx:json()) end
function api.same.post(ctx) return { ctx:json() == ctx:json(), ctx:body() == ctx:body() } end
function api.kept.post(ctx)
  local body = ctx:body()
  local value, bytes = body:json(), body:bytes()
  if type(value) == "table" then value.seen = true end
  bytes[1] = 0
  return { body:json() == value, body:bytes() == bytes, ctx:body():bytes()[1], value ~= ctx:json(), value }
end
function api.bad.post(ctx)
  local body = ctx:body()
  return { select(2, body:json()), select(2, body:json()), body:text(), #body }
end
function api.count.post(ctx) return #ctx:json() end
function api.body.any(ctx)
  local body = ctx:body()
  if body == nil then return "none" end
  local value, err = body:json()
  return { n = #body, text = body:text(), string = body:as_string(), tostring = tostring(body), bytes = body:bytes(), body = body, value = value, err = err }
end
function api.back.any(ctx) return ctx:body() end
function api.text.post(ctx) return api.text(ctx:body()) end
function api.dot.post(ctx) local body = ctx:body() return body.text() end
function api.type.post(ctx) return type(ctx:json()) .. " " .. tostring(ctx:json() == rover.null) end
return api
"#;

fn value(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no JSON: {}", answer.text()))
}

fn send(app: &App, method: &str, path: &str, content_type: &str, body: &str) -> Answer {
    app.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: t\r\n{content_type}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

#[test]
fn json_is_decoded_or_refused() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        for text in
            ["{\"a\":[1,2.5,null,true,\"\\u00e9\"],\"e\":[],\"o\":{}}", "[]", "{}", "\"x\"", "1", "null", "false"]
        {
            let read: Value = serde_json::from_str(text).expect("valid");
            assert_eq!(value(&app.post("/json", text)), read, "{text}");
        }
        for (text, problem) in [
            ("{\"a\":", "unexpected end at line 1 column 5"),
            ("[1 2]", "expected `,` or `]` at line 1 column 4"),
            ("\u{feff}{}", "a byte order mark, which JSON does not allow, at line 1 column 1"),
            ("  ", "the text is empty"),
        ] {
            let answer = app.post("/json", text);
            assert_eq!(answer.status, 400, "{text}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let message = format!("the request body is not valid JSON: {problem}");
            assert_eq!(value(&answer), json!({ "status": 400, "error": message }));
        }
        let empty = app.post("/json", "");
        assert_eq!(value(&empty), json!({ "status": 400, "error": "the request has no body" }));
        assert_eq!(app.get("/json").status, 400);
    });
}

#[test]
fn json_needs_a_fitting_content_type() {
    let app = App::start(APP, 1);
    for fits in [
        "",
        "Content-Type: application/json\r\n",
        "Content-Type: Application/JSON; charset=utf-8\r\n",
        "Content-Type: application/problem+json\r\n",
    ] {
        assert_eq!(send(&app, "POST", "/json", fits, "[1]").text(), "[1]", "{fits}");
    }
    for other in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let answer = send(&app, "POST", "/json", &format!("Content-Type: {other}\r\n"), "[1]");
        assert_eq!(answer.status, 415, "{other}");
        assert_eq!(value(&answer), json!({ "status": 415, "error": "the request body must be application/json" }));
    }
}

#[test]
fn arrays_of_thousands_of_items_arrive_whole_and_leave_whole() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        let items: Vec<u32> = (0..5000).collect();
        let text = serde_json::to_string(&items).expect("JSON");
        assert_eq!(app.post("/count", &text).text(), "5000");
        assert_eq!(app.post("/json", &text).text(), text);
    });
}

#[test]
fn every_method_of_a_body() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        let answer = value(&send(&app, "PUT", "/body", "", "[7]"));
        let text = "[7]";
        let expected = json!({
            "n": 3, "text": text, "string": text, "tostring": text, "bytes": [91, 55, 93], "body": text, "value": [7]
        });
        assert_eq!(answer, expected);
        let bad = value(&send(&app, "PATCH", "/body", "", "oops"));
        assert_eq!(bad["err"], "expected value at line 1 column 1");
        assert_eq!(app.post("/same", "{}").text(), "[true,true]");
        for (sent, value) in [("{}", json!({ "seen": true })), ("[1]", json!({ "1": 1, "seen": true }))] {
            assert_eq!(self::value(&app.post("/kept", sent)), json!([true, true, 0, true, value]));
        }
        let problem = "expected value at line 1 column 1";
        assert_eq!(self::value(&app.post("/bad", "oops")), json!([problem, problem, "oops", 4]));
        assert_eq!(app.post("/type", "null").text(), "userdata true");
        let back = send(&app, "POST", "/back", "", "raw \0 bytes");
        assert_eq!((back.text(), back.header("content-type")), ("raw \0 bytes", Some("text/plain; charset=utf-8")));
        assert_eq!(app.post("/text", "abc").text(), "abc");
        assert_eq!(app.post("/dot", "abc").status, 500);
    });
}

#[test]
fn a_body_that_was_sent_and_not_collected_is_not_taken_for_none() {
    each_worker_count(|workers| {
        let app = App::start_server(Server::from_source("app.lua", UNCOLLECTED).workers(workers));
        for method in ["POST", "PUT", "PATCH"] {
            assert_eq!(send(&app, method, "/body", "", "").text(), "none", "{method}");
            assert_eq!(send(&app, method, "/body", "", "x").text(), "x", "{method}");
        }
        for method in ["GET", "DELETE", "QUERY", "OPTIONS"] {
            let mut client = app.connect();
            for path in ["/body", "/json", "/hooked"] {
                client.send(format!("{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n[]"));
                let answer = client.answer();
                let problem = format!(
                    "the body of this {method} request was not collected, as only those of POST, PUT and PATCH are by \
                     themselves: declare its route as a table, {{ body = true, function(ctx) … end }}, or pass the body \
                     on with ctx:proxy"
                );
                assert_eq!(answer.status, 500, "{method} {path}");
                let message = value(&answer)["message"].as_str().expect("a message").to_owned();
                let (place, message) = message.split_once(": ").expect("a place");
                assert_eq!(message, problem, "{method} {path}");
                assert!(place.starts_with("app.lua:"), "{place}");
                // Nothing was sent: nothing is missed, and the connection goes on.
                client.send(format!("{method} {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
                let answer = client.answer();
                assert_eq!(answer.status, if path == "/json" { 400 } else { 200 }, "{method} {path}");
            }
            client.send(format!("{method} /ignored HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n[]"));
            assert_eq!(client.answer().text(), "ignored", "{method}");
        }
        let message = value(&send(&app, "POST", "/streamed", "", "x"))["message"].as_str().expect("text").to_owned();
        assert!(message.ends_with("so its body comes in pieces: read them with ctx:reader()"), "{message}");
    });
}

const UNCOLLECTED: &str = r#"
local api = rover.server { debug = true }
function api.body.any(ctx) return ctx:body() or "none" end
function api.json.any(ctx) return ctx:json() end
function api.ignored.any(ctx) return "ignored" end
function api.hooked.before.look(ctx) ctx:body() end
function api.hooked.any(ctx) return "fine" end
api.streamed.post = { stream_body = true, body_size_limit = 10, function(ctx) return ctx:body() end }
return api
"#;

#[test]
fn chunks_are_joined_and_the_limit_holds() {
    let app = App::start(APP, 1);
    let chunked =
        "POST /back HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(app.send(chunked).text(), "abcde");
    let answer = app.send("POST /back HTTP/1.1\r\nHost: t\r\nContent-Length: 200001\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (413, r#"{"error":"Payload Too Large"}"#));
}
