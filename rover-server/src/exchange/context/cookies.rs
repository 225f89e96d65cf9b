//! Cookies, both ways: RFC 6265.

use cookie::time::{Duration, OffsetDateTime};
use cookie::{Cookie, SameSite};
use mlua::{Lua, Value};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use rover_lua::{Raise, Returns, Stack, described_type};

use super::lookup::{keep, push_cached, set_first};
use super::{Contexts, cached, request_key};

/// The cookies of a request: every `Cookie` line, split at `;`, values percent-decoded where they are validly encoded.
fn each(headers: &http::HeaderMap, mut found: impl FnMut(&[u8], &[u8])) {
    for line in headers.get_all(http::header::COOKIE) {
        for pair in line.as_bytes().split(|&b| b == b';') {
            let pair = pair.trim_ascii();
            let Some(at) = memchr::memchr(b'=', pair) else { continue };
            let (name, value) = (pair[..at].trim_ascii_end(), pair[at + 1..].trim_ascii_start());
            let value = match value {
                [b'"', inner @ .., b'"'] => inner,
                bare => bare,
            };
            if !name.is_empty() {
                found(name, &std::borrow::Cow::from(percent_encoding::percent_decode(value)));
            }
        }
    }
}

/// `ctx:cookie(name)`.
pub(super) fn cookie(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "cookie(name)")?;
    let request = contexts.requests.get(request_key)?;
    let Some(name) = stack.bytes(2).map(<[u8]>::to_vec) else {
        return Err(Raise::mistake(format!("ctx:cookie expects a name as a string, got {}", stack.kind(2).name())));
    };
    let mut value = None;
    each(&request.head.headers, |key, sent| {
        if value.is_none() && key == name {
            value = Some(sent.to_vec());
        }
    });
    match value {
        Some(value) => stack.push_bytes(&value),
        None => stack.push_nil(),
    }
    Ok(1)
}

/// `ctx:cookies()`: the first cookie of each name.
pub(super) fn cookies(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "cookies()")?;
    if push_cached(stack, cached::COOKIES) {
        return Ok(1);
    }
    let request = contexts.requests.get(request_key)?;
    stack.push_table(0, 0);
    let table = stack.top();
    each(&request.head.headers, |name, value| {
        set_first(stack, table, name, value);
    });
    keep(stack, cached::COOKIES);
    Ok(1)
}

/// Bytes that a cookie value cannot hold (RFC 6265, section 4.1.1), and `%`, which marks the encoding.
const NOT_IN_VALUE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%');

/// Composes the `Set-Cookie` line of a response: `line`, or `nil, problem` when an argument is wrong.
///
/// The value is percent-encoded where a cookie cannot hold it as it is; `ctx:cookie` decodes it again. `max_age` is in
/// seconds, and `expires` a wall-clock time in seconds as `rover.time()` gives it.
pub(crate) fn set_cookie(
    _: &Lua,
    (name, value, options): (Value, Value, Value),
) -> mlua::Result<(Option<String>, Option<String>)> {
    Ok(match compose(&name, &value, &options) {
        Ok(line) => (Some(line), None),
        Err(problem) => (None, Some(problem)),
    })
}

fn compose(name: &Value, value: &Value, options: &Value) -> Result<String, String> {
    let Some(name) = name.as_string().map(|name| name.to_string_lossy()) else {
        return Err(format!("the name of a cookie is a string, not {}", described_type(name)));
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b)) {
        return Err(format!("{name:?} is not a cookie name"));
    }
    let value = match value {
        Value::String(text) => percent_encode(&text.as_bytes(), NOT_IN_VALUE).to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
        other => return Err(format!("the value of cookie {name:?} is a string, not {}", described_type(other))),
    };
    let mut cookie = Cookie::new(name.clone(), value);
    match options {
        Value::Nil => {}
        Value::Table(options) => {
            for pair in options.pairs::<Value, Value>() {
                let (key, setting) = pair.map_err(|_| "cookie options could not be read".to_owned())?;
                let Some(key) = key.as_string().map(|key| key.to_string_lossy()) else {
                    let kind = described_type(&key);
                    return Err(format!("cookie {name:?}: options are names, not {kind}: write option = value"));
                };
                apply(&mut cookie, &key, &setting).map_err(|problem| format!("cookie {name:?}: {problem}"))?;
            }
        }
        other => return Err(format!("cookie options are a table, not {}", described_type(other))),
    }
    match problem_of(&cookie) {
        Some(problem) => Err(format!("cookie {name:?}: {problem}")),
        None => Ok(cookie.to_string()),
    }
}

/// Why browsers would silently drop a cookie (RFC 6265bis, sections 4.1.3 and 5.7; CHIPS).
fn problem_of(cookie: &Cookie<'_>) -> Option<&'static str> {
    let has_prefix =
        |prefix: &str| cookie.name().get(..prefix.len()).is_some_and(|own| own.eq_ignore_ascii_case(prefix));
    let is_secure = cookie.secure() == Some(true);
    let is_host = has_prefix("__Host-");
    if is_host && cookie.domain().is_some() {
        return Some("a name that begins with __Host- has no domain: leave it out");
    }
    if is_host && cookie.path() != Some("/") {
        return Some("a name that begins with __Host- needs path = \"/\"");
    }
    if is_secure {
        return None;
    }
    if is_host || has_prefix("__Secure-") {
        return Some("a name that begins with __Host- or __Secure- needs secure = true");
    }
    if cookie.same_site() == Some(SameSite::None) {
        return Some("same_site = \"none\" needs secure = true");
    }
    (cookie.partitioned() == Some(true)).then_some("partitioned = true needs secure = true")
}

fn apply(cookie: &mut Cookie<'static>, key: &str, setting: &Value) -> Result<(), String> {
    let wrong = |expected: &str| {
        Err(match setting {
            Value::Integer(_) | Value::Number(_) if matches!(key, "max_age" | "expires") => {
                format!("{key} must be {expected}, not one out of range")
            }
            _ => format!("{key} must be {expected}, not {}", described_type(setting)),
        })
    };
    let number = match setting {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) if number.is_finite() => Some(*number),
        _ => None,
    };
    match (key, setting) {
        ("path" | "domain", Value::String(text)) => {
            let text = text.to_string_lossy();
            if text.bytes().any(|b| b == b';' || b.is_ascii_control()) {
                return Err(format!("{key} has a character that would split the header"));
            }
            if key == "path" { cookie.set_path(text) } else { cookie.set_domain(text) }
        }
        ("path" | "domain", _) => return wrong("a string"),
        ("secure", Value::Boolean(on)) => cookie.set_secure(*on),
        ("http_only", Value::Boolean(on)) => cookie.set_http_only(*on),
        ("partitioned", Value::Boolean(on)) => cookie.set_partitioned(*on),
        ("secure" | "http_only" | "partitioned", _) => return wrong("a boolean"),
        ("max_age", _) => match number {
            Some(seconds) => cookie.set_max_age(Duration::seconds(seconds as i64)),
            None => return wrong("a number of seconds"),
        },
        // The past is the past: clients do not understand years before 1601 (RFC 6265, section 5.1.1).
        ("expires", _) => match number.and_then(|at| OffsetDateTime::from_unix_timestamp(at.max(0.0) as i64).ok()) {
            Some(at) => cookie.set_expires(at),
            None => return wrong("a time in seconds, as rover.time() gives it"),
        },
        ("same_site", Value::String(text)) => match text.to_string_lossy().to_ascii_lowercase().as_str() {
            "strict" => cookie.set_same_site(SameSite::Strict),
            "lax" => cookie.set_same_site(SameSite::Lax),
            "none" => cookie.set_same_site(SameSite::None),
            other => return Err(format!("same_site is \"strict\", \"lax\" or \"none\", not {other:?}")),
        },
        ("same_site", _) => return wrong("\"strict\", \"lax\" or \"none\""),
        _ => {
            return Err(format!(
                "unknown option {key:?} (known: path, domain, max_age, expires, secure, http_only, same_site, \
                 partitioned)"
            ));
        }
    }
    Ok(())
}
