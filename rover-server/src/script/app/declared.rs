//! What an app declares, as plain data.

use std::ffi::c_int;
use std::fmt;
use std::sync::Arc;

use mlua::{Table, Value};
use rover_lua::described_type;

use super::config_value::{DEEPEST_CONFIG, config_value};
use super::endpoint::Endpoint;
use crate::config::{ConfigValue, LimitRule};
use crate::policy::assets::MountDecl;
use crate::policy::rate_limit::RouteLimits;
use crate::route::{Origin, RouteDecl};

/// The config and the routes of an app that has loaded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Declared {
    /// Where `rover.server` was called, as `app.lua:1`.
    pub(crate) origin: String,
    /// The table given to `rover.server`, in the order of its keys.
    pub(crate) config: Vec<(String, ConfigValue)>,
    /// The routes, in the order of their files and lines; a route's place is its id.
    pub(crate) routes: Vec<RouteDecl>,
    /// What the routes are limited to.
    pub(crate) limits: RouteLimits,
    /// The folders of static files, in the order of their files and lines.
    pub(crate) mounts: Vec<MountDecl>,
    /// What tables say of routes, by the routes' places.
    pub(crate) endpoints: Vec<(usize, Endpoint)>,
    /// What is wrong with the declarations.
    pub(crate) mistakes: Mistakes,
}

impl Declared {
    /// Every VM must declare the same routes, for their numbers are what the workers share, and the same folders.
    /// `worker` is the number of the one that declares these.
    ///
    /// # Errors
    /// The first difference.
    pub(crate) fn must_be_like(
        &self,
        routes: &[RouteDecl],
        mounts: &[MountDecl],
        worker: usize,
    ) -> Result<(), Mistakes> {
        let shown = |route: &RouteDecl| format!("{} {} ({})", route.verb, route.pattern, route.origin);
        let same = |a: &RouteDecl, b: &RouteDecl| a.verb == b.verb && a.pattern == b.pattern;
        let n = routes.iter().zip(&self.routes).take_while(|(a, b)| same(a, b)).count();
        let difference = match (routes.get(n), self.routes.get(n)) {
            (None, None) if self.mounts == mounts => return Ok(()),
            (None, None) => {
                return Err(Mistakes(vec![format!(
                    "worker {worker} declares other static folders than worker 1: they must not depend on the worker, \
                     on time or on chance"
                )]));
            }
            (Some(a), Some(b)) => format!("{} where worker 1 has {}", shown(b), shown(a)),
            (Some(a), None) => format!("nothing where worker 1 has {}", shown(a)),
            (None, Some(b)) => format!("{}, which worker 1 has not", shown(b)),
        };
        Err(Mistakes(vec![format!(
            "worker {worker} declares {difference}: routes must not depend on the worker, on time or on chance"
        )]))
    }
}

/// The entries of the functions that are not routes; `None` where the app declares none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hooks {
    pub(crate) on_start: Option<c_int>,
    pub(crate) on_ready: Option<c_int>,
    pub(crate) on_ready_check: Option<c_int>,
    pub(crate) on_shutdown: Option<c_int>,
    pub(crate) not_found: Option<c_int>,
    /// What answers where no route does and hooks guard the path.
    pub(crate) rest: Option<c_int>,
}

/// Everything that is wrong with an app, each with its place and the cure.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mistakes(pub(crate) Vec<String>);

impl Mistakes {
    /// The same mistakes in the order of the app's lines; those without a line come last, in the order found.
    pub(crate) fn sorted(mut self) -> Mistakes {
        self.0.sort_by_cached_key(|mistake| match place(mistake) {
            Some((file, line)) => (0, file.to_owned(), line),
            None => (1, String::new(), 0),
        });
        self
    }
}

/// The file and line that a mistake begins with: `app.lua:12: …`.
fn place(mistake: &str) -> Option<(&str, u32)> {
    let (place, _) = mistake.split_once(": ")?;
    let (file, line) = place.rsplit_once(':')?;
    Some((file, line.parse().ok()?))
}

/// What an app had declared when its top level failed; the last of its mistakes says how.
#[derive(Debug)]
pub(crate) struct Unfinished(pub(crate) Box<Declared>);

/// Nothing was declared.
impl From<Mistakes> for Unfinished {
    fn from(mistakes: Mistakes) -> Unfinished {
        Unfinished(Box::new(Declared { mistakes, ..Declared::default() }))
    }
}

/// For those who ask no more than why.
impl From<Unfinished> for Mistakes {
    fn from(unfinished: Unfinished) -> Mistakes {
        unfinished.0.mistakes
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            f.write_str(mistake)?;
        }
        Ok(())
    }
}

/// Reads the config table. Keys that are not strings become mistakes.
pub(super) fn config(table: &Table, declared: &mut Declared) {
    for (key, value) in table.pairs::<Value, Value>().flatten() {
        let Some(name) = key.as_string().map(|name| name.to_string_lossy()) else {
            let origin = &declared.origin;
            let kind = described_type(&key);
            declared.mistakes.0.push(format!("{origin}: config keys are names, not {kind}: write key = value"));
            continue;
        };
        declared.config.push((name, config_value(value, DEEPEST_CONFIG)));
    }
    declared.config.sort_by(|a, b| a.0.cmp(&b.0));
}

/// Reads the declaration of a folder: its path, how it is written, its options, where it is.
pub(super) fn mount(
    (fields, written, options, file, line): (Vec<mlua::LuaString>, String, Table, mlua::LuaString, u32),
) -> MountDecl {
    let mut options: Vec<_> = options
        .pairs::<Value, Value>()
        .flatten()
        .map(|(key, value)| {
            let name = key.as_string().map(|name| name.to_string_lossy());
            let name = name.unwrap_or_else(|| format!("[{}]", key.to_string().unwrap_or_default()));
            (name, config_value(value, DEEPEST_CONFIG))
        })
        .collect();
    options.sort_by(|a, b| a.0.cmp(&b.0));
    MountDecl {
        fields: fields.iter().map(|field| field.as_bytes().to_vec()).collect(),
        written,
        options,
        origin: Origin { file: Arc::from(file.to_string_lossy()), line },
    }
}

/// Reads the limits that `dsl.lua` noted.
pub(super) fn limits(sealed: &Table, pairs: Vec<(u32, u16)>, declared: &mut Declared) -> mlua::Result<()> {
    for limit in sealed.raw_get::<Table>("limits")?.sequence_values::<Table>() {
        let limit = limit?;
        let entries = match config_value(limit.raw_get("rule")?, DEEPEST_CONFIG) {
            ConfigValue::Table(entries) => entries,
            ConfigValue::List(values) if values.is_empty() => Vec::new(),
            _ => vec![("1".to_owned(), ConfigValue::Nil)],
        };
        match LimitRule::read(&entries) {
            Ok(rule) => declared.limits.rules.push(rule),
            Err(mistakes) => {
                let (place, name): (String, String) = (limit.raw_get("where")?, limit.raw_get("name")?);
                declared.mistakes.0.extend(mistakes.iter().map(|mistake| format!("{place}: {name}: {mistake}")));
            }
        }
    }
    declared.limits.pairs = pairs;
    Ok(())
}
