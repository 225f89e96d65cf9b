//! Opens what lies below a folder, and nothing else.
//!
//! Comes in: an open folder and a relative name. Goes out: an open regular file with what the system says of it, or that
//! it is a folder, or that there is nothing. A symbolic link is followed as long as it stays below the folder: the kernel
//! checks that while it resolves the name (openat2(2), RESOLVE_BENEATH), so no swap of a link in between can fool it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// What a name leads to.
#[derive(Debug)]
pub(super) enum Opened {
    File(File, Stat),
    Folder,
}

/// Without O_NONBLOCK, opening a pipe would wait for somebody who writes into it.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// How often a look-up is begun again that somebody disturbed by renaming a folder on the way.
const TRIES: usize = 4;

/// Opens a folder to look names up in.
///
/// # Errors
/// What the system says.
pub(super) fn folder(path: &Path) -> Result<OwnedFd, Errno> {
    fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens `name` below `folder`; the empty name is the folder itself.
///
/// # Errors
/// What the system says. [`is_missing`] tells what is as good as nothing.
pub(super) fn below(folder: &OwnedFd, name: &[u8]) -> Result<Opened, Errno> {
    if name.is_empty() {
        return Ok(Opened::Folder);
    }
    let opened = match resolved(folder, name) {
        // An old kernel, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => step_by_step(folder, name)?,
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

fn resolved(folder: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut outcome = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        outcome = fs::openat2(folder, name, READ, Mode::empty(), resolve);
        if !matches!(outcome, Err(Errno::AGAIN)) {
            break;
        }
    }
    outcome
}

/// Where the kernel cannot do it: one segment after the other, none of which may be a link.
fn step_by_step(folder: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let mut at: Option<OwnedFd> = None;
    let mut segments = name.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let flags = match segments.peek() {
            Some(_) => OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            None => READ,
        };
        let from = at.as_ref().map_or(folder.as_fd(), AsFd::as_fd);
        at = Some(fs::openat(from, segment, flags | OFlags::NOFOLLOW, Mode::empty())?);
    }
    at.ok_or(Errno::NOENT)
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
    fn links_stay_below_and_the_fallback_follows_none() {
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

        let found = |name: &str| matches!(below(&folder, name.as_bytes()), Ok(Opened::File(..)));
        assert!(found("css/a.css") && found("css/beside") && found("css/up/css/a.css"));
        for name in
            ["css/out", "css/absolute", "css/up/../secret", "css/loop", "css/nothing", "css/a.css/x", "css/pipe"]
        {
            let error = below(&folder, name.as_bytes()).unwrap_err();
            assert!(is_missing(error), "{name}: {error}");
        }
        assert!(matches!(below(&folder, b"css"), Ok(Opened::Folder)));
        assert!(matches!(below(&folder, b""), Ok(Opened::Folder)));

        assert!(step_by_step(&folder, b"css/a.css").is_ok() && step_by_step(&folder, b"css").is_ok());
        for name in ["css/out", "css/absolute", "css/beside", "css/up/css/a.css", "css/loop", "css/a.css/x"] {
            assert!(step_by_step(&folder, name.as_bytes()).is_err(), "{name}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
