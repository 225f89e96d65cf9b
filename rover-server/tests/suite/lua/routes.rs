//! docs/app-and-routes.md: which handler answers which path and method.

use crate::support::{App, each_worker_count};

const APP: &str = r#"
local api = rover.server {}
function api.get(ctx) return "home" end
function api.users.get(ctx) return "users" end
function api.users.me.get(ctx) return "me" end
function api.users.p_id.get(ctx) return ctx:params().id end
api.users["{id}"].posts.p_pid.get = function(ctx) return ctx:params().id .. "/" .. ctx:params().pid end
api.users["{*rest}"].get = function(ctx) return "rest:" .. ctx:params().rest end
api.files["{*path}"].get = function(ctx) return ctx:params().path end
api[".well-known"]["security.txt"].get = function() return "contact" end
api[2024].get = function() return "year" end
api.slash[""].get = function(ctx) return ctx.path end
function api.json.get(ctx) return api.json { at = "json" } end
function api.json.status.get(ctx) return api.json:status(202, { at = "status" }) end
function api.error.p_code.get(ctx) return api:error(tonumber(ctx:params().code), "asked") end
function api.notes.get(ctx) return "get" end
function api.notes.post(ctx) return "post" end
function api.notes.any(ctx) return "any " .. ctx.method end
function api.own.head(ctx) return api.text("own"):header("X-Own", "yes") end
function api.own.options(ctx) return api.no_content():header("X-Own", "options") end
function api.caps.p_Name.get(ctx) return ctx:params().Name end
return api
"#;

#[test]
fn paths_find_their_handlers() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        for (path, text) in [
            ("/", "home"),
            ("/users", "users"),
            ("/users?x=/users/me", "users"),
            ("/users/me", "me"),
            ("/users/mee", "mee"),
            ("/users/1/posts/2", "1/2"),
            ("/users/1/photos", "rest:1/photos"),
            ("/files/a/b//c", "a/b//c"),
            ("/.well-known/security.txt", "contact"),
            ("/2024", "year"),
            ("/slash/", "/slash/"),
            ("/json", r#"{"at":"json"}"#),
            ("/json/status", r#"{"at":"status"}"#),
            ("/error/418", r#"{"error":"asked"}"#),
            ("/caps/x", "x"),
        ] {
            assert_eq!(app.get(path).text(), text, "{path}");
        }
        for path in ["/nowhere", "/users/", "/slash", "/files/", "/Users", "/users/1/posts/"] {
            let expected = if path.starts_with("/users/1") { "rest:1/posts/" } else { r#"{"error":"Not Found"}"# };
            assert_eq!(app.get(path).text(), expected, "{path}");
        }
    });
}

/// The target of a request line is what a client makes of it: RFC 3986 wants these bytes encoded, and many send them raw.
#[test]
fn literals_are_found_in_the_spellings_that_clients_send() {
    let code = r#"
local api = rover.server { trailing_slash = "redirect" }
api["a|b"].get = function() return "pipe" end
api["a[1]"].get = function() return "brackets" end
api["é"].get = function() return "accent" end
api["é"]["p_id"].get = function(ctx) return ctx:params().id end
api["{x"]["{*rest}"].get = function(ctx) return ctx:params().rest end
api["é["].get = function() return "both" end
api["a b"].get = function() return "blank" end
api["a%2fb"].get = function() return "slash" end
api.p_any.post = function(ctx) return ctx:params().any end
return api
"#;
    each_worker_count(|workers| {
        let app = App::start(code, workers);
        for (target, text) in [
            ("/a%7Cb", "pipe"),
            ("/a%7cb", "pipe"),
            ("/a|b", "pipe"),
            ("/a%5B1%5D", "brackets"),
            ("/a%5b1%5d", "brackets"),
            ("/a[1]", "brackets"),
            ("/%C3%A9", "accent"),
            ("/%c3%a9", "accent"),
            ("/é", "accent"),
            ("/%c3%a9/x%7cy", "x|y"),
            ("/é/7", "7"),
            ("/%C3%A9[", "both"),
            ("/é[", "both"),
            ("/%7Bx/a/b", "a/b"),
            ("/{x/a/b", "a/b"),
            ("/%7bx/a/b", "a/b"),
            ("/a%20b", "blank"),
            ("/a%2Fb", "slash"),
            ("/a%2fb", "slash"),
        ] {
            assert_eq!(app.get(target).text(), text, "{target}");
        }
        // The same path in all respects: its methods, and the other spelling of its end.
        for target in ["/a|b", "/a%7cb", "/%61%7Cb"] {
            let answer = app.send(format!("PUT {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, OPTIONS")), "{target}");
            assert_eq!(app.get(&format!("{target}/")).header("location"), Some("/a%7Cb"), "{target}");
        }
        assert_eq!(app.get("/a%7C%62").text(), "pipe");
        for target in ["/a/b", "/a%257Cb", "/a+b"] {
            assert_ne!(app.get(target).status, 200, "{target}");
        }
    });
    let twice = "local api = rover.server {}\napi['a|b'].get = print\napi['a%7cb'].get = print\nreturn api";
    let error = rover_server::Server::from_source("app.lua", twice).check().expect_err("declared twice");
    let expected = "app.lua:3: GET /a%7Cb already has a handler (app.lua:2); remove one of the two";
    assert_eq!(error.to_string(), expected);
    let info = rover_server::Server::from_source("app.lua", code).check().expect("an app");
    assert_eq!(info.routes().len(), 9);
}

#[test]
fn parameters_are_decoded_and_split_as_sent() {
    let app = App::start(APP, 1);
    for (path, text) in [
        ("/users/a%20b", "a b"),
        ("/users/a%2Fb", "a/b"),
        ("/users/a+b", "a+b"),
        ("/users/%C3%A9", "é"),
        ("/users/%41%2f%42/posts/x%25", "A/B/x%"),
        ("/files/a%2Fb/c%20d", "a/b/c d"),
    ] {
        assert_eq!(app.get(path).text(), text, "{path}");
    }
    assert_eq!(app.get("/users/%FF%00").body, b"\xff\0");
    for path in ["/users/%", "/users/%4", "/users/%zz", "/files/a/%q1"] {
        let answer = app.get(path);
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.text(), r#"{"error":"the path holds broken percent-encoding"}"#);
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

#[test]
fn methods_are_told_apart() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        let ask = |method: &str, path: &str| app.send(format!("{method} {path} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert_eq!(ask("GET", "/notes").text(), "get");
        assert_eq!(ask("POST", "/notes").text(), "post");
        assert_eq!(ask("DELETE", "/notes").text(), "any DELETE");
        assert_eq!(ask("PURGE", "/notes").text(), "any PURGE");
        let wrong = ask("DELETE", "/users");
        assert_eq!((wrong.status, wrong.text()), (405, r#"{"error":"Method Not Allowed"}"#));
        assert_eq!(wrong.header("allow"), Some("GET, HEAD, OPTIONS"));
        let options = ask("OPTIONS", "/users");
        assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
        assert_eq!(options.header("content-length"), None);
        assert_eq!(ask("OPTIONS", "/own").header("x-own"), Some("options"));
        assert_eq!(ask("POST", "/nowhere").status, 404);
    });
}

#[test]
fn head_is_answered_from_get_with_its_length_and_without_its_body() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        let mut client = app.connect();
        client.send("HEAD /users HTTP/1.1\r\nHost: t\r\n\r\n");
        let head = client.head_answer();
        assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
        client.send("HEAD /own HTTP/1.1\r\nHost: t\r\n\r\n");
        let own = client.head_answer();
        assert_eq!((own.header("x-own"), own.header("content-length")), (Some("yes"), Some("3")));
        client.send("GET /users HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(client.answer().text(), "users");
    });
}

#[test]
fn a_missing_or_extra_slash_leads_on_when_asked_for() {
    let code = r#"
local api = rover.server { trailing_slash = "redirect" }
function api.users.p_id.get(ctx) return "user" end
api.folder[""].get = function(ctx) return "folder" end
return api
"#;
    let app = App::start(code, 1);
    for (path, location) in [("/users/1/?a=b", "/users/1?a=b"), ("/folder", "/folder/")] {
        let answer = app.get(path);
        assert_eq!((answer.status, answer.header("location")), (308, Some(location)));
    }
    assert_eq!(app.get("/no/where/").status, 404);
    let code = "local api = rover.server { trailing_slash = 'redirect' } api.p_any.get = print return api";
    let app = App::start(code, 1);
    assert_eq!(app.get("/evil.test/").header("location"), Some("/evil.test"));
    // Browsers would look for these at another host.
    for path in ["//evil.test/", "/\\evil.test/"] {
        assert_eq!((app.get(path).status, app.get(path).header("location")), (404, None), "{path}");
    }
}

#[test]
fn builders_with_a_status_are_there_whether_or_not_the_app_names_them() {
    // They were lost when the table of builders was walked in an unlucky order, which differs from VM to VM.
    let code = r#"
local api = rover.server {}
function api.get(ctx)
  return api.json {
    json = api.json:status(201, {}):status(), text = api.text.status(202, "x"):status(),
    html = api.html:status(203, "x"):status(), raw = api.raw:status(206, "x"):status(),
    permanent = api.redirect:permanent("/"):status(), redirect = api.redirect.status(307, "/"):status(),
  }
end
return api
"#;
    for _ in 0..10 {
        let app = App::start(code, 1);
        let answer: serde_json::Value = serde_json::from_slice(&app.get("/").body).expect("JSON");
        let expected = serde_json::json!({
            "json": 201, "text": 202, "html": 203, "raw": 206, "permanent": 301, "redirect": 307
        });
        assert_eq!(answer, expected);
    }
}

/// A loop over `pairs` goes another way in each VM.
#[test]
fn what_a_loop_over_pairs_declares_is_the_same_in_every_worker() {
    let folder = std::env::temp_dir().join(format!("rover-pairs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("a.txt"), "file").expect("a file");
    let code = r#"
local api = rover.server { management = { port = 0 } }
local names = { "zeta", "alpha", "mid", "beta", "gamma", "delta", "epsilon", "eta" }
local set = {}
for _, name in ipairs(names) do set[name] = function(ctx) return name end end
for name, handler in pairs(set) do
  api[name].get = handler
  api[name].p_id.post = handler
  api[name].limit { rate = (#name * 2) .. "/h" }
  api["files_" .. name].static { dir = "FOLDER" }
  api["ws_" .. name].ws = function(ws) ws.join = function() return {} end end
  api.before[name .. "_1"] = function(ctx) ctx:set("trail", (ctx:get("trail") or "") .. name .. "1 ") end
  api.before[name .. "_2"] = function(ctx) ctx:set("trail", (ctx:get("trail") or "") .. name .. "2 ") end
end
for _, verb in ipairs { "put", "get" } do api.things[verb] = function() return verb end end
for _, name in ipairs { "y", "x" } do api.things.before[name] = function(ctx) ctx:set("trail", ctx:get("trail") .. name) end end
function api.things.after.trail(ctx, res) res:header("X-Trail", ctx:get("trail")) end
return api
"#
    .replace("FOLDER", &folder.display().to_string());
    let mut sorted = ["zeta", "alpha", "mid", "beta", "gamma", "delta", "epsilon", "eta"];
    sorted.sort_unstable();
    let trail: String = ["1 ", "2 "].iter().flat_map(|line| sorted.map(|name| format!("{name}{line}"))).collect();
    let app = App::start(&code, 4);
    for round in 0..2 {
        for _ in 0..4 {
            assert_eq!(app.get("/things").header("x-trail"), Some(format!("{trail}yx").as_str()));
            for name in sorted {
                assert_eq!(app.get(&format!("/files_{name}/a.txt")).text(), "file");
            }
        }
        for name in sorted {
            let answers: Vec<u16> = (0..20).map(|_| app.get(&format!("/{name}")).status).collect();
            let allowed = answers.iter().filter(|status| **status == 200).count();
            assert_eq!(allowed, name.len() * 2, "{name} in round {round}");
            assert_eq!(
                app.send(format!("POST /{name}/1 HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")).status,
                429
            );
        }
        app.reload().expect("the same app loads again");
    }
    std::fs::remove_dir_all(&folder).expect("the folder goes");
}
