//! `rover.http`: what it takes and gives in which form, and what it refuses rather than lose.

use serde_json::json;

use crate::support::upstream::{Upstream, answer, never};
use crate::support::{App, body};

fn start(upstream: &Upstream, code: &str) -> App {
    let code = format!(
        "local api = rover.server {{}} local url = '{}'
         local function try(f, ...) return select(2, pcall(f, ...)) end
         {code}
         return api",
        upstream.url()
    );
    App::start(&code, 1)
}

#[test]
fn nothing_of_a_table_is_lost() {
    let upstream = Upstream::start(|asked, stream| answer(stream, "200 OK", "", asked.text().as_bytes()));
    let app = start(
        &upstream,
        "function api.get(ctx)
           local function no(cfg) return try(function() local r = rover.http.post(url, nil, cfg) end) end
           return {
             rover.http.post(url, nil, { form = { a = { 1, 'x', true }, b = {}, c = rover.array { 2 } } }).body,
             no { form = { a = { b = 1 } } },
             no { params = { a = { 1, b = 2 } } },
             no { params = { a = { { 1 } } } },
             no { headers = { ['X-A'] = { one = 'x' } } },
             no { headers = { ['X-A'] = { 'a', { 'b' } } } },
             no { form = { 1, b = 2 } },
             no { form = { a = { [1] = 1, [3] = 3 } } },
             no { multipart = { [true] = 'x' } },
             no { multipart = { [2] = { name = 'a', content = 'b' } } },
           }
         end",
    );
    let takes = "a field takes a string, number or boolean, or an array of them";
    let wants = "is a string, number or boolean, or an array of them, not a table";
    assert_eq!(
        body(&app, "/"),
        json!([
            "a=1&a=x&a=true&c=2",
            format!("app.lua:4: form.a is a table with the key \"b\"; {takes}"),
            format!("app.lua:4: params.a is a table with the key \"b\"; {takes}"),
            format!("app.lua:4: params.a[1] {wants}"),
            format!("app.lua:4: headers.X-A is a table with the key \"one\"; {takes}"),
            format!("app.lua:4: headers.X-A[2] {wants}"),
            "app.lua:4: form are named by strings, not 1",
            "app.lua:4: form.a is an array with a gap at 2",
            "app.lua:4: the parts of multipart are named by strings, not true",
            "app.lua:4: multipart is an array with a gap at 1",
        ])
    );
}

#[test]
fn several_cookies_stay_apart() {
    let upstream = Upstream::start(|asked, stream| {
        let lines = match asked.target.as_str() {
            "/none" => "",
            "/one" => "Set-Cookie: only=1\r\n",
            _ => {
                "Set-Cookie: id=a%20b; Expires=Wed, 21 Oct 2015 07:28:00 GMT\r\nX-Many: 1\r\nset-cookie: = ; x\r\n\
                 SET-COOKIE:  q = \"v\" ; Path=/\r\nX-Many: 2\r\nSet-Cookie: id=last\r\nSet-Cookie: bare\r\n"
            }
        };
        answer(stream, "200 OK", lines, b"")
    });
    let app = start(
        &upstream,
        "function api.get()
           local many, one, none = rover.http.get(url), rover.http.get(url .. '/one'), rover.http.get(url .. '/none')
           return { many.headers['Set-Cookie'], many:cookies(), many.headers['x-many'], one.headers['set-cookie'], one:cookies(),
             next(none:cookies()) == nil, none.headers['set-cookie'] == nil, try(function() local r = many.cookies() end) }
         end",
    );
    assert_eq!(
        body(&app, "/"),
        json!([
            ["id=a%20b; Expires=Wed, 21 Oct 2015 07:28:00 GMT", "= ; x", "q = \"v\" ; Path=/", "id=last", "bare"],
            { "id": "last", "q": "v" },
            "1, 2",
            ["only=1"],
            { "only": "1" },
            true,
            true,
            "app.lua:6: call it with a colon: res:cookies()",
        ])
    );
}

#[test]
fn hosts_may_be_written_in_any_script() {
    let upstream = Upstream::start(|asked, stream| {
        answer(stream, "200 OK", "", asked.header("host").unwrap_or_default().as_bytes())
    });
    // Fullwidth letters are letters.
    let app = start(
        &upstream,
        "local port = url:match('%d+$')
         function api.get()
           return { rover.http.get('http://\u{ff4c}\u{ff4f}calhost:' .. port .. '/\u{e4}').body,
             select(2, rover.http.get('http://\u{ff05}.test/')) }
         end
         api.proxied.get = api.proxy('http://\u{ff4c}ocalhost:' .. port)",
    );
    let host = format!("localhost:{}", upstream.address.port());
    assert_eq!(body(&app, "/"), json!([host, "invalid URL: the host is not a valid name"]));
    assert_eq!(app.get("/proxied").text(), host);
}

#[test]
fn a_redirect_that_would_need_a_function_s_body_again_says_so() {
    let upstream = Upstream::start(|asked, stream| match asked.target.as_str() {
        "/end" => answer(stream, "200 OK", "", asked.text().as_bytes()),
        target => {
            answer(stream, if target == "/303" { "303 See Other" } else { "307 Again" }, "Location: /end\r\n", b"")
        }
    });
    let app = start(
        &upstream,
        "local function once() local done return function() if not done then done = true return 'x' end end end
         local function told(res, err) return { res.status, res.body, res.not_followed or false } end
         function api.get()
           return {
             told(rover.http.post(url .. '/307', once())),
             told(rover.http.post(url .. '/307', once(), { redirects = 0 })),
             told(rover.http.post(url .. '/303', once())),
             told(rover.http.post(url .. '/307', 'x')),
           }
         end",
    );
    assert_eq!(
        body(&app, "/"),
        json!([
            [307, "", "the body was made by a function, which cannot make it again"],
            [307, "", false],
            [200, "", false],
            [200, "x", false],
        ])
    );
}

#[test]
fn times_are_seconds_unless_their_name_says_milliseconds() {
    let upstream = Upstream::start(|_, stream| never(stream));
    let code = format!(
        "local api = rover.server {{}}
         local url = '{}'
         local function took(f, ...)
           local began = rover.now()
           local res, err = f(...)
           return {{ err or res.status, rover.now() - began < 10 }}
         end
         local function try(f, ...) return select(2, pcall(f, ...)) end
         function api.get(ctx)
           local client = rover.http.create {{ timeout_ms = 50 }}
           return {{
             took(rover.http.get, url, {{ timeout = 0.05 }}),
             took(rover.http.get, url, {{ timeout_ms = 50 }}),
             took(client.get, url),
             took(client.get, url, {{ timeout = 0.02 }}),
             try(function() local r = rover.http.get(url, {{ timeout = 1, timeout_ms = 1 }}) end),
             try(function() local r = rover.http.create {{ connect_timeout = 1, connect_timeout_ms = 1 }} end),
             try(function() local r = ctx:proxy(url, {{ idle_timeout = 1, idle_timeout_ms = 1 }}) end),
             try(function() local r = rover.http.get(url, {{ timeout_ms = -1 }}) end),
             try(function() local r = ctx:proxy(url, {{ tunnel_timeout = 3600000 }}) end),
           }}
         end
         api.proxied.get = api.proxy(url, {{ timeout_ms = 50 }})
         return api",
        upstream.url()
    );
    let app = App::start(&code, 1);
    assert_eq!(
        body(&app, "/"),
        json!([
            ["timeout", true],
            ["timeout", true],
            ["timeout", true],
            ["timeout", true],
            "app.lua:16: give timeout or timeout_ms, not both",
            "app.lua:17: give connect_timeout or connect_timeout_ms, not both",
            "app.lua:18: give idle_timeout or idle_timeout_ms, not both",
            "app.lua:19: timeout_ms is a number of milliseconds above 0, or false for no limit, not -1",
            "app.lua:20: tunnel_timeout is a number of seconds above 0 (tunnel_timeout_ms: milliseconds), or false for no limit, not 3600000",
        ])
    );
    assert_eq!(app.get("/proxied").status, 504);
}
