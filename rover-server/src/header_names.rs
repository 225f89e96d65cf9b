//! Header names that Lua code writes, remembered in the form that look-ups need.
//!
//! An app names the same few headers at every request, and a name outside the standard ones costs an allocation to
//! parse. The cache is bounded because a name may come from anywhere, a request's body included.

use std::cell::RefCell;
use std::num::NonZeroUsize;

use foldhash::fast::RandomState;
use http::HeaderName;
use lru::LruCache;

/// How many names are remembered. An app that uses more loses only the gain.
const MOST: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The longest name that is remembered, in bytes.
const LONGEST: usize = 64;

/// How many names stand in the front row, a power of two.
const FRONT: usize = 32;

/// A name as it was written, and parsed.
type Known = (Box<[u8]>, HeaderName);

/// The names of one worker.
pub(crate) struct HeaderNames {
    known: RefCell<LruCache<Box<[u8]>, HeaderName, RandomState>>,
    /// Names by the address that they were written at. LuaJIT keeps one copy of equal strings, so the same literal of an
    /// app comes from the same address every time, and comparing the bytes replaces hashing them.
    front: RefCell<[Option<Known>; FRONT]>,
}

impl Default for HeaderNames {
    fn default() -> HeaderNames {
        HeaderNames {
            known: RefCell::new(LruCache::with_hasher(MOST, RandomState::default())),
            front: RefCell::default(),
        }
    }
}

impl HeaderNames {
    /// The name that `written` spells in any case; `None` where it is none (RFC 9110, section 5.1).
    #[inline]
    pub(crate) fn get(&self, written: &[u8]) -> Option<HeaderName> {
        // Strings begin at multiples of 8; the bits above tell those of an app apart.
        let place = (written.as_ptr().addr() >> 4) % FRONT;
        if let Some((known, name)) = &self.front.borrow()[place]
            && **known == *written
        {
            return Some(name.clone());
        }
        let name = self.search(written)?;
        if written.len() <= LONGEST {
            self.front.borrow_mut()[place] = Some((written.into(), name.clone()));
        }
        Some(name)
    }

    fn search(&self, written: &[u8]) -> Option<HeaderName> {
        if let Some(name) = self.known.borrow_mut().get(written) {
            return Some(name.clone());
        }
        let name = HeaderName::from_bytes(written).ok()?;
        if written.len() <= LONGEST {
            self.known.borrow_mut().put(written.into(), name.clone());
        }
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_every_spelling_and_nothing_else_is() {
        let names = HeaderNames::default();
        for _ in 0..2 {
            assert_eq!(names.get(b"X-Client").unwrap(), "x-client");
            assert_eq!(names.get(b"x-client").unwrap(), "x-client");
            assert_eq!(names.get(b"Accept").unwrap(), http::header::ACCEPT);
            assert_eq!(names.get(b"not a name"), None);
            assert_eq!(names.get(b""), None);
        }
        assert_eq!(names.known.borrow().len(), 3);
    }

    #[test]
    fn strange_names_do_not_pile_up() {
        let names = HeaderNames::default();
        for n in 0..1000 {
            assert!(names.get(format!("x-{n}").as_bytes()).is_some());
        }
        assert!(names.get(&[b'x'; 1000]).is_some());
        assert_eq!(names.known.borrow().len(), 64);
    }
}
