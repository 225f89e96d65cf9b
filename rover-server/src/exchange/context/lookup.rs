//! Request headers.

use http::header::{COOKIE, HeaderName};
use rover_lua::{Kind, Raise, Returns, Stack};

use super::{Contexts, cached, request_key};

/// Pushes the table that an earlier call kept at `index` of the context; false where there is none yet.
pub(super) fn push_cached(stack: &mut Stack<'_>, index: i32) -> bool {
    stack.push_item(1, index);
    if stack.kind(stack.top()) == Kind::Nil {
        stack.pop(1);
        return false;
    }
    true
}

/// Keeps the topmost value at `index` of the context, and leaves it on the stack.
pub(super) fn keep(stack: &mut Stack<'_>, index: i32) {
    stack.push_copy(stack.top());
    stack.set_item(1, index);
}

/// Sets `table[key]` unless an earlier value stands there.
pub(super) fn set_first(stack: &mut Stack<'_>, table: i32, key: &[u8], value: &[u8]) {
    stack.push_bytes(key);
    stack.push_copy(table + 1);
    stack.get_field(table);
    let is_first = stack.kind(table + 2) == Kind::Nil;
    stack.pop(1);
    if is_first {
        stack.push_bytes(value);
        stack.set_field(table);
    } else {
        stack.pop(1);
    }
}

/// `ctx:header(name)`.
pub(super) fn header(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "header(name)")?;
    let request = contexts.requests.get(request_key)?;
    let Some(name) = stack.bytes(2) else {
        return Err(no_name(stack));
    };
    let Some(name) = contexts.header_names.get(name) else {
        stack.push_nil();
        return Ok(1);
    };
    let headers = &request.head.headers;
    if headers.len() == headers.keys_len() {
        // No field has a second line, as is usual.
        match headers.get(&name) {
            Some(only) => stack.push_bytes(only.as_bytes()),
            None => stack.push_nil(),
        }
    } else {
        push_joined(stack, headers, &name);
    }
    Ok(1)
}

#[cold]
fn no_name(stack: &Stack<'_>) -> Raise {
    Raise::mistake(format!("ctx:header expects a name as a string, got {}", stack.kind(2).name()))
}

/// Pushes the field's value, its lines joined as RFC 9110, section 5.3 has it; nil where there is none.
fn push_joined(stack: &mut Stack<'_>, headers: &http::HeaderMap, name: &HeaderName) {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => stack.push_nil(),
        (Some(only), None) => stack.push_bytes(only.as_bytes()),
        (Some(first), Some(second)) => {
            // RFC 6265, section 5.4: cookies are joined in their own way.
            let separator: &[u8] = if *name == COOKIE { b"; " } else { b", " };
            let mut joined = first.as_bytes().to_vec();
            for line in std::iter::once(second).chain(lines) {
                joined.extend_from_slice(separator);
                joined.extend_from_slice(line.as_bytes());
            }
            stack.push_bytes(&joined);
        }
    }
}

/// `ctx:headers()`.
pub(super) fn headers(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "headers()")?;
    if push_cached(stack, cached::HEADERS) {
        return Ok(1);
    }
    let request = contexts.requests.get(request_key)?;
    let headers = &request.head.headers;
    stack.push_table(0, headers.keys_len());
    let table = stack.top();
    for name in headers.keys() {
        stack.push_bytes(name.as_str().as_bytes());
        push_joined(stack, headers, name);
        stack.set_field(table);
    }
    stack.push_anchored(contexts.headers_meta);
    stack.set_metatable(table);
    keep(stack, cached::HEADERS);
    Ok(1)
}
