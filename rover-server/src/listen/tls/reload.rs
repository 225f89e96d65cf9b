//! Reloads certificates when their files have changed, on a separate thread, so that a slow disk does not block a
//! worker.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;

use crate::config::TlsSettings;
use crate::error::Error;
use crate::log::{self, Level};

use super::ServerTls;

/// The thread that watches the files of a [`ServerTls`]. Dropping this ends it.
pub(crate) struct CertificateWatch {
    _end: Sender<()>,
}

/// The state of a file: its time in nanoseconds, length and inode. All zero if it is missing.
pub(super) type FileStamp = (i64, i64, u64, u64);

impl ServerTls {
    /// Starts to watch the files; `None` if the settings turn that off.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub(crate) fn watch(self: &Arc<ServerTls>) -> Result<Option<CertificateWatch>, Error> {
        let interval = self.settings.reload_interval;
        if interval.is_zero() || self.settings.self_signed {
            return Ok(None);
        }
        let (end, ended) = channel::<()>();
        let tls = self.clone();
        let mut known = tls.first_stamps.clone();
        let work = move || {
            let mut told = None;
            while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                tls.look(&mut known, &mut told);
            }
        };
        thread::Builder::new()
            .name("rover-tls".to_owned())
            .spawn(work)
            .map_err(|error| Error::io("cannot start the thread that watches certificates", error))?;
        Ok(Some(CertificateWatch { _end: end }))
    }

    /// Loads the files if they are others than `known`, which are in use. What keeps it from that may be over the next time,
    /// such as that the system has no descriptor to read them with. A failure is logged once for each state of the files.
    fn look(&self, known: &mut Vec<FileStamp>, told: &mut Option<(Vec<FileStamp>, String)>) {
        let stamps = stamps(&self.settings);
        if stamps == *known {
            *told = None;
            return;
        }
        match self.reload() {
            Ok(()) => {
                (*known, *told) = (stamps, None);
                log::event(Level::Info, "the certificates have changed and were loaded again").emit();
            }
            Err(problem) => {
                let failure = Some((stamps, problem.clone()));
                if *told == failure {
                    return;
                }
                *told = failure;
                log::event(Level::Error, "the certificates have changed, and the old ones stay in use")
                    .field("problem", problem.as_str())
                    .emit();
            }
        }
    }
}

/// The state of all files that the settings name.
pub(super) fn stamps(settings: &TlsSettings) -> Vec<FileStamp> {
    let first = [&settings.cert, &settings.key, &settings.client_ca].into_iter().flatten();
    let others = settings.certificates.iter().flat_map(|files| [&files.cert, &files.key]);
    first.chain(others).map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> FileStamp {
    fs::metadata(file).map_or((0, 0, 0, 0), |meta| (meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_state_has_another_stamp() {
        let file = std::env::temp_dir().join(format!("rover-stamp-{}", std::process::id()));
        let missing = stamp(&file);
        fs::write(&file, "one").unwrap();
        let one = stamp(&file);
        fs::write(&file, "three").unwrap();
        let three = stamp(&file);
        fs::remove_file(&file).unwrap();
        assert!(missing != one && one != three && stamp(&file) == missing);
    }
}
