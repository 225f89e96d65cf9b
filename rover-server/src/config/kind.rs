//! The kinds of values that keys take: times, sizes, counts, flags, words, and what a group makes of its own.
//!
//! Comes in: bounds and words. Goes out: how a value is read, how the default is written, and what both are called. Must
//! not know: keys.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::value::ConfigValue;

const KB: u64 = 1024;
const MB: u64 = 1024 * KB;
const GB: u64 = 1024 * MB;

/// One kind of values.
pub(super) struct Kind<T> {
    /// Worded to follow "must be".
    pub(super) takes: Cow<'static, str>,
    /// Gives the value, or a hint (possibly empty) that goes behind "must be …, got …".
    pub(super) read: Box<Read<T>>,
    /// Writes a value as the author of an app would.
    pub(super) write: Box<Write<T>>,
}

type Read<T> = dyn Fn(&ConfigValue) -> Result<T, &'static str> + Send + Sync;
type Write<T> = dyn Fn(&T) -> String + Send + Sync;

/// Values of a group's own kind; `default` is the default as one writes it, or in words.
pub(super) fn custom<T: 'static>(
    takes: impl Into<Cow<'static, str>>,
    default: &'static str,
    read: impl Fn(&ConfigValue) -> Result<T, &'static str> + Send + Sync + 'static,
) -> Kind<T> {
    kind(takes, read, |_| default.to_owned())
}

fn kind<T: 'static>(
    takes: impl Into<Cow<'static, str>>,
    read: impl Fn(&ConfigValue) -> Result<T, &'static str> + Send + Sync + 'static,
    write: impl Fn(&T) -> String + Send + Sync + 'static,
) -> Kind<T> {
    Kind { takes: takes.into(), read: Box::new(read), write: Box::new(write) }
}

/// True or false.
pub(super) fn flag() -> Kind<bool> {
    kind("true or false", |value| value.truth().ok_or(""), bool::to_string)
}

/// A time, which may be zero.
pub(super) fn time() -> Kind<Duration> {
    let takes = "a time: seconds, or text such as \"500ms\"";
    kind(takes, |value| value.time().ok_or(""), |time| time.as_secs_f64().to_string())
}

/// Any number of bytes.
pub(super) fn size<T: Whole>() -> Kind<T> {
    let takes = "a size: a number of bytes, or text such as \"64MB\"";
    kind(takes, |value| whole(value.size(), &(0..=u64::MAX)), |bytes: &T| bytes_with_unit(bytes.number(), ""))
}

/// A number of bytes within bounds.
pub(super) fn size_in<T: Whole>(bounds: RangeInclusive<u64>) -> Kind<T> {
    let unit = |bytes| if bytes == 1 { " byte" } else { " bytes" };
    let bound = |bytes: &u64| bytes_with_unit(*bytes, unit(*bytes));
    let takes = format!("a size from {} to {}", bound(bounds.start()), bound(bounds.end()));
    Kind { takes: takes.into(), read: Box::new(move |value| whole(value.size(), &bounds)), ..size() }
}

/// Any whole number of things.
pub(super) fn count<T: Whole>() -> Kind<T> {
    Kind { takes: "a whole number".into(), ..count_in(0..=u32::MAX.into()) }
}

/// A whole number within bounds.
pub(super) fn count_in<T: Whole>(bounds: RangeInclusive<u64>) -> Kind<T> {
    let takes = format!("a whole number from {} to {}", bounds.start(), bounds.end());
    let read = move |value: &ConfigValue| whole(value.whole(*bounds.start(), *bounds.end()), &bounds);
    kind(takes, read, |count: &T| count.number().to_string())
}

/// A TCP port; 0 is one that the system picks.
pub(super) fn port() -> Kind<u16> {
    count_in(0..=u16::MAX.into())
}

/// Text that is not empty; `takes` says what it is.
pub(super) fn text(takes: &'static str) -> Kind<String> {
    kind(takes, |value| Ok(value.text().filter(|text| !text.is_empty()).ok_or("")?.to_owned()), String::clone)
}

/// The path of a file; `takes` says of which.
pub(super) fn file(takes: &'static str) -> Kind<PathBuf> {
    let Kind { takes, read, .. } = text(takes);
    kind(takes, move |value| read(value).map(PathBuf::from), |path| path.display().to_string())
}

/// One of some words, each with what it stands for.
pub(super) fn choice<T, const N: usize>(words: [(&'static str, T); N]) -> Kind<T>
where
    T: Clone + PartialEq + Send + Sync + 'static,
{
    let takes = either(words.iter().map(|(word, _)| *word));
    let known = words.clone();
    let read = move |value: &ConfigValue| {
        let text = value.text().ok_or("")?;
        known.iter().find(|(word, _)| *word == text).map(|(_, meaning)| meaning.clone()).ok_or("")
    };
    let write = move |value: &T| {
        let word = words.iter().find(|(_, meaning)| meaning == value);
        word.map_or_else(String::new, |(word, _)| (*word).to_owned())
    };
    kind(takes, read, write)
}

/// `"a", "b" or "c"`.
pub(super) fn either<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

impl<T: 'static> Kind<T> {
    /// The same values, or a word for none.
    pub(super) fn or(self, none: &'static str) -> Kind<Option<T>> {
        let Kind { takes, read, write } = self;
        let read = move |value: &ConfigValue| match value.text() {
            Some(text) if text == none => Ok(None),
            _ => read(value).map(Some),
        };
        let write = move |value: &Option<T>| value.as_ref().map_or_else(|| none.to_owned(), &write);
        kind(format!("{takes}, or \"{none}\""), read, write)
    }

    /// Reads a value of `name`, or says what is wrong with it.
    pub(super) fn read(&self, name: &str, value: &ConfigValue) -> Result<T, String> {
        (self.read)(value).map_err(|hint| wrong(name, &self.takes, value, hint))
    }
}

impl<T: Default + PartialEq + 'static> Kind<T> {
    /// The same values without zero.
    pub(super) fn above_zero(self) -> Kind<T> {
        let read = self.read;
        Kind {
            takes: self.takes.replacen(':', " above 0:", 1).into(),
            read: Box::new(move |value| {
                read(value).and_then(|read| if read == T::default() { Err("") } else { Ok(read) })
            }),
            write: self.write,
        }
    }
}

/// What is wrong with a value, and what would be right.
pub(super) fn wrong(name: &str, takes: &str, value: &ConfigValue, hint: &str) -> String {
    format!("{name} must be {takes}, got {value}{hint}")
}

/// Types of fields that hold whole numbers.
pub(super) trait Whole: Copy + TryFrom<u64> + TryInto<u64> + 'static {
    /// The number; no field is wider than 64 bits.
    fn number(self) -> u64 {
        self.try_into().unwrap_or(u64::MAX)
    }
}

impl Whole for u16 {}
impl Whole for u32 {}
impl Whole for u64 {}
impl Whole for usize {}

fn whole<T: Whole>(number: Option<u64>, bounds: &RangeInclusive<u64>) -> Result<T, &'static str> {
    let number = number.filter(|number| bounds.contains(number)).ok_or("")?;
    T::try_from(number).map_err(|_| "")
}

/// The bytes in the largest unit that leaves no rest; `otherwise` stands behind a number that has none.
fn bytes_with_unit(bytes: u64, otherwise: &str) -> String {
    let units = [(GB, "GB"), (MB, "MB"), (KB, "KB")];
    match units.into_iter().find(|(factor, _)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((factor, unit)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}{otherwise}"),
    }
}
