//! Values on their way from Lua into a statement.

use std::sync::Arc;

use rover_data::{Argument, Sql, Statement, Value};

use super::{Databases, Target, outcome};
use rover_lua::json;
use rover_lua::{Kind, Raise, Returns, Stack, Value as LuaValue};

/// `rover.list { … }`: the values that stand for one placeholder after `in`.
pub(super) struct List(pub(super) Vec<Value>);

/// `rover.blob(text)`: bytes that are no text.
pub(super) struct Blob(pub(super) Box<[u8]>);

/// `list { … }` → a list.
pub(super) fn list(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    if stack.kind(1) != Kind::Table {
        let kind = stack.kind(1).name();
        return Err(Raise::Mistake(format!("rover.list expects a table of values, not {kind}")));
    }
    let length = stack.raw_len(1);
    let mut values = Vec::with_capacity(length.min(1024));
    for n in 1..=length {
        stack.push_item(1, n as i32);
        let top = stack.top();
        match databases.argument(stack, top, || format!("item {n} of the list"))? {
            Argument::One(value) => values.push(value),
            Argument::List(_) => return Err(Raise::Mistake(format!("rover.list: item {n} is a list itself"))),
        }
        stack.truncate(top - 1);
    }
    databases.lists.push(stack, List(values));
    Ok(1)
}

/// `blob(text)` → bytes.
pub(super) fn blob(stack: &mut Stack<'_>, databases: &Databases) -> Returns {
    let bytes = match databases.vocabulary.text(stack, 1) {
        Some(body) => body.map_err(|gone| Raise::Mistake(format!("rover.blob: this is {gone}")))?.as_ref().into(),
        None => match stack.bytes(1) {
            Some(bytes) => bytes.into(),
            None => return Err(Raise::Mistake(format!("rover.blob expects a string, not {}", stack.kind(1).name()))),
        },
    };
    databases.blobs.push(stack, Blob(bytes));
    Ok(1)
}

impl Databases {
    /// The value at `index`, which messages call `what`.
    pub(super) fn argument(
        &self,
        stack: &mut Stack<'_>,
        index: i32,
        what: impl Fn() -> String,
    ) -> Result<Argument, Raise> {
        match stack.value(index) {
            LuaValue::Nil => return Ok(Value::Null.into()),
            LuaValue::Boolean(value) => return Ok(Value::Bool(value).into()),
            LuaValue::Number(number) => return Ok(number_value(number).into()),
            LuaValue::String(bytes) => return Ok(Value::Text(bytes.into()).into()),
            LuaValue::Table => {
                let mut text = Vec::new();
                return match json::encode(stack, index, &self.vocabulary, &mut text) {
                    Ok(()) => Ok(Value::Text(text.into()).into()),
                    Err(error) => Err(Raise::Mistake(format!("{} cannot be JSON: {error}", what()))),
                };
            }
            LuaValue::Other(_) => {}
        }
        if stack.is_null(index) {
            return Ok(Value::Null.into());
        }
        if let Some(list) = self.lists.get(stack, index) {
            return Ok(Argument::List(list.0.clone()));
        }
        if let Some(blob) = self.blobs.get(stack, index) {
            return Ok(Value::Blob(blob.0.clone()).into());
        }
        if let Some(body) = self.vocabulary.text(stack, index) {
            return match body {
                Ok(body) => Ok(Value::Text(body.as_ref().into()).into()),
                Err(gone) => Err(Raise::Mistake(format!("{} is {gone}", what()))),
            };
        }
        if let Some(wide) = stack.wide_integer(index) {
            return match i64::try_from(wide) {
                Ok(value) => Ok(Value::Integer(value).into()),
                Err(_) => Err(Raise::Mistake(format!("{} is larger than 64 bits with a sign hold", what()))),
            };
        }
        let kind = stack.kind(index).name();
        Err(Raise::Mistake(format!("{} is a {kind}, which no database can hold", what())))
    }

    /// The statement whose text is at 2, with its values behind.
    pub(super) fn statement(&self, stack: &mut Stack<'_>, target: &Target, call: &str) -> Result<Statement, Raise> {
        let sql = self.text(stack, target, 2, call)?;
        let last = stack.top();
        self.fill(stack, &sql, 3, last, call)
    }

    /// The text at `index`.
    pub(super) fn text(&self, stack: &Stack<'_>, target: &Target, index: i32, call: &str) -> Result<Arc<Sql>, Raise> {
        let Some(text) = stack.bytes(index) else {
            let kind = stack.kind(index).name();
            return Err(Raise::Mistake(format!("db:{call} expects SQL as a string, not {kind}")));
        };
        let Ok(text) = std::str::from_utf8(text) else {
            return Err(Raise::Mistake(format!("db:{call}: the SQL is not UTF-8")));
        };
        self.read(text, target.database().dialect()).map_err(|error| outcome::mistake(&error))
    }

    /// Gives a text the values from `first` to `last`, or those of the table at `first` where it has names.
    pub(super) fn fill(
        &self,
        stack: &mut Stack<'_>,
        sql: &Arc<Sql>,
        first: i32,
        last: i32,
        call: &str,
    ) -> Result<Statement, Raise> {
        if sql.names().is_empty() {
            let mut arguments = Vec::with_capacity((last + 1 - first).max(0) as usize);
            for index in first..=last {
                arguments.push(self.argument(stack, index, || format!("value {}", index + 1 - first))?);
            }
            return sql.with(arguments).map_err(|error| outcome::mistake(&error));
        }
        if stack.kind(first) != Kind::Table || last > first {
            let name = sql.names().first().map_or("", |name| name);
            return Err(Raise::Mistake(format!(
                "db:{call}: the placeholders have names: give one table, such as {{ {name} = … }}"
            )));
        }
        let mut problem = None;
        let statement = sql.with_names(|name| {
            stack.push_bytes(name.as_bytes());
            stack.get_field(first);
            let top = stack.top();
            let argument = match stack.kind(top) {
                Kind::Nil => None,
                _ => match self.argument(stack, top, || format!("the value of :{name}")) {
                    Ok(argument) => Some(argument),
                    Err(error) => {
                        problem.get_or_insert(error);
                        Some(Value::Null.into())
                    }
                },
            };
            stack.truncate(top - 1);
            Ok(argument)
        });
        match problem {
            Some(problem) => Err(problem),
            None => statement.map_err(|error| outcome::mistake(&error)),
        }
    }
}

/// A number as an integer where it is one.
fn number_value(number: f64) -> Value {
    /// 2^63.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if number.fract() == 0.0 && (-END..END).contains(&number) {
        Value::Integer(number as i64)
    } else {
        Value::Real(number)
    }
}
