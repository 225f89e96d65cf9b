//! `flame` around a shell that counts: what it writes, and what it hands on.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, reason = "a test's failure is its report")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

fn flame(output: &PathBuf, script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flame"));
    command.arg("--output").arg(output).args(["--title", "counting & more", "--", "sh", "-c", script]);
    command
}

fn output(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn a_busy_program_is_drawn_and_gets_the_signal() {
    let path = output("busy.svg");
    let count = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo counted";
    let script = format!("trap 'exit 7' TERM; {count}; while :; do :; done");
    let mut flame = flame(&path, &script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(flame.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "counted\n");
    assert!(Command::new("kill").args(["-TERM", &flame.id().to_string()]).status().unwrap().success());
    let ended = flame.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    if said.contains("does not let a process trace") {
        // Some sandboxes forbid it, and then flame must say so.
        return;
    }
    assert_eq!(ended.status.code(), Some(7), "{said}");
    let svg = std::fs::read_to_string(&path).unwrap();
    assert!(svg.contains("counting &amp; more"), "{svg}");
    assert!(svg.contains("<title>sh ("), "the thread's name: {svg}");
}

#[test]
fn what_cannot_start_is_said() {
    let path = output("none.svg");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flame"));
    let ended = command.arg("--output").arg(&path).args(["--", "/does/not/exist"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(said, "flame: cannot start /does/not/exist: No such file or directory (os error 2)\n");
    assert!(!path.exists());
}
