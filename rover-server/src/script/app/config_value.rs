//! Values of an app's tables as plain data.

use mlua::Value;

use crate::config::ConfigValue;

/// How deep config tables may lie in each other.
pub(super) const DEEPEST_CONFIG: usize = 8;

/// A value of the config as plain data. An empty table is a list without values.
pub(super) fn config_value(value: Value, depth: usize) -> ConfigValue {
    match value {
        Value::Nil => ConfigValue::Nil,
        Value::Boolean(on) => ConfigValue::Bool(on),
        Value::Integer(number) => ConfigValue::Number(number as f64),
        Value::Number(number) => ConfigValue::Number(number),
        Value::String(text) => ConfigValue::Text(text.to_string_lossy()),
        Value::Table(table) if depth > 0 => {
            let length = table.raw_len();
            let values: Vec<(Value, Value)> = table.pairs().flatten().collect();
            if values.len() == length {
                let values = (1..=length).filter_map(|n| table.raw_get(n).ok());
                return ConfigValue::List(values.map(|value| config_value(value, depth - 1)).collect());
            }
            let entries = values.into_iter().map(|(key, value)| {
                let name = match key.as_string() {
                    Some(name) => name.to_string_lossy(),
                    None => key.to_string().unwrap_or_default(),
                };
                (name, config_value(value, depth - 1))
            });
            let mut entries: Vec<_> = entries.collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            ConfigValue::Table(entries)
        }
        other => ConfigValue::Other(other.type_name()),
    }
}
