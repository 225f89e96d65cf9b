//! Comes in: stacks. Goes out: a flame graph as SVG. Must not know: where the stacks come from.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use inferno::flamegraph::{self, Options};

use crate::names::Names;
use crate::stacks::Place;

/// How often each stack of each thread was seen.
#[derive(Default)]
pub(crate) struct Counts {
    seen: HashMap<(String, Vec<Place>), u64>,
}

impl Counts {
    /// Counts a stack, the innermost place first.
    pub(crate) fn add(&mut self, thread: &str, places: Vec<Place>) {
        *self.seen.entry((thread.to_owned(), places)).or_default() += 1;
    }

    /// Writes the graph and gives the number of samples in it.
    ///
    /// # Errors
    /// There is no sample, or the file cannot be written.
    pub(crate) fn write(&self, path: &Path, title: &str, names: &Names) -> anyhow::Result<u64> {
        if self.seen.is_empty() {
            bail!("there is no sample: the program never ran for long enough");
        }
        let mut lines: Vec<String> = self.seen.iter().map(|(stack, count)| line(stack, *count, names)).collect();
        lines.sort_unstable();
        let mut options = Options::default();
        options.title = title.to_owned();
        options.count_name = "samples".to_owned();
        // Narrower than half a pixel.
        options.min_width = 0.05;
        options.deterministic = true;
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut file = BufWriter::new(file);
        flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut file)?;
        file.flush()?;
        Ok(self.seen.values().sum())
    }
}

/// A stack as inferno reads it: the outermost function first.
fn line((thread, places): &(String, Vec<Place>), count: u64, names: &Names) -> String {
    let mut line = thread.replace(';', ":");
    for place in places.iter().rev() {
        match place {
            Place::Code(address) => {
                for name in names.of(*address).iter() {
                    line.push(';');
                    line.push_str(name);
                }
            }
            Place::Compiled => line.push_str(";(code that LuaJIT compiled)"),
            Place::Lost => line.push_str(";(callers unknown)"),
        }
    }
    format!("{line} {count}")
}
