//! `ctx.method` and the other fields, and `ctx:request_id()`.

use std::io::Write;

use rover_lua::{Raise, Returns, Stack};

use crate::route::SentPath;

use super::{Contexts, request_key};

/// The value of one field, by its number in `context.lua`.
pub(super) fn field(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "method")?;
    let number = stack.number(2) as u32;
    let request = contexts.requests.get(request_key)?;
    let head = &request.head;
    match number {
        1 => stack.push_bytes(head.method.as_str().as_bytes()),
        2 => stack.push_bytes(head.uri.path().as_bytes()),
        3 => stack.push_bytes(head.uri.query().unwrap_or("").as_bytes()),
        4 => {
            let told = request.client.as_ref().and_then(|client| client.host.as_ref()).map(|host| host.as_bytes());
            let sent = || head.headers.get(http::header::HOST).map(http::HeaderValue::as_bytes);
            stack.push_bytes(told.or_else(sent).unwrap_or_default());
        }
        5 => stack.push_bytes(request.scheme().as_bytes()),
        6 => {
            // 45 bytes hold every IPv6 address.
            let mut text = [0; 64];
            let mut rest = &mut text[..];
            if let Some(ip) = request.ip() {
                let _ = write!(rest, "{ip}");
            }
            let free = rest.len();
            let used = text.len() - free;
            stack.push_bytes(&text[..used]);
        }
        8 => {
            let sent = head.extensions.get::<SentPath>().map(|sent| &*sent.0);
            stack.push_bytes(sent.unwrap_or_else(|| head.uri.path()).as_bytes());
        }
        7 => stack.push_bytes(version_name(head.version).as_bytes()),
        _ => return Err(Raise::mistake("no such field")),
    }
    Ok(1)
}

/// A version of HTTP as `ctx.version` and the access log name it.
pub(crate) fn version_name(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

/// `ctx:request_id()`.
pub(super) fn request_id(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "request_id()")?;
    let id = contexts.requests.get_mut(request_key)?.id().clone();
    stack.push_bytes(id.as_bytes());
    Ok(1)
}
