//! Asks an app whether it is ready: `api.on_ready_check`.
//!
//! Comes in: an app. Goes out: ready, or why not. This module must not know who asks.

use std::ffi::c_int;
use std::rc::Rc;

use rover_lua::{Kind, Stack};

use crate::log::{self, Level};
use crate::script::app::App;
use crate::service::handler;

/// Runs the app's check. An app without one is ready.
///
/// # Errors
/// The app's reason for not being ready. A check that raises is not ready either; its error is logged.
pub(crate) async fn check(app: &Rc<App>) -> Result<(), String> {
    let Some(entry) = app.hooks.on_ready_check else { return Ok(()) };
    handler::run_to_end(app, entry, verdict).await.unwrap_or_else(|failure| {
        log::event(Level::Error, &format!("on_ready_check failed: {}", failure.message))
            .field("traceback", failure.trace().as_str())
            .emit();
        Err("on_ready_check failed".to_owned())
    })
}

/// Reads the results from `first` on: nothing or true means ready; false or nil, followed by a reason, means not ready;
/// a table holds the results of several checks by name.
fn verdict(stack: &mut Stack<'_>, first: c_int) -> Result<(), String> {
    let reason = (stack.top() > first).then(|| text(stack, first + 1)).flatten();
    match if stack.top() < first { Kind::Nil } else { stack.kind(first) } {
        Kind::Nil if reason.is_none() => Ok(()),
        Kind::Boolean if stack.boolean(first) => Ok(()),
        Kind::Nil | Kind::Boolean => Err(reason.unwrap_or_else(|| "not ready".to_owned())),
        Kind::String => Err(text(stack, first).unwrap_or_default()),
        Kind::Table => several(stack, first),
        kind => Err(format!("on_ready_check returned a {}", kind.name())),
    }
}

fn several(stack: &mut Stack<'_>, table: c_int) -> Result<(), String> {
    let mut missing = Vec::new();
    stack.push_nil();
    while stack.next(table) {
        let value = stack.top();
        let name = text(stack, value - 1).unwrap_or_else(|| "a check without a name".to_owned());
        match stack.kind(value) {
            Kind::Boolean if stack.boolean(value) => {}
            Kind::String => missing.push(format!("{name}: {}", text(stack, value).unwrap_or_default())),
            _ => missing.push(format!("{name}: not ready")),
        }
        stack.pop(1);
    }
    missing.sort();
    if missing.is_empty() { Ok(()) } else { Err(missing.join(", ")) }
}

fn text(stack: &Stack<'_>, index: c_int) -> Option<String> {
    (stack.kind(index) == Kind::String)
        .then(|| String::from_utf8_lossy(stack.bytes(index).unwrap_or_default()).into_owned())
}
