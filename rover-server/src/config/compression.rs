//! The keys of `compression = { … }`: which responses are compressed.

use super::key::{ConfigKey, Group};
use super::kind::{Kind, custom, flag, size};
use super::value::ConfigValue;

/// Which responses are compressed, for clients that take it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CompressionConfig {
    pub(crate) enabled: bool,
    /// Bytes.
    pub(crate) min_size: u64,
    /// Content types without parameters, in lower case; `*` stands for any text.
    pub(crate) types: Vec<String>,
    /// Names of codings, the preferred one first.
    pub(crate) codings: Vec<String>,
}

const TYPES: &str = "text/*, application/json, application/*+json, application/javascript, application/xml, \
                     application/*+xml, application/wasm, image/svg+xml";

const CODINGS: &str = "zstd, br, gzip";

impl Default for CompressionConfig {
    fn default() -> CompressionConfig {
        let list = |text: &str| text.split(", ").map(str::to_owned).collect();
        CompressionConfig { enabled: false, min_size: 1024, types: list(TYPES), codings: list(CODINGS) }
    }
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.compression)
        .table("compression")
        .key("enabled", "compress responses for clients that take it; see compression.md about secrets")
        .takes(flag(), |compression| &mut compression.enabled)
        .key("min_size", "least length of a body that is compressed")
        .takes(size(), |compression| &mut compression.min_size)
        .key("types", "content types that are compressed; * stands for any text")
        .takes(types(), |compression| &mut compression.types)
        .key("codings", "codings in use, the preferred one first")
        .takes(codings(), |compression| &mut compression.codings)
        .keys()
}

fn types() -> Kind<Vec<String>> {
    custom("a list of content types, such as { \"text/*\", \"application/json\" }", TYPES, |value| {
        let is_wrong = |kind: &String| !kind.contains('/') || kind.contains([';', ' ']);
        list(value).filter(|types| !types.iter().any(is_wrong)).ok_or("")
    })
}

fn codings() -> Kind<Vec<String>> {
    custom("a list of \"zstd\", \"br\" and \"gzip\"", CODINGS, |value| {
        let is_known = |name: &String| matches!(name.as_str(), "zstd" | "br" | "gzip");
        list(value).filter(|codings| !codings.is_empty() && codings.iter().all(is_known)).ok_or("")
    })
}

/// A list of words, in lower case; as text with commas in between.
fn list(value: &ConfigValue) -> Option<Vec<String>> {
    let word = |text: &str| text.trim().to_ascii_lowercase();
    match value {
        ConfigValue::List(values) => values.iter().map(|value| value.text().map(word)).collect(),
        value => Some(value.text()?.split(',').map(word).filter(|word| !word.is_empty()).collect()),
    }
}
