//! `flame`: starts a program, samples the stacks of its threads while they run, and writes a flame graph when it ends.
//!
//! It needs no permission of the kernel's and nothing inside the program: a process may stop and read its own child.
//! The program is stopped for about a tenth of a millisecond for each sample; threads that sleep are left alone, so
//! what is counted is time on a core (or waiting for one). Code that LuaJIT compiled has no names: it is one frame.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod graph;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod maps;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod names;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod stacks;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tracee;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Starts a program, samples its stacks and writes a flame graph when it ends. SIGINT and SIGTERM are handed on to it.
#[derive(Parser)]
struct Args {
    /// File to write
    #[arg(long, short, default_value = "flame.svg")]
    output: PathBuf,
    /// Samples a second of each thread
    #[arg(long, default_value_t = 499, value_parser = clap::value_parser!(u32).range(1..=5000))]
    frequency: u32,
    /// Title of the graph [default: the command]
    #[arg(long)]
    title: Option<String>,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("flame: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> ExitCode {
    let _ = Args::parse();
    eprintln!("flame: only for Linux on x86-64");
    ExitCode::FAILURE
}

/// Ends with the exit code of the program.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn run(args: &Args) -> anyhow::Result<ExitCode> {
    use std::time::Duration;

    let mut program = tracee::Tracee::start(&args.command)?;
    let mut stacks = stacks::Stacks::default();
    let mut counts = graph::Counts::default();
    let pause = Duration::from_secs(1) / args.frequency;
    let code = loop {
        if let Some(code) = program.wait(pause)? {
            break code;
        }
        program.sample(|thread| counts.add(thread.name(), stacks.of(thread)))?;
    };
    let title = args.title.clone().unwrap_or_else(|| {
        let words: Vec<_> = args.command.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    });
    let samples = counts.write(&args.output, &title, &names::Names::new(stacks.into_loaded()))?;
    eprintln!("flame: {samples} samples in {}", args.output.display());
    Ok(ExitCode::from(code))
}
