//! Turns a path as sent into the name of a file below a folder.
//!
//! Comes in: the path after the mount's own. Goes out: a relative name that cannot leave the folder and names nothing
//! hidden; `open` handles links. Must not know: files.

/// The name of a file below a folder: segments joined by `/`; empty for the folder itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relative {
    pub(super) name: Vec<u8>,
    /// The path ended in a slash: it names a folder.
    pub(super) is_folder: bool,
}

/// Why a path names no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It could lead out of the folder, or to something hidden: as if there were nothing.
    Unsafe,
    /// A `%` without two hexadecimal digits.
    BadEncoding,
}

/// The longest name that is looked for, in bytes. Linux knows no longer ones.
const LONGEST: usize = 4096;

impl Relative {
    /// Whether `name` is one of a file below the folder as it stands, without any encoding.
    pub(super) fn is_plain(name: &str) -> bool {
        !name.is_empty() && name.split('/').all(|segment| check(segment.as_bytes(), true).is_ok())
    }

    /// Reads `/css/a%20b.css`, or nothing for the folder itself.
    ///
    /// Each segment is decoded once, after the split. One that decodes to `.` or `..`, to nothing, or to something with a
    /// slash, a backslash or a NUL is unsafe; one that begins with a dot is too, unless `dotfiles` lets it through or
    /// it is `.well-known` (RFC 8615).
    pub(super) fn parse(path: &str, dotfiles: bool) -> Result<Relative, Refused> {
        let Some(path) = path.strip_prefix('/') else {
            return match path {
                "" => Ok(Relative { name: Vec::new(), is_folder: false }),
                _ => Err(Refused::Unsafe),
            };
        };
        if path.len() > LONGEST {
            return Err(Refused::Unsafe);
        }
        if path.is_empty() {
            return Ok(Relative { name: Vec::new(), is_folder: true });
        }
        let (path, is_folder) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        let mut name = Vec::with_capacity(path.len());
        for segment in path.split('/') {
            if !name.is_empty() {
                name.push(b'/');
            }
            let start = name.len();
            decode(segment, &mut name)?;
            check(&name[start..], dotfiles)?;
        }
        Ok(Relative { name, is_folder })
    }
}

fn decode(segment: &str, out: &mut Vec<u8>) -> Result<(), Refused> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(Refused::BadEncoding);
        let value = digit()? * 16 + digit()?;
        out.push(value as u8);
    }
    Ok(())
}

fn check(segment: &[u8], dotfiles: bool) -> Result<(), Refused> {
    let is_unsafe = matches!(segment, b"" | b"." | b"..") || segment.iter().any(|byte| b"/\\\0".contains(byte));
    let is_hidden = segment.first() == Some(&b'.') && !dotfiles && segment != b".well-known";
    if is_unsafe || is_hidden { Err(Refused::Unsafe) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &str) -> Result<(String, bool), Refused> {
        Relative::parse(path, false).map(|relative| (String::from_utf8(relative.name).unwrap(), relative.is_folder))
    }

    #[test]
    fn names_below_the_folder() {
        for (path, expected, is_folder) in [
            ("", "", false),
            ("/", "", true),
            ("/a.css", "a.css", false),
            ("/css/a%20b.css", "css/a b.css", false),
            ("/docs/", "docs", true),
            ("/%C3%A9", "é", false),
            ("/a..b/c...%2e", "a..b/c....", false),
            ("/.well-known/security.txt", ".well-known/security.txt", false),
            ("/100%2525", "100%25", false),
        ] {
            assert_eq!(name(path), Ok((expected.to_owned(), is_folder)), "{path}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for path in [
            "/..",
            "/../x",
            "/a/../x",
            "/a/..",
            "/.",
            "/./x",
            "//x",
            "/a//x",
            "//",
            "/%2e%2e/x",
            "/%2E./x",
            "/.%2e",
            "/a%2fb",
            "/..%2fx",
            "/a%5cb",
            "/a\\b",
            "/..\\x",
            "/a%00.css",
            "/.git/config",
            "/a/.env",
            "/%2egit",
            "x",
        ] {
            assert_eq!(name(path), Err(Refused::Unsafe), "{path}");
        }
        for path in ["/%", "/%4", "/%zz", "/a%2"] {
            assert_eq!(name(path), Err(Refused::BadEncoding), "{path}");
        }
        assert_eq!(name(&format!("/{}", "a".repeat(5000))), Err(Refused::Unsafe));
    }

    #[test]
    fn dot_files_on_request() {
        assert!(Relative::parse("/.git/config", true).is_ok());
        for path in ["/..", "/.", "/%2e%2e/x"] {
            assert_eq!(Relative::parse(path, true), Err(Refused::Unsafe));
        }
    }
}
