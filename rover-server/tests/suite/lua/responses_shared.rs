//! A response that is built once and returned for many requests: what hooks add for one of them, no other sees.

use crate::support::{Answer, App, each_worker_count};

const APP: &str = r#"
local api = rover.server {}
local deny = api:error(401, "log in"):header("WWW-Authenticate", "Basic")
local away = api.redirect("/login")
local page = api.html("<p>"):cookie("theme", "dark")

local broken = api:error(503, "not now")
local plain = { shared = true }
local other = api.text("other")
local made

function api.before.closed(ctx) if ctx:query().closed then return deny end end
function api.after.last(ctx, res)
  local user = ctx:query().user
  if user then res:cookie("session", user):header("X-User", user) end
  if user == "alice" then res:status(418):header("Content-Type", "text/x-alice") end
end
function api.deny.get() return deny end
function api.raised.get() error(deny) end
function api.away.get() return away end
function api.page.get() return page end
function api.plain.get() return plain end
function api.made.get()
  made = made or api.text("made")
  return made
end
function api.closed.get() return "open" end
function api.broken.get() error("boom") end
function api.on_error(ctx, err) if type(err) == "string" then return broken end end
function api.replaced.after.inner(ctx, res) return other end
function api.replaced.get() return "replaced" end
function api.same.after.inner(ctx, res) return res:header("X-Same", "1") end
function api.same.get() return deny end
return api
"#;

/// All that tells of the user.
fn traces(answer: &Answer) -> (Vec<&str>, Option<&str>) {
    (answer.all("set-cookie"), answer.header("x-user"))
}

#[test]
fn what_hooks_add_is_for_one_request() {
    each_worker_count(|workers| {
        let app = App::start(APP, workers);
        for (path, status, own, body) in [
            ("/deny?", 401, None, r#"{"error":"log in"}"#),
            ("/raised?", 401, None, r#"{"error":"log in"}"#),
            ("/away?", 302, None, ""),
            ("/page?", 200, Some("theme=dark"), "<p>"),
            ("/plain?", 200, None, r#"{"shared":true}"#),
            ("/made?", 200, None, "made"),
            ("/closed?closed=1&", 401, None, r#"{"error":"log in"}"#),
            ("/broken?", 503, None, r#"{"error":"not now"}"#),
            ("/replaced?", 200, None, "other"),
            ("/same?", 401, None, r#"{"error":"log in"}"#),
        ] {
            let before = app.get(path);
            assert_eq!((before.status, before.text()), (status, body), "{path}");
            for _ in 0..2 * workers {
                let answer = app.get(&format!("{path}user=alice"));
                let cookies: Vec<&str> = own.into_iter().chain(["session=alice"]).collect();
                assert_eq!((answer.status, traces(&answer)), (418, (cookies, Some("alice"))), "{path}");
            }
            for _ in 0..2 * workers {
                let answer = app.get(path);
                assert_eq!(answer.status, status, "{path}");
                assert_eq!(traces(&answer), (own.into_iter().collect(), None), "{path}");
                assert_eq!(answer.header("content-type"), before.header("content-type"), "{path}");
                assert_eq!(answer.all("x-same").len(), usize::from(path == "/same?"), "{path}");
                assert_eq!(answer.text(), body, "{path}");
            }
        }
        assert_eq!(app.get("/deny?user=bob").header("www-authenticate"), Some("Basic"));
    });
}

const ELSEWHERE: &str = r#"
local api = rover.server {}
local gone = api:error(404, "gone"):header("X-Own", "1")
local away = api.redirect("/login")
local broken = api:error(500, "sorry")
local raised = api:error(409, "raised")

function api.before.first(ctx)
  local query = ctx:query()
  if query.away then return away end
  if query.raised then error(raised) end
end
function api.after.last(ctx, res)
  local user = ctx:query().user
  if user then res:cookie("session", user):header("X-User", user):header("X-Own", user) end
  if user == "alice" then res:status(418) end
end
function api.below.after.inner(ctx, res) if ctx:query().replaced then return broken end end
function api.not_found(ctx)
  if ctx:query().boom then error("boom") end
  if ctx:query().refused then error(gone) end
  return gone
end
function api.on_error(ctx, err) if type(err) == "string" then return broken end end
function api.below.get() return "here" end
return api
"#;

#[test]
fn what_hooks_add_is_for_one_request_wherever_the_response_is_used() {
    each_worker_count(|workers| {
        let app = App::start(ELSEWHERE, workers);
        for (path, status, own, body) in [
            ("/nowhere?", 404, Some("1"), r#"{"error":"gone"}"#),
            ("/below/nowhere?", 404, Some("1"), r#"{"error":"gone"}"#),
            ("/nowhere?refused=1&", 404, Some("1"), r#"{"error":"gone"}"#),
            ("/nowhere?boom=1&", 500, None, r#"{"error":"sorry"}"#),
            ("/nowhere?away=1&", 302, None, ""),
            ("/nowhere?raised=1&", 409, None, r#"{"error":"raised"}"#),
            ("/below?away=1&", 302, None, ""),
            ("/below?raised=1&", 409, None, r#"{"error":"raised"}"#),
            ("/below?replaced=1&", 500, None, r#"{"error":"sorry"}"#),
        ] {
            for _ in 0..2 * workers {
                let plain = app.get(path);
                let all: Vec<&str> = own.into_iter().collect();
                assert_eq!((plain.status, plain.text(), plain.all("x-own")), (status, body, all), "{path}");
                assert_eq!(traces(&plain), (vec![], None), "{path}");
                let answer = app.get(&format!("{path}user=alice"));
                let all: Vec<&str> = own.into_iter().chain(["alice"]).collect();
                assert_eq!((answer.status, answer.all("x-own")), (418, all), "{path}");
                assert_eq!(traces(&answer), (vec!["session=alice"], Some("alice")), "{path}");
            }
        }
    });
}
