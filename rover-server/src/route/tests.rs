//! The router's promises, one by one.
#![allow(clippy::unwrap_used)]

use http::Method;

use super::*;

fn decl(line: u32, verb: &str, fields: &[&str]) -> RouteDecl {
    RouteDecl {
        verb: Verb::from_name(verb).unwrap(),
        pattern: Pattern::parse(fields).unwrap(),
        origin: Origin { file: "app.lua".into(), line },
    }
}

fn decls(routes: &[(&str, &[&str])]) -> Vec<RouteDecl> {
    (1..).zip(routes).map(|(line, (verb, fields))| decl(line, verb, fields)).collect()
}

fn router(routes: &[(&str, &[&str])]) -> FastRouter {
    FastRouter::build(decls(routes), TrailingSlash::Strict).unwrap()
}

fn mistakes(routes: &[(&str, &[&str])]) -> Vec<String> {
    let mistakes = FastRouter::build(decls(routes), TrailingSlash::Strict).unwrap_err();
    mistakes.iter().map(Mistake::to_string).collect()
}

/// The pattern that answers GET, with its parameters, as in `/users/{id} id=42`.
fn get(router: &FastRouter, path: &str) -> String {
    match router.find(&Method::GET, path) {
        RouteMatch::Route { id, params } => {
            let mut out = router.routes()[id.index()].pattern.to_string();
            assert_eq!(router.param_names(id).len(), params.len());
            for (i, name) in router.param_names(id).iter().enumerate() {
                out += &format!(" {name}={}", params.raw(i, path).unwrap());
            }
            out
        }
        RouteMatch::MethodNotAllowed { allow, .. } | RouteMatch::Tunnel { allow } => {
            format!("405 {}", allow.to_str().unwrap())
        }
        RouteMatch::Options { allow } => format!("204 {}", allow.to_str().unwrap()),
        RouteMatch::Redirect(change) => format!("308 {}", change.apply(path)),
        RouteMatch::NotFound => "404".to_owned(),
        RouteMatch::BadEncoding => "400".to_owned(),
    }
}

#[test]
fn is_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<FastRouter>();
}

#[test]
fn compares_static_paths_exactly() {
    let router = router(&[("get", &[]), ("get", &["hello"]), ("get", &["hello", "world"]), ("get", &["a b"])]);
    for path in ["/", "/hello", "/hello/world", "/a%20b"] {
        assert_eq!(get(&router, path), path);
    }
    for path in ["", "*", "hello", "/hell", "/hello/", "/Hello", "/helloworld", "//", "//hello", "/a b", "/hello%00"] {
        assert_eq!(get(&router, path), "404", "{path}");
    }
}

#[test]
fn literal_beats_parameter_beats_rest() {
    let router = router(&[
        ("get", &["{*all}"]),
        ("get", &["users", "p_id"]),
        ("get", &["users", "me"]),
        ("get", &["users", "p_id", "posts"]),
        ("get", &["users", "{*tail}"]),
    ]);
    assert_eq!(get(&router, "/users/me"), "/users/me");
    assert_eq!(get(&router, "/users/42"), "/users/{id} id=42");
    assert_eq!(get(&router, "/users/me/posts"), "/users/{id}/posts id=me");
    assert_eq!(get(&router, "/users/me/x"), "/users/{*tail} tail=me/x");
    assert_eq!(get(&router, "/users/"), "/{*all} all=users/");
    assert_eq!(get(&router, "/users"), "/{*all} all=users");
    assert_eq!(get(&router, "/x//y/"), "/{*all} all=x//y/");
    assert_eq!(get(&router, "/"), "404");
}

#[test]
fn the_leftmost_difference_decides() {
    let router = router(&[("get", &["a", "{*rest}"]), ("get", &["p_x", "b"]), ("get", &["p_x", "b", "c"])]);
    assert_eq!(get(&router, "/a/b"), "/a/{*rest} rest=b");
    assert_eq!(get(&router, "/z/b"), "/{x}/b x=z");
    assert_eq!(get(&router, "/a/b/c"), "/a/{*rest} rest=b/c");
    assert_eq!(get(&router, "/a/"), "404");
}

#[test]
fn a_dead_end_goes_back() {
    let router = router(&[
        ("get", &["a", "b", "c"]),
        ("get", &["a", "p_x", "p_y", "d"]),
        ("get", &["p_w", "b", "c", "e"]),
        ("get", &["p_w", "p_x", "p_y", "p_z"]),
    ]);
    assert_eq!(get(&router, "/a/b/c/d"), "/a/{x}/{y}/d x=b y=c");
    assert_eq!(get(&router, "/a/b/c/e"), "/{w}/b/c/e w=a");
    assert_eq!(get(&router, "/a/b/c/f"), "/{w}/{x}/{y}/{z} w=a x=b y=c z=f");
}

#[test]
fn a_parameter_is_one_segment_that_is_not_empty() {
    let router = router(&[("get", &["u", "p_id"]), ("get", &["u", "p_id", "p"]), ("get", &["f", "{*path}"])]);
    for path in ["/u/", "/u//p", "/u", "/f", "/f/", "/u/1/2"] {
        assert_eq!(get(&router, path), "404", "{path}");
    }
    assert_eq!(get(&router, "/u/a%2Fb"), "/u/{id} id=a%2Fb");
    assert_eq!(get(&router, "/f//"), "/f/{*path} path=/");
    assert_eq!(get(&router, "/u/{p}"), "/u/{id} id={p}");
}

#[test]
fn broken_encoding_in_a_value_is_told() {
    let router = router(&[("get", &["u", "p_id"]), ("post", &["f", "{*path}"])]);
    assert_eq!(get(&router, "/u/%zz"), "400");
    assert_eq!(get(&router, "/u/%4"), "400");
    assert_eq!(get(&router, "/u/%41"), "/u/{id} id=%41");
    assert_eq!(get(&router, "/%zz"), "404");
    assert_eq!(get(&router, "/f/%zz"), "405 POST, OPTIONS");
}

#[test]
fn the_path_is_chosen_before_the_method() {
    let router = router(&[("post", &["users", "me"]), ("get", &["users", "p_id"]), ("delete", &["users", "p_id"])]);
    assert_eq!(get(&router, "/users/me"), "405 POST, OPTIONS");
    let allow = http::HeaderValue::from_static("GET, HEAD, DELETE, OPTIONS");
    let found = |method| router.find(&method, "/users/7");
    assert_eq!(found(Method::PUT), RouteMatch::MethodNotAllowed { allow: &allow, other: RouteId(1) });
    assert_eq!(found(Method::CONNECT), RouteMatch::MethodNotAllowed { allow: &allow, other: RouteId(1) });
    assert_eq!(found(Method::OPTIONS), RouteMatch::Options { allow: &allow });
    assert!(matches!(found(Method::HEAD), RouteMatch::Route { id: RouteId(1), .. }));
    assert!(matches!(found(Method::DELETE), RouteMatch::Route { id: RouteId(2), .. }));
}

#[test]
fn options_asterisk_names_the_methods_of_the_app() {
    let app = router(&[("get", &["a"]), ("patch", &["b", "p_x"])]);
    let allow = http::HeaderValue::from_static("GET, HEAD, PATCH, OPTIONS");
    assert_eq!(app.find(&Method::OPTIONS, "*"), RouteMatch::Options { allow: &allow });
    assert_eq!(app.find(&Method::CONNECT, ""), RouteMatch::Tunnel { allow: &allow });
    assert_eq!(app.find(&Method::GET, "*"), RouteMatch::NotFound);
    let none = http::HeaderValue::from_static("OPTIONS");
    assert_eq!(router(&[]).find(&Method::OPTIONS, "*"), RouteMatch::Options { allow: &none });
}

#[test]
fn trailing_slash_redirects_to_the_known_spelling() {
    let routes =
        decls(&[("get", &["a"]), ("get", &["b", ""]), ("get", &["u", "p_id"]), ("get", &["f", "{*p}"]), ("get", &[])]);
    let router = FastRouter::build(routes, TrailingSlash::Redirect).unwrap();
    assert_eq!(get(&router, "/a"), "/a");
    assert_eq!(get(&router, "/a/"), "308 /a");
    assert_eq!(get(&router, "/b/"), "/b/");
    assert_eq!(get(&router, "/b"), "308 /b/");
    assert_eq!(get(&router, "/u/1/"), "308 /u/1");
    assert_eq!(get(&router, "/f/x/"), "/f/{*p} p=x/");
    assert_eq!(get(&router, "//"), "308 /");
    // "//a" in a Location would be the host "a".
    for path in ["/f", "/a//", "//a/", "//a", "", "*", "/c/"] {
        assert_eq!(get(&router, path), "404", "{path}");
    }
    assert!(matches!(router.find(&Method::POST, "/a/"), RouteMatch::Redirect(SlashChange::Remove)));
}

#[test]
fn two_handlers_for_one_method_and_path_are_a_mistake() {
    let told = mistakes(&[
        ("get", &["users", "p_id"]),
        ("post", &["users", "p_id"]),
        ("get", &["users", "{uid}"]),
        ("any", &["a b"]),
        ("any", &["a%20b"]),
        ("get", &["@me"]),
        ("get", &["%40%6De"]),
    ]);
    assert_eq!(
        told,
        [
            "app.lua:3: GET /users/{uid} already has a handler (app.lua:1); remove one of the two",
            "app.lua:5: any /a%20b already has a handler (app.lua:4); remove one of the two",
            "app.lua:7: GET /@me already has a handler (app.lua:6); remove one of the two",
        ]
    );
}

#[test]
fn parameters_in_one_place_have_the_names_of_their_routes() {
    let app = router(&[
        ("get", &["users", "p_id"]),
        ("put", &["users", "p_user"]),
        ("get", &["users", "p_uid", "posts", "p_pid"]),
        ("get", &["users", "p_x", "{*rest}"]),
        ("post", &["users", "p_y", "{*path}"]),
        ("get", &["users", "me"]),
    ]);
    assert_eq!(get(&app, "/users/1"), "/users/{id} id=1");
    assert_eq!(get(&app, "/users/1/posts/2"), "/users/{uid}/posts/{pid} uid=1 pid=2");
    assert_eq!(get(&app, "/users/1/posts"), "/users/{x}/{*rest} x=1 rest=posts");
    assert_eq!(get(&app, "/users/me"), "/users/me");
    for (method, path, names) in
        [(Method::PUT, "/users/1", &["user"][..]), (Method::POST, "/users/1/a/b", &["y", "path"])]
    {
        let RouteMatch::Route { id, params } = app.find(&method, path) else { panic!("{path} has no route") };
        assert_eq!(app.param_names(id).iter().map(|name| &**name).collect::<Vec<_>>(), names);
        assert_eq!(params.len(), names.len());
    }
    let told = mistakes(&[("get", &["files", "{*path}"]), ("get", &["files", "{*name}"])]);
    assert_eq!(told, ["app.lua:2: GET /files/{*name} already has a handler (app.lua:1); remove one of the two"]);
}

#[test]
fn literals_are_found_where_clients_encode_what_need_not_be() {
    let app =
        router(&[("get", &["@me", "p_id"]), ("get", &["a:b"]), ("get", &["%40you", "{*rest}"]), ("get", &["p_any"])]);
    for (path, found) in [
        ("/@me/7", "/@me/{id} id=7"),
        ("/%40me/7", "/@me/{id} id=7"),
        ("/%40me/%40%2F%3A", "/@me/{id} id=%40%2F%3A"),
        ("/a%3Ab", "/a:b"),
        ("/%40you/a/%40", "/@you/{*rest} rest=a/%40"),
        ("/@you/%40/%41", "/@you/{*rest} rest=%40/%41"),
        ("/%40", "/{any} any=%40"),
        ("/%40me/%zz", "400"),
    ] {
        assert_eq!(get(&app, path), found, "{path}");
    }
}

#[test]
fn ten_thousand_routes() {
    let routes: Vec<RouteDecl> = (0..5_000)
        .flat_map(|i| {
            let literal = format!("r{i}");
            [decl(i, "get", &[&literal]), decl(i, "get", &[&literal, "p_id", "items", "p_item"])]
        })
        .collect();
    let router = FastRouter::build(routes, TrailingSlash::Strict).unwrap();
    assert_eq!(router.routes().len(), 10_000);
    for i in 0..5_000 {
        assert_eq!(get(&router, &format!("/r{i}")), format!("/r{i}"));
        let long = format!("/r{i}/a/items/b");
        assert_eq!(get(&router, &long), format!("/r{i}/{{id}}/items/{{item}} id=a item=b"));
    }
    assert_eq!(get(&router, "/r5000"), "404");
}
