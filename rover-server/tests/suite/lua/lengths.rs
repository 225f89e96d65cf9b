//! Lengths that answers declare, and URLs that a header cannot hold.

use crate::support::{App, each_worker_count};

const APP: &str = r#"
local api = rover.server {}
local function pieces(...)
  local all, n = { ... }, 0
  return function() n = n + 1 if n > 1 then rover.sleep(0.01) end return all[n] end
end
function api.whole.get()
  return api.stream_with_headers(200, "text/plain", { ["Content-Length"] = 6 }, pieces("abc", "def"))
end
function api.changed.get()
  return api.stream(200, "text/plain", pieces("abc")):header("content-length", 9):header("Content-Length", "3")
end
function api.long.get() return api.stream(200, "text/plain", pieces("abc", "def")):header("Content-Length", 5) end
function api.short.get() return api.stream(200, "text/plain", pieces("abc")):header("Content-Length", 5) end
function api.none.get() return api.stream(200, "text/plain", pieces()):header("Content-Length", 0) end
function api.wrong.get() return { pcall(api.stream(200, "text/plain", pieces()).header, api.stream(200, "text/plain", pieces()), "Content-Length", -1) } end
function api.empty.get() return api.text("") end
function api.nothing.get() end
function api.go.get(ctx) return api.redirect(ctx:query().to or "/a b\u{e9}\r\nX-B: \"c\"\0?q=%20#d") end
return api
"#;

#[test]
fn a_stream_of_a_declared_length_is_no_chunks() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        for (target, body) in [("/whole", "abcdef"), ("/changed", "abc"), ("/none", "")] {
            let mut client = app.connect();
            client.send(format!(
                "GET {target} HTTP/1.1\r\nHost: test\r\n\r\nHEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n"
            ));
            let answer = client.answer();
            let length = body.len().to_string();
            assert_eq!((answer.text(), answer.all("content-length")), (body, vec![length.as_str()]), "{target}");
            assert_eq!(answer.header("transfer-encoding"), None);
            let answer = client.head_answer();
            assert_eq!((answer.status, answer.all("content-length")), (200, vec![length.as_str()]), "{target}");
        }
        // One that brings another number of bytes breaks off.
        for (target, sent) in [("/long", "abc"), ("/short", "abc")] {
            let mut client = app.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            let all = client.rest();
            assert!(all.contains("content-length: 5\r\n") && all.ends_with(&format!("\r\n\r\n{sent}")), "{all}");
        }
        let wrong = app.get("/wrong");
        assert!(wrong.text().contains("the Content-Length of a stream is a whole number of bytes"), "{}", wrong.text());
    });
}

#[test]
fn head_of_an_empty_body_has_its_length() {
    let app = App::start(APP, 1);
    for (target, length) in [("/empty", Some("0")), ("/nothing", None), ("/missing", Some("21"))] {
        let mut client = app.connect();
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(client.head_answer().header("content-length"), length, "{target}");
    }
}

#[test]
fn a_redirect_encodes_what_a_header_cannot_hold() {
    let app = App::start(APP, 1);
    let answer = app.get("/go");
    assert_eq!(answer.header("location"), Some("/a%20b%C3%A9%0D%0AX-B:%20\"c\"%00?q=%20#d"));
    assert_eq!(answer.header("x-b"), None);
    assert_eq!(app.get("/go?to=/plain%3Fa%3D%2520").header("location"), Some("/plain?a=%20"));
}

#[test]
fn cookies_that_browsers_drop_are_mistakes() {
    let code = "local api = rover.server {}
        function api.post(ctx)
          local cookie = ctx:json()
          local ok, problem = pcall(function()
            return api.text('a'):cookie(cookie.name, 'b', cookie.options)
          end)
          if ok then return problem end
          return api:error(422, problem)
        end
        return api";
    let app = App::start(code, 1);
    for (name, options, expected) in [
        ("a", r#"{"same_site":"none"}"#, Err("cookie \"a\": same_site = \"none\" needs secure = true")),
        ("a", r#"{"partitioned":true}"#, Err("cookie \"a\": partitioned = true needs secure = true")),
        ("a", r#"{"partitioned":1}"#, Err("cookie \"a\": partitioned must be a boolean, not a number")),
        (
            "__Host-a",
            r#"{"secure":true}"#,
            Err("cookie \"__Host-a\": a name that begins with __Host- needs path = \"/\""),
        ),
        (
            "__Host-a",
            r#"{"path":"/"}"#,
            Err("cookie \"__Host-a\": a name that begins with __Host- or __Secure- needs secure = true"),
        ),
        (
            "__host-a",
            r#"{"secure":true,"path":"/","domain":"a.example"}"#,
            Err("cookie \"__host-a\": a name that begins with __Host- has no domain: leave it out"),
        ),
        (
            "__Secure-a",
            "{}",
            Err("cookie \"__Secure-a\": a name that begins with __Host- or __Secure- needs secure = true"),
        ),
        (
            "a",
            r#"{"same_site":"none","secure":true,"partitioned":true}"#,
            Ok("a=b; SameSite=None; Partitioned; Secure"),
        ),
        ("__Host-a", r#"{"secure":true,"path":"/"}"#, Ok("__Host-a=b; Secure; Path=/")),
        ("__Secure-a", r#"{"secure":true,"domain":"a.example"}"#, Ok("__Secure-a=b; Secure; Domain=a.example")),
    ] {
        let answer = app.post("/", &format!("{{\"name\":\"{name}\",\"options\":{options}}}"));
        match expected {
            Ok(line) => assert_eq!(answer.header("set-cookie"), Some(line), "{name} {options}"),
            Err(problem) => {
                let problem = serde_json::to_string(&format!("app.lua:4: {problem}")).unwrap();
                assert_eq!(answer.text(), format!("{{\"error\":{problem}}}"), "{name} {options}");
            }
        }
    }
}
