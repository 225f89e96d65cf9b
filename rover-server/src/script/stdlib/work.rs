//! Does the file work of `rover.fs`, on threads that may block. Knows nothing of Lua.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::blocking::words;

/// The most names in a listing.
const MOST_NAMES: usize = 1_000_000;

/// What is known of a file.
pub(super) struct Stat {
    pub(super) kind: &'static str,
    /// Bytes.
    pub(super) size: f64,
    /// Seconds since 1970.
    pub(super) modified: f64,
    /// The permissions.
    pub(super) mode: f64,
}

fn about(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {}", path.display(), words(&error))
}

/// The content of a file of at most `limit` bytes.
pub(super) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let too_large = || format!("{}: larger than {limit} bytes", path.display());
    let file = File::open(path).map_err(about(path))?;
    let size = file.metadata().map_err(about(path))?.len();
    if size > limit as u64 {
        return Err(too_large());
    }
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // It may grow meanwhile, or be no file with a size at all.
    file.take(limit as u64 + 1).read_to_end(&mut content).map_err(about(path))?;
    if content.len() > limit { Err(too_large()) } else { Ok(content) }
}

/// Writes a file, in place of what was in it.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    fs::write(path, content).map_err(about(path))
}

/// Writes behind what is in a file.
pub(super) fn append(path: &Path, content: &[u8]) -> Result<(), String> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(content)).map_err(about(path))
}

/// Writes a file beside `path` and renames it, so that nobody ever sees half of it, even after a crash.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), String> {
    let target = follow(path).map_err(about(path))?;
    let (temporary, mut file) = create_beside(&target).map_err(about(path))?;
    let result = (|| {
        match fs::metadata(&target) {
            Ok(known) => file.set_permissions(known.permissions())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, &target)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(about(path))
}

/// Where a write to `path` would go: through links, also to a file that does not exist yet.
fn follow(path: &Path) -> io::Result<PathBuf> {
    /// As the kernel's own.
    const MOST_LINKS: usize = 40;
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        known => return known,
    }
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(next) = fs::read_link(&target) else { return Ok(target) };
        target = target.parent().unwrap_or(Path::new("")).join(next);
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// A new file in the folder of `target`, hidden.
fn create_beside(target: &Path) -> io::Result<(PathBuf, File)> {
    const ATTEMPTS: usize = 8;
    if target.file_name().is_none() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut last = io::ErrorKind::AlreadyExists.into();
    for _ in 0..ATTEMPTS {
        // Without the name of the target, which may be as long as names are allowed to be.
        let path = target.with_file_name(format!(".rover-{:016x}.tmp", fastrand::u64(..)));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// What there is at `path`, or what a link there leads to.
pub(super) fn stat(path: &Path, follow: bool) -> Result<Stat, String> {
    let metadata = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) }.map_err(about(path))?;
    let kind = match metadata.file_type() {
        kind if kind.is_file() => "file",
        kind if kind.is_dir() => "directory",
        kind if kind.is_symlink() => "link",
        _ => "other",
    };
    let modified = metadata.modified().map_err(about(path))?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Stat {
        kind,
        size: metadata.len() as f64,
        modified: modified.as_secs_f64(),
        mode: f64::from(metadata.mode() & 0o7777),
    })
}

/// The names in a folder, in order.
pub(super) fn list(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(about(path))? {
        names.push(entry.map_err(about(path))?.file_name().into_vec());
        if names.len() > MOST_NAMES {
            return Err(format!("{}: more than {MOST_NAMES} names", path.display()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a file, a link, an empty folder, or a folder with all that is in it.
pub(super) fn remove(path: &Path, recursive: bool) -> Result<(), String> {
    let is_folder = fs::symlink_metadata(path).map_err(about(path))?.is_dir();
    match (is_folder, recursive) {
        (true, true) => fs::remove_dir_all(path),
        (true, false) => fs::remove_dir(path),
        (false, _) => fs::remove_file(path),
    }
    .map_err(about(path))
}

/// Makes a folder; with `parents` also those above it, and then it may exist already.
pub(super) fn mkdir(path: &Path, parents: bool) -> Result<(), String> {
    if parents { fs::create_dir_all(path) } else { fs::create_dir(path) }.map_err(about(path))
}
