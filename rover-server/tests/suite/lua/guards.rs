//! docs/middleware.md: hooks guard all of the URL space at and below their table's path.

use std::fs;

use crate::support::{App, each_worker_count};

const APP: &str = r#"
local api = rover.server { SETTINGS }
local function trail(ctx, what) ctx:set("trail", (ctx:get("trail") or "") .. what .. " ") end
function api.admin.before.auth(ctx)
  trail(ctx, "auth")
  if not ctx:header("Authorization") then return api:error(401) end
end
function api.admin.after.mark(ctx, res) res:header("X-Trail", ctx:get("trail")) end
function api.admin.deep.before.inner(ctx) trail(ctx, "inner") end
function api.admin.deep.get(ctx) return "deep" end
function api.admin.posts.post(ctx) return "posted" end
function api.users.p_id.before.own(ctx)
  if ctx:params().id == "1" then return api:error(403, "user " .. ctx:params().id) end
end
function api.users.me.get(ctx) return "me" end
function api.users.p_uid.posts.p_pid.get(ctx)
  local params = ctx:params()
  return params.uid .. " " .. params.pid .. " " .. tostring(params.id)
end
function api.p_page.get(ctx) return "page " .. ctx:params().page end
api["{*path}"].get = function(ctx) return "rest " .. ctx:params().path .. " " .. tostring(ctx:params().id) end
MORE
return api
"#;

fn app(settings: &str, more: &str, workers: usize) -> App {
    App::start(&APP.replace("SETTINGS", settings).replace("MORE", more), workers)
}

#[test]
fn hooks_guard_what_routes_further_up_answer() {
    each_worker_count(|workers| {
        let app = app("", "", workers);
        for target in [
            "/admin",
            "/admin/",
            "/admin/other",
            "/admin/other/deep?x",
            "//admin",
            "//admin//deep/x",
            "/admin/deep",
            "/admin/deep/x/y",
            "/x/../admin",
            "/%61dmin/",
            "/admin/%zz/..",
        ] {
            let refused = app.get(target);
            assert_eq!(refused.status, 401, "{target}");
            let trail = if target.contains("/deep") && !target.contains("other") { "auth inner " } else { "auth " };
            let trail = if refused.status == 401 { "auth " } else { trail };
            assert_eq!(refused.header("x-trail"), Some(trail), "{target}");
        }
        for (target, text, trail) in [
            ("/admin", "page admin", "auth "),
            ("/admin/", "rest admin/ nil", "auth "),
            ("/admin/other", "rest admin/other nil", "auth "),
            ("/admin/deep", "deep", "auth inner "),
            ("/admin/deep/x", "rest admin/deep/x nil", "auth inner "),
            ("//admin/deep", "rest /admin/deep nil", "auth inner "),
        ] {
            let passed = app.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\nAuthorization: me\r\n\r\n"));
            assert_eq!((passed.text(), passed.header("x-trail")), (text, Some(trail)), "{target}");
        }
        for (target, text) in [("/administrator", "page administrator"), ("/x/admin", "rest x/admin nil"), ("/", "404")]
        {
            let answer = app.get(target);
            let got = if answer.status == 404 { "404" } else { answer.text() };
            assert_eq!((got, answer.header("x-trail")), (text, None), "{target}");
        }
    });
}

#[test]
fn hooks_guard_declared_routes_alone_where_path_guards_is_off() {
    each_worker_count(|workers| {
        let app = app("path_guards = 'off'", "function api.not_found(ctx) return 'nothing' end", workers);
        for (target, text) in [
            ("/admin", "page admin"),
            ("/admin/other", "rest admin/other nil"),
            ("/admin/", "rest admin/ nil"),
            ("/users/1/photos", "rest users/1/photos nil"),
            ("/", "nothing"),
        ] {
            let answer = app.get(target);
            assert_eq!((answer.text(), answer.header("x-trail")), (text, None), "{target}");
        }
        let refused = app.get("/admin/deep");
        assert_eq!((refused.status, refused.header("x-trail")), (401, Some("auth ")));
        assert_eq!(app.send("PUT /admin/deep HTTP/1.1\r\nHost: t\r\n\r\n").status, 405);
        assert_eq!(app.get("/users/1/posts/2").text(), r#"{"error":"user 1"}"#);
        assert_eq!(app.get("/users/7/posts/2").text(), "7 2 7");
    });
}

#[test]
fn hooks_of_parameters_guard_every_value_but_literals_that_are_declared() {
    each_worker_count(|workers| {
        let app = app("", "", workers);
        for target in ["/users/1", "/users/1/", "/users/1/x", "/users/1/posts/2", "/users/%31/y", "//users//1/z"] {
            let answer = app.get(target);
            assert_eq!((answer.status, answer.text()), (403, r#"{"error":"user 1"}"#), "{target}");
        }
        for (target, text) in [
            ("/users/me", "me"),
            ("/users/7/posts/2", "7 2 7"),
            ("/users/7/x", "rest users/7/x 7"),
            ("/users/a%20b/x", "rest users/a b/x a b"),
            ("/users/", "rest users/ nil"),
            ("/users", "page users"),
        ] {
            assert_eq!(app.get(target).text(), text, "{target}");
        }
        let wrong = app.send("POST /users/me HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(wrong.status, 405);
        let wrong = app.send("POST /users/1/posts/2 HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(wrong.status, 403);
    });
}

#[test]
fn hooks_guard_missing_paths_wrong_methods_redirects_and_files() {
    let folder = std::env::temp_dir().join(format!("rover-guards-{}", std::process::id()));
    fs::create_dir_all(folder.join("sub")).expect("a folder");
    fs::write(folder.join("a.txt"), "file").expect("a file");
    fs::write(folder.join("large.bin"), vec![b'x'; 3_000_000]).expect("a file");
    fs::write(folder.join("sub/index.html"), "index").expect("a file");
    let code = format!(
        r#"
local api = rover.server {{ trailing_slash = "redirect", cors = {{ origins = "*" }} }}
function api.before.all(ctx) if ctx:header("X-Stop") then return "stopped" end end
function api.after.mark(ctx, res) res:header("X-After", ctx.path) end
function api.files.before.auth(ctx) if not ctx:header("Authorization") then return api:error(401) end end
api.files.static {{ dir = '{folder}' }}
api.public.static {{ dir = '{folder}' }}
function api.a.get(ctx) return "a" end
return api
"#,
        folder = folder.display()
    );
    each_worker_count(|workers| {
        let app = App::start(&code, workers);
        let ask = |line: &str, more: &str| {
            let mut client = app.connect();
            client.send(format!("{line} HTTP/1.1\r\nHost: t\r\n{more}\r\n"));
            if line.starts_with("HEAD") { client.head_answer() } else { client.answer() }
        };
        let login = "Authorization: me\r\n";
        for (line, more, status, after) in [
            ("GET /a", "", 200, true),
            ("GET /none", "", 404, true),
            ("GET /none", "X-Stop: 1\r\n", 200, true),
            ("DELETE /a", "", 405, true),
            ("GET /a/", "", 308, true),
            ("GET /a/%zz", "", 404, true),
            ("OPTIONS /a", "", 204, false),
            ("OPTIONS /a", "Origin: http://x\r\nAccess-Control-Request-Method: GET\r\n", 204, false),
            ("OPTIONS /files/a.txt", "", 204, false),
            ("GET /files/a.txt", "", 401, true),
            ("GET /files", "", 401, true),
            ("GET /files/none", "", 401, true),
            ("HEAD /files/a.txt", "", 401, true),
            ("POST /files/a.txt", "Content-Length: 0\r\n", 401, true),
            ("GET /public/../files/a.txt", "", 401, true),
            ("GET /files/a.txt", login, 200, true),
            ("HEAD /files/a.txt", login, 200, true),
            ("GET /files/sub", login, 308, true),
            ("GET /files/none", login, 404, true),
            ("DELETE /files/a.txt", login, 405, true),
            ("GET /public/a.txt", "", 200, true),
            ("GET /public/a.txt", "X-Stop: 1\r\n", 200, true),
        ] {
            let answer = ask(line, more);
            assert_eq!((answer.status, answer.header("x-after").is_some()), (status, after), "{line} {more}");
        }
        assert_eq!(ask("GET /public/a.txt", "X-Stop: 1\r\n").text(), "stopped");
        let file = ask("GET /files/a.txt", login);
        assert_eq!((file.text(), file.header("x-after")), ("file", Some("/files/a.txt")));
        assert_eq!(file.header("content-type"), Some("text/plain; charset=utf-8"));
        let tag = file.header("etag").expect("a tag").to_owned();
        assert_eq!(ask("GET /files/a.txt", &format!("{login}If-None-Match: {tag}\r\n")).status, 304);
        let part = ask("GET /files/a.txt", &format!("{login}Range: bytes=1-2\r\n"));
        assert_eq!((part.status, part.text()), (206, "il"));
        assert_eq!(ask("HEAD /files/a.txt", login).header("content-length"), Some("4"));
        assert_eq!(ask("GET /files/large.bin", login).body.len(), 3_000_000);
        assert_eq!(ask("GET /files/sub/", login).text(), "index");
        let allow = ask("DELETE /a", "");
        assert_eq!(
            (allow.header("allow"), allow.text()),
            (Some("GET, HEAD, OPTIONS"), r#"{"error":"Method Not Allowed"}"#)
        );
        // The body of a request that nobody answers is not waited for.
        let mut client = app.connect();
        client.send("POST /none HTTP/1.1\r\nHost: t\r\nContent-Length: 900\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(client.answer().status, 404);
    });
    fs::remove_dir_all(&folder).expect("the folder goes");
}

#[test]
fn not_found_is_guarded_and_keeps_its_status() {
    let code = r#"
local api = rover.server {}
local kept = api.json { here = false }
function api.before.count(ctx) ctx:set("n", 1) if ctx.path == "/closed" then return "closed" end end
function api.after.mark(ctx, res) res:header("X-After", ctx:get("n")) end
function api.not_found(ctx)
  if ctx.path == "/gone" then return api:error(410) end
  if ctx.path == "/boom" then error("boom") end
  if ctx.path == "/nothing" then return end
  return kept
end
function api.a.get(ctx) return kept end
return api
"#;
    each_worker_count(|workers| {
        let app = App::start(code, workers);
        for (target, status, text) in [
            ("/b", 404, r#"{"here":false}"#),
            ("/a", 200, r#"{"here":false}"#),
            ("/gone", 410, r#"{"error":"Gone"}"#),
            ("/nothing", 404, r#"{"error":"Not Found"}"#),
            ("/closed", 200, "closed"),
        ] {
            let answer = app.get(target);
            assert_eq!((answer.status, answer.text(), answer.header("x-after")), (status, text, Some("1")), "{target}");
        }
        assert_eq!(app.get("/boom").status, 500);
        assert_eq!(app.post("/b", "{}").status, 404);
    });
}

#[test]
fn a_hook_that_guards_nothing_is_a_mistake() {
    let check = |code: &str| rover_server::Server::from_source("app.lua", code).check();
    let idle = "local api = rover.server {}\nfunction api.admni.before.auth(ctx) end\nfunction api.admin.get(ctx) end\nreturn api";
    assert_eq!(
        check(idle).expect_err("idle").to_string(),
        "app.lua:2: the hook 'auth' never runs, for there is no route or folder of files at api.admni or below; correct its path"
    );
    let rest =
        "local api = rover.server {}\nfunction api.admin.before.auth(ctx) end\napi['{*path}'].get = print\nreturn api";
    assert!(check(rest).is_ok());
    let files =
        "local api = rover.server {}\nfunction api.admin.before.auth(ctx) end\napi.static { dir = '/' }\nreturn api";
    assert!(check(files).is_ok());
}

#[test]
fn limits_hold_whatever_a_parameter_is_called() {
    let code = r#"
local api = rover.server {}
api.users.p_id.limit { rate = "1/h" }
function api.users.p_uid.posts.get(ctx) return "posts" end
return api
"#;
    let app = App::start(code, 1);
    assert_eq!((app.get("/users/1/posts").status, app.get("/users/1/posts").status), (200, 429));
}
