//! The Lua files of one version of an app, as they were when the version first read them.
//!
//! Every VM of the version consists of the same text, also one that is made later, for a worker that takes the place of
//! another, when the files have changed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

/// A file's name and what is in it.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) file: PathBuf,
    pub(super) code: Arc<[u8]>,
}

/// The files of one version, by what asks for them: the name of a module, or `None` for the app's own file.
type FileTexts = BTreeMap<Option<Vec<u8>>, Text>;

/// What one version has read. Clones are handles to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Code(Arc<Mutex<FileTexts>>);

impl Code {
    /// What the version has read for the module `name`.
    pub(super) fn known(&self, name: Option<&[u8]>) -> Option<Text> {
        self.texts().get(&name.map(<[u8]>::to_vec)).cloned()
    }

    /// What is in the file for the module `name`: what the version has read for it, or else what is there now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(&self, name: Option<&[u8]>, file: &Path) -> io::Result<Text> {
        if let Some(text) = self.known(name) {
            return Ok(text);
        }
        // Not behind the lock: a disk may take its time.
        let text = Text { file: file.to_owned(), code: std::fs::read(file)?.into() };
        Ok(self.texts().entry(name.map(<[u8]>::to_vec)).or_insert(text).clone())
    }

    fn texts(&self) -> MutexGuard<'_, FileTexts> {
        self.0.lock()
    }
}
