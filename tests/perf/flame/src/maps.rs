//! Comes in: /proc/PID/maps and the files that it names. Goes out: the program's code in memory, with the data to
//! unwind it. Must not know: which thread runs it.

use std::fs;
use std::ops::Range;
use std::sync::Arc;

use framehop::{ExplicitModuleSectionInfo, Module};
use object::{Object, ObjectSection, ObjectSegment};

/// Mappings begin at whole pages.
const PAGE: u64 = 4096;

/// Code of an executable or a library that the program has loaded.
pub(crate) struct Loaded {
    pub(crate) path: String,
    /// Where it lies in memory.
    pub(crate) range: Range<u64>,
    /// What an address in the file lacks to one in memory.
    pub(crate) base: u64,
    text: Section,
}

#[derive(Clone, Default)]
struct Section {
    address: u64,
    bytes: Arc<[u8]>,
}

impl Loaded {
    /// Whether a call stands before `address`, so that it may be a return address.
    pub(crate) fn follows_call(&self, address: u64) -> bool {
        let end = address.checked_sub(self.base + self.text.address).and_then(|end| usize::try_from(end).ok());
        let Some(before) = end.and_then(|end| self.text.bytes.get(end.saturating_sub(7)..end)) else { return false };
        let direct = before.len() >= 5 && before[before.len() - 5] == 0xe8;
        // `FF /2`, whatever stands after its second byte.
        direct || before.windows(2).any(|pair| pair[0] == 0xff && (pair[1] >> 3) & 7 == 2)
    }
}

/// The files whose code the process has mapped, each with what framehop needs, but those that `known` says are known.
/// `memory` reads a range of the process. What cannot be read is left out.
pub(crate) fn new(
    process: i32,
    known: impl Fn(u64) -> bool,
    memory: impl Fn(Range<u64>) -> Vec<u8>,
) -> Vec<(Loaded, Module<Arc<[u8]>>)> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    let mut found = Vec::new();
    for line in maps.lines() {
        let Some((range, offset, path)) = executable(line) else { continue };
        if known(range.start) {
            continue;
        }
        let data = if path == "[vdso]" { memory(range.clone()) } else { fs::read(path).unwrap_or_default() };
        found.extend(load(path, range, offset, &data));
    }
    found
}

/// Range, offset and name of a mapping, where it is executable and has a name.
fn executable(line: &str) -> Option<(Range<u64>, u64, &str)> {
    // 7f10-7f20 r-xp 00001000 fe:01 4711    /usr/lib/libc.so.6
    let mut fields = line.splitn(6, ' ');
    let (range, mode, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let path = fields.nth(2)?.trim();
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let named = path.starts_with('/') || path == "[vdso]";
    (named && mode.contains('x')).then_some((number(start)?..number(end)?, number(offset)?, path))
}

fn load(path: &str, range: Range<u64>, offset: u64, data: &[u8]) -> Option<(Loaded, Module<Arc<[u8]>>)> {
    let file = object::File::parse(data).ok()?;
    // The segment that this mapping shows.
    let segment = file.segments().find(|segment| segment.file_range().0 / PAGE * PAGE == offset)?;
    let base = range.start.checked_sub(segment.address() / PAGE * PAGE)?;
    let section = |name: &str| {
        let found = file.section_by_name(name)?;
        Some(Section { address: found.address(), bytes: found.data().ok()?.into() })
    };
    let span = |section: &Section| section.address..section.address + section.bytes.len() as u64;
    let (text, table, index) = (section(".text").unwrap_or_default(), section(".eh_frame"), section(".eh_frame_hdr"));
    let info = ExplicitModuleSectionInfo {
        text_svma: Some(span(&text)),
        text: Some(text.bytes.clone()),
        got_svma: section(".got").as_ref().map(span),
        eh_frame_svma: table.as_ref().map(span),
        eh_frame: table.map(|table| table.bytes),
        eh_frame_hdr_svma: index.as_ref().map(span),
        eh_frame_hdr: index.map(|index| index.bytes),
        ..Default::default()
    };
    let module = Module::new(path.to_owned(), range.clone(), base, info);
    Some((Loaded { path: path.to_owned(), range, base, text }, module))
}
