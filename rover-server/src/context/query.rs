//! The query, decoded as a form (`application/x-www-form-urlencoded`) sends it.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::lua::{Raise, Returns, Stack};

use super::lookup::{keep, push_cached, set_first};
use super::{Contexts, cached, ticket};

/// The pairs of a query in the order written. A key without `=` has an empty value; broken percent-encoding is kept as
/// it was sent.
fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    let mut rest = Some(query.as_bytes());
    std::iter::from_fn(move || {
        let all = rest?;
        let (pair, after) = match memchr::memchr(b'&', all) {
            Some(end) => (&all[..end], Some(&all[end + 1..])),
            None => (all, None),
        };
        rest = after;
        Some(pair)
    })
    .filter(|pair| !pair.is_empty())
    .map(|pair| match memchr::memchr(b'=', pair) {
        Some(at) => (decode(&pair[..at]), decode(&pair[at + 1..])),
        None => (decode(pair), Cow::Borrowed(&[][..])),
    })
}

fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'+', b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// `ctx:query()`: each key's first value.
pub(super) fn query(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let ticket = ticket(stack, "query()")?;
    if push_cached(stack, cached::QUERY) {
        return Ok(1);
    }
    let request = contexts.requests.get(ticket)?;
    stack.push_table(0, 0);
    let table = stack.top();
    for (key, value) in pairs(request.head.uri.query().unwrap_or("")) {
        set_first(stack, table, &key, &value);
    }
    keep(stack, cached::QUERY);
    Ok(1)
}

/// `ctx:queries(name)`: all values of one key, as an array.
pub(super) fn queries(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let ticket = ticket(stack, "queries(name)")?;
    let request = contexts.requests.get(ticket)?;
    let Some(name) = stack.bytes(2).map(<[u8]>::to_vec) else {
        return Err(Raise::mistake(format!("ctx:queries expects a name as a string, got {}", stack.kind(2).name())));
    };
    contexts.vocabulary.push_array(stack, 0);
    let table = stack.top();
    let mut n = 0;
    for (key, value) in pairs(request.head.uri.query().unwrap_or("")) {
        if *key == *name {
            n += 1;
            stack.push_bytes(&value);
            stack.set_item(table, n);
        }
    }
    Ok(1)
}
