//! Migrations as their files have them, and as the ledger of a database does.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::error::Outage;

/// What a file says that is not to be run in a transaction.
const NO_TRANSACTION: &str = "-- rover: no transaction";

/// A migration as its file has it.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The name of its file without `.sql`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub(crate) text: String,
    /// SHA-256 of the text, whatever its line ends are.
    pub(crate) checksum: String,
    /// What undoes it, where there is something.
    pub(crate) down: Option<(PathBuf, String)>,
}

impl Migration {
    pub(crate) fn has_transaction(&self) -> bool {
        has_transaction(&self.text)
    }
}

/// A row of the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) checksum: String,
    pub(crate) applied_at: String,
}

/// Whether a file is to be run in a transaction: it does not say otherwise in the comments that it begins with.
pub(crate) fn has_transaction(text: &str) -> bool {
    let mut comments = text.lines().map(str::trim).take_while(|line| line.is_empty() || line.starts_with("--"));
    !comments.any(|line| line.eq_ignore_ascii_case(NO_TRANSACTION))
}

pub(crate) fn text(path: &Path) -> Result<String, Error> {
    let cannot = |why: String| Error::mistake(format!("{}: {why}", path.display()));
    let bytes = fs::read(path).map_err(|error| cannot(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8".to_owned()))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn checksum(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.replace("\r\n", "\n").as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a folder's migrations, in order. A folder that is not there has none.
///
/// # Errors
/// It cannot be read, or a `.down.sql` has nothing to undo.
pub fn read(folder: &Path) -> Result<Vec<Migration>, Error> {
    let cannot = |error: std::io::Error| Error::outage(Outage::CannotOpen, format!("{}: {error}", folder.display()));
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(cannot)?,
    };
    let (mut found, mut downs) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = name.strip_suffix(".sql").filter(|name| !name.starts_with('.') && !name.is_empty()) else {
            continue;
        };
        match name.strip_suffix(".down") {
            Some(undone) => downs.push((undone.to_owned(), path)),
            None => {
                let (name, text) = (name.to_owned(), text(&path)?);
                found.push(Migration { name, checksum: checksum(&text), path, text, down: None });
            }
        }
    }
    for (name, path) in downs {
        let Some(up) = found.iter_mut().find(|up| up.name == name) else {
            return Err(Error::mistake(format!("{}: there is no {name}.sql that it would undo", path.display())));
        };
        up.down = Some((path.clone(), text(&path)?));
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Makes an empty migration behind the others, and tells where it is.
///
/// # Errors
/// `name` is no name for a file, or the file cannot be written.
pub fn create(folder: &Path, name: &str) -> Result<PathBuf, Error> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(Error::mistake("a migration's name has letters, digits, _ and -, such as add_users"));
    }
    let cannot = |path: &Path, error: std::io::Error| Error::mistake(format!("{}: {error}", path.display()));
    fs::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
    let known = read(folder)?;
    let digits = |name: &str| name.chars().take_while(char::is_ascii_digit).count();
    let last =
        known.iter().filter_map(|known| known.name[..digits(&known.name)].parse::<u64>().ok()).max().unwrap_or(0);
    let width = known.iter().map(|known| digits(&known.name)).max().unwrap_or(0).max(4);
    let path = folder.join(format!("{:0width$}_{name}.sql", last + 1));
    fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| cannot(&path, error))?;
    Ok(path)
}
