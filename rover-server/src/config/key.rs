//! One config key, and how a group of settings declares its keys.
//!
//! Comes in: the names of a group's keys, what they set, and the [`Kind`] of their values. Goes out: each key's
//! documentation, with the function that checks and stores a value. Must not know: which keys there are.

use std::borrow::Cow;
use std::fmt;

use super::Config;
use super::kind::Kind;
use super::value::ConfigValue;

/// One config key: what it is called, means and takes.
pub struct ConfigKey {
    /// The name in `rover.server { … }`. One with a dot stands in a table: `tls.cert` is `tls = { cert = … }`.
    pub name: String,
    /// What it sets, in one line.
    pub what: &'static str,
    /// What it takes, worded to follow "must be".
    pub takes: Cow<'static, str>,
    /// The default as one writes it, or in words.
    pub default: String,
    /// Whether a change waits for a restart, as the running server holds what the key says.
    pub(super) needs_restart: bool,
    store: Box<Store>,
    copy: Box<Copy>,
}

/// Stores the value, or gives a hint (possibly empty) that goes behind "must be …, got …".
type Store = dyn Fn(&mut Config, &ConfigValue) -> Result<(), &'static str> + Send + Sync;

/// Copies the key's field from the second config to the first, and tells whether that changed it.
type Copy = dyn Fn(&mut Config, &mut Config) -> bool + Send + Sync;

impl ConfigKey {
    /// The environment variable that sets the key: `ROVER_LOG_LEVEL` for `log_level`.
    pub fn variable(&self) -> String {
        format!("ROVER_{}", self.name.to_ascii_uppercase().replace('.', "_"))
    }

    /// Checks the value and stores it.
    ///
    /// # Errors
    /// A hint, possibly empty, that goes behind "must be …, got …".
    pub(super) fn store(&self, config: &mut Config, value: &ConfigValue) -> Result<(), &'static str> {
        (self.store)(config, value)
    }

    /// Gives `config` what `other` has for this key, and tells whether that changed it.
    pub(super) fn copy(&self, config: &mut Config, other: &mut Config) -> bool {
        (self.copy)(config, other)
    }
}

impl fmt::Debug for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigKey { name, what, takes, default, .. } = self;
        let mut key = f.debug_struct("ConfigKey");
        key.field("name", name).field("what", what).field("takes", takes).field("default", default);
        key.finish_non_exhaustive()
    }
}

/// The keys of some settings, declared one after the other.
pub(super) struct Group<S: 'static> {
    settings: fn(&mut Config) -> &mut S,
    /// Where the defaults in the documentation come from.
    defaults: S,
    table: Option<&'static str>,
    needs_restart: bool,
    keys: Vec<ConfigKey>,
}

/// A key whose values are not declared yet.
#[must_use]
pub(super) struct Declared<S: 'static> {
    group: Group<S>,
    name: String,
    what: &'static str,
}

impl<S: Default + 'static> Group<S> {
    /// A group without keys, of these settings.
    pub(super) fn of(settings: fn(&mut Config) -> &mut S) -> Group<S> {
        Group { settings, defaults: S::default(), table: None, needs_restart: false, keys: Vec::new() }
    }

    /// Puts the keys that follow into the table of this name.
    pub(super) fn table(self, name: &'static str) -> Group<S> {
        Group { table: Some(name), ..self }
    }

    /// Lets a change of the keys that follow wait for a restart.
    pub(super) fn needs_restart(self) -> Group<S> {
        Group { needs_restart: true, ..self }
    }

    /// Declares a key; `what` says in one line what it sets.
    pub(super) fn key(self, name: &str, what: &'static str) -> Declared<S> {
        let name = match self.table {
            Some(table) => format!("{table}.{name}"),
            None => name.to_owned(),
        };
        Declared { group: self, name, what }
    }

    /// All keys, in order.
    pub(super) fn keys(self) -> Vec<ConfigKey> {
        self.keys
    }
}

impl<S: 'static> Declared<S> {
    /// Declares which values the key takes, and the field for them. The default is what the field has by default.
    pub(super) fn takes<T>(self, kind: Kind<T>, field: fn(&mut S) -> &mut T) -> Group<S>
    where
        T: Clone + PartialEq + 'static,
    {
        let Declared { mut group, name, what } = self;
        let settings = group.settings;
        let default = (kind.write)(field(&mut group.defaults));
        let Kind { takes, read, .. } = kind;
        group.keys.push(ConfigKey {
            name,
            what,
            takes,
            default,
            needs_restart: group.needs_restart,
            store: Box::new(move |config, value| {
                *field(settings(config)) = read(value)?;
                Ok(())
            }),
            copy: Box::new(move |config, other| {
                let (own, other) = (field(settings(config)), field(settings(other)));
                let differs = own != other;
                own.clone_from(other);
                differs
            }),
        });
        group
    }
}
