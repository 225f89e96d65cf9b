//! Decodes the query as a form (`application/x-www-form-urlencoded`).

use std::ops::Deref;

use percent_encoding::percent_decode;
use rover_lua::{Kind, Raise, Returns, Stack};
use smallvec::SmallVec;

use super::lookup::{keep, push_cached};
use super::{Contexts, cached, request_key};

/// A decoded part of a query. Short ones need no allocation.
enum Decoded<'q> {
    AsSent(&'q [u8]),
    Changed(SmallVec<[u8; 64]>),
}

impl Deref for Decoded<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Decoded::AsSent(bytes) => bytes,
            Decoded::Changed(bytes) => bytes,
        }
    }
}

/// The pairs of a query, the last one first. A key without `=` has an empty value; broken percent-encoding is kept as
/// it was sent.
///
/// Queries are short: a plain loop over their bytes finds the separators sooner than `memchr` is set up.
fn pairs_backwards(query: &str) -> impl Iterator<Item = (Decoded<'_>, Decoded<'_>)> {
    let pairs = query.as_bytes().rsplit(|&byte| byte == b'&');
    pairs.filter(|pair| !pair.is_empty()).map(|pair| match pair.iter().position(|&byte| byte == b'=') {
        Some(at) => (decode(&pair[..at]), decode(&pair[at + 1..])),
        None => (decode(pair), Decoded::AsSent(b"")),
    })
}

#[inline]
fn decode(text: &[u8]) -> Decoded<'_> {
    match text.iter().any(|&byte| byte == b'+' || byte == b'%') {
        true => Decoded::Changed(decoded(text)),
        false => Decoded::AsSent(text),
    }
}

fn decoded(text: &[u8]) -> SmallVec<[u8; 64]> {
    let mut out = SmallVec::new();
    for (n, word) in text.split(|&byte| byte == b'+').enumerate() {
        if n > 0 {
            out.push(b' ');
        }
        match memchr::memchr(b'%', word) {
            Some(_) => out.extend(percent_decode(word)),
            None => out.extend_from_slice(word),
        }
    }
    out
}

/// The keys that a table of the query gets room for at once.
const ROOM_MOST: usize = 64;

/// `ctx:query()`: each key's first value.
pub(super) fn query(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "query()")?;
    if push_cached(stack, cached::QUERY) {
        return Ok(1);
    }
    let request = contexts.requests.get(request_key)?;
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

/// `ctx:queries(name)`: all values of one key, as an array, which is the same at every call for a name.
pub(super) fn queries(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "queries(name)")?;
    let request = contexts.requests.get(request_key)?;
    let Some(name) = stack.bytes(2).map(<[u8]>::to_vec) else {
        return Err(Raise::mistake(format!("ctx:queries expects a name as a string, got {}", stack.kind(2).name())));
    };
    if !push_cached(stack, cached::QUERIES) {
        stack.push_table(0, 1);
        keep(stack, cached::QUERIES);
    }
    let known = stack.top();
    stack.push_bytes(&name);
    stack.get_field(known);
    if stack.kind(known + 1) == Kind::Table {
        return Ok(1);
    }
    stack.pop(1);
    let query = request.head.uri.query().unwrap_or("");
    let mut values: SmallVec<[Decoded<'_>; 2]> = SmallVec::new();
    values.extend(pairs_backwards(query).filter(|(key, _)| **key == *name).map(|(_, value)| value));
    contexts.vocabulary.push_array(stack, values.len());
    let table = stack.top();
    for (n, value) in (1..).zip(values.iter().rev()) {
        stack.push_bytes(value);
        stack.set_item(table, n);
    }
    stack.push_bytes(&name);
    stack.push_copy(table);
    stack.set_field(known);
    Ok(1)
}
