//! Holds the shape of the source: a wing imports only wings below it, a room only rooms below it in its wing, and no
//! two files of a room import each other, in files of a size that one can read.
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The wings from the top, each with its rooms from the top. What is imported stands below whoever imports it.
const WINGS: &[(&str, &[&str])] = &[
    (
        "server",
        &[
            "succession",
            "reload",
            "check",
            "start",
            "databases",
            "listening",
            "supervisor",
            "board",
            "info",
            "control",
            "profile",
            "dispatcher",
            "local",
            "worker",
            "readiness",
            "version",
            "watchdog",
            "management",
        ],
    ),
    ("connection", &["tls", "final_flush", "watch", "http2", "http1", "refusal", "requests"]),
    ("service", &["late", "current", "answer", "request_policy", "forwarded", "handler"]),
    ("script", &["app", "state", "stream", "websocket", "stdlib", "proxy", "fetch", "db", "vm", "tasks"]),
    ("observe", &["record", "otlp", "metrics", "access_log"]),
    ("outbound", &[]),
    ("listen", &["handover", "admission", "accept", "tls", "proxy_protocol"]),
    ("policy", &["cors", "load_shedding", "rate_limit", "security_headers", "http_checks", "assets", "compression"]),
    ("exchange", &["failure", "response", "context"]),
    ("message", &["unread", "collect", "body", "decode", "coding", "wildcard", "header_names"]),
    ("error", &[]),
    ("transport", &["lifecycle", "upgrade", "socket"]),
    ("store", &[]),
    ("runtime", &["execution", "budget", "turn", "blocking", "random", "resources"]),
    ("route", &[]),
    ("config", &[]),
    ("spelling", &[]),
    ("log", &[]),
];

/// The crates whose sources are looked at.
const CRATES: [&str; 4] = ["rover-data", "rover-lua", "rover-server", "rover-cli"];

/// The longest file, in lines, without tests. Most are far shorter.
const LONGEST: usize = 500;

/// What lends the crate's inside to others and belongs to no wing.
const OUTSIDE: [&str; 1] = ["bench_support"];

/// A module's place: the names from the crate's root.
type Place = Vec<String>;

/// The sources of a crate of this workspace.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src")
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
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

fn place_of(source: &Path, path: &Path) -> Place {
    let below = path.strip_prefix(source).unwrap().with_extension("");
    let mut place: Place = below.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if place.last().is_some_and(|last| last == "mod") {
        place.pop();
    }
    place
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The paths of a tree such as `a::{b, c::{self, D as E}}`, each with the name that it has here.
fn paths_of(tree: &str) -> Vec<(Place, String)> {
    let Some((before, rest)) = tree.split_once('{') else {
        let (path, name) = tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name)));
        let mut path: Place = path.split("::").map(|part| part.trim().to_owned()).collect();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = name.map_or_else(|| path.last().unwrap().clone(), |name| name.trim().to_owned());
        return vec![(path, name)];
    };
    let inside = &rest[..rest.rfind('}').unwrap()];
    let mut found = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = inside[start..at].trim();
                if !item.is_empty() {
                    found.extend(paths_of(&format!("{}{item}", before.trim())));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// What a file names of other modules.
#[derive(Default)]
struct Names {
    /// Every path, of `use` and within code.
    used: Vec<Place>,
    /// What it lends on under its own path, by name.
    lent: BTreeMap<String, Place>,
}

impl Names {
    fn of(text: &str) -> Names {
        let mut names = Names::default();
        let mut code = String::new();
        let mut open: Option<String> = None;
        for line in text.lines() {
            let trimmed = line.trim_start();
            let begins = trimmed.split_once("use ").is_some_and(|(before, _)| {
                before.is_empty() || (before.starts_with("pub") && before.ends_with(' ') && !before.contains("fn "))
            });
            if open.is_none() && begins {
                open = Some(String::new());
            }
            match &mut open {
                Some(statement) => {
                    statement.push_str(trimmed);
                    if trimmed.ends_with(';') {
                        names.add(&open.take().unwrap());
                    }
                }
                None => code.push_str(line),
            }
            code.push('\n');
        }
        for start in ["crate::", "super::"] {
            for (at, _) in code.match_indices(start) {
                if !code[..at].ends_with(|c| is_name(c) || c == ':') {
                    let path = &code[at..];
                    let end = path.find(|c| !is_name(c) && c != ':').unwrap_or(path.len());
                    names.used.push(path[..end].trim_end_matches(':').split("::").map(str::to_owned).collect());
                }
            }
        }
        names
    }

    fn add(&mut self, statement: &str) {
        let (visible, tree) = statement.trim_end_matches(';').split_once("use ").unwrap();
        for (path, name) in paths_of(tree) {
            if !visible.is_empty() {
                self.lent.insert(name, path.clone());
            }
            self.used.push(path);
        }
    }
}

/// All modules of a crate and what they name.
struct House {
    rooms: BTreeMap<Place, Names>,
    places: BTreeSet<Place>,
}

impl House {
    fn read(name: &str) -> House {
        let mut house = House { rooms: BTreeMap::new(), places: BTreeSet::new() };
        let source = source(name);
        for path in files(&source, "rs") {
            let place = place_of(&source, &path);
            if place == ["lib"] {
                // Its children name each other through what it lends on.
                house.rooms.insert(Place::new(), Names::of(&shipped(&path)));
            } else if !OUTSIDE.contains(&place[0].as_str()) {
                house.places.extend((1..=place.len()).map(|length| place[..length].to_vec()));
                house.rooms.insert(place, Names::of(&shipped(&path)));
            }
        }
        house
    }

    /// The module in which `path`, written in `place`, ends; through what modules lend on.
    fn find(&self, place: &[String], path: &[String], depth: usize) -> Option<Place> {
        let mut path = path;
        let mut at: Place = match path.first()?.as_str() {
            "crate" => Place::new(),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                path = &path[ups - 1..];
                place[..place.len().checked_sub(ups)?].to_vec()
            }
            "self" => place.to_vec(),
            first => {
                let child = [place, &[first.to_owned()]].concat();
                if !self.places.contains(&child) {
                    return None;
                }
                return self.find(place, &[&["self".to_owned()], path].concat(), depth);
            }
        };
        for name in &path[1..] {
            let child = [&at[..], std::slice::from_ref(name)].concat();
            if self.places.contains(&child) {
                at = child;
                continue;
            }
            let lent = self.rooms.get(&at).and_then(|names| names.lent.get(name));
            if let Some(lent) = lent.filter(|_| depth < 8) {
                at = self.find(&at, lent, depth + 1).unwrap_or(at);
            }
            break;
        }
        Some(at)
    }

    /// Who imports whom, at each level: the level, then two of its modules, then one place that shows it.
    fn arrows(&self) -> BTreeMap<(Place, String, String), String> {
        let mut found = BTreeMap::new();
        for (place, names) in &self.rooms {
            for path in &names.used {
                let Some(other) = self.find(place, path, 0) else { continue };
                let level = place.iter().zip(&other).take_while(|(own, other)| own == other).count();
                if let (Some(from), Some(to)) = (place.get(level), other.get(level)) {
                    let shows = format!("{} names {}", place.join("/"), path.join("::"));
                    found.insert((place[..level].to_vec(), from.clone(), to.clone()), shows);
                }
            }
        }
        found
    }
}

#[test]
fn wings_and_rooms_import_only_what_stands_below_them() {
    let house = House::read("rover-server");
    let wings: Vec<&str> = WINGS.iter().map(|(wing, _)| *wing).collect();
    let mut wrong = Vec::new();
    for place in &house.places {
        let listed = match &place[..] {
            [wing] => wings.contains(&wing.as_str()),
            [wing, room] => {
                WINGS.iter().any(|(name, rooms)| name == wing && (rooms.is_empty() || rooms.contains(&room.as_str())))
            }
            _ => true,
        };
        if !listed {
            wrong.push(format!("{} is not in the table", place.join("/")));
        }
    }
    for (wing, rooms) in WINGS {
        for room in [""].iter().chain(*rooms) {
            let place: Place =
                [wing, room].iter().filter(|name| !name.is_empty()).map(|&name| name.to_string()).collect();
            if !house.places.contains(&place) {
                wrong.push(format!("{} does not exist", place.join("/")));
            }
        }
    }
    for ((level, from, to), shows) in house.arrows() {
        let order: &[&str] = match &level[..] {
            [] => &wings,
            [wing] => WINGS.iter().find(|(name, _)| name == wing).map_or(&[], |(_, rooms)| rooms),
            _ => continue,
        };
        let floor = |name: &str| order.iter().position(|listed| *listed == name);
        if floor(&from).zip(floor(&to)).is_some_and(|(from, to)| from >= to) {
            wrong.push(format!("{from} imports {to}, which does not stand below it: {shows}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn there_is_no_ring_on_any_level() {
    let rings: Vec<String> = CRATES.iter().flat_map(|name| rings(name)).collect();
    assert!(rings.is_empty(), "\n{}", rings.join("\n"));
}

/// The levels of a crate at which modules import each other in a ring.
fn rings(name: &str) -> Vec<String> {
    let arrows = House::read(name).arrows();
    let mut levels: BTreeMap<&Place, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for (level, from, to) in arrows.keys() {
        levels.entry(level).or_default().entry(from).or_default().insert(to);
    }
    let mut rings = Vec::new();
    for (level, mut left) in levels {
        loop {
            // What imports nothing that is left goes, until nothing goes: it lies on no ring. Nor does it lie on a ring when nobody that is left imports it.
            let (open, imported): (BTreeSet<&str>, BTreeSet<&str>) =
                (left.keys().copied().collect(), left.values().flatten().copied().collect());
            let before = left.len();
            left.retain(|name, imports| imported.contains(name) && imports.iter().any(|import| open.contains(import)));
            if left.len() == before {
                break;
            }
        }
        let level = level.join("/");
        let names: Vec<&str> = left.keys().copied().collect();
        if !left.is_empty() {
            rings.push(format!("in {name}/{level}: a ring among {}", names.join(", ")));
        }
    }
    rings
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for (extension, opening) in [("rs", "//! "), ("lua", "-- ")] {
        for path in CRATES.iter().flat_map(|name| files(&source(name), extension)) {
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
    for name in CRATES {
        let opened: Vec<PathBuf> = files(&source(name), "rs")
            .into_iter()
            .filter(|path| shipped(path).contains("(unsafe_code)"))
            .map(|path| path.strip_prefix(source(name)).unwrap().to_owned())
            .collect();
        let root = if name == "rover-cli" { "main.rs" } else { "lib.rs" };
        assert_eq!(opened, [Path::new(root)], "{name}");
        let word = if name == "rover-lua" { "#![allow(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        assert!(shipped(&source(name).join(root)).contains(word), "{name} has no {word}");
    }
}

#[test]
fn the_border_to_lua_knows_nothing_of_http() {
    let manifest = fs::read_to_string(source("rover-lua").join("../Cargo.toml")).unwrap();
    let known = manifest
        .lines()
        .filter(|line| ["http", "hyper", "h2", "rover-server"].iter().any(|name| line.starts_with(name)));
    assert_eq!(known.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn every_form_of_an_import_is_read() {
    let text = "use crate::log::{self, Level};\npub(crate) use pool::{\n    Lease,\n    b::C as D,\n};\nlet x = super::y::z();";
    let names = Names::of(text);
    let used: BTreeSet<String> = names.used.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        used,
        ["crate::log", "crate::log::Level", "pool::Lease", "pool::b::C", "super::y::z"].map(str::to_owned).into()
    );
    assert_eq!(names.lent.keys().collect::<Vec<_>>(), ["D", "Lease"]);
}
