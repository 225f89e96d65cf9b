//! `api.assets.static { dir = … }`: files below a path.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rover_server::Server;

use crate::support::{Answer, App, each_worker_count, wait_until};

/// 8 November 2025, a whole number of seconds.
const MODIFIED: u64 = 1_762_600_000;
const LAST_MODIFIED: &str = "Sat, 08 Nov 2025 11:06:40 GMT";

/// A folder of a test's own, with an app in it; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("static-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("public")).unwrap();
        Folder(dir)
    }

    /// Writes a file that was last changed at [`MODIFIED`].
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Folder {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(path).unwrap();
        file.write_all(bytes.as_ref()).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(MODIFIED)).unwrap();
        self
    }

    fn app(&self, code: &str, workers: usize) -> App {
        self.file("app.lua", code);
        App::start_server(Server::from_file(self.0.join("app.lua")).workers(workers))
    }

    fn mistakes(&self, code: &str) -> String {
        self.file("app.lua", code);
        let error = Server::from_file(self.0.join("app.lua")).check().unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PLAIN: &str = "local api = rover.server {} api.assets.static { dir = 'public' } return api";
const ROOT: &str = "local api = rover.server {} api.static { dir = 'public' } return api";

fn ask(app: &App, method: &str, target: &str, lines: &str) -> Answer {
    let mut client = app.connect();
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n"));
    if method == "HEAD" { client.head_answer() } else { client.answer() }
}

#[test]
fn a_file_with_all_that_a_client_wants_to_know() {
    let folder = Folder::new("file");
    folder.file("public/css/site.css", "body {}\n");
    each_worker_count(|workers| {
        let app = folder.app(PLAIN, workers);
        let mut client = app.connect();
        for _ in 0..2 {
            client.send("GET /assets/css/site.css?v=1 HTTP/1.1\r\nHost: test\r\n\r\n");
            let answer = client.answer();
            assert_eq!((answer.status_line.as_str(), answer.text()), ("HTTP/1.1 200 OK", "body {}\n"));
            let mut names: Vec<&str> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(
                names,
                [
                    "accept-ranges",
                    "cache-control",
                    "content-length",
                    "content-type",
                    "date",
                    "etag",
                    "last-modified",
                    "x-content-type-options"
                ]
            );
            assert_eq!(answer.header("content-type"), Some("text/css; charset=utf-8"));
            assert_eq!(answer.header("content-length"), Some("8"));
            assert_eq!(answer.header("cache-control"), Some("no-cache"));
            assert_eq!(answer.header("accept-ranges"), Some("bytes"));
            assert_eq!(answer.header("last-modified"), Some(LAST_MODIFIED));
            assert_eq!(answer.header("etag"), Some(format!("\"8-{MODIFIED:x}.0\"").as_str()));
        }
        client.send("HEAD /assets/css/site.css HTTP/1.1\r\nHost: test\r\n\r\n");
        let head = client.head_answer();
        assert_eq!((head.status, head.header("content-length")), (200, Some("8")));
        client.send("GET /assets/css/none.css HTTP/1.1\r\nHost: test\r\n\r\n");
        let missing = client.answer();
        assert_eq!((missing.status, missing.text()), (404, "{\"error\":\"Not Found\"}"));
    });
}

#[test]
fn content_types() {
    let folder = Folder::new("types");
    let kinds = [
        ("a.html", "text/html; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.PNG", "image/png"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.tar.gz", "application/gzip"),
        ("a.unheard-of", "application/octet-stream"),
        ("LICENSE", "application/octet-stream"),
        ("a.own", "application/x-own"),
        ("a.md", "text/x-own"),
    ];
    for (name, _) in kinds {
        folder.file(&format!("public/{name}"), "x");
    }
    let code = "local api = rover.server {} api.static { dir = 'public', types = { own = 'application/x-own', ['.MD'] = 'text/x-own' }, \
                headers = { ['X-Robots-Tag'] = 'noindex' } } return api";
    let app = folder.app(code, 1);
    for (name, kind) in kinds {
        let answer = app.get(&format!("/{name}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{name}");
        assert_eq!(answer.header("x-robots-tag"), Some("noindex"));
    }
}

#[test]
fn nothing_outside_of_the_folder_and_nothing_hidden() {
    let folder = Folder::new("safe");
    folder.file("secret.txt", "secret").file("public/a.txt", "a").file("public/.env", "secret");
    folder.file("public/.git/config", "secret").file("public/.well-known/security.txt", "Contact: x");
    folder.file("public-too/b.txt", "secret").file("public/sub/c.txt", "c").file("public/back\\slash.txt", "secret");
    symlink("../secret.txt", folder.0.join("public/out.txt")).unwrap();
    symlink("../../secret.txt", folder.0.join("public/sub/out.txt")).unwrap();
    symlink(folder.0.join("secret.txt"), folder.0.join("public/absolute.txt")).unwrap();
    symlink("..", folder.0.join("public/up")).unwrap();
    symlink("/proc/self/fd", folder.0.join("public/fd")).unwrap();
    symlink("sub/c.txt", folder.0.join("public/inside.txt")).unwrap();
    symlink(".env", folder.0.join("public/env.txt")).unwrap();
    symlink("../.env", folder.0.join("public/sub/env.txt")).unwrap();
    symlink(".git", folder.0.join("public/git")).unwrap();
    symlink("git/config", folder.0.join("public/config.txt")).unwrap();
    let app = folder.app(PLAIN, 1);
    for path in [
        "/assets/../secret.txt",
        "/assets/..%2fsecret.txt",
        "/assets/%2e%2e/secret.txt",
        "/assets/%2E%2E%2Fsecret.txt",
        "/assets/.%2e/secret.txt",
        "/assets/%252e%252e/secret.txt",
        "/assets/..\\secret.txt",
        "/assets/..%5csecret.txt",
        "/assets/sub/../../secret.txt",
        "/assets//a.txt",
        "/assets//etc/passwd",
        "/assets/%2Fetc/passwd",
        "/assets/a.txt%00.css",
        "/assets/a.txt%00",
        "/assets/back%5Cslash.txt",
        "/assets/env.txt",
        "/assets/sub/env.txt",
        "/assets/git/config",
        "/assets/config.txt",
        "/assets/out.txt",
        "/assets/sub/out.txt",
        "/assets/absolute.txt",
        "/assets/up/secret.txt",
        "/assets/up/public/a.txt",
        "/assets/fd/0",
        "/assets/.env",
        "/assets/%2eenv",
        "/assets/.git/config",
        "/assets/a.txt/",
        "/assets/a.txt/b",
        "/assets/sub",
        "/assets/sub/",
        "/assets",
        "/assets/",
        "/assets-too/b.txt",
        "/assetsa.txt",
        "/../secret.txt",
        "/assets/C:/x",
        "/assets/\u{ff0e}\u{ff0e}/secret.txt",
    ] {
        let mut client = app.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let answer = client.answer();
        assert!(matches!(answer.status, 404 | 400), "{path}: {}", answer.status);
        assert!(!answer.text().contains("secret"), "{path}");
    }
    assert_eq!(app.get("/assets/%zz").status, 400);
    assert_eq!(app.get("/assets/inside.txt").text(), "c");
    for path in ["/assets/sub/../inside.txt", "/assets/./inside.txt", "/x/%2e%2e/assets/inside%2Etxt"] {
        assert_eq!(app.get(path).text(), "c", "{path}");
    }
    assert_eq!(app.get("/assets/sub/c%2Etxt").text(), "c");
    assert_eq!(app.get("/assets/.well-known/security.txt").text(), "Contact: x");

    let code = "local api = rover.server {} api.static { dir = 'public', dotfiles = true } return api";
    let app = folder.app(code, 1);
    assert_eq!(app.get("/.git/config").status, 200);
    assert_eq!(app.get("/%2e%2e/secret.txt").status, 404);
}

#[test]
fn a_pipe_in_the_folder_keeps_nobody_waiting() {
    let folder = Folder::new("pipe");
    let pipe = folder.0.join("public/pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(folder.app(ROOT, 1).get("/pipe").status, 404);
}

#[test]
fn index_files_and_the_slash_before_them() {
    let folder = Folder::new("index");
    folder.file("public/index.html", "home").file("public/docs/index.html", "docs").file("public/empty/x.txt", "x");
    let app = folder.app(ROOT, 1);
    assert_eq!(app.get("/").text(), "home");
    assert_eq!(app.get("/").header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(app.get("/docs/").text(), "docs");
    let answer = app.get("/docs?page=2");
    assert_eq!((answer.status, answer.header("location")), (308, Some("/docs/?page=2")));
    assert_eq!((app.get("/empty").status, app.get("/empty/").status), (404, 404), "no listing");
    assert_eq!(app.get("//docs").status, 404, "a Location of //docs/ would be another host");

    let app =
        folder.app("local api = rover.server {} api.a.b.static { dir = 'public', index = 'x.txt' } return api", 1);
    assert_eq!(app.get("/a/b/empty/").text(), "x");
    assert_eq!(app.get("/a/b/empty").header("location"), Some("/a/b/empty/"));
    assert_eq!(app.get("/a/b").status, 404, "no index in the folder itself");
    let app = folder.app("local api = rover.server {} api.a.static { dir = 'public/docs' } return api", 1);
    assert_eq!(app.get("/a").header("location"), Some("/a/"));
    let app = folder.app("local api = rover.server {} api.static { dir = 'public', index = false } return api", 1);
    assert_eq!((app.get("/").status, app.get("/docs").status, app.get("/docs/index.html").status), (404, 404, 200));
}

#[test]
fn other_methods() {
    let folder = Folder::new("methods");
    folder.file("public/a.txt", "a").file("public/docs/index.html", "docs");
    let app = folder.app(PLAIN, 1);
    for method in ["PUT", "DELETE", "PATCH", "PURGE"] {
        let answer = ask(&app, method, "/assets/a.txt", "");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
        assert_eq!(ask(&app, method, "/assets/none", "").status, 404, "{method}");
    }
    let answer = app.send("POST /assets/a.txt HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(answer.status, 405);
    assert_eq!(ask(&app, "DELETE", "/assets/docs", "").status, 405);
    let answer = ask(&app, "OPTIONS", "/assets/a.txt", "");
    assert_eq!((answer.status, answer.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
}

#[test]
fn preconditions() {
    let folder = Folder::new("conditions");
    folder.file("public/a.txt", "0123456789");
    let app = folder.app(ROOT, 1);
    let tag = app.get("/a.txt").header("etag").unwrap().to_owned();
    let status = |lines: &str| ask(&app, "GET", "/a.txt", lines).status;

    let answer = ask(&app, "GET", "/a.txt", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((answer.status, answer.header("etag"), answer.body.len()), (304, Some(tag.as_str()), 0));
    assert_eq!(answer.header("last-modified"), Some(LAST_MODIFIED));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!((answer.header("content-length"), answer.header("content-type")), (None, None));

    assert_eq!(status(&format!("If-None-Match: \"other\", W/{tag}\r\n")), 304);
    assert_eq!(status("If-None-Match: *\r\n"), 304);
    assert_eq!(status("If-None-Match: \"other\"\r\n"), 200);
    assert_eq!(status(&format!("If-Modified-Since: {LAST_MODIFIED}\r\n")), 304);
    assert_eq!(status("If-Modified-Since: Sat, 08 Nov 2025 11:06:39 GMT\r\n"), 200);
    assert_eq!(status(&format!("If-None-Match: \"other\"\r\nIf-Modified-Since: {LAST_MODIFIED}\r\n")), 200);
    assert_eq!(status("If-Match: \"other\"\r\n"), 412);
    assert_eq!(status(&format!("If-Match: {tag}\r\n")), 200);
    assert_eq!(status("If-Unmodified-Since: Sat, 08 Nov 2025 11:06:39 GMT\r\n"), 412);
    assert_eq!(ask(&app, "HEAD", "/a.txt", &format!("If-None-Match: {tag}\r\n")).status, 304);
}

#[test]
fn ranges() {
    let folder = Folder::new("ranges");
    folder.file("public/a.txt", "0123456789").file("public/empty.txt", "");
    let app = folder.app(ROOT, 1);
    let tag = app.get("/a.txt").header("etag").unwrap().to_owned();
    let get = |lines: &str| ask(&app, "GET", "/a.txt", lines);
    for (range, bytes, shown) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=4-4,20-", "4", "bytes 4-4/10"),
    ] {
        let answer = get(&format!("Range: {range}\r\n"));
        assert_eq!(
            (answer.status, answer.text(), answer.header("content-range")),
            (206, bytes, Some(shown)),
            "{range}"
        );
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
    }
    let answer = get("Range: bytes=10-\r\n");
    assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */10")));
    assert_eq!(get("Range: bytes=5-1\r\n").text(), "0123456789");
    assert_eq!(get("Range: lines=0-1\r\n").status, 200);
    assert_eq!(get("Range: bytes=0-,0-\r\n").status, 200, "more than the file");

    let answer = get("Range: bytes=0-1, 5-6\r\n");
    let kind = answer.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let expected = format!(
        "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 5-6/10\r\n\r\n56\r\n\
         --{boundary}--\r\n"
    );
    assert_eq!((answer.status, answer.text()), (206, expected.as_str()));
    assert_eq!(answer.header("content-range"), None);

    assert_eq!(get(&format!("Range: bytes=0-1\r\nIf-Range: {tag}\r\n")).status, 206);
    assert_eq!(get(&format!("Range: bytes=0-1\r\nIf-Range: {LAST_MODIFIED}\r\n")).status, 206);
    assert_eq!(get("Range: bytes=0-1\r\nIf-Range: \"other\"\r\n").status, 200);
    assert_eq!(get(&format!("Range: bytes=0-1\r\nIf-None-Match: {tag}\r\n")).status, 304);
    let head = ask(&app, "HEAD", "/a.txt", "Range: bytes=0-1\r\n");
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")), "a range is for GET only");
    assert_eq!(ask(&app, "GET", "/empty.txt", "Range: bytes=0-\r\n").status, 416);
    let empty = app.get("/empty.txt");
    assert_eq!((empty.status, empty.header("content-length")), (200, Some("0")));
}

#[test]
fn precompressed_siblings() {
    let folder = Folder::new("siblings");
    folder.file("public/a.js", "plain".repeat(10)).file("public/a.js.br", "br").file("public/a.js.gz", "gzip");
    folder.file("public/a.js.zst", "zstd!").file("public/b.js", "b").file("public/b.js.gz", "longer than plain");
    let app = folder.app(ROOT, 1);
    let get = |accepts: &str| ask(&app, "GET", "/a.js", &format!("Accept-Encoding: {accepts}\r\n"));
    let tag = app.get("/a.js").header("etag").unwrap().to_owned();
    for (accepts, coding, body) in [
        ("gzip, deflate, br, zstd", Some("br"), "br"),
        ("gzip", Some("gzip"), "gzip"),
        ("zstd, gzip;q=0.5", Some("zstd"), "zstd!"),
        ("gzip, zstd", Some("gzip"), "gzip"),
        ("br;q=0", None, ""),
        ("identity, br;q=0.5", None, ""),
        ("", None, ""),
    ] {
        let answer = get(accepts);
        assert_eq!((answer.status, answer.header("content-encoding")), (200, coding), "{accepts}");
        assert_eq!(answer.text(), if body.is_empty() { "plain".repeat(10) } else { body.to_owned() }, "{accepts}");
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        assert_eq!(answer.header("etag") == Some(tag.as_str()), coding.is_none());
    }
    let coded = get("br").header("etag").unwrap().to_owned();
    assert!(coded.ends_with("-br\""), "{coded}");
    let again = ask(&app, "GET", "/a.js", &format!("Accept-Encoding: br\r\nIf-None-Match: {coded}\r\n"));
    assert_eq!((again.status, again.header("vary")), (304, Some("Accept-Encoding")));
    assert_eq!(ask(&app, "GET", "/a.js", &format!("Accept-Encoding: br\r\nIf-None-Match: {tag}\r\n")).status, 200);
    let longer = ask(&app, "GET", "/b.js", "Accept-Encoding: gzip\r\n");
    assert_eq!((longer.header("content-encoding"), longer.header("vary")), (None, None));

    let app =
        folder.app("local api = rover.server {} api.static { dir = 'public', precompressed = false } return api", 1);
    assert_eq!(ask(&app, "GET", "/a.js", "Accept-Encoding: br\r\n").header("content-encoding"), None);
}

#[test]
fn cache_rules() {
    let folder = Folder::new("caching");
    folder.file("public/index.html", "x").file("public/assets/app-1a2b.js", "x").file("public/media/a.webp", "x");
    let rule = |options: &str, path: &str| {
        let code = format!("local api = rover.server {{}} api.static {{ dir = 'public', {options} }} return api");
        folder.app(&code, 1).get(path).header("cache-control").map(str::to_owned).unwrap()
    };
    let forever = "max-age=31536000, immutable";
    assert_eq!(rule("", "/assets/app-1a2b.js"), "no-cache");
    assert_eq!(rule("max_age = '5m'", "/"), "max-age=300");
    assert_eq!(rule("immutable = 'assets/*'", "/assets/app-1a2b.js"), forever);
    assert_eq!(rule("immutable = 'assets/*'", "/index.html"), "no-cache");
    assert_eq!(rule("immutable = { 'media/*', '*.js' }, max_age = 60", "/assets/app-1a2b.js"), forever);
    assert_eq!(rule("immutable = { 'media/*', '*.js' }, max_age = 60", "/index.html"), "max-age=60");
    assert_eq!(rule("immutable = true", "/media/a.webp"), forever);
}

#[test]
fn fallback_of_a_single_page_app() {
    let folder = Folder::new("fallback");
    folder.file("public/index.html", "app").file("public/a.js", "js");
    let code = "local api = rover.server {} api.static { dir = 'public', fallback = 'index.html' } \
                function api.data.get() return 'data' end return api";
    let app = folder.app(code, 1);
    let get = |path: &str, accept: &str| {
        let lines = if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
        ask(&app, "GET", path, &lines)
    };
    for (path, accept) in
        [("/users/7", "text/html,*/*;q=0.8"), ("/users/7", ""), ("/users/7", "*/*"), ("/v1.2", "text/html")]
    {
        let answer = get(path, accept);
        assert_eq!(
            (answer.status, answer.text(), answer.header("vary")),
            (200, "app", Some("Accept")),
            "{path} {accept}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
    }
    for (path, accept) in [
        ("/b.js", "*/*"),
        ("/users/7", "application/json"),
        ("/.env", "application/json"),
        ("/img.png", "image/*"),
        ("/users/7", "text/html;q=0, application/json"),
        ("/users/7", "text/html; q=0.0, */*"),
        ("/x", "*/*;q=0.000"),
    ] {
        assert_eq!(get(path, accept).status, 404, "{path} {accept}");
    }
    assert_eq!(get("/a.js", "*/*").text(), "js");
    assert_eq!(get("/data", "text/html").text(), "data", "routes win");
    assert_eq!(ask(&app, "DELETE", "/users/7", "").status, 404);
}

#[test]
fn routes_win_and_the_longest_mount_answers() {
    let folder = Folder::new("order");
    folder
        .file("public/hello", "file")
        .file("public/x/a.txt", "outer")
        .file("inner/a.txt", "inner")
        .file("public/only", "o");
    let code = "local api = rover.server { trailing_slash = 'redirect' }
        api.static { dir = 'public' }
        api.x:static { dir = 'inner' }
        function api.hello.get() return 'route' end
        function api.only.post() return 'route' end
        function api.static.get() return 'a segment' end
        function api.before.all(ctx) if not ctx:query().pass then return api.text:status(418, 'hook') end end
        function api.not_found(ctx) return api.text('lost: ' .. ctx.path) end
        return api";
    let app = folder.app(code, 1);
    assert_eq!(app.get("/hello").text(), "hook", "a route, and its hooks");
    assert_eq!(app.get("/static").text(), "hook");
    for path in ["/only", "/x/a.txt", "/x/none", "/hello/"] {
        assert_eq!(app.get(path).status, 418, "hooks guard {path}");
    }
    assert_eq!(app.get("/only?pass=1").status, 405, "a route knows the path");
    assert_eq!(app.get("/x/a.txt?pass=1").text(), "inner");
    assert_eq!(app.get("/x/none?pass=1").text(), "lost: /x/none");
    assert_eq!(app.get("/x/none?pass=1").status, 404);
    assert_eq!(app.get("/hello/?pass=1").status, 308);
}

#[test]
fn changes_show_within_a_second_or_so() {
    let folder = Folder::new("changes");
    folder.file("public/a.txt", "one");
    let app = folder.app(ROOT, 1);
    assert_eq!(app.get("/a.txt").text(), "one");
    fs::write(folder.0.join("public/a.txt"), "two").unwrap();
    wait_until(|| app.get("/a.txt").text() == "two");
    fs::remove_dir_all(folder.0.join("public")).unwrap();
    wait_until(|| app.get("/a.txt").status == 404);
    folder.file("public/a.txt", "three");
    wait_until(|| app.get("/a.txt").status == 200);
    assert_eq!(app.get("/a.txt").text(), "three");
}

/// Bytes that tell where they are.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64 / 8).flat_map(u64::to_be_bytes).collect()
}

#[test]
fn a_large_file_is_sent_whole_in_ranges_and_to_many() {
    let folder = Folder::new("large");
    let bytes = pattern(3_000_000);
    folder.file("public/large.bin", &bytes);
    let app = folder.app(ROOT, 1);
    let mut client = app.connect();
    for _ in 0..2 {
        client.send("GET /large.bin HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.header("content-length"), Some("3000000"));
        assert!(answer.body == bytes);
    }
    client.send("HEAD /large.bin HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.head_answer().header("content-length"), Some("3000000"));
    client.send("GET /large.bin HTTP/1.1\r\nHost: test\r\nRange: bytes=1000000-2000000\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("content-length")), (206, Some("1000001")));
    assert!(answer.body == bytes[1_000_000..=2_000_000]);
    client.send("GET /large.bin HTTP/1.1\r\nHost: test\r\nRange: bytes=0-99999,2900000-\r\n\r\n");
    let answer = client.answer();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains("Content-Range: bytes 0-99999/3000000\r\n\r\n"));
    assert!(memchr_find(&answer.body, &bytes[..100_000]) && memchr_find(&answer.body, &bytes[2_900_000..]));

    // Once more from the disk, where the file system lets go of what it has in memory.
    let file = File::open(folder.0.join("public/large.bin")).unwrap();
    file.sync_all().unwrap();
    for _ in 0..3 {
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        client.send("GET /large.bin HTTP/1.1\r\nHost: test\r\n\r\n");
        assert!(client.answer().body == bytes);
    }

    // Clients that read nothing at first; each gets everything in the end.
    let mut clients: Vec<_> = (0..20).map(|_| app.connect()).collect();
    for client in &mut clients {
        client.send("GET /large.bin HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    assert_eq!(app.get("/none").status, 404, "the worker has time for others");
    for client in &mut clients {
        assert!(client.answer().body == bytes);
    }
}

fn memchr_find(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).step_by(1).any(|window| window[..8] == part[..8] && window == part)
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_breaks_the_connection_off() {
    let folder = Folder::new("shrinks");
    folder.file("public/large.bin", vec![7; 40_000_000]);
    let app = folder.app(ROOT, 1);
    let mut client = app.connect();
    client.send("GET /large.bin HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut head = [0; 20];
    client.socket().read_exact(&mut head).unwrap();
    File::options().write(true).open(folder.0.join("public/large.bin")).unwrap().set_len(1000).unwrap();
    let mut rest = Vec::new();
    client.socket().read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 40_000_000, "not as if it were complete");
    assert_eq!(app.get("/large.bin").body.len(), 1000);
}

#[test]
fn mistakes_have_a_place_and_a_cure() {
    let folder = Folder::new("mistakes");
    folder.file("public/a.txt", "a");
    let code = "local api = rover.server {}
api.a.static { dir = 'publik' }
api.b.static { dir = 'public/a.txt' }
api.c.static { folder = 'public' }
api.d.static 'public'
api.p_id.static { dir = 'public' }
api.e.static { dir = 'public', max_age = 'long', index = 'a/b', dotfiles = 3, precompresed = true, immutable = 5 }
api.f.static { dir = 'public', fallback = 'index.html' }
api.f.static { dir = 'public', fallback = '../x', types = { x = 'y' }, headers = { ETag = 'x' } }
api.g.static { dir = 'public' }
api.g.static { dir = 'public' }
api.h.static {}
return api";
    let lines = folder.mistakes(code);
    let expected = [
        "app.lua:2: api.a.static: the folder \"publik\" does not exist (publik); create it, or correct dir",
        "app.lua:3: api.b.static: the folder \"public/a.txt\" is not a folder (public/a.txt); create it, or correct dir",
        "app.lua:4: api.c.static: unknown option \"folder\", the known ones are dir, index, fallback, max_age, immutable, precompressed, dotfiles, types, headers",
        "app.lua:4: api.c.static: dir is missing; it is the folder to serve, relative to the app's own, such as dir = \"public\"",
        "app.lua:5: api.d.static takes a table: api.d.static { dir = \"public\" }",
        "app.lua:6: api.p_id.static: a folder cannot lie under /{id}, which has a parameter; use a fixed path",
        "app.lua:7: api.e.static: unknown option \"precompresed\", did you mean \"precompressed\"?",
        "app.lua:7: api.e.static: index must be the name of a file in each folder, or false for none, got \"a/b\"",
        "app.lua:7: api.e.static: max_age must be a time: seconds, or text such as \"1h\", got \"long\"",
        "app.lua:7: api.e.static: immutable must be true, or names with * such as \"assets/*\", one or a list, got 5",
        "app.lua:7: api.e.static: dotfiles must be true or false, got 3",
        "app.lua:8: api.f.static: the folder has no file \"index.html\" to fall back to; create it, or correct fallback",
        "app.lua:9: api.f.static: fallback must be a file in the folder, such as \"index.html\", or false for none, got \"../x\"",
        "app.lua:9: api.f.static: types.x must be a content type such as \"text/plain\", got \"y\"",
        "app.lua:9: api.f.static: the header ETag is set by Rover and cannot be changed",
        "app.lua:11: api.g.static already serves a folder (app.lua:10); remove one of the two",
        "app.lua:12: api.h.static: dir is missing; it is the folder to serve, relative to the app's own, such as dir = \"public\"",
    ];
    let found: Vec<&str> = lines.lines().collect();
    for (n, expected) in expected.iter().enumerate() {
        assert_eq!(found.get(n).copied(), Some(*expected));
    }
    assert_eq!(found.len(), expected.len(), "{lines}");

    let late = "local api = rover.server {} function api.get() api.static { dir = 'public' } end return api";
    assert_eq!(folder.app(late, 1).get("/").status, 500);
    let info = Server::from_file(folder.0.join("app.lua")).check().unwrap();
    assert_eq!(info.routes().len(), 1);
}

#[test]
fn mounts_are_listed_with_the_routes() {
    let folder = Folder::new("listed");
    folder.file(
        "app.lua",
        "local api = rover.server {}\napi.assets.static { dir = 'public' }\nfunction api.get() end\nreturn api",
    );
    let info = Server::from_file(folder.0.join("app.lua")).check().unwrap();
    let shown: Vec<_> =
        info.routes().iter().map(|route| format!("{} {} {}", route.method, route.path, route.line)).collect();
    assert_eq!(shown, ["GET / 3", "static /assets/{*path} 2"]);
}
