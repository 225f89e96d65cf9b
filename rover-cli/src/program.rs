//! Finds the program for a successor. Comes in: how this process was called. Goes out: a path. Must not know: what it
//! is started for.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{self, Path, PathBuf};

/// Returns the path by which this program was called, looked up in `PATH` if it is only a name. After an upgrade the
/// new program is there, even if the path is a link to this version's. If that is not this program, because a caller
/// may pass any name, returns the path of the running file.
///
/// # Errors
/// The system does not say where the program is.
pub(crate) fn find() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(called().filter(|called| is_running(called)).unwrap_or(own))
}

fn called() -> Option<PathBuf> {
    let name = PathBuf::from(std::env::args_os().next()?);
    if name.components().count() > 1 {
        return path::absolute(name).ok();
    }
    let folders = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&folders).map(|folder| folder.join(&name)).find(|file| is_running(file))?;
    path::absolute(found).ok()
}

/// Whether this process runs the program at `path`.
fn is_running(path: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    identity(path).is_some_and(|file| Some(file) == identity(Path::new("/proc/self/exe")))
}
