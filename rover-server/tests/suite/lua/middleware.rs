//! docs/middleware.md: `before` and `after`.

use crate::support::{App, each_worker_count};

#[test]
fn before_runs_in_the_order_written_from_the_outside_in_and_after_in_reverse() {
    // More hooks than a small table holds in order by chance.
    let names = ["zeta", "alpha", "mu", "beta", "omega", "nu", "gamma", "pi", "delta", "xi", "eta", "chi"];
    let mut code = String::from(
        "local api = rover.server {}\nlocal function note(ctx, s) ctx:set('t', (ctx:get('t') or '') .. s .. ' ') end\n",
    );
    for name in names {
        code.push_str(&format!("function api.before.{name}(ctx) note(ctx, '{name}') end\n"));
        code.push_str(&format!(
            "function api.after.{name}(ctx, res) note(ctx, '-{name}') res:header('X-T', ctx:get('t')) end\n"
        ));
    }
    code.push_str(
        "function api.a.b.get(ctx) note(ctx, 'handler') return ctx:get('t') end
function api.a.b.before.inner(ctx) note(ctx, 'inner') end
function api.a.before.middle(ctx) note(ctx, 'middle') end
function api.a.after.middle(ctx) note(ctx, '-middle') end
function api.other.get(ctx) end
function api.other.before.never(ctx) note(ctx, 'never') end
return api",
    );
    each_worker_count(|workers| {
        let app = App::start(&code, workers);
        let answer = app.get("/a/b");
        let outer = names.join(" ");
        assert_eq!(answer.text(), format!("{outer} middle inner handler "));
        let back: Vec<String> = names.iter().rev().map(|name| format!("-{name}")).collect();
        let trail = format!("{outer} middle inner handler -middle {}", back.join(" "));
        assert_eq!(answer.all("x-t").last().map(|last| last.trim_end()), Some(trail.as_str()));
    });
}

const EARLY: &str = r#"
local api = rover.server {}
function api.before.early(ctx)
  local how = ctx:query().how
  if how == "table" then return { early = true } end
  if how == "string" then return "early" end
  if how == "false" then return false end
  if how == "response" then return api:error(401, "Unauthorized") end
  if how == "status" then error { status = 409, error = "raised" } end
  if how == "raised" then error(api.text:status(410, "raised")) end
  if how == "boom" then error("boom") end
end
function api.before.second(ctx) if ctx:query().how == "second" then return "second" end end
function api.after.mark(ctx, res) res:header("X-After", res:status()) end
function api.get(ctx) return "handler" end
function api.plain.get(ctx) return { plain = true } end
return api
"#;

#[test]
fn early_answers_of_every_kind_end_the_chain_and_after_still_runs() {
    each_worker_count(|workers| {
        let app = App::start(EARLY, workers);
        for (how, status, body) in [
            ("", 200, "handler"),
            ("table", 200, r#"{"early":true}"#),
            ("string", 200, "early"),
            ("false", 200, "false"),
            ("second", 200, "second"),
            ("response", 401, r#"{"error":"Unauthorized"}"#),
            ("raised", 410, "raised"),
        ] {
            let answer = app.get(&format!("/?how={how}"));
            assert_eq!((answer.status, answer.text()), (status, body), "{how}");
            assert_eq!(answer.header("x-after"), Some(status.to_string().as_str()), "{how}");
        }
        let raised = app.get("/?how=status");
        assert_eq!((raised.status, raised.header("x-after")), (409, Some("409")));
        let boom = app.get("/?how=boom");
        assert_eq!((boom.status, boom.header("x-after")), (500, Some("500")));
        assert_eq!(app.get("/plain").text(), r#"{"plain":true}"#);
    });
}

#[test]
fn after_changes_the_response_or_returns_another() {
    let code = r#"
local api = rover.server {}
function api.after.outer(ctx, res) return res:header("X-Outer", res:status()) end
function api.changed.after.change(ctx, res) res:status(203):header("X-A", "a"):cookie("c", "v") end
function api.changed.get(ctx) return { n = 1 } end
function api.replaced.after.replace(ctx, res) return { instead = res:status() } end
function api.replaced.get(ctx) return api.text:status(404, "x") end
function api.nothing.after.fill(ctx, res) if res:status() == 204 then return "filled" end end
function api.nothing.get(ctx) end
function api.fails.after.first(ctx, res) res:header("X-First", "ran") end
function api.fails.after.second(ctx, res) error("in after") end
function api.fails.get(ctx) return "fine" end
function api.asks.after.deny(ctx, res) error { status = 403, error = "denied" } end
function api.asks.get(ctx) return "fine" end
function api.unsendable.after.bad(ctx, res) return print end
function api.unsendable.get(ctx) return "fine" end
return api
"#;
    each_worker_count(|workers| {
        let app = App::start(code, workers);
        let changed = app.get("/changed");
        assert_eq!((changed.status, changed.text(), changed.header("x-a")), (203, r#"{"n":1}"#, Some("a")));
        assert_eq!((changed.header("set-cookie"), changed.header("x-outer")), (Some("c=v"), Some("203")));
        assert_eq!(app.get("/replaced").text(), r#"{"instead":404}"#);
        assert_eq!(app.get("/nothing").text(), "filled");
        let fails = app.get("/fails");
        assert_eq!((fails.status, fails.header("x-first"), fails.header("x-outer")), (500, Some("ran"), Some("500")));
        assert_eq!(app.get("/asks").status, 403);
        assert_eq!(app.get("/unsendable").status, 500);
    });
}

#[test]
fn hooks_of_a_parameter_run_for_both_of_its_spellings() {
    let code = r#"
local api = rover.server {}
function api.users.p_id.before.a(ctx) ctx:set("a", ctx:params().id) end
api.users["{id}"].before.b = function(ctx) ctx:set("b", "b") end
api.users["{id}"].get = function(ctx) return ctx:get("a") .. ctx:get("b") end
function api.users.p_id.posts.get(ctx) return ctx:get("a") .. ctx:get("b") .. "posts" end
function api.users.me.get(ctx) return tostring(ctx:get("a")) end
api.files["{*path}"].before.c = function(ctx) ctx:set("c", ctx:params().path) end
api.files["{*path}"].get = function(ctx) return ctx:get("c") end
return api
"#;
    each_worker_count(|workers| {
        let app = App::start(code, workers);
        for (path, text) in
            [("/users/7", "7b"), ("/users/7/posts", "7bposts"), ("/users/me", "nil"), ("/files/x/y", "x/y")]
        {
            assert_eq!(app.get(path).text(), text, "{path}");
        }
    });
}

#[test]
fn hooks_run_for_all_but_what_asks_for_options() {
    let code = r#"
local api = rover.server {}
function api.before.deny(ctx) if ctx.path ~= "/c" then return api:error(401) end end
function api.after.mark(ctx, res) res:header("X-After", 1) end
function api.a.get(ctx) end
function api.not_found(ctx) return "none" end
return api
"#;
    let app = App::start(code, 1);
    assert_eq!((app.get("/a").status, app.get("/b").status), (401, 401));
    let missing = app.get("/c");
    assert_eq!((missing.status, missing.text(), missing.header("x-after")), (404, "none", Some("1")));
    let options = app.send("OPTIONS /a HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!((options.status, options.header("x-after")), (204, None));
    assert_eq!(app.send("POST /a HTTP/1.1\r\nHost: t\r\n\r\n").status, 401);
}
