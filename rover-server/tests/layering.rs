//! Holds the shape of the source: which module imports which, without cycles, in files of a size that one can read.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every module and what it imports of this crate. Callers stand above what they call, so a cycle cannot be written.
const IMPORTS: &[(&str, &[&str])] = &[
    (
        "server",
        &[
            "accept",
            "admission",
            "app",
            "assets",
            "blocking",
            "config",
            "context",
            "crew",
            "error",
            "handover",
            "local",
            "log",
            "lua",
            "management",
            "metrics",
            "otlp",
            "profile",
            "rate_limit",
            "resources",
            "route",
            "service",
            "tls",
            "version",
            "watchdog",
            "worker",
            "workers",
        ],
    ),
    ("crew", &["app", "log", "route", "version", "watchdog", "worker", "workers"]),
    ("management", &["accept", "log"]),
    ("handover", &["resources"]),
    ("workers", &["accept", "admission", "worker"]),
    ("local", &["context", "service", "tasks"]),
    (
        "worker",
        &[
            "accept",
            "admission",
            "app",
            "blocking",
            "config",
            "connection",
            "context",
            "lifecycle",
            "log",
            "metrics",
            "readiness",
            "proxy_protocol",
            "random",
            "route",
            "service",
            "socket",
            "tls",
            "version",
            "watchdog",
            "budget",
        ],
    ),
    (
        "connection",
        &[
            "admission",
            "body",
            "config",
            "context",
            "failure",
            "lifecycle",
            "log",
            "security_headers",
            "service",
            "socket",
            "turn",
            "upgrade",
        ],
    ),
    ("admission", &["accept", "config", "log", "resources", "security_headers"]),
    ("profile", &["error", "lua", "route", "watchdog"]),
    ("watchdog", &["config", "log", "lua", "turn"]),
    ("proxy_protocol", &[]),
    (
        "version",
        &[
            "app",
            "assets",
            "config",
            "handler",
            "log",
            "metrics",
            "otlp",
            "rate_limit",
            "route",
            "service",
            "tasks",
            "tls",
        ],
    ),
    ("accept", &["config", "error", "log"]),
    ("tls", &["config", "context", "error", "log"]),
    (
        "service",
        &[
            "app",
            "assets",
            "body",
            "collect",
            "compression",
            "config",
            "context",
            "decode",
            "edge",
            "failure",
            "guard",
            "handler",
            "lifecycle",
            "log",
            "metrics",
            "otlp",
            "record",
            "rate_limit",
            "route",
            "security_headers",
            "unread",
        ],
    ),
    ("record", &["access_log", "body", "config", "context", "log", "metrics", "otlp", "route", "turn"]),
    ("readiness", &["app", "handler", "log", "lua"]),
    ("lifecycle", &[]),
    ("guard", &["app", "body", "config", "context", "cors", "failure", "forwarded", "rate_limit", "route", "shed"]),
    ("forwarded", &["config", "context", "edge"]),
    ("cors", &["body", "config", "route"]),
    ("shed", &["body", "config", "failure"]),
    ("security_headers", &["config"]),
    ("edge", &["body", "config", "failure"]),
    ("handler", &["app", "body", "budget", "context", "failure", "log", "lua", "turn"]),
    (
        "app",
        &[
            "assets",
            "config",
            "context",
            "failure",
            "fetch",
            "header_names",
            "json",
            "log",
            "lua",
            "metrics",
            "otlp",
            "outbound",
            "proxy",
            "rate_limit",
            "response",
            "route",
            "state",
            "stdlib",
            "store",
            "stream",
            "tasks",
            "turn",
            "unread",
            "websocket",
            "budget",
        ],
    ),
    ("websocket", &["config", "context", "json", "log", "lua", "metrics", "response", "tasks", "turn", "upgrade"]),
    ("proxy", &["body", "context", "header_names", "log", "lua", "otlp", "outbound", "response", "unread", "upgrade"]),
    ("fetch", &["header_names", "json", "log", "lua", "otlp", "outbound", "tasks", "turn"]),
    ("assets", &["blocking", "body", "coding", "config", "failure", "log", "route", "wildcard"]),
    ("stream", &["body", "json", "log", "lua", "response", "tasks", "turn"]),
    ("state", &["json", "lua", "store", "tasks"]),
    ("tasks", &["context", "failure", "json", "log", "lua", "otlp", "response", "turn", "upgrade"]),
    ("failure", &["body", "context", "json", "log", "lua", "response"]),
    ("response", &["body", "context", "header_names", "json", "log", "lua", "upgrade"]),
    ("otlp", &["blocking", "config", "context", "log", "metrics", "outbound"]),
    ("outbound", &["blocking", "decode", "log", "resources"]),
    ("context", &["body", "budget", "decode", "header_names", "json", "lua", "route", "socket", "unread", "upgrade"]),
    ("unread", &["body", "collect"]),
    ("collect", &["body", "budget", "decode"]),
    ("decode", &[]),
    ("compression", &["body", "coding", "config", "wildcard"]),
    ("body", &[]),
    ("coding", &[]),
    ("wildcard", &[]),
    ("upgrade", &["socket"]),
    ("socket", &[]),
    ("header_names", &[]),
    ("route", &["config"]),
    ("stdlib", &["blocking", "config", "json", "log", "lua", "random", "resources", "store"]),
    ("store", &["budget", "config"]),
    ("blocking", &[]),
    ("random", &[]),
    ("resources", &[]),
    ("json", &["lua"]),
    ("metrics", &[]),
    ("turn", &["lua"]),
    ("lua", &[]),
    ("access_log", &["config", "log"]),
    ("rate_limit", &["config"]),
    ("config", &["log"]),
    ("budget", &[]),
    ("log", &[]),
    ("error", &[]),
];

/// The longest file, in lines, without tests. Most are far shorter.
const LONGEST: usize = 500;

/// Files that lend the crate's inside to others and belong to no stage.
const OUTSIDE: [&str; 2] = ["lib", "bench_support"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files below `folder` with this extension, without those that hold only tests.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if stem == "tests" || stem.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A file's text up to its own tests, without lines that are comments.
fn shipped(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// The top-level module that a file belongs to.
fn module_of(path: &Path) -> String {
    let below = path.strip_prefix(source()).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules named behind `crate::`, alone or in braces.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for rest in text.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let mut depth = 1;
        let mut item = String::new();
        for c in group.chars() {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            if depth == 0 || (depth == 1 && c == ',') {
                found.insert(name(item.trim_start()));
                item.clear();
            } else {
                item.push(c);
            }
            if depth == 0 {
                break;
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn imports_are_those_of_the_table() {
    let mut real: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files(&source(), "rs") {
        let module = module_of(&path);
        if OUTSIDE.contains(&module.as_str()) {
            continue;
        }
        let own = real.entry(module.clone()).or_default();
        own.extend(imports(&shipped(&path)).into_iter().filter(|import| *import != module));
    }
    let mut wrong = Vec::new();
    for (module, own) in &real {
        let Some((_, listed)) = IMPORTS.iter().find(|(name, _)| name == module) else {
            wrong.push(format!("{module} is not in the table"));
            continue;
        };
        let listed: BTreeSet<String> = listed.iter().map(|&name| name.to_owned()).collect();
        wrong.extend(own.difference(&listed).map(|import| format!("{module} imports {import}, which is not listed")));
        wrong
            .extend(listed.difference(own).map(|import| format!("{module} does not import {import}, which is listed")));
    }
    wrong.extend(
        IMPORTS.iter().filter(|(name, _)| !real.contains_key(*name)).map(|(name, _)| format!("{name} does not exist")),
    );
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn callers_stand_above_what_they_call() {
    for (place, (module, listed)) in IMPORTS.iter().enumerate() {
        for import in *listed {
            let below = IMPORTS[place + 1..].iter().any(|(name, _)| name == import);
            assert!(below, "{module} imports {import}, which does not stand below it: a cycle, or the wrong order");
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let cli = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rover-cli/src");
    let mut wrong = Vec::new();
    for (extension, opening) in [("rs", "//! "), ("lua", "-- ")] {
        for path in files(&source(), extension).into_iter().chain(files(&cli, extension)) {
            let text = fs::read_to_string(&path).unwrap();
            if !text.starts_with(opening) {
                wrong.push(format!("{} does not begin with `{opening}`", path.display()));
            }
            let lines = text.split("#[cfg(test)]\nmod tests {").next().unwrap().lines().count();
            if lines > LONGEST {
                wrong.push(format!("{} has {lines} lines, more than {LONGEST}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_has_one_address() {
    let opened: Vec<String> = files(&source(), "rs")
        .iter()
        .filter(|path| shipped(path).contains("allow(unsafe_code)"))
        .map(|path| path.strip_prefix(source()).unwrap().display().to_string())
        .collect();
    assert_eq!(opened, ["lua/mod.rs"]);
}

#[test]
fn the_reader_of_imports_reads_every_form() {
    let text = "use crate::log::{self, Level};\nuse crate::{edge, failure::{answer, Failure}, route};\nlet x = crate::json::y();";
    assert_eq!(imports(text), ["edge", "failure", "json", "log", "route"].map(str::to_owned).into());
}
