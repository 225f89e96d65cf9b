//! docs/app-and-routes.md: a path has one spelling for everything that goes by paths.

use std::fs;

use crate::support::{App, each_worker_count};

const APP: &str = r#"
local api = rover.server { MORE }
function api.admin.before.auth(ctx) return api:error(401) end
function api.admin.get(ctx) return "admin" end
function api.admin.users.get(ctx) return "users" end
api.public["{*path}"].get = function(ctx) return ctx.path .. " " .. ctx.raw_path .. " " .. ctx:params().path end
function api.sub.p_id.get(ctx) return ctx.path .. " " .. ctx.raw_path .. " " .. ctx:params().id end
api["~user"].get = function() return "user" end
api["@me"].p_id.get = function(ctx) return "me " .. ctx:params().id end
api["a-b.c"].get = function() return "abc" end
function api.p_any.get(ctx) return "any " .. ctx:params().any end
return api
"#;

#[test]
fn no_spelling_passes_by() {
    each_worker_count(|workers| {
        let app = App::start(&APP.replace("MORE", ""), workers);
        for target in [
            "/admin",
            "/admin/users",
            "/public/../admin/users",
            "/public/%2e%2e/admin/users",
            "/public/.%2E/admin/users?x=/../y",
            "/%2e%2e/admin/users",
            "/./admin/users",
            "/%2E/admin",
            "/%61dmin/users",
            "/%61%64%6D%69%6e",
            "/admin/./users",
            "/admin/x/../users",
        ] {
            assert_eq!(app.get(target).status, 401, "{target}");
            let absolute = app.send(format!("GET http://test{target} HTTP/1.1\r\nHost: test\r\n\r\n"));
            assert_eq!(absolute.status, 401, "{target}");
        }
    });
}

#[test]
fn handlers_see_the_normal_path_and_the_sent_one() {
    let app = App::start(&APP.replace("MORE", ""), 1);
    for (target, text) in [
        ("/public/a/b", "/public/a/b /public/a/b a/b"),
        ("/public/a/./b/../c", "/public/a/c /public/a/./b/../c a/c"),
        ("/public/%7e%2d%2f?q=%7e", "/public/~-%2F /public/%7e%2d%2f ~-/"),
        ("/public/a//b", "/public/a//b /public/a//b a//b"),
        ("/sub/a|b", "/sub/a%7Cb /sub/a|b a|b"),
        ("/sub/caf%c3%a9", "/sub/caf%C3%A9 /sub/caf%c3%a9 café"),
        ("/sub/%40", "/sub/%40 /sub/%40 @"),
        ("/sub/%25%34%31", "/sub/%2541 /sub/%25%34%31 %41"),
        ("/~user", "user"),
        ("/%7Euser", "user"),
        ("/%7euser", "user"),
        ("/@me/x", "me x"),
        ("/%40me/%40x", "me @x"),
        ("/a-b.c", "abc"),
        ("/a%2Db%2Ec", "abc"),
        ("/x/../a", "any a"),
    ] {
        assert_eq!(app.get(target).text(), text, "{target}");
    }
    assert_eq!(app.get("/a/x/..").status, 404);
    for target in ["/sub/%", "/sub/%zz", "/public/%%34%31", "/sub/%4%31"] {
        assert_eq!(app.get(target).status, 400, "{target}");
    }
    let asterisk = app.send("OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(asterisk.status, 204);
}

#[test]
fn there_is_a_way_back() {
    let app = App::start(&APP.replace("MORE", "path_normalisation = 'off'"), 1);
    assert_eq!(app.get("/public/../admin").text(), "/public/../admin /public/../admin ../admin");
    // Hooks guard a spelling of their path all the same, as far as it is one segment by segment.
    assert_eq!(app.get("/%61dmin").status, 401);
    assert_eq!(app.get("/%61dmim").text(), "any admim");
    assert_eq!(app.get("/@me/x").text(), "me x");
    let code = "return rover.server { path_normalisation = 'off' }";
    let info = rover_server::Server::from_source("app.lua", code).check().expect("an app");
    assert!(info.warnings().iter().any(|warning| warning.starts_with("path_normalisation is off")));
    let code = "return rover.server { path_normalisation = 'nginx' }";
    let error = rover_server::Server::from_source("app.lua", code).check().expect_err("no such way");
    assert_eq!(error.to_string(), "app.lua: path_normalisation must be \"on\" or \"off\", got \"nginx\"");
}

#[test]
fn targets_grow_within_their_limit() {
    let app = App::start(
        "local api = rover.server { uri_size_limit = 100 } \
        api['{*path}'].get = function(ctx) return ctx.path end return api",
        1,
    );
    let long = format!("/%61{}", "|".repeat(60));
    assert_eq!(app.get(&long).text(), format!("/a{}", "|".repeat(60)));
    assert_eq!(app.get(&format!("/|{}", "a".repeat(90))).text(), format!("/%7C{}", "a".repeat(90)));
    assert_eq!(app.get(&format!("/{}", "%61".repeat(40))).status, 414);
}

#[test]
fn proxies_and_files_go_by_the_normal_path() {
    let upstream = App::start(
        "local api = rover.server { path_normalisation = 'off' } \
         api['{*path}'].get = function(ctx) return ctx.path .. '?' .. ctx.query_string end return api",
        1,
    );
    let folder = std::env::temp_dir().join(format!("rover-paths-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("a.txt"), "file").expect("a file");
    let code = format!(
        "local api = rover.server {{}}
         api.to['{{*path}}'].get = api.proxy('http://{address}')
         api.under['{{*path}}'].get = api.proxy('http://{address}/base/')
         api['@files'].static {{ dir = '{folder}' }}
         return api",
        address = upstream.address,
        folder = folder.display(),
    );
    let app = App::start(&code, 1);
    assert_eq!(app.get("/to/a/../%7e%40%2f|?x=%7e").text(), "/to/~%40%2F%7C?x=%7e");
    assert_eq!(app.get("/under/x/./%61/../b").text(), "/base/x/b?");
    for target in ["/@files/a.txt", "/%40files/a.txt", "/@files/x/../%61.txt", "/to/../@files/a%2etxt"] {
        assert_eq!(app.get(target).text(), "file", "{target}");
    }
    assert_eq!(app.get("/@files/../../a.txt").status, 404);
    fs::remove_dir_all(&folder).expect("the folder goes");
}

#[test]
fn what_no_url_can_hold_is_encoded() {
    let app = App::start(&APP.replace("MORE", ""), 1);
    let text = app.get("/sub/a\"b{c}[d]^|\\<`>").text().to_owned();
    assert_eq!(text.split(' ').next(), Some("/sub/a%22b%7Bc%7D%5Bd%5D%5E%7C%5C%3C%60%3E"));
}
