//! One config key: what its documentation says, and the function that checks and stores its value.
//!
//! Comes in: a value from any source. Goes out: the field of `Config` that it sets, or a hint. Must not know: which keys
//! there are.

use super::Config;
use super::value::ConfigValue;

/// One config key: what it is called, means and takes.
#[derive(Debug)]
pub struct ConfigKey {
    /// The name in `rover.server { … }`. One with a dot stands in a table: `tls.cert` is `tls = { cert = … }`.
    pub name: &'static str,
    /// What it sets, in one line.
    pub what: &'static str,
    /// What it takes, worded to follow "must be".
    pub takes: &'static str,
    /// The default as one writes it, or in words.
    pub default: &'static str,
    /// A value as Lua writes it.
    pub example: &'static str,
    /// Stores the value, or gives a hint (possibly empty) that goes behind "must be …, got …".
    pub(super) store: fn(&mut Config, &ConfigValue) -> Result<(), &'static str>,
}

impl ConfigKey {
    /// The environment variable that sets the key: `ROVER_LOG_LEVEL` for `log_level`.
    pub fn variable(&self) -> String {
        format!("ROVER_{}", self.name.to_ascii_uppercase().replace('.', "_"))
    }
}
