//! `rover.fs` and `rover.exec`: files and programs, which no other request waits for.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::support::{App, body, each_worker_count, message, wait_until};

/// A folder of a test's own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("files-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        path
    }

    /// Serves `code`, for which `dir` is the folder with a slash behind it.
    fn start(&self, config: &str, code: &str, workers: usize) -> App {
        let dir = self.0.display();
        let head = format!("local api, dir = rover.server {{ debug = true {config} }}, '{dir}/'");
        App::start(&format!("{head}\n{code}\nreturn api"), workers)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_are_written_read_and_listed() {
    let code = "
        local fs = rover.fs
        function api.get()
          local out = {}
          local function add(...) out[#out + 1] = { n = select('#', ...), ... } end
          local d = dir .. 'w' .. rover.worker.id
          add(fs.mkdir(d))
          add(select(2, fs.mkdir(d)):sub(#d + 1))
          add(fs.mkdir(d .. '/a/b', { parents = true }))
          add(fs.write(d .. '/f', 'one'))
          add(fs.append(d .. '/f', '\\0two'))
          add(fs.read(d .. '/f') == 'one\\0two')
          add(fs.write(d .. '/f', 'new', { atomic = true }))
          add(fs.read(d .. '/f'), fs.read(d .. '/f', { limit = 3 }))
          add(select(2, fs.read(d .. '/f', { limit = 2 })):sub(#d + 1))
          add(table.concat(fs.list(d), ','), rover.json.encode(fs.list(d .. '/a/b')))
          local s = fs.stat(d .. '/f')
          add(s.type, s.size, math.abs(s.modified - rover.time()) < 60, s.mode % 512 >= 256, fs.stat(d).type)
          add(select(2, fs.remove(d)):sub(#d + 1))
          add(select(2, fs.read(d .. '/none')):sub(#d + 1), (fs.stat(d .. '/none')))
          add(select(2, fs.read(d)):sub(#d + 1))
          add(fs.remove(d .. '/f'), fs.remove(d, { recursive = true }), (fs.stat(d)))
          return out
        end";
    each_worker_count(|workers| {
        let folder = Folder::new();
        let app = folder.start("", code, workers);
        let expected = json!([
            {"n": 1, "1": true}, {"n": 1, "1": ": File exists"}, {"n": 1, "1": true}, {"n": 1, "1": true},
            {"n": 1, "1": true}, {"n": 1, "1": true}, {"n": 1, "1": true}, {"n": 2, "1": "new", "2": "new"},
            {"n": 1, "1": "/f: larger than 2 bytes"}, {"n": 2, "1": "a,f", "2": "[]"},
            {"n": 5, "1": "file", "2": 3, "3": true, "4": true, "5": "directory"},
            {"n": 1, "1": ": Directory not empty"}, {"n": 2, "1": "/none: No such file or directory"},
            {"n": 1, "1": ": Is a directory"}, {"n": 3, "1": true, "2": true},
        ]);
        for _ in 0..3 {
            assert_eq!(body(&app, "/"), expected);
        }
    });
}

#[test]
fn an_atomic_write_keeps_links_and_permissions_and_leaves_nothing_behind() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let file = folder.0.join("real");
    fs::write(&file, "old").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("set");
    std::os::unix::fs::symlink("real", folder.0.join("link")).expect("a link");
    let code = "
        function api.get() return { rover.fs.write(dir .. 'link', 'new', { atomic = true }), rover.fs.stat(dir .. 'link', { link = true }).type } end
        function api.bad.get() return { select(2, rover.fs.write(dir .. 'none/f', 'x', { atomic = true })):match('[^/]*/f:.*') } end
        function api.long.get() return rover.fs.write(dir .. ('n'):rep(255), 'x', { atomic = true }) end
        function api.over.get() return { select(2, rover.fs.write(dir .. 'folder', 'x', { atomic = true })):match('folder:.*') } end";
    fs::create_dir(folder.0.join("folder")).expect("a folder");
    let app = folder.start("", code, 1);
    assert_eq!(body(&app, "/"), json!([true, "link"]));
    assert_eq!(fs::read_to_string(&file).expect("read"), "new");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o640);
    assert_eq!(body(&app, "/bad"), json!(["none/f: No such file or directory"]));
    assert_eq!(body(&app, "/over"), json!(["folder: Is a directory"]));
    assert_eq!(app.get("/long").text(), "true", "a name as long as there may be");
    assert_eq!(fs::read_dir(&folder.0).expect("listed").count(), 4);
}

#[test]
fn a_size_may_be_text_with_a_unit() {
    let code = "
        local kb = ('x'):rep(1024)
        function api.get()
          local out, f = {}, dir .. 'f' .. rover.worker.id
          rover.fs.write(f, kb)
          out[1] = rover.fs.read(f, { limit = '1KB' }) == kb
          out[2] = select(2, rover.fs.read(f, { limit = '1023 b' })):match('larger.*')
          out[3] = #rover.exec { cmd = 'cat', stdin = kb, limit = '1 KiB' }.stdout
          out[4] = select(2, rover.exec { cmd = 'cat', stdin = kb .. 'x', limit = '1kb' })
          return out
        end";
    each_worker_count(|workers| {
        let folder = Folder::new();
        let app = folder.start("", code, workers);
        let expected = json!([true, "larger than 1023 bytes", 1024, "cat: more than 1024 bytes of stdout"]);
        assert_eq!(body(&app, "/"), expected);
    });
}

#[test]
fn bodies_and_numbers_are_written_as_they_are() {
    let code = "
        function api.post(ctx)
          local fs, f = rover.fs, dir .. 'f' .. rover.worker.id
          fs.write(f, ctx:body()) fs.append(f, 5) fs.append(f, ctx:body()) fs.append(f, 0.25)
          local first = fs.read(f)
          fs.write(f, ctx:body(), { atomic = true })
          return { first, fs.read(f) }
        end";
    each_worker_count(|workers| {
        let folder = Folder::new();
        let app = folder.start("", code, workers);
        assert_eq!(app.post("/", "a b").text(), r#"["a b5a b0.25","a b"]"#);
    });
}

#[test]
fn an_atomic_write_makes_what_a_link_leads_to() {
    let folder = Folder::new();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.0.join(name)).expect("a link");
    fs::create_dir(folder.0.join("below")).expect("a folder");
    link("below/first", "link");
    link("second", "below/first");
    link("round", "round");
    let code = "
        function api.get() return { rover.fs.write(dir .. 'link', 'new', { atomic = true }), rover.fs.stat(dir .. 'link', { link = true }).type } end
        function api.round.get() return { select(2, rover.fs.write(dir .. 'round', 'x', { atomic = true })):match('round:.*') } end";
    let app = folder.start("", code, 1);
    assert_eq!(body(&app, "/"), json!([true, "link"]));
    assert_eq!(fs::read_to_string(folder.0.join("below/second")).expect("made"), "new");
    assert!(folder.0.join("below/first").is_symlink());
    assert_eq!(body(&app, "/round"), json!(["round: Too many levels of symbolic links"]));
}

/// A pipe that nobody writes to is the slowest of disks.
#[test]
fn a_slow_disk_delays_nobody_but_those_who_read() {
    let code = "
        function api.slow.get() return rover.fs.read(dir .. 'pipe') end
        function api.stat.get() return rover.fs.stat(dir .. 'pipe').type end
        function api.probe.get() return 'quick' end";
    each_worker_count(|workers| {
        let folder = Folder::new();
        let pipe = folder.fifo("pipe");
        // One place, which is taken.
        let app = folder.start(", fs = { concurrency = 1 }", code, workers);
        let mut slow = app.connect();
        slow.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
        let mut queued = app.connect();
        for _ in 0..20 {
            assert_eq!(app.get("/probe").text(), "quick");
        }
        queued.send("GET /stat HTTP/1.1\r\nHost: test\r\n\r\n");
        for _ in 0..20 {
            assert_eq!(app.get("/probe").text(), "quick");
        }
        fs::OpenOptions::new().write(true).open(&pipe).expect("a reader").write_all(b"at last").expect("read");
        assert_eq!(slow.answer().text(), "at last");
        assert_eq!(queued.answer().text(), "other");
    });
}

#[test]
fn a_server_stops_while_a_disk_is_stuck() {
    let folder = Folder::new();
    let pipe = folder.fifo("pipe");
    let code = "
        local events = rover.shared.events
        function api.slow.get() events:set('begins', true) rover.fs.read(dir .. 'pipe') end
        function api.get() return { events:get('begins') or false } end";
    let app = folder.start(", shutdown_timeout = 0.05", code, 2);
    let mut slow = app.connect();
    slow.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_until(|| body(&app, "/") == json!([true]));
    drop(app);
    // Lets the thread go that is stuck, if it is.
    let _ = fs::OpenOptions::new().read(true).write(true).open(&pipe);
}

#[test]
fn programs_run_with_all_that_they_are_given() {
    let code = "
        function api.get()
          local out = {}
          local function add(res, err) out[#out + 1] = res or { err = err } end
          add(rover.exec { cmd = 'cat', stdin = 'to cat' })
          add(rover.exec { cmd = 'printf', args = { '%s-%s', 'a b', 7 } })
          add(rover.exec { cmd = 'sh', args = { '-c', 'echo out; echo err >&2; exit 3' } })
          add(rover.exec { cmd = 'sh', args = { '-c', 'kill -TERM $$' } })
          add(rover.exec { cmd = 'pwd', cwd = '/' })
          add(rover.exec { cmd = 'sh', args = { '-c', 'echo $GIVEN $PATH_IS; test -z \"$HOME\" && echo none' }, env = { GIVEN = 'yes', HOME = false } })
          add(rover.exec { cmd = 'no-such-program' })
          add(rover.exec { cmd = 'cat', cwd = '/no/such/folder' })
          add(rover.exec { cmd = 'cat', cwd = '/dev/null' })
          add(rover.exec { cmd = 'true', stdin = ('x'):rep(300000) })
          return out
        end
        function api.large.get()
          local sent = ('x'):rep(3000000)
          local res = rover.exec { cmd = 'cat', stdin = sent, limit = 3000000 }
          return { res.stdout == sent, res.code, rover.exec { cmd = 'cat', stdin = sent } == nil,
            select(2, rover.exec { cmd = 'cat', stdin = sent }) }
        end";
    each_worker_count(|workers| {
        let folder = Folder::new();
        let app = folder.start("", code, workers);
        let ended = |code: i32, stdout: &str, stderr: &str| json!({ "code": code, "stdout": stdout, "stderr": stderr });
        assert_eq!(
            body(&app, "/"),
            json!([
                ended(0, "to cat", ""),
                ended(0, "a b-7", ""),
                ended(3, "out\n", "err\n"),
                { "signal": 15, "stdout": "", "stderr": "" },
                ended(0, "/\n", ""),
                ended(0, "yes\nnone\n", ""),
                { "err": "no-such-program: No such file or directory" },
                { "err": "cwd /no/such/folder: No such file or directory" },
                { "err": "cwd /dev/null: Not a directory" },
                ended(0, "", ""),
            ])
        );
        assert_eq!(body(&app, "/large"), json!([true, 0, true, "cat: more than 1048576 bytes of stdout"]));
    });
}

/// Whether a process is there, be it dead and not yet noticed.
fn is_there(pid: &str) -> bool {
    PathBuf::from("/proc").join(pid.trim()).exists()
}

const STUCK: &str = "
    local script = 'echo $$ > ' .. dir .. 'parent; (sh -c \"echo \\\\$\\\\$ > ' .. dir .. 'child; read x < ' .. dir .. 'pipe\"); read y < ' .. dir .. 'pipe'
    function api.stuck.get() return { rover.exec { cmd = 'sh', args = { '-c', script } } } end
    function api.timeout.get()
      return { select(2, rover.exec { cmd = 'sh', args = { '-c', script }, timeout = 0.2 }) }
    end
    function api.outer.get()
      return { select(2, rover.timeout(0.2, rover.exec, { cmd = 'sh', args = { '-c', script } })) }
    end
    function api.probe.get() return 'quick' end";

/// The numbers of a program and of the one that it has started.
fn family(folder: &Folder) -> [String; 2] {
    let read = |name| fs::read_to_string(folder.0.join(name)).unwrap_or_default();
    wait_until(|| read("parent").ends_with('\n') && read("child").ends_with('\n'));
    let family = [read("parent"), read("child")];
    let _ = fs::remove_file(folder.0.join("parent"));
    let _ = fs::remove_file(folder.0.join("child"));
    family
}

#[test]
fn a_program_ends_with_its_time_and_with_its_handler() {
    each_worker_count(|workers| {
        let folder = Folder::new();
        folder.fifo("pipe");
        let app = folder.start(", exec = { concurrency = 1 }", STUCK, workers);
        for target in ["/timeout", "/outer"] {
            // On a slow machine the time may be over before the second program runs.
            assert_eq!(body(&app, target), json!(["timeout"]));
            if let Ok(parent) = fs::read_to_string(folder.0.join("parent")) {
                wait_until(|| !is_there(&parent));
            }
        }
        for name in ["parent", "child"] {
            let _ = fs::remove_file(folder.0.join(name));
        }
        let mut client = app.connect();
        client.send("GET /stuck HTTP/1.1\r\nHost: test\r\n\r\n");
        let family = family(&folder);
        assert!(family.iter().all(|pid| is_there(pid)));
        // No worker waits for it.
        for _ in 0..20 {
            assert_eq!(app.get("/probe").text(), "quick");
        }
        drop(client);
        wait_until(|| !family.iter().any(|pid| is_there(pid)));
        // Its place is free again.
        assert_eq!(body(&app, "/timeout"), json!(["timeout"]));
    });
}

#[test]
fn a_program_ends_with_its_server() {
    let folder = Folder::new();
    folder.fifo("pipe");
    let app = folder.start(", shutdown_timeout = 0.05", STUCK, 1);
    let mut client = app.connect();
    client.send("GET /stuck HTTP/1.1\r\nHost: test\r\n\r\n");
    let family = family(&folder);
    drop(app);
    // Nobody of this process waits for it any more, so it may be left as a dead one.
    let ended = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    wait_until(|| family.iter().all(ended));
}

#[test]
fn mistakes_raise_at_the_line_of_the_app() {
    let code = "
        function api.path.get() rover.fs.read() end
        function api.content.get() rover.fs.write('f', { 1 }) end
        function api.option.get() rover.fs.write('f', 'x', { atomical = true }) end
        function api.flag.get() rover.fs.mkdir('f', { parents = 'yes' }) end
        function api.options.get() rover.fs.remove('f', true) end
        function api.limit.get() rover.fs.read('f', { limit = 0 }) end
        function api.table.get() rover.exec('ls') end
        function api.cmd.get() rover.exec { args = {} } end
        function api.args.get() rover.exec { cmd = 'ls', args = { 'a', {} } } end
        function api.unknown.get() rover.exec { cmd = 'ls', arguments = {} } end
        function api.list.get() rover.exec { 'ls' } end
        function api.env.get() rover.exec { cmd = 'ls', env = { A = true } } end
        function api.time.get() rover.exec { cmd = 'ls', timeout = -1 } end
        function api.sort.get() table.sort({ 2, 1 }, function() rover.fs.stat('/') end) end
        function api.unit.get() rover.exec { cmd = 'ls', limit = '1 XB' } end";
    let size = "must be a size from 1 to 2147483647 bytes: a number, or text such as \"64MB\"";
    let known = "cmd, args, stdin, timeout, cwd, env, limit";
    each_worker_count(|workers| {
        let folder = Folder::new();
        let app = folder.start("", code, workers);
        for (target, expected) in [
            ("/path", "app.lua:3: rover.fs.read expects a path as a string, not nil".to_owned()),
            (
                "/content",
                "app.lua:4: rover.fs.write expects a string, a number or a body to write, not table".to_owned(),
            ),
            ("/option", "app.lua:5: rover.fs.write has no option \"atomical\": there are atomic".to_owned()),
            ("/flag", "app.lua:6: rover.fs.mkdir: parents must be true or false, not string".to_owned()),
            ("/options", "app.lua:7: rover.fs.remove expects a table of options, not boolean".to_owned()),
            ("/limit", format!("app.lua:8: rover.fs.read: limit {size}")),
            ("/unit", format!("app.lua:17: rover.exec: limit {size}")),
            ("/table", "app.lua:9: rover.exec expects a table, not string".to_owned()),
            ("/cmd", "app.lua:10: rover.exec needs cmd, the program to run".to_owned()),
            ("/args", "app.lua:11: rover.exec: args[2] must be a string, not table".to_owned()),
            ("/unknown", format!("app.lua:12: rover.exec has no option \"arguments\": there are {known}")),
            ("/list", format!("app.lua:13: rover.exec has no option \"1\": there are {known}")),
            ("/env", "app.lua:14: rover.exec: env.A must be a string or false, not boolean".to_owned()),
            (
                "/time",
                "app.lua:15: rover.exec: timeout expects seconds, a number from 0 to 1000000000, not -1".to_owned(),
            ),
            ("/sort", "app.lua:16: rover.fs.stat cannot wait here: a C function (table.sort) is in between".to_owned()),
        ] {
            assert_eq!(message(&app, target), expected);
        }
    });
}
