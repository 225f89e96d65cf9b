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
