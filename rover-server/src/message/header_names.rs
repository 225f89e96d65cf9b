//! Header names that Lua code writes, remembered in the form that look-ups need, and how many fields a message may have.
//!
//! An app names the same few headers at every request, and a name outside the standard ones costs an allocation to
//! parse. The cache is bounded because a name may come from anywhere, a request's body included.

use std::cell::RefCell;
use std::fmt;
use std::num::NonZeroUsize;

use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName, HeaderValue};
use lru::LruCache;

/// How many names are remembered. An app that uses more loses only the gain.
const MOST: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The longest name that is remembered, in bytes.
const LONGEST: usize = 64;

/// How many names stand in the front row, a power of two.
const FRONT: usize = 32;

/// The most fields that an app may give one message. A [`HeaderMap`] takes 24 576 names and panics at the next one: so
/// there is always room for what Rover and hyper add themselves.
pub(crate) const MOST_FIELDS: usize = 16 * 1024;

/// A message has as many fields as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyFields;

impl fmt::Display for TooManyFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {MOST_FIELDS} header fields")
    }
}

/// Adds a field beside those of the same name.
///
/// # Errors
/// There are as many fields as there may be.
#[inline]
pub(crate) fn append(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> Result<(), TooManyFields> {
    if headers.len() >= MOST_FIELDS {
        return Err(TooManyFields);
    }
    headers.try_append(name, value).map(drop).map_err(|_| TooManyFields)
}

/// Sets a field in place of those of the same name.
///
/// # Errors
/// As for [`append`].
#[inline]
pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> Result<(), TooManyFields> {
    if headers.len() >= MOST_FIELDS {
        return Err(TooManyFields);
    }
    headers.try_insert(name, value).map(drop).map_err(|_| TooManyFields)
}

/// A name as it was written, and parsed.
type KnownName = (Box<[u8]>, HeaderName);

/// The names of one worker.
pub(crate) struct HeaderNames {
    known: RefCell<LruCache<Box<[u8]>, HeaderName, RandomState>>,
    /// Names by the address that they were written at. LuaJIT keeps one copy of equal strings, so the same literal of an
    /// app comes from the same address every time, and comparing the bytes replaces hashing them.
    front: RefCell<[Option<KnownName>; FRONT]>,
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
    fn there_is_always_room_for_a_few_fields_more() {
        let value = HeaderValue::from_static("1");
        let mut headers = HeaderMap::new();
        for n in 0..MOST_FIELDS {
            let name = HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
            assert_eq!(append(&mut headers, name, value.clone()), Ok(()));
        }
        let name = HeaderName::from_static("one-more");
        assert_eq!(append(&mut headers, name.clone(), value.clone()), Err(TooManyFields));
        assert_eq!(set(&mut headers, name, value.clone()), Err(TooManyFields));
        for n in 0..1000 {
            headers.insert(HeaderName::from_bytes(format!("own-{n}").as_bytes()).unwrap(), value.clone());
        }
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
