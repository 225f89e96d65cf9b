//! Serves folders of files under a path, without Lua.
//!
//! Comes in: the head of a request that no route answers. Goes out: the response, or nothing where there is no such file.
//! Small files come from the worker's memory, large ones are read while they are sent. This module must not know routes,
//! Lua or connections.

mod answer;
mod cache;
mod conditions;
mod file_body;
mod mount;
mod open;
mod path;
mod range;
mod resource;

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ACCEPT, ALLOW};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use rustix::io::Errno;

pub(crate) use mount::MountDecl;

use crate::exchange::failure;
use crate::log::{self, Level};
use crate::message::body::Body;
use crate::route::{self, Origin};
use cache::{Cache, Known};
use mount::Mount;
use path::{Refused, Relative};
use resource::{Loaded, Resource};

/// The folders of an app, shared by its workers.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// The longest path first.
    mounts: Vec<Mount>,
    declared: Vec<MountDecl>,
}

impl Mounts {
    /// Checks what the app declares. A relative folder lies in `base`.
    ///
    /// # Errors
    /// Every mistake, each with its place and the cure.
    pub(crate) fn build(declared: Vec<MountDecl>, base: &Path) -> Result<Mounts, Vec<String>> {
        let mut mounts: Vec<Mount> = Vec::new();
        let mut mistakes = Vec::new();
        for decl in &declared {
            match Mount::new(decl, base) {
                Err(wrong) => mistakes.extend(wrong),
                Ok(mount) => match mounts.iter().find(|earlier| earlier.prefix == mount.prefix) {
                    Some(earlier) => mistakes.push(format!(
                        "{}: {} already serves a folder ({}); remove one of the two",
                        decl.origin, decl.written, earlier.origin
                    )),
                    None => mounts.push(mount),
                },
            }
        }
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.prefix.len()));
        if mistakes.is_empty() { Ok(Mounts { mounts, declared }) } else { Err(mistakes) }
    }

    /// Warnings about unsafe folders, each with its cure; the app's own files are in `base`.
    pub(crate) fn warnings(&self, base: &Path) -> Vec<String> {
        self.mounts.iter().flat_map(|mount| mount.warnings(base)).collect()
    }

    /// What they were built from.
    pub(crate) fn declared(&self) -> &[MountDecl] {
        &self.declared
    }

    /// The path of each mount, `/assets/{*path}`, and where it is declared.
    pub(crate) fn places(&self) -> impl Iterator<Item = (String, &Origin)> {
        self.mounts.iter().map(|mount| (format!("{}/{{*path}}", mount.prefix), &mount.origin))
    }

    /// The mount for a path, its number, and what of the path lies below it: the most specific one answers.
    fn find<'p>(&self, path: &'p str) -> Option<(usize, &Mount, &'p str)> {
        self.mounts.iter().enumerate().find_map(|(n, mount)| {
            let rest = route::below(&mount.prefix, path)?;
            Some((n, mount, rest))
        })
    }
}

/// How long a folder is used before it is opened again, because it may have been deleted and made again.
const REOPEN: Duration = Duration::from_secs(1);

/// A folder, and when it was opened.
type OpenFolder = (Rc<OwnedFd>, Instant);

/// The files of one worker.
pub(crate) struct Assets {
    mounts: Arc<Mounts>,
    folders: RefCell<Vec<Option<OpenFolder>>>,
    cache: RefCell<Cache>,
}

/// What a path leads to.
enum Found {
    Resource(Rc<Resource>),
    /// A folder with an index, without the slash behind its name.
    Folder,
    Missing,
    Answer(Response<Body>),
}

impl Assets {
    /// What a worker needs to serve the mounts; `None` where there are none.
    pub(crate) fn new(mounts: Arc<Mounts>) -> Option<Assets> {
        let folders = mounts.mounts.iter().map(|_| None).collect();
        (!mounts.mounts.is_empty()).then(|| Assets {
            mounts,
            folders: RefCell::new(folders),
            cache: RefCell::default(),
        })
    }

    /// Answers a request for a file; `None` where there is none.
    pub(crate) fn answer(&self, head: &Parts) -> Option<Response<Body>> {
        let path = head.uri.path();
        let (n, mount, rest) = self.mounts.find(path)?;
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        match self.find(n, mount, path, rest) {
            Found::Answer(response) => Some(response),
            Found::Missing => {
                let name = mount.fallback.as_deref().filter(|_| reads && wants_page(&head.headers, rest))?;
                let find = || self.look_up(n, mount, &fallback_key(n), name.as_bytes());
                let mut response = self.send_current(n, mount, &fallback_key(n), find(), head, find)?;
                response.headers_mut().append(http::header::VARY, HeaderValue::from_static("Accept"));
                Some(response)
            }
            _ if !reads => Some(method_not_allowed(&head.method)),
            Found::Folder => Some(failure::moved(&format!("{path}/"), head.uri.query())),
            found => self.send_current(n, mount, path, found, head, || self.find(n, mount, path, rest)),
        }
    }

    /// Sends what was found; looks again, once, if the file has changed since it was cached.
    fn send_current(
        &self,
        n: usize,
        mount: &Mount,
        key: &str,
        found: Found,
        head: &Parts,
        find: impl Fn() -> Found,
    ) -> Option<Response<Body>> {
        let resource = match found {
            Found::Resource(resource) => resource,
            Found::Answer(response) => return Some(response),
            Found::Folder | Found::Missing => return None,
        };
        match self.send(n, mount, &resource, head) {
            Err(error) if open::is_missing(error) => {}
            sent => return Some(sent.unwrap_or_else(|error| unavailable(key, error))),
        }
        self.cache.borrow_mut().forget(key);
        match find() {
            Found::Resource(resource) => match self.send(n, mount, &resource, head) {
                Err(error) if open::is_missing(error) => None,
                sent => Some(sent.unwrap_or_else(|error| unavailable(key, error))),
            },
            Found::Answer(response) => Some(response),
            Found::Folder | Found::Missing => None,
        }
    }

    fn find(&self, n: usize, mount: &Mount, path: &str, rest: &str) -> Found {
        let now = Instant::now();
        if let Known::Fresh(resource) = self.cache.borrow_mut().get(path, now) {
            return Found::Resource(resource);
        }
        let Relative { mut name, is_folder } = match Relative::parse(rest, mount.dotfiles) {
            Ok(relative) => relative,
            Err(Refused::Unsafe) => return Found::Missing,
            Err(Refused::BadEncoding) => {
                let message = "the path holds broken percent-encoding";
                return Found::Answer(failure::with_message(StatusCode::BAD_REQUEST, message));
            }
        };
        if !is_folder {
            return self.look_up(n, mount, path, &name);
        }
        let Some(index) = &mount.index else { return Found::Missing };
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(index.as_bytes());
        match self.look_up(n, mount, path, &name) {
            Found::Folder => Found::Missing,
            found => found,
        }
    }

    /// Looks `name` up; `key` is its key in the cache.
    fn look_up(&self, n: usize, mount: &Mount, key: &str, name: &[u8]) -> Found {
        let now = Instant::now();
        let previous = match self.cache.borrow_mut().get(key, now) {
            Known::Fresh(resource) => return Found::Resource(resource),
            Known::Old(resource) => Some(resource),
            Known::Nothing => None,
        };
        let folder = match self.folder(n, mount, now) {
            Ok(folder) => folder,
            Err(error) => return refused(key, error),
        };
        match Resource::load(&folder, mount, name, previous.as_deref()) {
            Ok(Loaded::Resource(resource)) => {
                self.cache.borrow_mut().put(key, &resource, now);
                Found::Resource(resource)
            }
            Ok(Loaded::Folder) => {
                self.cache.borrow_mut().forget(key);
                let Some(index) = &mount.index else { return Found::Missing };
                let separator: &[u8] = if name.is_empty() { b"" } else { b"/" };
                let index = [name, separator, index.as_bytes()].concat();
                match open::below(&folder, &index, mount.dotfiles) {
                    Ok(open::Opened::File(..)) => Found::Folder,
                    Ok(open::Opened::Folder) => Found::Missing,
                    Err(error) => refused(key, error),
                }
            }
            Err(error) => {
                self.cache.borrow_mut().forget(key);
                refused(key, error)
            }
        }
    }

    /// The open folder of a mount.
    ///
    /// # Errors
    /// What the system says; it has been logged.
    fn folder(&self, n: usize, mount: &Mount, now: Instant) -> Result<Rc<OwnedFd>, Errno> {
        let mut folders = self.folders.borrow_mut();
        let slot = folders.get_mut(n).ok_or(Errno::NOENT)?;
        if let Some((folder, opened)) = slot
            && now.saturating_duration_since(*opened) < REOPEN
        {
            return Ok(folder.clone());
        }
        match open::folder(&mount.folder) {
            Ok(folder) => {
                let folder = Rc::new(folder);
                *slot = Some((folder.clone(), now));
                Ok(folder)
            }
            Err(error) => {
                *slot = None;
                log::event(Level::Error, "cannot open a folder of static files")
                    .field("folder", &*mount.folder.to_string_lossy())
                    .field("error", &*std::io::Error::from(error).to_string())
                    .emit();
                Err(error)
            }
        }
    }
}

/// What the fallback of a mount is remembered by. No path has such a name.
fn fallback_key(n: usize) -> String {
    format!("fallback {n}")
}

/// Whether a path that leads nowhere may be one of a page that the client's own code shows: the client asks for HTML, or
/// for anything under a name that does not look like a file's.
fn wants_page(headers: &HeaderMap, rest: &str) -> bool {
    let last = rest.rsplit('/').next().unwrap_or(rest);
    let (mut html, mut anything) = (None, !headers.contains_key(ACCEPT));
    for element in headers.get_all(ACCEPT).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b',')) {
        let mut parts = element.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let range = parts.next().unwrap_or_default();
        let is_taken = !parts.any(is_no_weight);
        if range.eq_ignore_ascii_case(b"text/html") {
            html = Some(is_taken);
        } else if range == b"*/*" {
            anything = is_taken;
        }
    }
    html.unwrap_or(anything && !last.contains('.'))
}

/// Whether a parameter is the weight of what is not acceptable: `q=0` (RFC 9110, section 12.4.2).
fn is_no_weight(parameter: &[u8]) -> bool {
    match parameter {
        [b'q' | b'Q', b'=', b'0', rest @ ..] => rest.iter().all(|byte| b".0".contains(byte)),
        _ => false,
    }
}

/// Handles a name that cannot be opened: not found if it does not exist or may not be read.
#[cold]
fn refused(path: &str, error: Errno) -> Found {
    match error {
        error if open::is_missing(error) => Found::Missing,
        Errno::ACCESS => {
            tell(path, error);
            Found::Missing
        }
        error => Found::Answer(unavailable(path, error)),
    }
}

/// Any other error does not mean that the file does not exist; it may be available a moment later.
#[cold]
fn unavailable(path: &str, error: Errno) -> Response<Body> {
    tell(path, error);
    failure::answer(StatusCode::SERVICE_UNAVAILABLE)
}

fn tell(path: &str, error: Errno) {
    log::event(Level::Error, "cannot open a file")
        .field("path", path)
        .field("error", &*std::io::Error::from(error).to_string())
        .emit();
}

#[cold]
fn method_not_allowed(method: &Method) -> Response<Body> {
    let mut response = match *method {
        Method::OPTIONS => {
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        _ => failure::answer(StatusCode::METHOD_NOT_ALLOWED),
    };
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}
