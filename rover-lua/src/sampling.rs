//! Where Lua code was each time that a profiler looked: call stacks, counted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;

use mlua::ffi;

use super::{Stack, traceback};

/// The deepest call stack that is kept.
const DEEPEST: c_int = 128;
/// How many different call stacks are kept; what comes later counts as [`OTHERS`].
const MOST: usize = 20_000;
/// Stands for call stacks that were not kept.
const OTHERS: &str = "(others)";

/// How often each call stack was seen, by the number of the function that was called first. Frames are separated by
/// `;`, outermost first.
pub type Samples = HashMap<(u32, String), u64>;

thread_local! {
    static SAMPLES: RefCell<Option<Samples>> = const { RefCell::new(None) };
}

/// From here on, this thread keeps what it is asked to record.
pub fn begin_samples() {
    SAMPLES.set(Some(Samples::new()));
}

/// What this thread has recorded since it began. It keeps nothing any more.
pub fn end_samples() -> Samples {
    SAMPLES.take().unwrap_or_default()
}

/// Counts the call stack that stands on `stack`, below the function number `label`.
pub(super) fn record(stack: &Stack<'_>, label: u32) {
    SAMPLES.with_borrow_mut(|samples| {
        let Some(samples) = samples else { return };
        let key = (label, folded(stack));
        if samples.len() >= MOST && !samples.contains_key(&key) {
            *samples.entry((label, OTHERS.to_owned())).or_default() += 1;
            return;
        }
        *samples.entry(key).or_default() += 1;
    });
}

/// The functions on the stack, each with the file and line of its definition, and at the end the line that runs.
fn folded(stack: &Stack<'_>) -> String {
    let mut frames: Vec<String> = Vec::new();
    // SAFETY: as in `traceback`: the record is filled before it is read, and its strings are copied at once.
    unsafe {
        let mut record: ffi::lua_Debug = std::mem::zeroed();
        for level in 0..DEEPEST {
            if ffi::lua_getstack(stack.state(), level, &mut record) == 0 {
                break;
            }
            if ffi::lua_getinfo(stack.state(), c"Sln".as_ptr(), &mut record) == 0 || traceback::is_own(&record) {
                continue;
            }
            let file = traceback::text(record.short_src.as_ptr());
            if frames.is_empty() {
                frames.push(format!("{file}:{}", record.currentline));
            }
            let name = if record.name.is_null() { "function".to_owned() } else { traceback::text(record.name) };
            frames.push(format!("{} {file}:{}", name.replace([';', ' '], "_"), record.linedefined));
        }
    }
    frames.reverse();
    frames.join(";")
}
