//! Comes in: how this process was called. Goes out: where a successor's program is. Must not know: what it is started for.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{self, Path, PathBuf};

/// The path by which this program was called, found in `PATH` where it is only a name. After an upgrade the new program
/// stands there, also where the path is a link to the one of this version. Where that is another file, for a caller may
/// say anything, it is the path of the file that runs.
///
/// # Errors
/// The system does not tell where the program is.
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
