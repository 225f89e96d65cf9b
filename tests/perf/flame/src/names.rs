//! Comes in: an address in the program's memory. Goes out: the functions there, inlined ones too. Must not know: how
//! often it was seen.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use addr2line::Loader;

use crate::maps::Loaded;

/// Names of functions, each address looked up once.
pub(crate) struct Names {
    files: Vec<(Loaded, Option<Loader>)>,
    known: RefCell<HashMap<u64, Rc<[String]>>>,
}

impl Names {
    /// Reads the symbols of what was loaded. A file that cannot be read gives its own name to all its code.
    pub(crate) fn new(loaded: Vec<Loaded>) -> Names {
        let files = loaded.into_iter().map(|each| {
            let loader = Loader::new(&each.path).ok();
            (each, loader)
        });
        Names { files: files.collect(), known: RefCell::default() }
    }

    /// The functions at an address, the outermost first.
    pub(crate) fn of(&self, address: u64) -> Rc<[String]> {
        let mut known = self.known.borrow_mut();
        Rc::clone(known.entry(address).or_insert_with(|| self.look_up(address).into()))
    }

    fn look_up(&self, address: u64) -> Vec<String> {
        let Some((file, loader)) = self.files.iter().find(|(file, _)| file.range.contains(&address)) else {
            return vec!["(unknown)".into()];
        };
        let at = address - file.base;
        let of_file = || format!("({})", file.path.rsplit('/').next().unwrap_or(&file.path));
        let mut names = Vec::new();
        if let Some(loader) = loader {
            let mut inlined = inlined(loader, at);
            // The symbol table knows the path of a function that is a real one, the line tables only its name.
            let function = inlined.pop().flatten();
            names.push(loader.find_symbol(at).map(plain).or(function).unwrap_or_else(of_file));
            names.extend(inlined.into_iter().rev().flatten());
        } else {
            names.push(of_file());
        }
        names
    }
}

/// The functions at an address of a file by its line tables, the innermost first; none for those of the standard
/// library, whose adapters would fill the graph.
fn inlined(loader: &Loader, at: u64) -> Vec<Option<String>> {
    let mut names = Vec::new();
    let Ok(mut frames) = loader.find_frames(at) else { return names };
    while let Ok(Some(frame)) = frames.next() {
        let file = frame.location.and_then(|location| location.file).unwrap_or_default();
        names.push(match frame.function.as_ref().and_then(|function| function.raw_name().ok()) {
            Some(name) if !file.contains("/library/") => Some(module(file) + without_types(&plain(&name))),
            _ => None,
        });
    }
    names
}

/// `hyper::proto::h1::` for `…/hyper-1.12.0/src/proto/h1.rs`; nothing for what is not Rust.
fn module(file: &str) -> String {
    let Some((folder, inside)) = file.strip_suffix(".rs").and_then(|path| path.rsplit_once("/src/")) else {
        return String::new();
    };
    let package = folder.rsplit('/').next().unwrap_or(folder);
    let package = match package.rsplit_once('-') {
        Some((name, version)) if version.starts_with(|first: char| first.is_ascii_digit()) => name,
        _ => package,
    };
    let modules = inside.split('/').filter(|part| !matches!(*part, "lib" | "main" | "mod"));
    std::iter::once(package.replace('-', "_").as_str()).chain(modules).map(|part| format!("{part}::")).collect()
}

/// `poll` for `poll<Io, Body>`.
fn without_types(name: &str) -> &str {
    match name.find('<') {
        Some(0) | None => name,
        Some(at) => &name[..at],
    }
}

/// A name as it stands in the source. `;` would end a frame, a hash tells nothing.
fn plain(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name)).replace(';', ":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_by_its_file() {
        let registry = "/home/me/.cargo/registry/src/index-1/";
        assert_eq!(module(&format!("{registry}hyper-1.12.0/src/proto/h1/io.rs")), "hyper::proto::h1::io::");
        assert_eq!(module("/home/me/rover/rover-lua/src/json/mod.rs"), "rover_lua::json::");
        assert_eq!(module("/home/me/rover/rover-cli/src/main.rs"), "rover_cli::");
        assert_eq!(module("lj_api.c"), "");
    }

    #[test]
    fn names_without_types() {
        assert_eq!(without_types("poll<Io, Body>"), "poll");
        assert_eq!(without_types("{closure#0}<A>"), "{closure#0}");
        assert_eq!(without_types("<impl Read for A>::read"), "<impl Read for A>::read");
    }
}
