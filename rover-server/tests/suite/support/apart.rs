//! Tests in a process of their own, for what holds for all of a process: limits of the system, the log.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::getuid;

/// The variable that tells a process that it is one for a test alone.
const APART: &str = "ROVER_TEST_APART";

/// A user that has no rights. The system knows it as "nobody".
const NOBODY: u32 = 65534;

/// Whether this process is the one for `test`, by its full name; where it is not, runs one that is. `prepare` is what a
/// shell does before.
pub fn is_apart(test: &str, prepare: &str) -> bool {
    run(test, prepare, |_| ())
}

/// As [`is_apart`], as an ordinary user, for root has no limits.
pub fn is_apart_as_nobody(test: &str, prepare: &str) -> bool {
    run(test, prepare, |command| {
        if getuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
    })
}

fn run(test: &str, prepare: &str, adjust: impl FnOnce(&mut Command)) -> bool {
    if std::env::var(APART).is_ok_and(|own| own == test) {
        return true;
    }
    let program = std::env::current_exe().expect("this program");
    let script = format!("{prepare} exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(program).args(["--exact", test, "--nocapture"]);
    command.env(APART, test);
    adjust(&mut command);
    let output = command.output().expect("a process");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{err}", output.status);
    assert!(!err.contains("bug in Rover"), "{err}");
    assert!(!err.contains("\"level\":"), "a log went to stderr: {err}");
    false
}
