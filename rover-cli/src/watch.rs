//! Comes in: a server's handle. Goes out: reloads when a file of its app has changed. Must not know: how a reload works.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use rover_server::Control;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// For how long no file may change before the app is reloaded: editors and version control write several files.
const QUIET: Duration = Duration::from_millis(100);

/// How long a reload waits for quiet, at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches the folders of an app's Lua files. Folders and not files: editors replace a file by another of its name.
pub(crate) struct Watch {
    control: Control,
    watcher: RecommendedWatcher,
    changes: mpsc::Receiver<()>,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    /// # Errors
    /// The system cannot watch files.
    pub(crate) fn start(control: Control) -> notify::Result<Watch> {
        // One waiting notice is as good as many.
        let (notice, changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| matters(&event)) {
                let _ = notice.try_send(());
            }
        })?;
        let mut watch = Watch { control, watcher, changes, folders: BTreeSet::new() };
        watch.look_for_folders();
        Ok(watch)
    }

    /// Reloads whenever files have changed; never ends by itself.
    pub(crate) async fn run(mut self) {
        while self.changes.recv().await.is_some() {
            let latest = Instant::now() + PATIENCE;
            while let Ok(Some(())) = timeout_at((Instant::now() + QUIET).min(latest), self.changes.recv()).await {
                if Instant::now() >= latest {
                    break;
                }
            }
            // What goes wrong is in the log.
            let _ = self.control.reload().await;
            self.look_for_folders();
        }
    }

    /// Watches the folders of files that the app has loaded since the last look.
    fn look_for_folders(&mut self) {
        for file in self.control.files() {
            let folder = match file.parent() {
                Some(folder) if folder != Path::new("") => folder.to_owned(),
                _ => PathBuf::from("."),
            };
            if !self.folders.contains(&folder) && self.watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok() {
                self.folders.insert(folder);
            }
        }
    }
}

/// Whether something happened that may have changed the app.
fn matters(event: &Event) -> bool {
    let changes = matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_));
    changes && event.paths.iter().any(|path| path.extension().is_some_and(|own| own == "lua"))
}
