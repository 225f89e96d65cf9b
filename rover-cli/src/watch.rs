//! Watches an app's files. Comes in: a server's handle. Goes out: reloads when a file has changed. Must not know: how a
//! reload works.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{self, Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::{Mutex, MutexGuard};
use rover_server::Control;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// For how long no file may change before the app is reloaded: editors and version control write several files.
const QUIET: Duration = Duration::from_millis(100);

/// How long a reload waits for quiet, at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a folder is tried again that could not be watched.
const RETRY: Duration = Duration::from_secs(1);

/// How far the clock of a file system may be behind.
const TICK: Duration = Duration::from_millis(20);

/// The most links that are followed on one path, as the kernel's own.
const MOST_LINKS: usize = 40;

/// Watches for changes of an app's Lua files. It watches folders and not files, because editors replace a file by
/// another of its name; and all folders on the way, because each of them may be replaced too, or be a link that is
/// redirected.
pub(crate) struct Watch {
    control: Control,
    watcher: RecommendedWatcher,
    notice: mpsc::Sender<()>,
    changes: mpsc::Receiver<()>,
    known: Arc<Mutex<Known>>,
    /// The folders under watch, each with its device and inode.
    folders: BTreeMap<PathBuf, (u64, u64)>,
    /// Why an existing folder is not watched.
    trouble: Option<String>,
}

impl Watch {
    /// # Errors
    /// The system cannot watch files.
    pub(crate) fn start(control: Control) -> notify::Result<Watch> {
        // One waiting notice is enough.
        let (notice, changes) = mpsc::channel(1);
        let known = Arc::new(Mutex::new(Known::default()));
        let (shared, own) = (known.clone(), notice.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| shared.lock().note(&event)) {
                let _ = own.try_send(());
            }
        })?;
        let mut watch = Watch { control, watcher, notice, changes, known, folders: BTreeMap::new(), trouble: None };
        watch.look();
        Ok(watch)
    }

    /// Reloads whenever files have changed; never ends by itself.
    pub(crate) async fn run(mut self) {
        while self.change().await {
            let latest = Instant::now() + PATIENCE;
            while let Ok(Some(())) = timeout_at((Instant::now() + QUIET).min(latest), self.changes.recv()).await {
                if Instant::now() >= latest {
                    break;
                }
            }
            // Before the files are read, so that changes in a new folder are seen from here on.
            self.look();
            let began = SystemTime::now() - TICK;
            // What goes wrong is in the log.
            let _ = self.control.reload().await;
            // Files that the app has looked for only now may have changed in between.
            if self.look().iter().any(|way| has_changed(way, began)) {
                let _ = self.notice.try_send(());
            }
        }
    }

    /// Waits for a change. Retries folders that cannot be watched yet, whose contents may have changed by the time they
    /// are. False if there will be no change.
    async fn change(&mut self) -> bool {
        while self.trouble.is_some() {
            if let Ok(change) = timeout_at(Instant::now() + RETRY, self.changes.recv()).await {
                return change.is_some();
            }
            self.look();
            if self.trouble.is_none() {
                return true;
            }
        }
        self.changes.recv().await.is_some()
    }

    /// Watches the folders of the files that the app has looked for so far. Returns the names that it depends on since
    /// then.
    fn look(&mut self) -> Vec<PathBuf> {
        let mut names = Names::default();
        for file in self.control.files() {
            names.add(&file);
        }
        let changed = std::mem::take(&mut self.known().changed);
        // The watch of a moved folder has moved with it, or has ended.
        let is_stale = |folder: &PathBuf, own: &(u64, u64)| {
            changed.contains(folder) || !names.folders.contains(folder) || identity(folder) != Some(*own)
        };
        let (folders, watcher) = (&mut self.folders, &mut self.watcher);
        folders.retain(|folder, own| {
            let goes_on = !is_stale(folder, own);
            if !goes_on {
                let _ = watcher.unwatch(folder);
            }
            goes_on
        });
        let before = self.trouble.take();
        for folder in &names.folders {
            if self.folders.contains_key(folder) {
                continue;
            }
            let Some(own) = identity(folder) else { continue };
            match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.folders.insert(folder.clone(), own);
                }
                // It has gone just now.
                Err(_) if identity(folder).is_none() => {}
                Err(error) => self.trouble = Some(format!("{}: {error}", folder.display())),
            }
        }
        if let Some(trouble) = self.trouble.as_ref().filter(|trouble| before.as_ref() != Some(*trouble)) {
            let _ = writeln!(io::stderr(), "rover: cannot watch a folder, trying again: {trouble}");
        }
        let mut known = self.known();
        let learnt = names.ways.difference(&known.names.ways).cloned().collect();
        known.names = names;
        learnt
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

/// What the watcher's thread must know, and what it has seen.
#[derive(Default)]
struct Known {
    names: Names,
    /// The names that have changed since the last look.
    changed: BTreeSet<PathBuf>,
}

impl Known {
    /// Notes an event; returns whether it may have changed the app.
    fn note(&mut self, event: &Event) -> bool {
        let matters = self.names.concern(event);
        if matters {
            self.changed.extend(event.paths.iter().filter(|path| self.names.ways.contains(*path)).cloned());
        }
        matters
    }
}

/// Whether what is at `path` came there, or has changed, since `time`.
fn has_changed(path: &Path, time: SystemTime) -> bool {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let changed =
        |file: fs::Metadata| Some((u64::try_from(file.ctime()).ok()?, u32::try_from(file.ctime_nsec()).ok()?));
    let changed = fs::symlink_metadata(path).ok().and_then(changed);
    changed.is_some_and(|(seconds, nanos)| Duration::new(seconds, nanos) >= since)
}

/// Which folder there is at `path`.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|folder| (folder.dev(), folder.ino()))
}

/// What an app's files depend on.
#[derive(Default)]
struct Names {
    /// Every name on the way to a file: of folders, of links, and its own. Only the last part may be a link.
    ways: BTreeSet<PathBuf>,
    /// The folders of those names.
    folders: BTreeSet<PathBuf>,
    /// Those that hold files of the app.
    own: BTreeSet<PathBuf>,
}

impl Names {
    /// Follows the path to `file` as the system does: along links, up to the first name that does not exist.
    fn add(&mut self, file: &Path) {
        let Ok(whole) = path::absolute(file) else { return };
        let parts = |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
        let mut left: Vec<OsString> = parts(&whole);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop() {
            match Path::new(&part).components().next() {
                Some(Component::Normal(name)) => {
                    let way = at.join(name);
                    self.folders.insert(at.clone());
                    self.ways.insert(way.clone());
                    if left.is_empty() {
                        self.own.insert(at.clone());
                    }
                    match fs::read_link(&way) {
                        Ok(target) if links < MOST_LINKS => {
                            links += 1;
                            left.extend(parts(&target));
                        }
                        _ if way.exists() => at = way,
                        _ => return,
                    }
                }
                Some(Component::ParentDir) => {
                    at.pop();
                }
                Some(Component::RootDir) => at = PathBuf::from("/"),
                _ => {}
            }
        }
    }

    /// Whether something happened that may have changed the app.
    fn concern(&self, event: &Event) -> bool {
        let changes = matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_));
        let is_beside = |path: &Path| {
            path.extension().is_some_and(|own| own == "lua") && path.parent().is_some_and(|at| self.own.contains(at))
        };
        changes && event.paths.iter().any(|path| self.ways.contains(path) || is_beside(path))
    }
}
