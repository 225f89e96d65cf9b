//! Runs every example in `docs/` as it stands there.
//!
//! | fence | what happens |
//! |---|---|
//! | ```` ```lua ```` | an app, served as `app.lua` with one worker and with three |
//! | ```` ```lua NAME.lua ```` | a file beside the next app |
//! | ```` ```file NAME ```` | the same, for a file that is no Lua |
//! | ```` ```lua fragment ```` | only parsed |
//! | ```` ```console ```` | commands against the last app, each with its exact output |
//! | ```` ```websocket /path ```` | what clients send (`NAME> text`) and get (`NAME< text`), as `docs/websocket.rs` plays it |
//! | ```` ```log ```` | lines that the last app must have written to its log |
//!
//! Commands are `curl` with `-X`, `-H`, `-d`, `-i` and `-I`, sent by a client in this file; and `rover …`, by the real
//! binary (`NAME=value rover app.lua` serves with that variable set). `localhost:4242` within an app is the app itself. `…`
//! stands for text that varies, the headers `date` and (where the page does not show it) `x-content-type-options` are left
//! out, and the keys of a JSON object may come in any order. An app without a log block must log no errors.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

#[path = "docs/websocket.rs"]
mod websocket;

const ROVER: &str = env!("CARGO_BIN_EXE_rover");

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// An app of a page, and what the page says about it.
#[derive(Default)]
struct Example {
    /// `middleware.md:12`.
    place: String,
    /// Names and contents, `app.lua` last.
    files: Vec<(String, String)>,
    commands: Vec<Shell>,
    log: Vec<String>,
}

/// A command and what it prints.
struct Shell {
    place: String,
    words: Vec<String>,
    output: String,
}

/// A fenced block: its line, what stands behind the backticks, its text.
struct Block {
    line: usize,
    info: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (n, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some(Block { line: n + 1, info: info.to_owned(), text: String::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block does not end");
    blocks
}

/// The examples of a page. Fragments are parsed on the way.
fn examples(name: &str, page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut beside = Vec::new();
    for block in blocks(page) {
        let place = format!("{name}:{}", block.line);
        match block.info.as_str() {
            "lua fragment" => parse(&place, &block.text),
            "lua" => {
                let mut files = std::mem::take(&mut beside);
                files.push(("app.lua".to_owned(), block.text));
                examples.push(Example { place, files, ..Example::default() });
            }
            info if info.starts_with("lua ") => beside.push((info["lua ".len()..].to_owned(), block.text)),
            info if info.starts_with("file ") => beside.push((info["file ".len()..].to_owned(), block.text)),
            "console" => {
                let example = examples.last_mut().unwrap_or_else(|| panic!("{place}: no app before it"));
                example.commands.extend(commands(name, &block));
            }
            info if info.starts_with("websocket ") => {
                let example = examples.last_mut().unwrap_or_else(|| panic!("{place}: no app before it"));
                let words = info.split(' ').map(str::to_owned).collect();
                example.commands.push(Shell { place, words, output: block.text });
            }
            "log" => {
                let example = examples.last_mut().unwrap_or_else(|| panic!("{place}: no app before it"));
                example.log.extend(block.text.lines().map(str::to_owned));
            }
            "sh" | "text" | "toml" | "rust" | "rust,no_run" => {}
            other => panic!("{place}: unknown kind of block {other:?}"),
        }
    }
    assert!(beside.is_empty(), "{name}: files without an app");
    examples
}

fn parse(place: &str, code: &str) {
    let lua = rover_server::mlua::Lua::new();
    if let Err(error) = lua.load(code).set_name(format!("={place}")).into_function() {
        panic!("{place}: {error}");
    }
}

fn commands(page: &str, block: &Block) -> Vec<Shell> {
    let mut commands: Vec<Shell> = Vec::new();
    for (n, line) in block.text.lines().enumerate() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push(Shell {
                place: format!("{page}:{}", block.line + n + 1),
                words: words(command),
                output: String::new(),
            }),
            (None, Some(command)) => {
                command.output.push_str(line);
                command.output.push('\n');
            }
            (None, None) => panic!("{page}:{}: output without a command", block.line + n + 1),
        }
    }
    commands
}

/// Splits a line as a shell does, with both kinds of quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, ' ') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == c => quote = None,
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "an open quote: {line}");
    words.extend(word);
    words
}

/// Whether `actual` is `expected`, in which `…` stands for any text.
fn matches(expected: &str, actual: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| actual.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn same_json(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::String(expected), Value::String(actual)) => matches(expected, actual),
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len() && expected.iter().zip(actual).all(|(a, b)| same_json(a, b))
        }
        (Value::Object(expected), Value::Object(actual)) => {
            expected.len() == actual.len()
                && expected.iter().all(|(key, a)| actual.get(key).is_some_and(|b| same_json(a, b)))
        }
        _ => expected == actual,
    }
}

fn same_line(expected: &str, actual: &str) -> bool {
    // What stands before the first brace, such as the name of a client, is no JSON.
    let json = |text: &str| serde_json::from_str::<Value>(&text[text.find(['{', '[']).unwrap_or(0)..]).ok();
    let before = |text: &str| text.find(['{', '[']).map(|at| text[..at].to_owned());
    matches(expected, actual)
        || before(expected) == before(actual)
            && json(expected).zip(json(actual)).is_some_and(|(a, b)| same_json(&a, &b))
}

/// What is wrong where the page's output is not the real one.
fn difference(place: &str, expected: &str, actual: &str) -> Option<String> {
    let (expected, actual) = (expected.trim_end(), actual.trim_end());
    let same = expected.lines().count() == actual.lines().count()
        && expected.lines().zip(actual.lines()).all(|(expected, actual)| same_line(expected, actual));
    (!same).then(|| format!("{place}\n--- the page says\n{expected}\n--- in truth\n{actual}\n"))
}

/// The example's files in a folder of their own, removed at the end.
struct Folder {
    path: PathBuf,
    /// 0 where any will do.
    port: u16,
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Folder {
    fn new(example: &Example, workers: usize) -> Folder {
        let name = format!("docs-{}-{workers}", example.place.replace([':', '.'], "-"));
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let asks_itself = example.files.iter().any(|(_, text)| text.contains("localhost:4242"));
        let port = if asks_itself { free_port() } else { 0 };
        for (name, text) in &example.files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text.replace("localhost:4242", &format!("127.0.0.1:{port}"))).unwrap();
        }
        Folder { path: dir, port }
    }

    fn rover(&self) -> Command {
        let mut command = Command::new(ROVER);
        command.current_dir(&self.path);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ROVER_") {
                command.env_remove(name);
            }
        }
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A server, ended with the test whatever happens.
struct Served {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
    log: String,
}

impl Served {
    fn start(mut command: Command, workers: usize, port: u16) -> Served {
        command.args(["app.lua", "--port", &port.to_string(), "--workers", &workers.to_string()]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        let address = loop {
            let start = log.len();
            assert_ne!(stderr.read_line(&mut log).unwrap(), 0, "the app does not start: {log}");
            if let Some((_, rest)) = log[start..].split_once("listening on http://") {
                break rest.split([',', ' ', '"']).next().unwrap().to_owned();
            }
        };
        Served { child, stderr, address, log }
    }

    /// Stops in good order, and gives all that was logged.
    fn stop(mut self) -> String {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
        let mut log = std::mem::take(&mut self.log);
        self.stderr.read_to_string(&mut log).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        log
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A header of every answer, which only the page about it shows.
const NOSNIFF: &str = "x-content-type-options: nosniff";

/// Does what `curl` does with these arguments, and gives what it prints.
fn curl(place: &str, arguments: &[String], address: &str, shows_nosniff: bool) -> String {
    let (mut method, mut target, mut data) = (None, None, None);
    let (mut headers, mut shows_head, mut wants_head) = (String::new(), false, false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut next = || arguments.next().unwrap_or_else(|| panic!("{place}: {argument} needs a value")).clone();
        match argument.as_str() {
            "-i" => shows_head = true,
            "-I" => wants_head = true,
            "-X" => method = Some(next()),
            "-d" => data = Some(next()),
            "-H" => write!(headers, "{}\r\n", next()).unwrap(),
            url => {
                let path = url.strip_prefix("localhost:4242").unwrap_or_else(|| panic!("{place}: {argument}?"));
                target = Some(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") });
            }
        }
    }
    let usual = match (wants_head, &data) {
        (true, _) => "HEAD",
        (_, Some(_)) => "POST",
        _ => "GET",
    };
    let method = method.unwrap_or_else(|| usual.to_owned());
    if let Some(data) = &data {
        if !headers.to_ascii_lowercase().contains("content-type:") {
            headers.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
        }
        write!(headers, "Content-Length: {}\r\n", data.len()).unwrap();
    }
    let target = target.unwrap_or_else(|| panic!("{place}: no URL"));
    let data = data.unwrap_or_default();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: localhost:4242\r\nUser-Agent: curl/8\r\nAccept: */*\r\n{headers}\r\n{data}"
    )
    .unwrap();
    read_answer(BufReader::new(stream), shows_head || wants_head, method == "HEAD", shows_nosniff)
}

fn read_answer(mut stream: BufReader<TcpStream>, shows_head: bool, is_head: bool, shows_nosniff: bool) -> String {
    let (mut head, mut length, mut is_chunked) = (String::new(), 0, false);
    loop {
        let mut line = String::new();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "the connection ended early: {head}");
        let line = line.trim_end();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        is_chunked |= line == "transfer-encoding: chunked";
        let is_everywhere = line == NOSNIFF && !shows_nosniff;
        if !line.starts_with("date: ") && !is_everywhere {
            head.push_str(line);
            head.push('\n');
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; if is_head { 0 } else { length }];
    stream.read_exact(&mut body).unwrap();
    while is_chunked && !is_head {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap() == 0 {
            body.extend_from_slice(b"curl: (18) transfer closed with outstanding read data remaining\n");
            break;
        }
        let mut chunk = vec![0; usize::from_str_radix(line.trim_end(), 16).unwrap() + 2];
        stream.read_exact(&mut chunk).unwrap();
        is_chunked = chunk.len() > 2;
        body.extend_from_slice(&chunk[..chunk.len() - 2]);
    }
    let body = String::from_utf8(body).unwrap();
    if shows_head { head + &body } else { body }
}

/// Runs an example, and says what is wrong with it.
fn run(example: &Example, workers: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let place = &example.place;
    let folder = Folder::new(example, workers);
    let mut server: Option<Served> = None;
    let mut checked = false;
    for shell in &example.commands {
        let program = shell.words.iter().position(|word| !word.contains('=')).unwrap_or(0);
        let (variables, arguments) = shell.words.split_at(program);
        let mut rover = folder.rover();
        rover.envs(variables.iter().filter_map(|variable| variable.split_once('=')));
        match arguments {
            [name, arguments @ ..] if name == "curl" => {
                let server = server.get_or_insert_with(|| Served::start(rover, workers, folder.port));
                let printed = curl(&shell.place, arguments, &server.address, shell.output.contains(NOSNIFF));
                wrong.extend(difference(&shell.place, &shell.output, &printed));
            }
            [name, path] if name == "websocket" => {
                let server = server.get_or_insert_with(|| Served::start(rover, workers, folder.port));
                let truth = websocket::play(path, &shell.output, &server.address);
                wrong.extend(difference(&shell.place, &shell.output, &truth));
            }
            [name, app] if name == "rover" && app == "app.lua" => {
                server = Some(Served::start(rover, workers, folder.port))
            }
            [name, arguments @ ..] if name == "rover" => {
                let output = rover.args(arguments).output().unwrap();
                let printed = [output.stdout, output.stderr].concat();
                wrong.extend(difference(&shell.place, &shell.output, &String::from_utf8_lossy(&printed)));
                checked = true;
            }
            _ => panic!("{}: only curl and rover can be run here", shell.place),
        }
    }
    let server = match server {
        Some(server) => server,
        None if checked => return wrong,
        None => Served::start(folder.rover(), workers, folder.port),
    };
    let log = server.stop();
    let is_missing = |line: &&String| !log.lines().any(|own| matches(line, own));
    wrong.extend(example.log.iter().filter(is_missing).map(|line| format!("{place}: not in the log\n{line}\n{log}")));
    if example.log.is_empty() && log.contains("\"level\":\"error\"") {
        wrong.push(format!("{place}: the log has errors\n{log}"));
    }
    wrong
}

fn pages() -> Vec<(String, String)> {
    let mut pages: Vec<(String, String)> = std::fs::read_dir(docs())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|own| own == "md"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    pages.sort();
    pages
}

fn every_example(workers: usize) {
    let examples: Vec<Example> = pages().iter().flat_map(|(name, page)| examples(name, page)).collect();
    assert!(examples.len() > 20, "only {} examples were found", examples.len());
    let wrong: Vec<String> = examples.iter().flat_map(|example| run(example, workers)).collect();
    assert!(wrong.is_empty(), "with {workers} workers:\n{}", wrong.join("\n"));
}

#[test]
fn examples_are_true_with_one_worker() {
    every_example(1);
}

#[test]
fn examples_are_true_with_three_workers() {
    every_example(3);
}

#[test]
fn the_page_of_the_config_lists_every_key() {
    let mut table = String::from("| key | takes | default | variable | sets |\n|---|---|---|---|---|\n");
    for key in rover_server::config_keys() {
        let variable = key.variable();
        let (name, takes, default, what) = (&key.name, &key.takes, &key.default, key.what);
        writeln!(table, "| `{name}` | {takes} | {default} | `{variable}` | {what} |").unwrap();
    }
    let page = std::fs::read_to_string(docs().join("config.md")).unwrap();
    assert!(page.contains(&table), "docs/config.md must hold this table:\n{table}");
}

#[test]
fn the_index_leads_to_every_page_and_no_link_is_dead() {
    let pages = pages();
    let index = std::fs::read_to_string(docs().join("README.md")).unwrap();
    for (name, page) in &pages {
        assert!(name == "README.md" || index.contains(&format!("]({name})")), "the index does not name {name}");
        for link in page.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let known = link.is_empty() || link.starts_with("http") || docs().join(link).exists();
            assert!(known, "{name}: {link} leads nowhere");
        }
    }
}

#[test]
fn the_pattern_of_outputs() {
    assert!(matches("a…c", "abbc") && matches("…", "") && matches("a…b…c", "a1b2c"));
    assert!(!matches("a…c", "ab") && !matches("ab", "abc"));
    assert!(same_line(r#"{"a":1,"b":"…"}"#, r#"{"b":"x","a":1}"#));
    assert!(!same_line(r#"{"a":1}"#, r#"{"a":1,"b":2}"#));
    assert_eq!(words(r#"curl -H 'A: b c' "x y" z"#), ["curl", "-H", "A: b c", "x y", "z"]);
}
