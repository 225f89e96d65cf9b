//! Loads a file as a resource of HTTP: its representations, their validators, and the bytes of small ones.
//!
//! Comes in: an open folder and a name. Goes out: a [`Resource`], read anew or taken over where nothing has changed. Must
//! not know: requests.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderValue;
use rustix::io::Errno;

use super::file_body::read_now;
use super::mount::Mount;
use super::open::{self, Identity, Opened};
use crate::message::coding::Coding;

/// The longest file that is kept in memory, in bytes. Longer ones are read while they are sent.
const SMALL_MOST: u64 = 128 * 1024;

/// A file, and its precompressed siblings.
#[derive(Debug)]
pub(super) struct Resource {
    /// Below the folder.
    pub(super) name: Vec<u8>,
    pub(super) kind: HeaderValue,
    pub(super) cache_control: HeaderValue,
    pub(super) plain: Representation,
    /// The shortest first.
    pub(super) coded: Vec<(Coding, Representation)>,
}

/// One file of a resource.
#[derive(Clone, Debug)]
pub(super) struct Representation {
    pub(super) identity: Identity,
    /// In whole seconds, never in the future (RFC 9110, section 8.8.2.1).
    pub(super) modified: SystemTime,
    pub(super) etag: HeaderValue,
    pub(super) last_modified: HeaderValue,
    /// The file rested for a while before it was read: a change since then shows in its identity. One that changes twice
    /// within a tick of the file system's clock looks the same as before.
    is_settled: bool,
    /// `None` for a file that is read while it is sent.
    pub(super) bytes: Option<Bytes>,
}

/// What a name leads to.
pub(super) enum Loaded {
    Resource(Rc<Resource>),
    Folder,
}

impl Resource {
    /// Looks `name` up in `folder`. What `previous` holds in memory is used again where it is still true.
    ///
    /// # Errors
    /// What the system says; a sibling that is not there, or that nobody may read, is none.
    pub(super) fn load(
        folder: &OwnedFd,
        mount: &Mount,
        name: &[u8],
        previous: Option<&Resource>,
    ) -> Result<Loaded, Errno> {
        let (file, identity) = match open::below(folder, name, mount.dotfiles)? {
            Opened::Folder => return Ok(Loaded::Folder),
            Opened::File(file, stat) => (file, Identity::of(&stat)),
        };
        let same = |coding: Option<Coding>, identity: &Identity| {
            previous.and_then(|previous| previous.representation(coding)).filter(|known| known.identity == *identity)
        };
        let plain = Representation::of(&file, identity, None, same(None, &identity));
        let mut coded = Vec::new();
        for coding in Coding::ALL.into_iter().filter(|_| mount.precompressed) {
            let (file, identity) = match open::below(folder, &sibling(name, coding), mount.dotfiles) {
                Ok(Opened::File(file, stat)) => (file, Identity::of(&stat)),
                Ok(Opened::Folder) => continue,
                Err(error) if open::is_missing(error) || error == Errno::ACCESS => continue,
                Err(error) => return Err(error),
            };
            if identity.length < plain.identity.length {
                let known = same(Some(coding), &identity);
                coded.push((coding, Representation::of(&file, identity, Some(coding), known)));
            }
        }
        coded.sort_by_key(|(_, representation)| representation.identity.length);
        Ok(Loaded::Resource(Rc::new(Resource {
            name: name.to_vec(),
            kind: kind(mount, name),
            cache_control: mount.caching.of(name),
            plain,
            coded,
        })))
    }

    /// The file in a coding, or as it is.
    pub(super) fn representation(&self, coding: Option<Coding>) -> Option<&Representation> {
        match coding {
            None => Some(&self.plain),
            Some(coding) => self.coded.iter().find(|(own, _)| *own == coding).map(|(_, found)| found),
        }
    }

    /// The name of the file in a coding.
    pub(super) fn name_in(&self, coding: Option<Coding>) -> Vec<u8> {
        coding.map_or_else(|| self.name.clone(), |coding| sibling(&self.name, coding))
    }

    /// How many bytes it keeps in memory, about.
    pub(super) fn held(&self) -> usize {
        let of = |one: &Representation| one.bytes.as_ref().map_or(0, Bytes::len);
        of(&self.plain) + self.coded.iter().map(|(_, one)| of(one)).sum::<usize>()
    }

    #[cfg(test)]
    pub(super) fn of_bytes(bytes: Bytes) -> Resource {
        let file = File::open("/dev/null").unwrap();
        let identity = Identity::of(&rustix::fs::fstat(&file).unwrap());
        let plain = Representation { bytes: Some(bytes), ..Representation::of(&file, identity, None, None) };
        let value = HeaderValue::from_static("x");
        Resource { name: Vec::new(), kind: value.clone(), cache_control: value, plain, coded: Vec::new() }
    }
}

impl Representation {
    fn of(file: &File, identity: Identity, coding: Option<Coding>, known: Option<&Representation>) -> Representation {
        if let Some(known) = known.filter(|known| match known.bytes {
            Some(_) => known.is_settled,
            None => identity.length > SMALL_MOST,
        }) {
            return known.clone();
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let seconds = u64::try_from(identity.modified.0).unwrap_or(0).min(now);
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let suffix = coding.map_or_else(String::new, |coding| format!("-{}", coding.name()));
        let etag = format!("\"{:x}-{:x}.{:x}{suffix}\"", identity.length, identity.modified.0, identity.modified.1);
        let text = |text: String| HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        Representation {
            identity,
            modified,
            etag: text(etag),
            last_modified: text(httpdate::fmt_http_date(modified)),
            is_settled: identity.has_rested(now),
            bytes: read_small(file, identity.length),
        }
    }
}

/// The bytes of a small file, where they are in the system's memory or cannot be waited for elsewhere.
fn read_small(file: &File, length: u64) -> Option<Bytes> {
    if length > SMALL_MOST {
        return None;
    }
    let mut bytes = vec![0; length as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        let space = &mut bytes[filled..];
        let read = match read_now(file, space, filled as u64) {
            // The file system cannot tell what it has in memory, or has nothing but memory.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.read_at(space, filled as u64).ok()?,
            read => read.ok()?,
        };
        if read == 0 {
            // It has become shorter meanwhile.
            return None;
        }
        filled += read;
    }
    Some(bytes.into())
}

fn sibling(name: &[u8], coding: Coding) -> Vec<u8> {
    let extension: &[u8] = match coding {
        Coding::Zstd => b".zst",
        Coding::Br => b".br",
        Coding::Gzip => b".gz",
    };
    [name, extension].concat()
}

/// The content type by the extension. Text is UTF-8.
fn kind(mount: &Mount, name: &[u8]) -> HeaderValue {
    let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
    let extension = match memchr::memrchr(b'.', file) {
        Some(dot) => String::from_utf8_lossy(&file[dot + 1..]).to_ascii_lowercase(),
        None => String::new(),
    };
    if let Some(kind) = mount.types.get(&extension) {
        return kind.clone();
    }
    let guess = match mime_guess::from_ext(&extension).first_raw() {
        // RFC 9239, section 6.
        Some("application/javascript") => "text/javascript",
        Some(guess) => guess,
        None => "application/octet-stream",
    };
    if guess.starts_with("text/") {
        let text = format!("{guess}; charset=utf-8");
        return HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("text/plain"));
    }
    HeaderValue::from_static(guess)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_trusted_once_the_file_has_rested() {
        let path = std::env::temp_dir().join(format!("rover-resource-{}", std::process::id()));
        std::fs::write(&path, "new").unwrap();
        let file = File::open(&path).unwrap();
        let identity = Identity::of(&rustix::fs::fstat(&file).unwrap());
        let read = Representation::of(&file, identity, None, None);
        assert!(!read.is_settled, "it was written just now");
        let known = |is_settled| Representation { bytes: Some("old".into()), is_settled, ..read.clone() };
        let bytes = |known: &Representation| Representation::of(&file, identity, None, Some(known)).bytes.unwrap();
        assert_eq!(bytes(&known(true)), "old");
        assert_eq!(bytes(&known(false)), "new", "a second change may look like the first");
        std::fs::remove_file(&path).unwrap();
    }
}
