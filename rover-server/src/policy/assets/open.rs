//! Opens files below a folder, and nothing else.
//!
//! Comes in: an open folder and a relative name. Goes out: an open regular file with what the system says of it, or that
//! it is a folder, or that there is nothing. A name without links on its way is the kernel's matter (openat2(2)). A symbolic link is
//! followed as long as it stays below the folder and leads to nothing hidden: segment by segment, each opened without following
//! anything, so no swap of a link in between can fool it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// The result of opening a name.
#[derive(Debug)]
pub(super) enum Opened {
    File(File, Stat),
    Folder,
}

/// Without O_NONBLOCK, opening a pipe would wait for somebody who writes into it.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// How often a look-up is repeated that was disturbed by the renaming of a folder on the way.
const TRIES: usize = 4;

/// How many links are followed in one look-up, as in the kernel.
const MOST_LINKS: usize = 40;

/// Opens a folder to look names up in.
///
/// # Errors
/// What the system says.
pub(super) fn folder(path: &Path) -> Result<OwnedFd, Errno> {
    fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens `name` below `folder`; the empty name is the folder itself. No link leads to what begins with a dot, unless
/// `dotfiles` says so.
///
/// # Errors
/// What the system says. [`is_missing`] tells what is as good as nothing.
pub(super) fn below(folder: &OwnedFd, name: &[u8], dotfiles: bool) -> Result<Opened, Errno> {
    if name.is_empty() {
        return Ok(Opened::Folder);
    }
    let opened = match resolved(folder, name) {
        // A link on the way. Or an old kernel, or a sandbox that does not know the call.
        Err(Errno::LOOP | Errno::NOSYS | Errno::PERM) => walk(folder, name, dotfiles)?,
        opened => opened?,
    };
    let stat = fs::fstat(&opened)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Opened::File(File::from(opened), stat)),
        FileType::Directory => Ok(Opened::Folder),
        _ => Err(Errno::NOENT),
    }
}

/// Whether an error of [`below`] means that there is nothing to serve under the name.
pub(super) fn is_missing(error: Errno) -> bool {
    matches!(
        error,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG | Errno::INVAL | Errno::NXIO
    )
}

/// # Errors
/// LOOP where there is a link on the way.
fn resolved(folder: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut outcome = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        outcome = fs::openat2(folder, name, READ, Mode::empty(), resolve);
        if !matches!(outcome, Err(Errno::AGAIN)) {
            break;
        }
    }
    outcome
}

/// Goes from segment to segment, and along links.
///
/// # Errors
/// NOENT where a link leads to something hidden, XDEV where one leaves the folder.
#[cold]
fn walk(folder: &OwnedFd, name: &[u8], dotfiles: bool) -> Result<OwnedFd, Errno> {
    let split = |name: &[u8]| name.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
    // The folders down to the one where the next segment is looked for.
    let mut way: Vec<OwnedFd> = Vec::new();
    // The next one last.
    let mut left = split(name);
    let mut links = 0;
    while let Some(segment) = left.pop() {
        match &segment[..] {
            b"" | b"." => continue,
            b".." => {
                way.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            _ => {}
        }
        let at = way.last().map_or(folder.as_fd(), AsFd::as_fd);
        let found = fs::openat(at, &segment[..], OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        match FileType::from_raw_mode(fs::fstat(&found)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = fs::readlinkat(&found, "", Vec::new())?;
                let target = target.as_bytes();
                if target.first() == Some(&b'/') {
                    return Err(Errno::XDEV);
                }
                if !dotfiles && target.split(|byte| *byte == b'/').any(is_hidden) {
                    return Err(Errno::NOENT);
                }
                left.extend(split(target));
            }
            FileType::Directory => way.push(found),
            _ if left.is_empty() => return fs::openat(at, &segment[..], READ | OFlags::NOFOLLOW, Mode::empty()),
            _ => return Err(Errno::NOTDIR),
        }
    }
    match way.pop() {
        Some(folder) => Ok(folder),
        None => folder.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// Whether a link must not lead there. Names that begin with two dots are those of Kubernetes, whose volumes are full of
/// links to `..data`.
fn is_hidden(segment: &[u8]) -> bool {
    segment.first() == Some(&b'.') && !segment.starts_with(b"..") && segment != b"." && segment != b".well-known"
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    pub(super) length: u64,
    /// Seconds and nanoseconds since 1970.
    pub(super) modified: (i64, u64),
    changed: (i64, u64),
}

impl Identity {
    pub(super) fn of(stat: &Stat) -> Identity {
        Identity {
            device: stat.st_dev,
            inode: stat.st_ino,
            length: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl Identity {
    /// Whether the last change is at least a second back, at `now` in seconds since 1970.
    pub(super) fn has_rested(&self, now: u64) -> bool {
        i64::try_from(now).is_ok_and(|now| self.changed.0 < now.saturating_sub(1))
    }
}

/// Whether there is a regular file of this name. Follows links without a check: for what the app's author names.
pub(super) fn is_file(folder: &OwnedFd, name: &str) -> bool {
    let stat = fs::statat(folder, name, AtFlags::empty());
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_leads_to_what_is_hidden() {
        let dir = std::env::temp_dir().join(format!("rover-hidden-{}", std::process::id()));
        for folder in [".git", "..2026", ".well-known", "sub"] {
            std::fs::create_dir_all(dir.join(folder)).unwrap();
            std::fs::write(dir.join(folder).join("file"), "f").unwrap();
        }
        std::fs::write(dir.join(".env"), "e").unwrap();
        for (target, link) in [
            (".env", "env"),
            ("./.env", "dotted"),
            ("../.env", "sub/above"),
            (".git", "git"),
            ("env", "twice"),
            ("sub/above", "deep"),
            ("..2026", "..data"),
            ("..data/file", "mounted"),
            (".well-known/file", "known"),
            ("sub/../sub/file", "around"),
        ] {
            symlink(target, dir.join(link)).unwrap();
        }
        let folder = folder(&dir).unwrap();
        let found = |name: &str, dotfiles| matches!(below(&folder, name.as_bytes(), dotfiles), Ok(Opened::File(..)));
        for name in ["env", "dotted", "sub/above", "git/file", "twice", "deep"] {
            assert!(!found(name, false) && found(name, true), "{name}");
        }
        for name in ["mounted", "known", "around"] {
            assert!(found(name, false), "{name}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn links_stay_below() {
        let dir = std::env::temp_dir().join(format!("rover-open-{}", std::process::id()));
        let inner = dir.join("public/css");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(dir.join("secret"), "s").unwrap();
        std::fs::write(inner.join("a.css"), "a").unwrap();
        symlink("../../secret", inner.join("out")).unwrap();
        symlink(dir.join("secret"), inner.join("absolute")).unwrap();
        symlink("a.css", inner.join("beside")).unwrap();
        symlink("..", inner.join("up")).unwrap();
        symlink("loop", inner.join("loop")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, inner.join("pipe"), Mode::RUSR).unwrap();
        let folder = folder(&dir.join("public")).unwrap();

        let found = |name: &str| matches!(below(&folder, name.as_bytes(), false), Ok(Opened::File(..)));
        assert!(found("css/a.css") && found("css/beside") && found("css/up/css/a.css"));
        for name in
            ["css/out", "css/absolute", "css/up/../secret", "css/loop", "css/nothing", "css/a.css/x", "css/pipe"]
        {
            let error = below(&folder, name.as_bytes(), false).unwrap_err();
            assert!(is_missing(error), "{name}: {error}");
        }
        assert!(matches!(below(&folder, b"css", false), Ok(Opened::Folder)));
        assert!(matches!(below(&folder, b"css/up", false), Ok(Opened::Folder)));
        assert!(matches!(below(&folder, b"", false), Ok(Opened::Folder)));

        // Where the kernel cannot do it.
        for name in ["css/a.css", "css", "css/beside", "css/up/css/a.css"] {
            assert!(walk(&folder, name.as_bytes(), false).is_ok(), "{name}");
        }
        for name in ["css/out", "css/absolute", "css/loop", "css/a.css/x", "css/nothing"] {
            assert!(walk(&folder, name.as_bytes(), false).is_err(), "{name}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
