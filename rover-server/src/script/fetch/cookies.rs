//! Reads the cookies of an answer.
//!
//! Comes in: a line of Set-Cookie. Goes out: the name and the value in it (RFC 6265, section 5.2), as `ctx:cookie` would give
//! them to the server.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use rover_lua::{Returns, Stack};

/// `cookie(line)` → name, value; nil where the line has none.
pub(super) fn cookie(stack: &mut Stack<'_>, (): &()) -> Returns {
    let line = stack.bytes(1).unwrap_or_default();
    let Some((name, value)) = parsed(line).map(|(name, value)| (name.to_vec(), value.into_owned())) else {
        stack.push_nil();
        return Ok(1);
    };
    stack.push_bytes(&name);
    stack.push_bytes(&value);
    Ok(2)
}

fn parsed(line: &[u8]) -> Option<(&[u8], Cow<'_, [u8]>)> {
    let pair = &line[..memchr::memchr(b';', line).unwrap_or(line.len())];
    let at = memchr::memchr(b'=', pair)?;
    let (name, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
    let value = match value {
        [b'"', inner @ .., b'"'] => inner,
        bare => bare,
    };
    (!name.is_empty()).then(|| (name, percent_decode(value).into()))
}
