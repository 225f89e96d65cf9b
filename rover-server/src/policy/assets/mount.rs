//! Checks the declaration of a folder that is served under a path.
//!
//! Comes in: `api.assets.static { dir = …, … }` as plain data. Goes out: a checked [`Mount`], or everything that is wrong
//! with it. Must not know: requests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::open;
use super::path::Relative;
use crate::config::ConfigValue;
use crate::message::wildcard;
use crate::route::{Origin, Pattern, Segment};
use crate::spelling;

/// A mount as the app declares it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MountDecl {
    /// The field names from the app down to `static`.
    pub(crate) fields: Vec<Vec<u8>>,
    /// How the app writes the call: `api.assets.static`.
    pub(crate) written: String,
    /// The options, in the order of their names.
    pub(crate) options: Vec<(String, ConfigValue)>,
    pub(crate) origin: Origin,
}

/// A folder under a path.
#[derive(Debug)]
pub(super) struct Mount {
    /// The path, `/assets`; empty for the root.
    pub(super) prefix: String,
    pub(super) origin: Origin,
    pub(super) folder: PathBuf,
    pub(super) index: Option<String>,
    pub(super) fallback: Option<String>,
    pub(super) dotfiles: bool,
    pub(super) precompressed: bool,
    pub(super) caching: Caching,
    /// Content types by extension, in lower case.
    pub(super) types: HashMap<String, HeaderValue>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// The rules for `Cache-Control`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Caching {
    max_age: Duration,
    immutable: Immutable,
}

/// Which files never change under their name.
#[derive(Clone, Debug, PartialEq)]
enum Immutable {
    None,
    All,
    /// Those whose name below the folder matches one of these, in which `*` stands for any text.
    Some(Vec<String>),
}

impl Caching {
    /// The value of `Cache-Control` for a file.
    pub(super) fn of(&self, name: &[u8]) -> HeaderValue {
        let is_immutable = match &self.immutable {
            Immutable::None => false,
            Immutable::All => true,
            Immutable::Some(patterns) => patterns.iter().any(|pattern| wildcard::matches(pattern.as_bytes(), name)),
        };
        match self.max_age.as_secs() {
            _ if is_immutable => HeaderValue::from_static("max-age=31536000, immutable"),
            0 => HeaderValue::from_static("no-cache"),
            seconds => HeaderValue::try_from(format!("max-age={seconds}"))
                .unwrap_or_else(|_| HeaderValue::from_static("no-cache")),
        }
    }
}

/// The names of the options, for the message about an unknown one.
const OPTIONS: [&str; 9] =
    ["dir", "index", "fallback", "max_age", "immutable", "precompressed", "dotfiles", "types", "headers"];

impl Mount {
    /// Checks a declaration. A relative `dir` lies in `base`.
    ///
    /// # Errors
    /// Every mistake, each with its place and the cure.
    pub(super) fn new(decl: &MountDecl, base: &Path) -> Result<Mount, Vec<String>> {
        let mut options = Options { decl, mistakes: Vec::new() };
        options.unknown();
        let prefix = options.prefix();
        let folder = options.folder(base);
        let index = options.index();
        let fallback = options.fallback(folder.as_deref());
        let caching = Caching { max_age: options.max_age(), immutable: options.immutable() };
        let dotfiles = options.truth("dotfiles", false);
        let precompressed = options.truth("precompressed", true);
        let (types, headers) = (options.types(), options.headers());
        match (prefix, folder, options.mistakes.is_empty()) {
            (Some(prefix), Some(folder), true) => Ok(Mount {
                prefix,
                origin: decl.origin.clone(),
                folder,
                index,
                fallback,
                dotfiles,
                precompressed,
                caching,
                types,
                headers,
            }),
            _ => Err(options.mistakes),
        }
    }
}

impl Mount {
    /// Warnings about an unsafe folder, each with its cure; the app's own files are in `base`.
    pub(super) fn warnings(&self, base: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let origin = &self.origin;
        let base = if base.as_os_str().is_empty() { Path::new(".") } else { base };
        if let (Ok(base), Ok(folder)) = (base.canonicalize(), self.folder.canonicalize())
            && base.starts_with(folder)
        {
            found.push(format!(
                "{origin}: the folder that is served holds the app itself: anyone can read its code; name one below it, \
                 such as dir = \"public\""
            ));
        }
        for secret in [".git", ".env", ".htpasswd", ".ssh"].iter().filter(|_| self.dotfiles) {
            if self.folder.join(secret).exists() {
                found.push(format!(
                    "{origin}: dotfiles is on, so anyone can read {secret}; turn it off, or move {secret} away"
                ));
            }
        }
        found
    }
}

/// The options of one declaration while they are checked.
struct Options<'a> {
    decl: &'a MountDecl,
    mistakes: Vec<String>,
}

impl<'a> Options<'a> {
    fn get(&self, name: &str) -> Option<&'a ConfigValue> {
        let found = self.decl.options.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value).filter(|value| **value != ConfigValue::Nil)
    }

    fn note(&mut self, message: &str) {
        let (origin, written) = (&self.decl.origin, &self.decl.written);
        self.mistakes.push(format!("{origin}: {written}: {message}"));
    }

    /// Notes that an option has a wrong value; `takes` follows "must be".
    fn wrong(&mut self, name: &str, takes: &str, value: &ConfigValue) {
        self.note(&format!("{name} must be {takes}, got {value}"));
    }

    fn unknown(&mut self) {
        for (name, _) in &self.decl.options {
            if OPTIONS.contains(&name.as_str()) {
                continue;
            }
            let cure = match spelling::nearest(name, OPTIONS) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("the known ones are {}", OPTIONS.join(", ")),
            };
            self.note(&format!("unknown option {name:?}, {cure}"));
        }
    }

    fn prefix(&mut self) -> Option<String> {
        match Pattern::parse(&self.decl.fields) {
            Ok(pattern) if pattern.segments().iter().all(|part| matches!(part, Segment::Literal(_))) => {
                Some(pattern.as_str().trim_end_matches('/').to_owned())
            }
            Ok(pattern) => {
                self.note(&format!("a folder cannot lie under {pattern}, which has a parameter; use a fixed path"));
                None
            }
            Err(mistake) => {
                self.note(&mistake.to_string());
                None
            }
        }
    }

    fn folder(&mut self, base: &Path) -> Option<PathBuf> {
        const TAKES: &str = "the folder to serve, relative to the app's own, such as dir = \"public\"";
        let Some(value) = self.get("dir") else {
            self.note(&format!("dir is missing; it is {TAKES}"));
            return None;
        };
        let Some(dir) = value.text().filter(|dir| !dir.is_empty() && !dir.contains('\0')) else {
            self.wrong("dir", TAKES, value);
            return None;
        };
        let folder = base.join(dir);
        let problem = match std::fs::metadata(&folder) {
            Ok(found) if found.is_dir() => return Some(folder),
            Ok(_) => "is not a folder".to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        let shown = folder.display();
        self.note(&format!("the folder {dir:?} {problem} ({shown}); create it, or correct dir"));
        None
    }

    fn index(&mut self) -> Option<String> {
        let Some(value) = self.get("index") else { return Some("index.html".to_owned()) };
        match value {
            ConfigValue::Bool(false) => None,
            ConfigValue::Text(name) if !name.is_empty() && !name.contains(['/', '\0']) => Some(name.clone()),
            other => {
                self.wrong("index", "the name of a file in each folder, or false for none", other);
                None
            }
        }
    }

    fn fallback(&mut self, folder: Option<&Path>) -> Option<String> {
        const TAKES: &str = "a file in the folder, such as \"index.html\", or false for none";
        let value = self.get("fallback")?;
        let name = match value {
            ConfigValue::Bool(false) => return None,
            ConfigValue::Text(name) if Relative::is_plain(name) => name,
            other => {
                self.wrong("fallback", TAKES, other);
                return None;
            }
        };
        let opened = open::folder(folder?).ok()?;
        if !open::is_file(&opened, name) {
            self.note(&format!("the folder has no file {name:?} to fall back to; create it, or correct fallback"));
            return None;
        }
        Some(name.clone())
    }

    fn max_age(&mut self) -> Duration {
        let Some(value) = self.get("max_age") else { return Duration::ZERO };
        value.time().unwrap_or_else(|| {
            self.wrong("max_age", "a time: seconds, or text such as \"1h\"", value);
            Duration::ZERO
        })
    }

    fn immutable(&mut self) -> Immutable {
        let value = match self.get("immutable") {
            None | Some(ConfigValue::Bool(false)) => return Immutable::None,
            Some(value) => value,
        };
        let pattern = |value: &ConfigValue| value.text().filter(|text| !text.is_empty()).map(str::to_owned);
        let patterns = match value {
            ConfigValue::Bool(true) => return Immutable::All,
            ConfigValue::List(values) => values.iter().map(pattern).collect(),
            value => pattern(value).map(|pattern| vec![pattern]),
        };
        match patterns {
            Some(patterns) => Immutable::Some(patterns),
            None => {
                self.wrong("immutable", "true, or names with * such as \"assets/*\", one or a list", value);
                Immutable::None
            }
        }
    }

    fn truth(&mut self, name: &str, default: bool) -> bool {
        let Some(value) = self.get(name) else { return default };
        value.truth().unwrap_or_else(|| {
            self.wrong(name, "true or false", value);
            default
        })
    }

    /// The pairs of a table of texts.
    fn pairs(&mut self, name: &str, takes: &str) -> Vec<(&'a str, &'a str)> {
        let entries = match self.get(name) {
            None => return Vec::new(),
            Some(ConfigValue::List(values)) if values.is_empty() => return Vec::new(),
            Some(ConfigValue::Table(entries)) => entries,
            Some(other) => {
                self.wrong(name, takes, other);
                return Vec::new();
            }
        };
        let mut pairs = Vec::new();
        for (key, value) in entries {
            match value.text() {
                Some(text) => pairs.push((key.as_str(), text)),
                None => self.wrong(&format!("{name}.{key}"), "text", value),
            }
        }
        pairs
    }

    fn types(&mut self) -> HashMap<String, HeaderValue> {
        let mut types = HashMap::new();
        for (extension, kind) in self.pairs("types", "a table such as { glb = \"model/gltf-binary\" }") {
            match HeaderValue::try_from(kind).ok().filter(|_| kind.contains('/')) {
                Some(value) => {
                    types.insert(extension.trim_start_matches('.').to_ascii_lowercase(), value);
                }
                None => {
                    self.note(&format!("types.{extension} must be a content type such as \"text/plain\", got {kind:?}"))
                }
            }
        }
        types
    }

    fn headers(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        /// What follows from the file, and what frames the message.
        const OWN: [&str; 9] = [
            "accept-ranges",
            "content-encoding",
            "content-length",
            "content-range",
            "content-type",
            "etag",
            "last-modified",
            "transfer-encoding",
            "vary",
        ];
        const MOST: usize = 1000;
        let mut headers = Vec::new();
        for (name, value) in self.pairs("headers", "a table such as { [\"X-Robots-Tag\"] = \"noindex\" }") {
            match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                (Ok(known), _) if OWN.contains(&known.as_str()) => {
                    self.note(&format!("the header {name} is set by Rover and cannot be changed"));
                }
                (Ok(name), Ok(value)) => headers.push((name, value)),
                _ => self.note(&format!("the header {name:?} cannot be sent; check its name and its value")),
            }
        }
        if headers.len() > MOST {
            self.note(&format!("headers has {} fields; {MOST} are the most", headers.len()));
        }
        headers
    }
}
