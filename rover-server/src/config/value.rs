//! Comes in: one value as an app's table, the environment or a Rust program gave it. Goes out: a port, a size, a time…
//! or `None` where the value is not one. Must not know: which key it is for, and how a mistake is worded.

use std::fmt;
use std::time::Duration;

/// The longest time a key takes: 365 days. Adding it to a clock cannot overflow.
const LONGEST: f64 = 365.0 * 86_400.0;

/// The largest whole number that a Lua number holds exactly: 2^53.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// A value of the app's table as plain data, free of Lua.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ConfigValue {
    /// Not set: the key keeps what it had.
    Nil,
    /// `true` or `false`.
    Bool(bool),
    /// Any Lua number.
    Number(f64),
    /// Text. The environment has nothing else, so every key reads its value from text as well.
    Text(String),
    /// A table of `name = value`, in the order of the names.
    Table(Vec<(String, ConfigValue)>),
    /// A table of values, one after the other.
    List(Vec<ConfigValue>),
    /// Something no key takes, by the name of its Lua type.
    Other(&'static str),
}

/// Writes the value as the author wrote it, for "got …" in a message; long text is cut.
impl fmt::Display for ConfigValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_CHARS: usize = 60;
        match self {
            ConfigValue::Nil => f.write_str("nil"),
            ConfigValue::Bool(value) => write!(f, "{value}"),
            ConfigValue::Number(value) => write!(f, "{value}"),
            ConfigValue::Text(text) => match text.char_indices().nth(SHOWN_CHARS) {
                Some((end, _)) => write!(f, "{:?}…", &text[..end]),
                None => write!(f, "{text:?}"),
            },
            ConfigValue::Table(_) | ConfigValue::List(_) => f.write_str("a table"),
            ConfigValue::Other(kind) => write!(f, "a {kind}"),
        }
    }
}

impl From<u64> for ConfigValue {
    fn from(number: u64) -> ConfigValue {
        ConfigValue::Number(number as f64)
    }
}

impl From<bool> for ConfigValue {
    fn from(value: bool) -> ConfigValue {
        ConfigValue::Bool(value)
    }
}

/// A time in seconds.
impl From<Duration> for ConfigValue {
    fn from(time: Duration) -> ConfigValue {
        ConfigValue::Number(time.as_secs_f64())
    }
}

impl From<String> for ConfigValue {
    fn from(text: String) -> ConfigValue {
        ConfigValue::Text(text)
    }
}

impl From<&str> for ConfigValue {
    fn from(text: &str) -> ConfigValue {
        ConfigValue::Text(text.to_owned())
    }
}

impl ConfigValue {
    /// The text, without blanks around it.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            ConfigValue::Text(text) => Some(text.trim()),
            _ => None,
        }
    }

    /// Texts: a list of them, or one text in which commas stand between them. A list may be empty.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let parts = |text: &str| {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        match self {
            ConfigValue::Text(text) => Some(parts(text)),
            ConfigValue::List(values) => values.iter().map(|value| value.text().map(str::to_owned)).collect(),
            _ => None,
        }
    }

    /// A whole number from `least` to `most`, also as text: `port = os.getenv("PORT")` must work.
    pub(crate) fn whole(&self, least: u64, most: u64) -> Option<u64> {
        let number = match self {
            ConfigValue::Number(number) => whole(*number)?,
            ConfigValue::Text(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        (least..=most).contains(&number).then_some(number)
    }

    /// `true`, `false`, or one of the words 1/0, yes/no, on/off, in any case.
    pub(crate) fn truth(&self) -> Option<bool> {
        match self {
            ConfigValue::Bool(value) => Some(*value),
            ConfigValue::Number(1.0) => Some(true),
            ConfigValue::Number(0.0) => Some(false),
            ConfigValue::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// A number of bytes, or text with a unit: `"64MB"`, `"1 MiB"`, `"512kb"`, `"1.5g"`, `"10"`.
    ///
    /// KB, MB and GB are powers of 1024, like KiB, MiB and GiB: in a limit both spellings mean the same to most people,
    /// and the larger reading refuses nothing that the smaller one lets through.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            ConfigValue::Number(number) => whole(*number),
            ConfigValue::Text(text) => {
                let (number, unit) = split_unit(text)?;
                let factor = match unit.as_str() {
                    "" | "b" => 1.0,
                    "k" | "kb" | "kib" => 1024.0,
                    "m" | "mb" | "mib" => 1024.0 * 1024.0,
                    "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
                    _ => return None,
                };
                whole((number * factor).floor())
            }
            _ => None,
        }
    }

    /// A time in seconds with fractions, or text with a unit: `"10"`, `"500ms"`, `"10s"`, `"2m"`, `"1h"`.
    pub(crate) fn time(&self) -> Option<Duration> {
        let seconds = match self {
            ConfigValue::Number(number) => *number,
            ConfigValue::Text(text) => {
                let (number, unit) = split_unit(text)?;
                match unit.as_str() {
                    "" | "s" => number,
                    "ms" => number / 1000.0,
                    "m" | "min" => number * 60.0,
                    "h" => number * 3600.0,
                    _ => return None,
                }
            }
            _ => return None,
        };
        let in_range = (0.0..=LONGEST).contains(&seconds);
        in_range.then(|| Duration::from_secs_f64(seconds))
    }
}

/// The number as an integer, when it is one that Lua holds exactly and that is not negative.
fn whole(number: f64) -> Option<u64> {
    let exact = number.fract() == 0.0 && (0.0..=LARGEST_WHOLE).contains(&number);
    exact.then_some(number as u64)
}

/// Whether the text is a token of RFC 9110, section 5.6.2, as names of headers and methods are.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Splits `"1.5 MiB"` into 1.5 and `"mib"`.
fn split_unit(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> ConfigValue {
        ConfigValue::Text(text.into())
    }

    #[test]
    fn sizes() {
        for (given, bytes) in [
            ("64MB", 64 << 20),
            ("1 MiB", 1 << 20),
            ("512kb", 512 << 10),
            (" 2g ", 2 << 30),
            ("1.5k", 1536),
            ("10", 10),
            ("0", 0),
        ] {
            assert_eq!(text(given).size(), Some(bytes), "{given}");
        }
        assert_eq!(ConfigValue::Number(1e6).size(), Some(1_000_000));
        for wrong in ["", "MB", "-1", "1 XB", "1e3", "9999999999GB", "1.2.3"] {
            assert_eq!(text(wrong).size(), None, "{wrong}");
        }
        for wrong in [-1.0, 0.5, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(ConfigValue::Number(wrong).size(), None, "{wrong}");
        }
    }

    #[test]
    fn times() {
        for (given, milliseconds) in [
            ("10", 10_000),
            ("0.5", 500),
            ("500ms", 500),
            ("10 s", 10_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0", 0),
        ] {
            let expected = Some(Duration::from_millis(milliseconds));
            assert_eq!(text(given).time(), expected, "{given}");
        }
        for wrong in ["", "s", "-1", "10 days", "nan", "inf", "99999999h"] {
            assert_eq!(text(wrong).time(), None, "{wrong}");
        }
        for wrong in [-0.1, f64::NAN, f64::INFINITY, 1e12] {
            assert_eq!(ConfigValue::Number(wrong).time(), None, "{wrong}");
        }
    }

    #[test]
    fn words_for_true_and_false() {
        for word in ["true", "1", "YES", "on"] {
            assert_eq!(text(word).truth(), Some(true), "{word}");
        }
        for word in ["false", "0", "no", "Off"] {
            assert_eq!(text(word).truth(), Some(false), "{word}");
        }
        assert_eq!(text("maybe").truth(), None);
    }

    #[test]
    fn whole_numbers() {
        assert_eq!(ConfigValue::Number(80.0).whole(0, 65535), Some(80));
        assert_eq!(text(" 80 ").whole(0, 65535), Some(80));
        assert_eq!(ConfigValue::Number(80.5).whole(0, 65535), None);
        assert_eq!(ConfigValue::Number(65536.0).whole(0, 65535), None);
        assert_eq!(ConfigValue::Number(0.0).whole(1, 9), None);
    }
}
