//! The keys of `compression = { … }`: which responses are compressed.

use super::key::ConfigKey;
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

pub(super) static COMPRESSION_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "compression.enabled",
        what: "compress responses for clients that take it; see compression.md about secrets",
        takes: "true or false",
        default: "false",
        example: "true",
        store: |config, value| {
            config.compression.enabled = value.truth().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "compression.min_size",
        what: "least length of a body that is compressed",
        takes: "a size: a number of bytes, or text such as \"64MB\"",
        default: "1KB",
        example: "\"4KB\"",
        store: |config, value| {
            config.compression.min_size = value.size().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "compression.types",
        what: "content types that are compressed; * stands for any text",
        takes: "a list of content types, such as { \"text/*\", \"application/json\" }",
        default: TYPES,
        example: "\"text/html, text/css\"",
        store: |config, value| {
            let types = list(value).ok_or("")?;
            if types.iter().any(|kind| !kind.contains('/') || kind.contains([';', ' '])) {
                return Err("");
            }
            config.compression.types = types;
            Ok(())
        },
    },
    ConfigKey {
        name: "compression.codings",
        what: "codings in use, the preferred one first",
        takes: "a list of \"zstd\", \"br\" and \"gzip\"",
        default: CODINGS,
        example: "\"gzip\"",
        store: |config, value| {
            let codings = list(value).ok_or("")?;
            if codings.is_empty() || !codings.iter().all(|name| matches!(name.as_str(), "zstd" | "br" | "gzip")) {
                return Err("");
            }
            config.compression.codings = codings;
            Ok(())
        },
    },
];

/// A list of words, in lower case; as text with commas in between.
fn list(value: &ConfigValue) -> Option<Vec<String>> {
    let word = |text: &str| text.trim().to_ascii_lowercase();
    match value {
        ConfigValue::List(values) => values.iter().map(|value| value.text().map(word)).collect(),
        value => Some(value.text()?.split(',').map(word).filter(|word| !word.is_empty()).collect()),
    }
}
