//! The query, decoded as a form (`application/x-www-form-urlencoded`) sends it.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use smallvec::SmallVec;

use crate::lua::{Raise, Returns, Stack};

use super::lookup::{keep, push_cached};
use super::{Contexts, cached, ticket};

/// The pairs of a query, the last one first. A key without `=` has an empty value; broken percent-encoding is kept as
/// it was sent.
///
/// Queries are short: a plain loop over their bytes finds the separators sooner than `memchr` is set up.
fn pairs_backwards(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    let pairs = query.as_bytes().rsplit(|&byte| byte == b'&');
    pairs.filter(|pair| !pair.is_empty()).map(|pair| match pair.iter().position(|&byte| byte == b'=') {
        Some(at) => (decode(&pair[..at]), decode(&pair[at + 1..])),
        None => (decode(pair), Cow::Borrowed(&[][..])),
    })
}

#[inline]
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().any(|&byte| byte == b'+' || byte == b'%') { decode_escapes(text) } else { Cow::Borrowed(text) }
}

#[cold]
fn decode_escapes(text: &[u8]) -> Cow<'_, [u8]> {
    let spaced: Vec<u8> = text.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// The keys that a table of the query gets room for at once.
const ROOM_MOST: usize = 64;

/// `ctx:query()`: each key's first value.
pub(super) fn query(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let ticket = ticket(stack, contexts, "query()")?;
    if push_cached(stack, cached::QUERY) {
        return Ok(1);
    }
    let request = contexts.requests.get(ticket)?;
    let query = request.head.uri.query().unwrap_or("");
    let room = match query {
        "" => 0,
        _ => query.bytes().filter(|&byte| byte == b'&').count() + 1,
    };
    stack.push_table(0, room.min(ROOM_MOST));
    let table = stack.top();
    // Backwards, so that the first value of a key is the one that stays.
    for (key, value) in pairs_backwards(query) {
        stack.push_bytes(&key);
        stack.push_bytes(&value);
        stack.set_field(table);
    }
    keep(stack, cached::QUERY);
    Ok(1)
}

/// `ctx:queries(name)`: all values of one key, as an array.
pub(super) fn queries(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let ticket = ticket(stack, contexts, "queries(name)")?;
    let request = contexts.requests.get(ticket)?;
    let Some(name) = stack.bytes(2).map(<[u8]>::to_vec) else {
        return Err(Raise::mistake(format!("ctx:queries expects a name as a string, got {}", stack.kind(2).name())));
    };
    let query = request.head.uri.query().unwrap_or("");
    let mut values: SmallVec<[Cow<'_, [u8]>; 4]> = SmallVec::new();
    values.extend(pairs_backwards(query).filter(|(key, _)| **key == *name).map(|(_, value)| value));
    contexts.vocabulary.push_array(stack, values.len());
    let table = stack.top();
    for (n, value) in (1..).zip(values.iter().rev()) {
        stack.push_bytes(value);
        stack.set_item(table, n);
    }
    Ok(1)
}
